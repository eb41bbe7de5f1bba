"""Studies of many trainings: what they leave behind, who is tested, what is refused."""

from __future__ import annotations

import json
import shutil

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from robustmri.core.errors import ResultError, SettingsError
from robustmri.data.cohort import Cohort
from robustmri.data.split import Split
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.recipes import PrepareSettings, Recipe, Variant
from robustmri.results.schema import ENOUGH, load_result, save_result
from robustmri.training.settings import TrainSettings
from robustmri.verbs import reproduce
from robustmri.verbs.ablate import ablate
from robustmri.verbs.cross_validate import cross_validate
from robustmri.verbs.evaluate import evaluate
from robustmri.verbs.pool import pool
from robustmri.verbs.prepare import prepare
from robustmri.verbs.train import train

FAST = {"epochs": 2, "batch_size": 32, "precision": "fp32", "augment": "none", "warmup_epochs": 0.0}
RECIPE = Recipe(
    about="Seconds on a toy.",
    prepare=PrepareSettings(size=32),
    train=TrainSettings(**FAST),
    harden=TrainSettings(objective="one-step", **FAST),
    evaluate=EvaluateSettings(
        attacks=("fgsm", "pgd"),
        eps=("0.04",),
        curve=("2/255",),
        examples_per_class=1,
        options={"pgd": {"steps": 5}},
    ),
    variants={
        "base": Variant(about="as it is"),
        "again": Variant(about="the same once more"),
        "fresh": Variant(about="no start", start="scratch", harden={"ema_decay": 0.9}),
    },
    seeds=(0, 1),
)
MORE = msgspec.structs.replace(
    RECIPE.evaluate,
    curve=("2/255", "0.02"),
    regions=("outside-lesion",),
    regions_attack="fgsm",
    saliency=1,
)

NEAREST = {"attacks": ("fmn",), "curve": (), "options": {}}

pytestmark = pytest.mark.usefixtures("tiny_networks")


@pytest.fixture(scope="module")
def folds(tiny_scans, tmp_path_factory, use_tiny_networks):
    """The study of five folds, and what its parts said on the way."""
    out = tmp_path_factory.mktemp("folds")
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        recipe = msgspec.structs.replace(RECIPE, evaluate=MORE)
        early = cross_validate(tiny_scans, out, recipe, folds=[2, 4])
        return out, early, cross_validate(tiny_scans, out, recipe)


def test_each_patient_is_tested_once(folds):
    out, early, table = folds
    assert early is None, "three folds were missing"
    assert (out / "report.html").is_file()
    assert "Worst case" in (out / "table.md").read_text()
    radii = {"", "eps 0.007843 (2/255)", "eps 0.02 (5.1/255)", "eps 0.04 (10.2/255)"}
    assert radii <= {row[1] for row in table.rows}, "all radii"
    for stage in ("before", "after"):
        clean = pq.read_table(out / stage / "outcomes.parquet", filters=[("attack", "==", "none")])
        assert sorted(clean["index"].to_pylist()) == list(range(108))
        pooled = load_result(out / stage)
        assert (pooled.split.n_slices, pooled.split.n_patients, pooled.split.fold) == (
            108,
            27,
            None,
        )
        assert pooled.examples == pooled.settings["evaluate"]["examples"] == []
        (enough,) = (one for one in pooled.checks if one.name == ENOUGH)
        assert enough.detail.startswith("27 patients were tested")
        for fold in range(1, 6):
            split = Split.load(out / f"fold-{fold}" / "cohort")
            assert (split.kind, split.fold) == ("folds", fold)


def test_pooled_numbers_are_those_of_all_slices(folds):
    out, _, _ = folds
    parts = [load_result(out / f"fold-{fold}" / "after") for fold in range(1, 6)]
    for number in load_result(out / "after").results:
        if number.unit != "slice":
            continue
        same = [
            next(
                one
                for one in part.results
                if (one.attack, one.eps, one.unit) == (number.attack, number.eps, "slice")
            )
            for part in parts
        ]
        share = np.average([one.accuracy for one in same], weights=[one.n for one in same])
        assert number.accuracy == pytest.approx(share)
        assert number.n == sum(one.n for one in same) == 108
        assert number.ci_low <= number.accuracy <= number.ci_high


def test_what_else_was_measured_is_pooled_too(folds):
    out, _, _ = folds
    parts = [load_result(out / f"fold-{fold}" / "after") for fold in range(1, 6)]
    whole = load_result(out / "after")
    for name in ("regions", "saliency", "sensitivity"):
        ones = [getattr(part, name)[0] for part in parts]
        one = getattr(whole, name)[0]
        assert one.n == sum(part.n for part in ones)
        assert one.n_patients == sum(part.n_patients for part in ones)
    n = [part.regions[0].n for part in parts]
    share = np.average([part.regions[0].turned for part in parts], weights=n)
    assert whole.regions[0].turned == pytest.approx(share)
    assert whole.sensitivity[0].never == sum(part.sensitivity[0].never for part in parts)
    page = (out / "report.html").read_text()
    for words in ("Where it can be fooled", "Integrated gradients", "How little it takes"):
        assert words in page


