"""The verbs as Python functions: what they leave behind, what they refuse, what a rerun does."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from robustmri.core.errors import CheckpointError, DataError, RobustMRIError, SettingsError
from robustmri.core.files import write_json
from robustmri.data.split import Split
from robustmri.models.checkpoint import load_checkpoint, read_checkpoint
from robustmri.recipes import load_recipe
from robustmri.training.selection import choose, explain_choice, read_epochs
from robustmri.verbs.evaluate import evaluate
from robustmri.verbs.prepare import prepare
from robustmri.verbs.report import write_report
from robustmri.verbs.run_folder import claimed_folder
from robustmri.verbs.train import harden, train
from tiny import CLASSES, same_weights, write_scans

FAST = {"epochs": 2, "batch_size": 16, "precision": "fp32"}

pytestmark = pytest.mark.usefixtures("tiny_networks")


class Killed(BaseException):
    pass


def stop_at(step):
    def progress(task, done, total, note=""):
        if done == step:
            raise Killed

    return progress


def tree(folder):
    """Every path below a folder, with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def other_split(tiny_scans, tmp_path):
    """The same slices, split otherwise."""
    return prepare(tiny_scans, tmp_path / "other", size=32, seed=1).root


def test_prepare_makes_cohort_and_split(tiny_scans, tmp_path):
    said = []
    cohort = prepare(
        tiny_scans,
        tmp_path / "cohort",
        size=48,
        intensity="percentile",
        split="slice",
        seed=3,
        progress=lambda task, done, total, note="": said.append((task, done, total)),
    )
    split = Split.load(tmp_path / "cohort")
    split.check(cohort)
    assert (cohort.size, cohort.intensity, split.kind, split.seed) == (48, "percentile", "slice", 3)
    assert cohort.classes == CLASSES
    assert said[-1] == ("reading", 108, 108)


def test_prepare_refuses_before_it_reads(tiny_scans, tmp_path):
    with pytest.raises(SettingsError, match="split cannot be 'patients'"):
        prepare(tiny_scans, tmp_path / "cohort", split="patients", progress=stop_at(1))
    with pytest.raises(DataError, match="one class only"):
        prepare(
            write_scans(tmp_path / "scans", classes=("glioma",), patients=3),
            tmp_path / "cohort",
            size=32,
        )
    few = write_scans(tmp_path / "few", patients=2)
    with pytest.raises(DataError, match="has 2 patients, fewer than the 3 sets"):
        prepare(few, tmp_path / "cohort", size=32)
    assert not (tmp_path / "cohort").exists()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_run_folder_says_what_made_it(tiny_cohort, tmp_path):
    run = train(tiny_cohort, tmp_path / "run", **FAST, seed=5)
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoint",
        "epochs.csv",
        "settings.json",
    ]
    checkpoint, split = read_checkpoint(run), Split.load(tiny_cohort)
    settings = json.loads((run / "settings.json").read_text())
    assert settings["train"] == checkpoint.training
    assert (checkpoint.training["epochs"], checkpoint.training["seed"]) == (2, 5)
    assert checkpoint.spec.classes == CLASSES
    made = checkpoint.provenance
    assert (made["cohort"], made["split"], made["start"]) == (
        split.cohort_fingerprint,
        split.fingerprint,
        "scratch",
    )
    assert made["kept_epoch"]["epoch"] in (1, 2)
    assert made["seed"] == 5


