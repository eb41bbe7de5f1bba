"""The command line: every verb once, and every bad input as one line, without a traceback, with
nothing left behind.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

import robustmri as robustmri_package
from robustmri.app import cli
from robustmri.app.check_table import list_checks
from robustmri.attacks import ATTACKS
from robustmri.models.checkpoint import read_checkpoint
from robustmri.recipes import load_recipe
from robustmri.results.schema import Check
from robustmri.verbs.prepare import prepare
from tiny import read_outcomes, write_scans

pytestmark = pytest.mark.usefixtures("tiny_networks")

# The command line with the small network in place of all others, for a process of its own. On
# demand it gets a signal when its so-manieth file is written and does not have its name yet: the
# worst moment, and always the same.
TINY = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tiny import tiny_network
import robustmri.models.backbones, robustmri.models.checkpoint
robustmri.models.backbones.build_network = robustmri.models.checkpoint.build_network = tiny_network
from robustmri.app.cli import main
if "STOP_BY" in os.environ:
    # A shell that runs the tests in the background has told its children to ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    left, replace = [int(os.environ["STOP_AT"])], os.replace
    def stop(*paths):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), int(os.environ["STOP_BY"]))
        replace(*paths)
    os.replace = stop
main()
"""
FAST = ("--set", "train.batch_size=16", "--set", "train.precision=fp32", "--epochs", "2")


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*")
    }


@pytest.fixture
def refuses(robustmri, tmp_path):
    """A command that must fail: one line that holds some words, and the disk as it was."""

    def check(*words, says):
        before = tree(tmp_path)
        status, out, err = robustmri(*words)
        lines = [
            line for line in err.splitlines() if not line.startswith(("reading:", "training:"))
        ]
        assert status in (1, 2), (status, out, err)
        assert len(lines) == 1, err
        assert lines[0].startswith("robustmri: ")
        assert "Traceback" not in err
        assert says in lines[0]
        assert tree(tmp_path) == before
        return lines[0]

    return check


def test_every_verb_once(robustmri, tiny_scans, tmp_path):
    cohort, before, after = tmp_path / "cohort", tmp_path / "before", tmp_path / "after"
    status, out, _ = robustmri("prepare", tiny_scans, "--out", cohort, "--size", 32)
    assert status == 0
    assert "108 slices of 27 patients; classes meningioma, glioma, pituitary" in out
    assert "no patient has slices in more than one set" in out
    status, out, err = robustmri("train", cohort, "--out", tmp_path / "run", *FAST, "--seed", 1)
    assert status == 0
    assert "kept epoch" in out
    assert "validation accuracy" in out
    assert "training: 8/8" in err
    words = (
        "--attacks",
        "fgsm,pgd",
        "--eps",
        "0.04,8/255",
        "--limit",
        12,
        "--set",
        "evaluate.options.pgd.steps=3",
    )
    status, out, _ = robustmri("evaluate", tmp_path / "run", cohort, "--out", before, *words)
    assert status == 0
    assert "FGSM" in out
    assert len(read_outcomes(before)) == 12 * (1 + 2 * 3)
    harden = (
        "harden",
        tmp_path / "run",
        cohort,
        "--out",
        tmp_path / "hardened",
        "--epochs",
        1,
        "--eps",
        "0.02",
    )
    status, out, _ = robustmri(*harden, "--set", "harden.attack_steps=1")
    assert status == 0
    assert ", robust" in out
    made = read_checkpoint(tmp_path / "hardened").training
    assert (made["eps"], made["attack_steps"], made["objective"]) == ("0.02", 1, "adversarial")
    status, _, _ = robustmri("evaluate", tmp_path / "hardened", cohort, "--out", after, *words)
    assert status == 0
    page = tmp_path / "report.html"
    status, out, _ = robustmri(
        "report", before, after, "--out", page, "--title", "Before, and after"
    )
    assert (status, out) == (0, f"wrote {page}\n")
    assert "Before, and after" in page.read_text(encoding="utf-8")
    status, _, _ = robustmri("report", before, "--out", tmp_path / "plain.html", "--no-images")
    assert status == 0
    assert len((tmp_path / "plain.html").read_bytes()) < len(page.read_bytes())