def test_a_table_that_a_part_lacks_is_left_out_with_a_sentence(folds, tmp_path):
    out, _, _ = folds
    parts = [tmp_path / "one", out / "fold-2" / "after"]
    shutil.copytree(out / "fold-1" / "after", parts[0])
    save_result(msgspec.structs.replace(load_result(parts[0]), saliency=[]), parts[0])
    (parts[0] / "certificate").mkdir()
    (parts[0] / "certificate" / "certificate.json").write_text("{}")
    with pytest.raises(ResultError, match="certificate"):
        pool(parts, tmp_path / "pooled", title="Two")
    shutil.rmtree(parts[0] / "certificate")
    found = pool(parts, tmp_path / "pooled", title="Two")
    assert not found.saliency
    assert found.regions
    assert "Not every part has saliency" in found.split.note


def test_a_finished_study_is_not_repeated(folds, tiny_scans, monkeypatch):
    out, _, table = folds
    before = {path: path.stat().st_mtime_ns for path in out.glob("fold-*/*/checkpoint/*")}
    assert len(before) >= 10
    monkeypatch.setattr("robustmri.core.provenance.now", lambda: "2222-02-22T22:22:22+00:00")
    pages = ("report.html", "table.md", "before/robustness.json", "after/robustness.json")
    whole = [(out / name).read_bytes() for name in pages]
    assert (
        cross_validate(tiny_scans, out, msgspec.structs.replace(RECIPE, evaluate=MORE), folds=[])
        == table
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [(out / name).read_bytes() for name in pages] == whole


def test_a_check_that_fails_in_one_part_fails_for_all(folds, tmp_path):
    out, _, _ = folds
    spoiled = [out / f"fold-{fold}" / "after" for fold in range(1, 6)]
    result = load_result(spoiled[2])
    failed = [
        msgspec.structs.replace(
            result.checks[0], status="fail", detail="it went wrong", case_ids=["x"]
        )
    ]
    broken = tmp_path / "broken"
    shutil.copytree(spoiled[2], broken)
    (broken / "robustness.json").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(result, checks=failed + result.checks[1:]))
    )
    spoiled[2] = broken
    found = pool(spoiled, tmp_path / "pooled", title="Spoiled").checks[0]
    assert (found.name, found.status, found.case_ids) == (failed[0].name, "fail", ["x"])
    assert "(3) it went wrong" in found.detail


def test_what_cannot_be_pooled(folds, tmp_path):
    out, _, _ = folds
    first, second = (out / f"fold-{fold}" for fold in (1, 2))
    with pytest.raises(ResultError, match="are in another of the results too"):
        pool([first / "before", first / "before"], tmp_path / "out", title="Twice")
    with pytest.raises(ResultError, match="different objectives"):
        pool([first / "before", second / "after"], tmp_path / "out", title="Mixed")
    other = tmp_path / "other"
    evaluate(second / "standard", second / "cohort", other, attacks=("fgsm",))
    with pytest.raises(ResultError, match="different settings"):
        pool([first / "before", other], tmp_path / "out", title="Mixed")
    with pytest.raises(ResultError, match="at least one"):
        pool([], tmp_path / "out", title="None")
    held = (other / "robustness.json").read_bytes()
    with pytest.raises(ResultError, match="holds an evaluation, which the pooled result would"):
        pool([first / "before", second / "before"], other, title="Over it")
    assert (other / "robustness.json").read_bytes() == held
    assert not (tmp_path / "out").exists()


def test_an_unknown_fold_is_refused_before_anything_runs(tiny_scans, tmp_path):
    with pytest.raises(SettingsError, match="no fold 6"):
        cross_validate(tiny_scans, tmp_path / "out", RECIPE, folds=[1, 6])
    assert not (tmp_path / "out").exists()


def test_variants_are_compared_on_validation_patients(tiny_cohort, tmp_path):
    out = tmp_path / "out"
    assert ablate(tiny_cohort, out, RECIPE, only=["again"]) is None, "two variants are missing"
    table = ablate(tiny_cohort, out, RECIPE)
    assert [row[0] for row in table.rows] == ["base", "again", "fresh"]
    assert table.headers[2:] == ["Clean", "Worst case, 0.04", "Worst case, 2/255", "Minutes"]
    assert {len(row) for row in table.rows} == {len(table.headers)}
    split = Split.load(tiny_cohort)
    seen = pq.read_table(out / "fresh" / "seed-1" / "validation" / "outcomes.parquet")[
        "index"
    ].to_pylist()
    assert set(seen) == set(split.validation)
    worth = json.loads((out / "ablation.json").read_text())
    base, again, _ = worth
    assert list(base["robust"]) == ["0.04", "0.00784314"]
    assert base["clean"]["change"] is None
    assert again["robust"]["0.04"]["change"][0] == 0, "the same settings, the same outcomes"
    assert again["by_seed"] == base["by_seed"]
    for one in worth:
        assert one["runs"] == 2
        shares = [share["accuracy"] for share in (one["clean"], *one["robust"].values())]
        assert shares == pytest.approx(np.mean(one["by_seed"], axis=0))
    settings = json.loads((out / "fresh" / "seed-1" / "settings.json").read_text())
    assert (settings["start"], settings["train"]["ema_decay"], settings["train"]["seed"]) == (
        "scratch",
        0.9,
        1,
    )
    assert ablate(tiny_cohort, out, RECIPE) == table


