"""A classifier meets scans from elsewhere: all of them are tests, none was trained on, and the
classes may have other names.
"""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from robustmri.core.errors import CheckpointError, DataError, SettingsError
from robustmri.data.cohort import Cohort
from robustmri.data.prepare import write_cohort
from robustmri.data.seen import NAME, SAME_LOOK, check_seen, count_known, note_seen
from robustmri.report.tables import comparison_table
from robustmri.results.outcomes import load_outcomes
from robustmri.verbs.evaluate import evaluate
from robustmri.verbs.prepare import prepare
from robustmri.verbs.report import write_report
from robustmri.verbs.train import harden, train
from scans import SliceList, slices_of
from tiny import write_scans

pytestmark = pytest.mark.usefixtures("tiny_networks")
QUICK = {"attacks": ("fgsm",), "precision": "fp32", "examples_per_class": 0}


@pytest.fixture
def elsewhere(tmp_path):
    """Scans of twelve other people."""
    folder = write_scans(tmp_path / "elsewhere", patients=13)
    rows = list(csv.reader((folder / "slices.csv").read_text().splitlines()))
    kept = [row for row in rows if not row[2][-2:].isdigit() or int(row[2][-2:]) >= 9]
    with open(folder / "slices.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(kept)
    for path in (folder / "images").iterdir():
        if path.stem not in {row[0] for row in kept}:
            path.unlink()
    return folder


def exported(scans, folder, change):
    """The same scans as another program writes them."""
    shutil.copytree(scans, folder)
    for path in (folder / "images").iterdir():
        with Image.open(path) as image:
            grey = np.asarray(image)
        Image.fromarray(change(grey)).save(path)
    return folder


def test_every_slice_is_tested_and_the_report_says_for_whom_it_speaks(
    elsewhere, tiny_run, tmp_path
):
    cohort = prepare(elsewhere, tmp_path / "cohort", size=32, split="none")
    result = evaluate(tiny_run, cohort.root, tmp_path / "result", **QUICK)
    assert result.split.kind == "none"
    assert result.split.n_slices == len(cohort) == 48
    assert result.split.n_patients == 12
    (known,) = (check for check in result.split.leakage if check.name == NAME)
    assert known.status == "pass"
    assert "none of 48" in known.detail
    page = write_report([tmp_path / "result"], tmp_path / "report.html").read_text()
    assert "External validation" in page
    assert any("External validation" in note for note in comparison_table([result]).notes)
    for verb in (train, lambda *words: harden(tiny_run, *words)):
        with pytest.raises(DataError, match="--split none"):
            verb(cohort.root, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("another seed", {"seed": 3}),
        ("another rule and seed", {"intensity": "percentile", "seed": 3}),
        ("all for tests", {"split": "none"}),
    ],
)
def test_the_same_scans_prepared_again_are_known(what, how, tiny_run, tiny_scans, tmp_path):
    cohort = prepare(tiny_scans, tmp_path / "again", **{"size": 32, **how}).root
    with pytest.raises(CheckpointError, match=r"has seen|another split"):
        evaluate(tiny_run, cohort, tmp_path / "result", **QUICK)
    with pytest.raises((CheckpointError, DataError), match=r"has seen|another split|split none"):
        harden(tiny_run, cohort, tmp_path / "run", epochs=1)
    assert not (tmp_path / "result").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change",
    [lambda grey: (grey // 2 + 3).astype(np.uint8), lambda grey: grey.astype(np.uint16) * 200],
    ids=["darker", "16 bit"],
)
def test_scans_that_were_exported_again_look_known(change, tiny_run, tiny_scans, tmp_path):
    cohort = prepare(
        exported(tiny_scans, tmp_path / "scans", change), tmp_path / "c", size=32, split="none"
    )
    with pytest.raises(CheckpointError, match=r"0 come from files .* look like slices"):
        evaluate(tiny_run, cohort.root, tmp_path / "result", **QUICK)


def test_what_was_hardened_has_seen_what_its_start_had(tiny_run, elsewhere, tmp_path, tiny_scans):
    other = prepare(elsewhere, tmp_path / "other", size=32, fractions=(0.5, 0.25, 0.25)).root
    run = harden(tiny_run, other, tmp_path / "run", epochs=1, batch_size=16, precision="fp32")
    again = prepare(tiny_scans, tmp_path / "again", size=32, split="none").root
    with pytest.raises(CheckpointError, match="has seen test slices"):
        evaluate(run, again, tmp_path / "result", **QUICK)


def test_where_nothing_is_known_it_is_said(tiny_run, elsewhere, tmp_path):
    cohort = prepare(elsewhere, tmp_path / "cohort", size=32, split="none").root
    silent = shutil.copytree(tiny_run / "checkpoint", tmp_path / "silent")
    (silent / "seen.json").unlink()
    with pytest.raises(CheckpointError, match=r"seen\.json is missing or damaged"):
        evaluate(silent, cohort, tmp_path / "result", **QUICK)
    head = json.loads((silent / "classifier.json").read_text())
    del head["provenance"]["seen_sha256"]
    (silent / "classifier.json").write_text(json.dumps(head))
    result = evaluate(silent, cohort, tmp_path / "result", **QUICK)
    (known,) = (check for check in result.split.leakage if check.name == NAME)
    assert (known.status, known.detail) == (
        "warn",
        "what the classifier was trained on is not known",
    )


def test_a_few_that_look_known_are_named_and_many_are_refused(tiny_cohort):
    cohort = Cohort.open(tiny_cohort)
    few = note_seen(cohort, [3])
    assert count_known(few, cohort, range(len(cohort))) == ([3], [3])
    few = few.__class__(files=(), looks=few.looks)
    found = check_seen(few, cohort, range(len(cohort)))
    assert (found.status, found.case_ids) == ("warn", (cohort.cases[3].case_id,))
    assert check_seen(few, cohort, [3, 4]).status == "fail"
    assert SAME_LOOK < 20


def test_nearly_empty_slices_of_strangers_look_like_none(tmp_path):
    cohorts = []
    for name in ("ours", "theirs"):
        items = slices_of(patients=6, each=2)
        for row, item in enumerate(items):
            image = np.zeros((64, 64), np.uint8)
            image[20 + row : 40, 20 : 25 + row + 4 * (name == "ours")] = 100 + row
            items[row] = replace(item, image=image, sha256=f"{name}{row}")
        cohorts.append(write_cohort(SliceList(items), tmp_path / name, size=64))
    ours, theirs = cohorts
    rows = range(len(ours))
    assert count_known(note_seen(ours, rows), theirs, rows) == ([], [])
    assert count_known(note_seen(ours, rows), ours, rows) == (list(rows), [])


def test_classes_are_matched_by_name_and_may_be_renamed_and_merged(elsewhere, tiny_run, tmp_path):
    plain = prepare(elsewhere, tmp_path / "plain", size=32, split="none").root
    expected = load_outcomes(evaluate_into(tiny_run, plain, tmp_path / "expected"))
    table = (elsewhere / "slices.csv").read_text()
    renamed = table.replace(",pituitary,", ",A adenoma,").replace(",glioma,", ",GBM,")
    (elsewhere / "slices.csv").write_text(renamed)
    cohort = prepare(elsewhere, tmp_path / "cohort", size=32, split="none")
    assert cohort.classes[0] != "glioma"
    with pytest.raises(CheckpointError, match=r"--classes 'A adenoma=\.\.\.,GBM=\.\.\.'"):
        evaluate(tiny_run, cohort.root, tmp_path / "result", **QUICK)
    names = ("A adenoma=pituitary", "GBM=glioma")
    there = load_outcomes(evaluate_into(tiny_run, cohort.root, tmp_path / "there", classes=names))
    for column in ("case_id", "label", "prediction", "confidence"):
        assert there[column].tolist() == expected[column].tolist()
    merged = ("A adenoma=glioma", "GBM=glioma")
    both = load_outcomes(evaluate_into(tiny_run, cohort.root, tmp_path / "both", classes=merged))
    assert set(both["label"]) == {"meningioma", "glioma"}
    with pytest.raises(DataError, match="no class of the cohort"):
        evaluate(tiny_run, cohort.root, tmp_path / "x", **QUICK, classes=("glioblastoma=glioma",))
    with pytest.raises(SettingsError, match="THEIRS=OURS"):
        evaluate(tiny_run, cohort.root, tmp_path / "x", **QUICK, classes=("GBM",))


def evaluate_into(run, cohort, out, **settings):
    evaluate(run, cohort, out, **QUICK, **settings)
    return out