SHORT = (
    "train.epochs=2",
    "train.batch_size=16",
    "harden.epochs=1",
    "harden.attack_steps=1",
    "evaluate.attacks=fgsm,pgd",
    "evaluate.curve=0.1",
    "evaluate.limit=6",
    "evaluate.options.pgd.restarts=1",
    "evaluate.options.pgd.steps=2",
)
STAGES = ["after", "before", "cohort", "hardened"]
STAGES += ["prepared.json", "report.html", "standard", "table.md"]


def short(*more):
    return [word for override in (*SHORT, *more) for word in ("--set", override)]


def test_the_whole_story_in_one_command(robustmri, tmp_path):
    words = (
        "demo",
        "--out",
        tmp_path / "demo",
        *short("source=phantom:patients=12,slices=2,size=32", "prepare.size=32"),
    )
    status, out, err = robustmri(*words)
    assert status == 0, err
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == STAGES
    assert "PGD" in out
    assert "5/6 attack again" in err
    page = (tmp_path / "demo" / "report.html").read_bytes()
    shutil.rmtree(tmp_path / "demo" / "after")
    status, _, err = robustmri(*words)
    assert status == 0, err
    assert "2/6 train" not in err, "a stage that is done is not repeated"
    assert "5/6 attack again" in err
    assert len((tmp_path / "demo" / "report.html").read_bytes()) == pytest.approx(
        len(page), rel=0.01
    )


def test_a_published_protocol_stands_beside_its_figures(robustmri, tiny_scans, tmp_path):
    out = tmp_path / "poster"
    words = ("--data", tiny_scans, "--out", out, "--no-images", *short("prepare.size=32"))
    status, said, err = robustmri("reproduce", "poster", *words)
    assert status == 0, err
    assert sorted(path.name for path in out.iterdir()) == STAGES
    for figure in ("99.86", "29.98", "Left open by the poster"):
        assert figure in said
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "99.86" in table


@pytest.mark.slow
def test_folds_may_be_run_one_after_another(robustmri, tiny_scans, tmp_path):
    words = ("cross-validate", tiny_scans, "--out", tmp_path / "folds", *short("prepare.size=32"))
    status, out, err = robustmri(*words, "--only", "2")
    assert (status, "comes with the last of the folds" in out) == (0, True), err
    assert "fold 2, 6/6 report" in err
    status, out, err = robustmri(*words)
    assert status == 0, err
    assert "Accuracy over 30 test slices of" in out, "six of each fold"
    assert "fold 2, 2/6 train" not in err
    assert "fold 5, 2/6 train" in err
    page = (tmp_path / "folds" / "report.html").read_text(encoding="utf-8")
    assert "5 evaluations of disjoint test sets pooled" in page


def test_variants_of_a_recipe_are_compared(robustmri, tiny_cohort, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        """about = "two ways"
        [variants.base]
        about = "plain"
        [variants.fresh]
        about = "no start"
        start = "scratch"
        """
    )
    words = ("ablate", tiny_cohort, "--out", tmp_path / "out", "--recipe", recipe, *short())
    status, out, err = robustmri(*words, "--only", "base")
    assert (status, "comes with the last of the variants" in out) == (0, True), err
    status, out, err = robustmri(*words)
    assert status == 0, err
    assert ("fresh" in out, "no start" in out, "are no result" in out) == (True, True, True)
    assert "| fresh | no start |" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


def test_studies_refuse_what_does_not_fit(refuses, tiny_scans, tiny_cohort, tmp_path):
    out = ("--out", tmp_path / "out")
    refuses(
        "cross-validate", tiny_scans, *out, "--only", "1,six", says="no fold 'six'. Choices: 1 to 5"
    )
    refuses("ablate", tiny_cohort, *out, "--recipe", "standard", says="has no variants")
    refuses("ablate", tiny_cohort, *out, "--only", "trade", says="Did you mean 'trades'")


