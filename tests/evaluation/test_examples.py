from __future__ import annotations

import numpy as np
import pytest

from robustmri.data.cohort import Cohort
from robustmri.data.split import Split
from robustmri.results.schema import load_result
from robustmri.verbs.evaluate import evaluate
from tiny import read_outcomes, rows_of

QUICK = {"attacks": ("fgsm", "noise"), "eps": ("0.06",), "precision": "fp32"}


@pytest.fixture
def show(tiny_run, tiny_cohort, tmp_path, tiny_networks):
    """Settings to the result's examples, the arrays of examples.npz (None without one), and the
    outcomes.
    """

    def run(**settings):
        folder = tmp_path / "result"
        evaluate(tiny_run, tiny_cohort, folder, **{**QUICK, **settings})
        arrays = (
            dict(np.load(folder / "examples.npz")) if (folder / "examples.npz").exists() else None
        )
        return load_result(folder).examples, arrays, read_outcomes(folder)

    return run


def test_rows_agree_with_the_result(show, tiny_cohort):
    cohort = Cohort.open(tiny_cohort)
    examples, arrays, outcomes = show()
    assert [example.position for example in examples] == list(range(6))
    assert {name: array.shape for name, array in arrays.items()} == dict.fromkeys(
        ("clean", "attacked", "sign", "mask"), (6, 32, 32)
    )
    assert [arrays[name].dtype for name in ("clean", "attacked", "sign", "mask")] == [
        np.uint16,
        np.float32,
        np.int8,
        np.bool_,
    ]
    index = {case.case_id: case.index for case in cohort.cases}
    table = {row["case_id"]: row for row in rows_of(outcomes, "fgsm")}
    for example in examples:
        row, told = index[example.case_id], table[example.case_id]
        clean, attacked, sign, mask = (
            arrays[name][example.position] for name in ("clean", "attacked", "sign", "mask")
        )
        np.testing.assert_array_equal(clean, cohort.images[row])
        np.testing.assert_array_equal(mask, cohort.masks([row])[0])
        assert mask.any()
        # The poster's picture: slice + eps * sign = attacked slice, within the grey values there
        # are.
        expected = np.clip(clean / 65535 + 0.06 * sign, 0, 1)
        np.testing.assert_allclose(attacked, expected, atol=1e-5)
        assert np.abs(sign).mean() > 0.5
        assert example.distance_linf == pytest.approx(0.06, abs=1e-6)
        assert (example.label, example.patient_id) == (
            cohort.cases[row].label,
            cohort.cases[row].patient_id,
        )
        assert (example.prediction, example.clean_prediction) == (
            told["prediction"],
            told["clean_prediction"],
        )
        assert example.confidence == pytest.approx(told["confidence"], abs=1e-4)
        assert example.clean_confidence == pytest.approx(told["clean_confidence"], abs=1e-4)


def test_a_few_of_each_class_rightly_classified_and_fooled_first(show, tiny_cohort):
    cohort, split = Cohort.open(tiny_cohort), Split.load(tiny_cohort)
    examples, _, outcomes = show(examples_per_class=3)
    test = {cohort.cases[row].case_id for row in split.test}
    assert {example.case_id for example in examples} <= test
    assert [example.label for example in examples] == [
        name for name in cohort.classes for _ in range(3)
    ]
    for name in cohort.classes:
        shown = [example for example in examples if example.label == name]
        assert all(example.clean_prediction == name for example in shown)
        changed = [example.prediction != name for example in shown]
        assert changed == sorted(changed, reverse=True)
        there_are = [
            row["fooled"]
            for row in rows_of(outcomes, "fgsm")
            if row["label"] == row["clean_prediction"] == name
        ]
        assert sum(changed) == min(3, sum(there_are))


def test_those_asked_for(show):
    wanted = ("pituitary-1-0", "glioma-2-1")
    examples, arrays, _ = show(examples=wanted)
    assert tuple(example.case_id for example in examples) == wanted
    assert len(arrays["clean"]) == 2


@pytest.mark.parametrize(
    "settings", [{"examples_per_class": 0}, {"attacks": ("cw-l2",), "minimal_limit": 2}]
)
def test_no_pictures_where_none_can_be_or_are_wanted(show, settings):
    examples, arrays, _ = show(**settings, options={"cw-l2": {"steps": 2, "searches": 1}})
    assert examples == []
    assert arrays is None