def test_what_an_ablation_refuses(tiny_cohort, tmp_path):
    without = msgspec.structs.replace(RECIPE, variants={})
    with pytest.raises(SettingsError, match="has no variants"):
        ablate(tiny_cohort, tmp_path / "out", without)
    with pytest.raises(SettingsError, match=r"no variant 'frehs'\. Did you mean 'fresh'"):
        ablate(tiny_cohort, tmp_path / "out", RECIPE, only=["frehs"])
    wrong = msgspec.structs.replace(
        RECIPE, variants={"base": Variant(about="typo", harden={"epoch": 3})}
    )
    with pytest.raises(SettingsError, match="no setting 'epoch'"):
        ablate(tiny_cohort, tmp_path / "out", wrong)
    for settings, said in (
        ({"target": "glioma"}, "leaves those"),
        (NEAREST, "compares worst cases"),
    ):
        unlike = msgspec.structs.replace(RECIPE.evaluate, **settings)
        with pytest.raises(SettingsError, match=said):
            ablate(tiny_cohort, tmp_path / "out", msgspec.structs.replace(RECIPE, evaluate=unlike))
    assert not (tmp_path / "out").exists()


def test_a_result_says_that_folds_divided_patients(tiny_scans, tmp_path):
    scans = shutil.copytree(tiny_scans, tmp_path / "scans")
    head, *rows = (scans / "slices.csv").read_text().splitlines()
    rows = [f"{row},{1 + place % 5}" for place, row in enumerate(rows)]
    (scans / "slices.csv").write_text("\n".join([f"{head},fold", *rows]))
    cohort = prepare(scans, tmp_path / "cohort", size=32, split="folds", fold=1).root
    train(cohort, tmp_path / "run", settings=RECIPE.train)
    result = evaluate(tmp_path / "run", cohort, tmp_path / "result", attacks=("fgsm",))
    found = {check.name: check for check in (*result.split.leakage, *result.checks)}
    assert found["patients in one set only"].status == "fail"
    assert found["split by patient"].detail.startswith("The folds divide patients")
    assert "which divide patients" in result.split.note


def test_a_story_takes_over_how_its_cohort_was_scaled(tiny_scans, tmp_path, monkeypatch):
    how = {"intensity": "percentile", "pad": False}
    source = prepare(tiny_scans, tmp_path / "source", size=48, **how).root

    def stop(*args, **settings):
        raise InterruptedError

    monkeypatch.setattr(reproduce, "train", stop)
    for _ in range(2):  # Once to prepare, once to find it prepared.
        with pytest.raises(InterruptedError):
            reproduce.protocol(source, tmp_path / "out", RECIPE, title="")
    cohort = Cohort.open(tmp_path / "out" / "cohort")
    assert {name: getattr(cohort, name) for name in how} == how


def test_a_story_refuses_a_cohort_that_was_prepared_otherwise(folds, tiny_scans):
    out, _, _ = folds
    other = msgspec.structs.replace(RECIPE, prepare=PrepareSettings(size=32, seed=1))
    with pytest.raises(SettingsError, match=r"prepared with other settings .*differ in seed"):
        cross_validate(tiny_scans, out, other, folds=[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fractions": (0.5, 0.25, 0.25)}, r"prepared with other settings .*differ in fractions"),
        ({"columns": "label=label"}, r"prepared with other settings .*differ in columns"),
    ],
)
def test_a_story_remembers_what_its_cohort_does_not_tell(folds, tiny_scans, change, said):
    out, _, _ = folds
    other = msgspec.structs.replace(RECIPE, prepare=PrepareSettings(size=32, **change))
    with pytest.raises(SettingsError, match=said):
        cross_validate(tiny_scans, out, other, folds=[1])


def test_a_story_refuses_other_scans(folds, tiny_scans, tmp_path):
    out, _, table = folds
    recipe = msgspec.structs.replace(RECIPE, evaluate=MORE)
    moved = shutil.copytree(tiny_scans, tmp_path / "moved")
    with pytest.raises(SettingsError, match="prepared from scans, and not from this moved"):
        cross_validate(moved, out, recipe, folds=[1])
    assert str(tiny_scans) not in (out / "fold-1" / "prepared.json").read_text()
    # A story that was begun before this was kept goes on.
    earlier = shutil.copytree(out, tmp_path / "earlier")
    for kept in earlier.glob("*/prepared.json"):
        kept.unlink()
    assert cross_validate(moved, earlier, recipe) == table