def test_a_finished_run_is_left_alone(tiny_cohort, tmp_path):
    run = train(tiny_cohort, tmp_path / "run", **FAST)
    before = tree(run)
    (run / "resume.pt").write_bytes(b"left by a kill after the last line but one")
    assert train(tiny_cohort, run, **FAST, progress=stop_at(1)) == run
    assert tree(run) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 3}, "train.epochs"),
        ({"seed": 1, "learning_rate": 0.1}, r"train\.learning_rate, train\.seed"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_do_not_touch_a_run(tiny_cohort, tmp_path, change, named, finished):
    run = tmp_path / "run"
    if finished:
        train(tiny_cohort, run, **FAST)
    else:
        with pytest.raises(Killed):
            train(tiny_cohort, run, **FAST, progress=stop_at(5))
    before = tree(run)
    with pytest.raises(
        SettingsError, match=f"other settings .they differ in {named}.*Choose another --out"
    ):
        train(tiny_cohort, run, **{**FAST, **change})
    assert tree(run) == before


def test_another_cohort_does_not_touch_a_run(tiny_cohort, other_split, tmp_path):
    run = train(tiny_cohort, tmp_path / "run", **FAST)
    with pytest.raises(SettingsError, match="they differ in split"):
        train(other_split, run, **FAST)


def test_a_killed_run_goes_on(tiny_cohort, tmp_path):
    whole = train(tiny_cohort, tmp_path / "whole", **FAST)
    with pytest.raises(Killed):
        train(tiny_cohort, tmp_path / "cut", **FAST, progress=stop_at(6))
    assert (tmp_path / "cut" / "resume.pt").exists()
    with pytest.raises(CheckpointError, match="start the same command again"):
        load_checkpoint(tmp_path / "cut")
    cut = train(tiny_cohort, tmp_path / "cut", **FAST)
    assert read_checkpoint(cut).weights_sha256 == read_checkpoint(whole).weights_sha256
    assert sorted(path.name for path in cut.iterdir()) == [
        "checkpoint",
        "epochs.csv",
        "settings.json",
    ]


def test_a_run_may_go_on_without_its_logger(tiny_cohort, tmp_path):
    """A server that is gone must not keep a night's training."""
    pytest.importorskip("tensorboard")
    with pytest.raises(Killed):
        train(tiny_cohort, tmp_path / "run", **FAST, logger="tensorboard", progress=stop_at(5))
    train(tiny_cohort, tmp_path / "run", **FAST)
    assert len(read_epochs(tmp_path / "run")) == 2
    with pytest.raises(SettingsError, match=r"differ in train\.seed\)"):
        train(tiny_cohort, tmp_path / "run", **FAST, seed=3)


def test_a_process_beside_this_one_may_claim_the_folder_first(tmp_path, monkeypatch):
    """And leave more there, between two looks."""
    path, glob = tmp_path / "settings.json", Path.glob

    def meanwhile(folder, pattern):
        monkeypatch.setattr(Path, "glob", glob)  # Writing looks, too.
        write_json(path, {"train": {"seed": 0}})
        (tmp_path / "epochs.csv").write_text("")
        monkeypatch.setattr(Path, "glob", meanwhile)
        return glob(folder, pattern)

    monkeypatch.setattr(Path, "glob", meanwhile)
    with claimed_folder(tmp_path, {"train": {"seed": 0}}, done="checkpoint"):
        path.unlink()
    with (
        pytest.raises(SettingsError, match=r"differ in train\.seed"),
        claimed_folder(tmp_path, {"train": {"seed": 1}}, done="checkpoint"),
    ):
        pass


@pytest.mark.parametrize("ends_by", [None, DataError])
def test_a_run_whose_folder_is_emptied_meanwhile_can_be_gone_on_with(ends_by, tmp_path):
    with suppress(DataError), claimed_folder(tmp_path, {"train": {}}, done="checkpoint"):
        (tmp_path / "settings.json").unlink()
        (tmp_path / "epochs.csv").touch()
        if ends_by:
            raise ends_by
    with claimed_folder(tmp_path, {"train": {}}, done="checkpoint"):
        pass


def test_a_report_is_written_by_its_verb(tmp_path):
    with pytest.raises(RobustMRIError, match=r"no robustness\.json"):
        write_report([tmp_path], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_killed_while_the_folder_was_claimed(tiny_cohort, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".settings.json.0badcafe.partial").write_text('{"tra')
    run = train(tiny_cohort, tmp_path / "run", **FAST)
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoint",
        "epochs.csv",
        "settings.json",
    ]


def test_killed_while_the_checkpoint_was_written(tiny_cohort, tmp_path, monkeypatch):
    whole = train(tiny_cohort, tmp_path / "whole", **FAST)
    with monkeypatch.context() as patch:

        def stop(*arguments):
            raise Killed

        patch.setattr("robustmri.models.checkpoint.sha256_of", stop)
        with pytest.raises(Killed):
            train(tiny_cohort, tmp_path / "cut", **FAST)
    # A kill -9 leaves what an exception clears.
    (tmp_path / "cut" / ".checkpoint.0badcafe.partial").mkdir()
    (tmp_path / "cut" / ".checkpoint.0badcafe.partial" / "weights.safetensors").write_bytes(b"half")
    cut = train(tiny_cohort, tmp_path / "cut", **FAST)
    assert read_checkpoint(cut).weights_sha256 == read_checkpoint(whole).weights_sha256
    assert sorted(path.name for path in cut.iterdir()) == [
        "checkpoint",
        "epochs.csv",
        "settings.json",
    ]


@pytest.mark.parametrize(
    "wrong",
    [{"weights": "/nowhere.pth"}, {"eps": "x"}, {"augment": "all"}, {"epochs": "2"}, {"epoch": 2}],
    ids=str,
)
def test_a_refused_run_leaves_nothing_behind(tiny_cohort, tmp_path, wrong):
    """Else the corrected command would find its --out taken."""
    with pytest.raises(RobustMRIError):
        train(tiny_cohort, tmp_path / "run", **{**FAST, **wrong})
    assert not (tmp_path / "run").exists()


def test_a_network_that_does_not_exist_leaves_nothing_behind(tiny_cohort, tmp_path, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(SettingsError, match="Did you mean 'resnet18'"):
        train(tiny_cohort, tmp_path / "run", **FAST, backbone="resnet81")
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_things_is_not_taken(tiny_cohort, tiny_run, tmp_path):
    (tmp_path / "precious").write_text("1")
    for verb in (
        lambda: train(tiny_cohort, tmp_path, **FAST),
        lambda: evaluate(tiny_run, tiny_cohort, tmp_path),
        lambda: prepare("phantom", tmp_path),
    ):
        with pytest.raises(DataError, match="not empty"):
            verb()
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_hardening_from_scratch_at_eps_zero_is_training(tiny_cohort, tmp_path):
    """Identity 2, from file to file."""
    settings = {**FAST, "eps": "0", "seed": 2}
    trained = train(tiny_cohort, tmp_path / "trained", **settings)
    hardened = harden(
        "scratch",
        tiny_cohort,
        tmp_path / "hardened",
        settings=load_recipe("standard").train,
        **settings,
    )
    train_too = train(
        tiny_cohort, tmp_path / "too", settings=load_recipe("standard").train, **settings
    )
    assert read_checkpoint(trained).weights_sha256 == read_checkpoint(train_too).weights_sha256
    assert read_checkpoint(hardened).weights_sha256 == read_checkpoint(trained).weights_sha256
    assert read_checkpoint(hardened).training["objective"] == "adversarial"


def test_hardening_starts_from_the_checkpoint(tiny_cohort, tiny_run, tmp_path):
    start, before = load_checkpoint(tiny_run)
    run = harden(
        tiny_run,
        tiny_cohort,
        tmp_path / "run",
        **FAST,
        attack_steps=1,
        learning_rate=1e-9,
        backbone="vit",
    )
    after, checkpoint = load_checkpoint(run)
    weights = start.state_dict()["network.0.weight"], after.state_dict()["network.0.weight"]
    assert (weights[0] - weights[1]).abs().max() < 1e-5
    assert not same_weights(start, after)
    assert checkpoint.spec.backbone == checkpoint.training["backbone"] == before.spec.backbone
    assert checkpoint.provenance["start"] == before.weights_sha256


def test_hardening_by_default_is_the_standard_recipe(tiny_cohort, tiny_run, tmp_path):
    settings = load_recipe("standard").harden
    run = harden(tiny_run, tiny_cohort, tmp_path / "run", epochs=1, attack_steps=1)
    made = read_checkpoint(run).training
    assert (made["objective"], made["ema_decay"]) == ("adversarial", settings.ema_decay)


@pytest.mark.parametrize("name", ["quick", "standard", "strong"])
@pytest.mark.parametrize("start", ["scratch", "checkpoint"])
def test_every_recipe_repairs(name, start, tiny_cohort, tiny_run, tmp_path):
    """From the first epoch to the last, which is at full eps."""
    settings = load_recipe(
        name, ["harden.epochs=3", "harden.batch_size=32", "harden.eps_ramp_epochs=2"]
    ).harden
    run = harden(
        tiny_run if start == "checkpoint" else start,
        tiny_cohort,
        tmp_path / "run",
        settings=settings,
    )
    made, rows = read_checkpoint(run), read_epochs(run)
    assert made.training["objective"] == settings.objective
    assert [row.eps for row in rows] == pytest.approx([0.02, 0.04, 0.04])
    assert made.provenance["kept_epoch"]["epoch"] == choose(rows).epoch
    assert made.provenance["kept_because"] == explain_choice(rows)
    assert made.provenance["training_seconds"] == pytest.approx(sum(row.seconds for row in rows))
    assert all(0 <= row.validation_fgsm_accuracy <= 1 for row in rows)


def test_a_repair_without_attack_is_refused(tiny_cohort, tiny_run, tmp_path):
    with pytest.raises(SettingsError, match="needs attacked images"):
        harden(tiny_run, tiny_cohort, tmp_path / "run", objective="standard")
    assert not (tmp_path / "run").exists()


def test_test_slices_that_were_seen_are_refused(tiny_run, other_split, tmp_path):
    for verb in (
        lambda: evaluate(tiny_run, other_split, tmp_path / "result", attacks=("fgsm",)),
        lambda: harden(tiny_run, other_split, tmp_path / "hardened", epochs=1),
    ):
        with pytest.raises(CheckpointError, match="another split of this cohort"):
            verb()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


@pytest.mark.parametrize("what", ["classes", "size"])
def test_a_cohort_that_does_not_fit_is_refused(tiny_run, tiny_scans, tmp_path, what):
    if what == "size":
        cohort = prepare(tiny_scans, tmp_path / "cohort", size=48).root
    else:
        two = write_scans(tmp_path / "scans", classes=("glioma", "notumor"), patients=4)
        cohort = prepare(two, tmp_path / "cohort", size=32).root
    expected = (
        "made for images of 32 px; the cohort has 48"
        if what == "size"
        else "the cohort has glioma, notumor"
    )
    for name, verb in (("result", evaluate), ("hardened", harden)):
        with pytest.raises(CheckpointError, match=expected):
            verb(tiny_run, cohort, tmp_path / name)
        assert not (tmp_path / name).exists()


def test_a_cohort_without_its_split(tiny_cohort, tiny_run, tmp_path):
    shutil.copytree(tiny_cohort, tmp_path / "cohort")
    (tmp_path / "cohort" / "split.json").unlink()
    with pytest.raises(DataError, match=r"split\.json does not exist"):
        evaluate(tiny_run, tmp_path / "cohort", tmp_path / "result")


def test_evaluations_with_other_settings_do_not_mix(tiny_cohort, tiny_run, tmp_path):
    settings = {"attacks": ("fgsm",), "precision": "fp32"}
    evaluate(tiny_run, tiny_cohort, tmp_path / "result", **settings)
    before = tree(tmp_path / "result")
    with pytest.raises(SettingsError, match=r"they differ in evaluate\.eps"):
        evaluate(tiny_run, tiny_cohort, tmp_path / "result", **settings, eps=("0.1",))
    with pytest.raises(SettingsError, match="they differ in evaluate, checkpoint"):
        evaluate(tiny_run, tiny_cohort, tiny_run)
    assert tree(tmp_path / "result") == before