@pytest.mark.slow
def test_the_networks_of_the_package_run_too(robustmri, monkeypatch, tmp_path):
    """Everything else here is done with a network of three layers."""
    monkeypatch.undo()
    cohort = prepare(
        write_scans(tmp_path / "scans", patients=3, each=2), tmp_path / "cohort", size=32
    ).root
    words = ["robustmri", "train", str(cohort), "--out", str(tmp_path / "run"), "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert read_checkpoint(tmp_path / "run").spec.backbone == "resnet18"
    words = [
        "evaluate",
        str(tmp_path / "run"),
        str(cohort),
        "--out",
        str(tmp_path / "result"),
        "--attacks",
        "fgsm",
    ]
    monkeypatch.setattr(sys, "argv", ["robustmri", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert {row["attack"] for row in read_outcomes(tmp_path / "result")} == {
        "none",
        "fgsm",
        "worst",
    }


def test_attacks_are_listed_from_their_facts(robustmri):
    status, out, _ = robustmri("attacks")
    assert status == 0
    rows = [line.split() for line in out.splitlines()[1:-1]]
    assert [row[0] for row in rows] == list(ATTACKS)
    facts = ATTACKS["cw-l2"].facts
    (row,) = [line for line in out.splitlines() if line.startswith("cw-l2 ")]
    assert row.split() == [
        "cw-l2",
        facts.title,
        "l2",
        "nearest",
        "image",
        "gradients",
        *facts.paper.split(),
    ]
    status, out, _ = robustmri("attacks", "bim")
    assert status == 0
    assert "Kurakin" in out
    assert "restarts: random starts" in out
    assert "random_start = False" in out
    assert robustmri("attacks", "standard")[1].endswith("Defaults: steps = 100, queries = 5000\n")
    status, _, err = robustmri("attacks", "bam")
    assert status == 2
    assert "Did you mean 'bim'?" in err


def test_checks_are_listed_from_their_functions(robustmri):
    status, out, _ = robustmri("checks")
    assert status == 0
    listed = [" ".join(check.name.split()) for check in list_checks()]
    assert len(listed) == len(set(listed)) > 24
    assert all(check.asks and check.asks.endswith(".") for check in list_checks())
    said = " ".join(out.split())
    assert all(name.split()[0] in said for name in listed)
    assert "status 3" in said


def test_strict_ends_with_a_status_of_its_own(robustmri, tiny_run, tiny_cohort, tmp_path):
    """A hardened network that is tested by its training attack alone; and a sound evaluation."""
    quick = ["--attacks", "pgd", "--set", "evaluate.options.pgd.steps=2", "--limit", 9]
    head = json.loads((tiny_run / "checkpoint" / "classifier.json").read_text())
    head["training"]["objective"] = "adversarial"
    shutil.copytree(tiny_run / "checkpoint", tmp_path / "hardened")
    (tmp_path / "hardened" / "classifier.json").write_text(json.dumps(head))
    for checkpoint, strict, status in (
        (tmp_path / "hardened", ["--strict"], 3),
        (tmp_path / "hardened", [], 0),
        (tiny_run, ["--strict"], 0),
    ):
        out = tmp_path / f"{checkpoint.name}{len(strict)}"
        words = ["evaluate", checkpoint, tiny_cohort, "--out", out, *quick, *strict]
        assert robustmri(*words)[0] == status
        assert (out / "robustness.json").is_file()


def test_version_and_recipes(robustmri):
    assert robustmri("--version")[1].startswith("robustmri 0.")
    status, out, _ = robustmri("recipes")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "ablation",
        "contrast",
        "demo",
        "folds-cpu",
        "folds-gpu",
        "poster-cpu",
        "poster-gpu",
        "poster-offline",
        "poster-small",
        "quick",
        "smoothing",
        "standard",
        "strong",
    ]


@pytest.mark.parametrize(
    "words", [("train",), ("trian", "x"), ("train", "x", "--out", "y", "--epochs", "many"), ()]
)
def test_a_command_that_is_none_shows_how_it_is_used(robustmri, words):
    status, out, err = robustmri(*words)
    assert status == 2
    assert "Usage" in out + err
    assert "Traceback" not in err


def test_unreadable_slices_are_named_and_the_rest_goes_on(robustmri, tmp_path):
    scans = write_scans(tmp_path / "scans")
    images = scans / "images"
    content = (images / "glioma-0-0.png").read_bytes()
    (images / "glioma-0-0.png").write_bytes(content[: len(content) // 2])
    (images / "glioma-0-1.png").write_bytes(b"")
    (images / "glioma-0-2.png").unlink()
    Image.new("L", (32, 32), 7).save(images / "glioma-0-3.png")
    grey = np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)
    grey[3, 3] = np.nan
    (images / "glioma-1-0.png").unlink()
    Image.fromarray(grey).save(images / "glioma-1-0.tif")
    Image.fromarray(np.eye(32, dtype=np.uint8)).save(images / "stranger.png")
    with open(scans / "slices.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        if row["slice_id"] == "glioma-1-1":
            row["label"] = ""
        if row["slice_id"] == "glioma-1-2":
            row["patient_id"] = ""
    with open(scans / "slices.csv", "w", newline="") as stream:
        table = csv.DictWriter(stream, rows[0])
        table.writeheader()
        table.writerows(rows)
    status, out, err = robustmri("prepare", scans, "--out", tmp_path / "cohort", "--size", 32)
    assert status == 0, err
    assert "101 slices of 26 patients" in out
    said = {line.split(": ")[1]: line for line in out.splitlines() if line.startswith("left out: ")}
    wrong = {
        "images/glioma-0-0.png": "",
        "images/glioma-0-1.png": "not an image",
        "slices.csv": "the image file is missing",
        "images/glioma-0-3.png": "constant",
        "images/glioma-1-0.tif": "NaN",
        "images/glioma-1-1.png": "no label",
        "images/glioma-1-2.png": "no patient_id",
        "images/stranger.png": "not listed",
    }
    assert said.keys() == wrong.keys()
    for name, reason in wrong.items():
        assert reason.lower() in said[name].lower()
    head = json.loads((tmp_path / "cohort" / "cohort.json").read_text())
    assert {left["source"].split(":")[0] for left in head["left_out"]} == wrong.keys()


def test_what_cannot_be_a_cohort(refuses, tiny_scans, tmp_path):
    out = ("--out", tmp_path / "cohort", "--size", 32)
    refuses("prepare", tmp_path / "nowhere", *out, says="does not exist")
    (tmp_path / "empty").mkdir()
    refuses("prepare", tmp_path / "empty", *out, says="holds no scans")
    one = write_scans(tmp_path / "one", classes=("glioma",))
    refuses("prepare", one, *out, says="has one class only (glioma)")
    long = ("--out", tmp_path / ("x" * 300))
    refuses("prepare", tiny_scans, *long, says="cannot be used (File name too long)")
    (tmp_path / "file").write_text("")
    within = ("--out", tmp_path / "file" / "cohort")
    refuses("prepare", tiny_scans, *within, says="cannot be used (File exists). Mend that")
    few = write_scans(tmp_path / "few", patients=2)
    refuses("prepare", few, *out, says="has 2 patients, fewer than the 3 sets")
    for path in (few / "images").iterdir():
        path.write_bytes(b"broken")
    refuses("prepare", few, *out, says="not one slice could be read")
    refuses(
        "prepare",
        tiny_scans,
        "--out",
        tmp_path / "cohort",
        "--size",
        2,
        says="size must have sides of 8 to 4096 pixels",
    )
    refuses("prepare", tiny_scans, *out, "--split", "patients", says="Did you mean 'patient'?")
    refuses(
        "prepare",
        tiny_scans,
        *out,
        "--intensity",
        "maxmin",
        says="Choices: auto, full, minmax, percentile",
    )
    refuses(
        "prepare",
        tiny_scans,
        *out,
        "--split",
        "folds",
        "--fold",
        6,
        says="fold must be at least 1 and at most 5",
    )
    refuses("prepare", "phantom:patients=none", *out, says="expected a whole number")
    refuses("prepare", "phantom:people=3", *out, says="no setting 'people'")


def test_a_repair_says_what_it_kept_and_why(robustmri, tiny_run, tiny_cohort, tmp_path):
    words = (
        "harden",
        tiny_run,
        tiny_cohort,
        "--out",
        tmp_path / "run",
        "--recipe",
        "quick",
        "--epochs",
        12,
    )
    fast = (
        "--set",
        "harden.batch_size=16",
        "--set",
        "harden.precision=fp32",
        "--set",
        "harden.guard_steps=2",
    )
    status, out, err = robustmri(*words, *fast, "--eps", "0.02", "--clean-cost", 100)
    assert status == 0, err
    assert re.search(
        r"^training: 0/48 - about \d+ s on this machine, measured on 3 batches$", err, re.MULTILINE
    ), err
    made = read_checkpoint(tmp_path / "run")
    assert (made.training["objective"], made.training["clean_cost"]) == ("one-step", 100.0)
    kept = made.provenance["kept_epoch"]
    assert f"Epoch {kept['epoch']} is the most robust within 100 points: it loses" in out
    lines = out.splitlines()
    rows = [
        line.split()
        for line in lines[lines.index("  epoch   clean  robust") + 1 :]
        if line.startswith("  ")
    ]
    assert [row[0] for row in rows if row[-1] == "kept"] == [str(kept["epoch"])]
    clean, robust = ([float(row[place].rstrip("%")) for row in rows] for place in (1, 2))
    assert clean == sorted(clean, reverse=True)
    assert robust == sorted(robust)
    assert rows[-1][-1] == "kept", "at any cost it is the most robust one"


def test_what_cannot_be_trained(refuses, tiny_cohort, tmp_path, monkeypatch):
    out = ("--out", tmp_path / "run")
    refuses("train", tmp_path / "nowhere", *out, says="is not a cohort")
    refuses("train", tiny_cohort, *out, "--weights", tmp_path / "none.pth", says="none.pth")
    refuses("train", tiny_cohort, *out, "--recipe", "demi", says="Did you mean 'demo'?")
    refuses(
        "harden",
        "scratch",
        tiny_cohort,
        *out,
        "--objective",
        "standard",
        says="A repair needs attacked images",
    )
    refuses(
        "harden",
        "scratch",
        tiny_cohort,
        *out,
        "--objective",
        "trade",
        says="Did you mean 'trades'?",
    )
    refuses(
        "harden",
        "scratch",
        tiny_cohort,
        *out,
        "--clean-cost",
        -1,
        says="clean_cost must be at least 0",
    )
    refuses(
        "train", tiny_cohort, *out, "--recipe", tmp_path / "none.toml", says="There is no recipe"
    )
    refuses("train", tiny_cohort, *out, "--set", "train.epoch=3", says="Did you mean 'epochs'?")
    refuses("train", tiny_cohort, *out, "--set", "train.epochs", says="is not an override")
    refuses("train", tiny_cohort, *out, "--epochs", 0, says="epochs must be at least 1")
    refuses(
        "harden", "scratch", tiny_cohort, *out, "--eps", "big", says="eps 'big' is not a number"
    )
    refuses("harden", tmp_path / "nowhere", tiny_cohort, *out, says="does not exist")
    # Not by the small network, which takes any name.
    monkeypatch.undo()
    monkeypatch.setattr(
        sys, "argv", ["robustmri", "train", str(tiny_cohort), *map(str, out), "--model", "resnet81"]
    )
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite(robustmri, tiny_cohort, tmp_path):
    status, _, err = robustmri(
        "train", tiny_cohort, "--out", tmp_path / "run", *FAST, "--set", "train.learning_rate=1000"
    )
    assert status == 1
    assert re.search(r"robustmri: The loss is (nan|inf) in epoch \d", err)
    assert "Traceback" not in err


def test_what_cannot_be_evaluated(refuses, tiny_cohort, tiny_run, tmp_path):
    given = ("evaluate", tiny_run, tiny_cohort, "--out", tmp_path / "result")
    refuses(*given, "--attacks", "pgd,deepfoil", says="There is no attack 'deepfoil'")
    refuses(*given, "--eps", "0.04@pixels", says="unknown units 'pixels'")
    refuses(*given, "--eps", "-0.1", says="at least 0")
    refuses(*given, "--curve", "0.1,x", says="eps 'x' is not a number")
    refuses(*given, "--norm", "l3", says="norm cannot be 'l3'. Choices: l0, l1, l2, linf")
    refuses(*given, "--target", "gliona", says="Did you mean 'glioma'?")
    refuses(*given, "--limit", -3, says="limit must be at least 0")
    refuses(*given, "--region", "leson", says="Did you mean 'lesion'?")
    refuses(*given, "--set", "evaluate.options.pgd.step=3", says="Did you mean 'steps'?")
    refuses(*given, "--set", "evaluate.options.pgd.steps=2.5", says="steps cannot be 2.5")
    refuses(*given, "--set", "evaluate.options.pgd.steps=many", says="steps cannot be 'many'")
    refuses(
        "evaluate",
        tmp_path / "nowhere",
        tiny_cohort,
        "--out",
        tmp_path / "result",
        says="does not exist",
    )
    refuses(
        "evaluate",
        tiny_cohort,
        tiny_cohort,
        "--out",
        tmp_path / "result",
        says="is a cohort, not a run: it holds no checkpoint",
    )


def test_what_the_split_lets_through_is_printed_too(
    robustmri, tiny_run, tiny_cohort, tmp_path, monkeypatch
):
    measure = robustmri_package.evaluate

    def leaky(*words, **settings):
        result = measure(*words, **settings)
        found = Check(name="near-duplicates in one set only", status="warn", detail="3 pairs.")
        return msgspec.structs.replace(
            result, split=msgspec.structs.replace(result.split, leakage=[found])
        )

    monkeypatch.setattr(robustmri_package, "evaluate", leaky, raising=False)
    words = ("--attacks", "fgsm", "--limit", 3, "--set", "evaluate.precision=fp32")
    status, out, _ = robustmri(
        "evaluate", tiny_run, tiny_cohort, "--out", tmp_path / "result", *words
    )
    assert status == 0
    assert "warn: near-duplicates in one set only: 3 pairs." in out


def test_a_cohort_and_a_checkpoint_that_disagree(refuses, tiny_run, tiny_scans, tmp_path):
    larger = prepare(tiny_scans, tmp_path / "larger", size=48).root
    two = prepare(
        write_scans(tmp_path / "scans", classes=("glioma", "well")), tmp_path / "two", size=32
    ).root
    for verb in ("evaluate", "harden"):
        refuses(
            verb,
            tiny_run,
            larger,
            "--out",
            tmp_path / "x",
            says="images of 32 px; the cohort has 48 px",
        )
        refuses(verb, tiny_run, two, "--out", tmp_path / "x", says="the cohort has glioma, well")


@pytest.mark.parametrize("place", [0, 100, -1], ids=["head", "names", "weights"])
def test_a_corrupted_checkpoint(refuses, tiny_run, tiny_cohort, tmp_path, place):
    shutil.copytree(tiny_run / "checkpoint", tmp_path / "checkpoint")
    weights = tmp_path / "checkpoint" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[place] ^= 0xFF
    weights.write_bytes(bytes(content))
    for verb in ("evaluate", "harden"):
        refuses(
            verb,
            tmp_path / "checkpoint",
            tiny_cohort,
            "--out",
            tmp_path / "x",
            says="is damaged or was exchanged",
        )
    (tmp_path / "checkpoint" / "classifier.json").write_text("{")
    refuses(
        "evaluate",
        tmp_path / "checkpoint",
        tiny_cohort,
        "--out",
        tmp_path / "x",
        says="classifier.json is damaged",
    )


@pytest.mark.parametrize("name", ["images.npy", "cases.parquet", "cohort.json", "split.json"])
def test_a_damaged_cohort(refuses, tiny_cohort, tmp_path, name):
    shutil.copytree(tiny_cohort, tmp_path / "cohort")
    content = (tmp_path / "cohort" / name).read_bytes()
    (tmp_path / "cohort" / name).write_bytes(content[: len(content) // 2])
    refuses("train", tmp_path / "cohort", "--out", tmp_path / "run", says=name)


def test_a_place_that_is_taken(refuses, tiny_scans, tiny_cohort, tiny_run, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for place in (tmp_path / "taken", tmp_path / "file", tmp_path / "file" / "below"):
        for words in (
            ("prepare", tiny_scans),
            ("train", tiny_cohort),
            ("evaluate", tiny_run, tiny_cohort),
        ):
            refuses(*words, "--out", place, says=str(tmp_path))
    assert (
        (tmp_path / "file").read_text()
        == (tmp_path / "taken" / "thesis.txt").read_text()
        == "precious"
    )


def test_another_run_in_the_same_place(robustmri, refuses, tiny_cohort, tmp_path):
    assert robustmri("train", tiny_cohort, "--out", tmp_path / "run", *FAST)[0] == 0
    refuses(
        "train",
        tiny_cohort,
        "--out",
        tmp_path / "run",
        *FAST,
        "--seed",
        1,
        says="they differ in train.seed",
    )


def test_what_cannot_be_reported(refuses, robustmri, tiny_run, tiny_cohort, tmp_path):
    page = ("--out", tmp_path / "report.html")
    refuses("report", tmp_path / "nowhere", *page, says="holds no robustness.json")
    refuses("report", tiny_run, *page, says="is a run, not a result: it holds no robustness.json")
    assert (
        robustmri(
            "evaluate", tiny_run, tiny_cohort, "--out", tmp_path / "result", "--attacks", "fgsm"
        )[0]
        == 0
    )
    (tmp_path / "folder").mkdir()
    refuses(
        "report", tmp_path / "result", "--out", tmp_path / "folder", says=str(tmp_path / "folder")
    )
    (tmp_path / "result" / "robustness.json").write_text("{}")
    refuses("report", tmp_path / "result", *page, says="robustness.json")


def test_what_cannot_be_reproduced(refuses, tiny_scans, tmp_path):
    given = ("--data", tiny_scans, "--out", tmp_path / "x")
    refuses("reproduce", "thesis", *given, says="There is no protocol 'thesis'")
    refuses("reproduce", "poster", *given, "--preset", "tpu", says="tpu")
    refuses(
        "reproduce",
        "poster",
        "--data",
        tmp_path / "none",
        "--out",
        tmp_path / "x",
        says="none does not exist",
    )


def stop(words, how, at):
    """Run a command in a process of its own, on one thread, with a signal at its file number
    `at`.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "STOP_BY": str(int(how)),
        "STOP_AT": str(at),
    }
    done = subprocess.run(
        [sys.executable, "-c", TINY, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == (130 if how == signal.SIGINT else -how), done.stderr
    assert "Traceback" not in done.stderr
    if how == signal.SIGINT:
        assert (
            done.stderr.splitlines()[-1]
            == "robustmri: stopped. The same command goes on where it was."
        )


def partials(folder):
    return [path.name for path in folder.rglob(".*.partial")]


@pytest.fixture
def one_thread():
    """As the processes that `stop` starts: on another number of threads sums are rounded
    otherwise.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def log_of(run):
    """Rows of epochs.csv without their seconds."""
    path = run / "epochs.csv"
    return (
        [line.rsplit(",", 1)[0] for line in path.read_text().splitlines()] if path.exists() else []
    )


@pytest.mark.slow
def test_a_stopped_training_goes_on(robustmri, tiny_cohort, tmp_path, one_thread):
    """After kill -9 it ends with the weights of a run that nobody stopped."""
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    words = (
        "train",
        tiny_cohort,
        "--set",
        "train.batch_size=20",
        "--set",
        "train.precision=fp32",
        "--epochs",
        5,
    )
    # The settings, then a state and a log for each epoch: the fourth state is lost.
    stop([*words, "--out", cut], signal.SIGKILL, at=8)
    assert [line.split(",")[0] for line in log_of(cut)] == ["epoch", "1", "2", "3"]
    assert len(partials(cut)) == 1
    for out in (cut, whole):
        assert robustmri(*words, "--out", out)[0] == 0
    assert read_checkpoint(cut).weights_sha256 == read_checkpoint(whole).weights_sha256
    assert log_of(cut) == log_of(whole)
    assert len(log_of(cut)) == 6
    assert partials(cut) == []
    assert sorted(path.name for path in cut.iterdir()) == [
        "checkpoint",
        "epochs.csv",
        "settings.json",
    ]


@pytest.mark.slow
def test_a_stopped_evaluation_goes_on(robustmri, tiny_run, tiny_cohort, tmp_path, one_thread):
    """After Ctrl-C."""
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    words = (
        "evaluate",
        tiny_run,
        tiny_cohort,
        "--attacks",
        "fgsm,bim",
        "--set",
        "evaluate.batch_size=8",
        "--set",
        "evaluate.precision=fp32",
    )

    def shards():
        return len(list(cut.glob(".shards/*/[a-z]*.parquet")))

    # The settings, then 3 shards for each of 2 attacks and for the clean slices.
    stop([*words, "--out", cut], signal.SIGINT, at=6)
    assert (shards(), partials(cut)) == (4, [])
    assert not (cut / "robustness.json").exists()
    for out in (cut, whole):
        assert robustmri(*words, "--out", out)[0] == 0
    assert (cut / "outcomes.parquet").read_bytes() == (whole / "outcomes.parquet").read_bytes()
    results = [
        json.loads((folder / "robustness.json").read_text())["results"] for folder in (cut, whole)
    ]
    assert results[0] == results[1]
    assert sorted(path.name for path in cut.iterdir()) == sorted(
        path.name for path in whole.iterdir()
    )


@pytest.mark.slow
def test_a_stopped_preparation_leaves_nothing(tiny_scans, tmp_path):
    words = ["prepare", tiny_scans, "--out", tmp_path / "cohort", "--size", 32]
    stop(words, signal.SIGINT, at=1)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_preparation_is_cleared_by_the_next(robustmri, tiny_scans, tmp_path):
    partial = tmp_path / ".cohort.0badcafe.partial"
    partial.mkdir()
    (partial / "images.npy").write_bytes(b"half")
    assert robustmri("prepare", tiny_scans, "--out", tmp_path / "cohort", "--size", 32)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]


@pytest.mark.parametrize("words", [("--eps", ""), ("--eps= ",), ("--attacks", ",", "--limit", 3)])
def test_an_empty_option_does_not_pass_for_one_that_was_left_out(words, robustmri, tmp_path):
    status, _, err = robustmri("evaluate", tmp_path, tmp_path, "--out", tmp_path / "result", *words)
    assert status == 2
    assert f"{words[0].partition('=')[0]} is empty" in " ".join(err.replace("\u2502", " ").split())


def test_an_empty_curve_or_target_is_none():
    """Also of a recipe that has one."""
    given = {"curve": "", "target": "", "eps": "", "limit": 0, "seed": None}
    changes = cli._overrides("evaluate", given)
    assert changes == ["evaluate.curve=", "evaluate.target=", "evaluate.limit=0"]
    settings = load_recipe("standard", ["evaluate.target=a", "evaluate.curve=0.1", *changes])
    assert (settings.evaluate.curve, settings.evaluate.target) == ((), "")


def test_an_option_that_counts_once_is_not_given_twice(robustmri, tmp_path):
    words = ("evaluate", tmp_path / "run", tmp_path / "cohort", "--out", tmp_path / "result")
    status, _, err = robustmri(*words, "--eps", "4/255", "--eps=0.04")
    assert status == 2
    assert "--eps is given 2 times" in " ".join(err.replace("│", " ").split())
    _, _, err = robustmri(*words, "--set", "evaluate.limit=1", "--set", "evaluate.seed=1")
    assert "times" not in err
