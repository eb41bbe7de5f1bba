"""Pairing, on tables that are small enough to count by hand."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from robustmri.core.errors import ResultError
from robustmri.evaluation.paired import adjust, compare_results, exact_mcnemar, find_common
from robustmri.results.budget import Budget
from robustmri.results.outcomes import Outcomes
from robustmri.results.schema import Asked, ModelFacts

NAMES = ("A", "B")
EPS = 0.04


def outcomes(rights, *, patients=None, labels=None, eps=EPS, first=0):
    """A row for each slice and attack; `rights` gives an attack's right answers."""
    n = len(next(iter(rights.values())))
    patients = patients or [f"p{k // 2}" for k in range(n)]
    labels = labels or ["ill" if k // 2 % 2 else "well" for k in range(n)]
    rows = []
    for attack, right in rights.items():
        clean = attack == "none"
        for k in range(n):
            other = "well" if labels[k] == "ill" else "ill"
            rows.append(
                {
                    "case_id": f"c{first + k:03d}",
                    "index": k,
                    "patient_id": patients[k],
                    "group": patients[k],
                    "label": labels[k],
                    "attack": attack,
                    "norm": "" if clean else "linf",
                    "eps": 0.0 if clean else eps,
                    "eps_units": "image",
                    "eps_image": 0.0 if clean else eps,
                    "target": "",
                    "prediction": labels[k] if right[k] else other,
                    "label_confidence": 0.9 if right[k] else 0.1,
                }
            )
    return Outcomes({name: np.array([row[name] for row in rows]) for name in rows[0]})


def result(attacks, *, eps=EPS, classes=("ill", "well"), cohort="c", settings=None, start="x"):
    model = ModelFacts(
        name="trained",
        backbone="net",
        objective="standard",
        weights="none",
        checkpoint_sha256=start,
        training={},
    )
    number = {"norm": "linf", "eps": eps, "eps_units": "image", "eps_image": eps, "target": ""}
    return SimpleNamespace(
        files={},
        model=model,
        cohort=SimpleNamespace(classes=classes, fingerprint=cohort, size=32, intensity="minmax"),
        split=SimpleNamespace(fingerprint="s"),
        attacks=[
            SimpleNamespace(attack=name, title=name.upper(), settings=settings or {})
            for name in attacks
        ],
        results=[SimpleNamespace(attack=name, unit="slice", **number) for name in attacks],
        provenance={},
        asked=Asked(),
    )


def compare(one, other, results=None, words=str):
    names = [
        [name for name in np.unique(table["attack"]) if name != "none"] for table in (one, other)
    ]
    results = results or [result(attacks) for attacks in names]
    return compare_results(results, [one, other], NAMES, words=words, draws=200)


def test_counts_by_slice_patient_and_class():
    clean = [True] * 8
    one = outcomes(
        {"none": clean, "pgd": [0, 0, 0, 0, 1, 1, 1, 0], "worst": [0, 0, 0, 0, 1, 1, 1, 0]}
    )
    other = outcomes(
        {"none": clean, "pgd": [1, 1, 1, 0, 1, 1, 0, 0], "worst": [1, 1, 1, 0, 1, 1, 0, 0]}
    )
    made = compare(one, other)
    assert [row.attack for row in made.numbers] == ["none", "pgd", "worst"]
    worst = made.headline
    assert (worst.attack, worst.n, worst.n_patients) == ("worst", 8, 4)
    assert (worst.first, worst.second, worst.difference) == (3 / 8, 5 / 8, 2 / 8)
    assert (worst.saved, worst.lost) == (3, 1)
    assert (worst.patients_saved, worst.patients_lost, worst.p_patients) == (1, 0, 1.0)
    assert worst.low <= worst.difference <= worst.high
    assert made.clean.difference == 0
    classes = {(row.attack, row.label): (row.saved, row.lost) for row in made.classes}
    assert classes["worst", "well"] == (2, 0)
    assert classes["worst", "ill"] == (1, 1)
    turned = {
        turn.patient_id: (turn.first, turn.second, turn.saved, turn.lost) for turn in made.patients
    }
    assert turned == {"p0": (0, 2, 2, 0), "p1": (0, 1, 1, 0), "p3": (1, 0, 0, 1)}
    assert made.scope == ["Compared on the 8 slices of 4 patients that both were tested on."]


def test_a_swap_turns_every_sign():
    one = outcomes({"none": [1, 1, 1, 0], "pgd": [0, 0, 1, 0]})
    other = outcomes({"none": [1, 1, 1, 1], "pgd": [1, 1, 1, 0]})
    there, back = compare(one, other), compare(other, one)
    for a, b in zip(there.numbers, back.numbers, strict=True):
        assert (a.difference, a.saved, a.lost) == (-b.difference, b.lost, b.saved)
        assert a.low == pytest.approx(-b.high)


def test_only_shared_slices_and_attacks_count_and_the_rest_is_said():
    one = outcomes({"none": [1] * 6, "pgd": [1] * 6, "square": [0] * 6, "worst": [0] * 6})
    other = outcomes({"none": [1] * 4, "pgd": [1] * 4, "worst": [1] * 4}, first=0)
    made = compare(one, other)
    assert {row.n for row in made.numbers} == {4}
    assert made.headline.difference == 0, "SQUARE, which one alone met, is not in the worst case"
    assert made.scope == [
        "Compared on the 4 slices of 2 patients that both were tested on; 2 more of A are left "
        "out.",
        "Only A met SQUARE: not compared, and no part of the worst case.",
    ]


def test_other_radii_leave_the_untouched_slices():
    one, other = (outcomes({"none": [1] * 4, "pgd": [0] * 4}, eps=eps) for eps in (0.04, 0.02))
    results = [result(["pgd"], eps=0.04), result(["pgd"], eps=0.02)]
    made = compare(one, other, results, words=lambda at: f"eps {at.eps}")
    assert made.at is None
    assert made.headline is None
    assert [row.attack for row in made.numbers] == ["none"]
    assert made.scope[1:] == [
        "Only A was attacked within eps 0.04: not compared.",
        "Only B was attacked within eps 0.02: not compared.",
        "They share no budget, so only untouched slices are compared.",
    ]


def test_another_preparation_and_other_settings_are_said():
    table = outcomes({"none": [1] * 4, "pgd": [1] * 4})
    results = [result(["pgd"]), result(["pgd"], cohort="d", settings={"steps": 3})]
    results[1].split.fingerprint = "t"
    results[1].asked = Asked(region="lesion")
    scope = compare(table, table, results).scope
    assert "prepared twice" in scope[1]
    assert "not split alike" in scope[2]
    assert "A was attacked in the image, B in the lesion" in scope[3]
    assert scope[4] == "Run with other settings on each: PGD."


def test_what_each_attacker_may_spend_is_said():
    table = outcomes({"none": [1] * 4, "pgd": [1] * 4})
    results = [result(["pgd"]), result(["pgd"])]
    assert len(compare(table, table, results).scope) == 1
    results[1].asked = Asked(max_gradients=1)
    assert "may spend different amounts on an image" in compare(table, table, results).scope[1]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("classes", "tells apart"),
        ("none in common", "none in common"),
        ("labels", "another patient or label"),
        ("patients", "another patient or label"),
    ],
)
def test_what_cannot_be_paired_is_refused(fault, message):
    one = outcomes({"none": [1] * 4})
    settings = {
        "none in common": {"first": 9},
        "labels": {"labels": ["ill"] * 4},
        "patients": {"patients": ["p0", "p0", "q", "q"]},
    }
    other = outcomes({"none": [1] * 4}, **settings.get(fault, {}))
    results = [
        result([]),
        result([], classes=("ill", "odd") if fault == "classes" else ("well", "ill")),
    ]
    with pytest.raises(ResultError, match=message):
        find_common(results, [one, other], NAMES)


def test_holm_and_mcnemar():
    row = compare(*[outcomes({"none": [1, 1, 0, 0]})] * 2).numbers[0]
    values = (0.04, 0.01, 0.03, 0.5)
    adjusted = adjust([msgspec.structs.replace(row, p_value=value) for value in values])
    assert [one.p_adjusted for one in adjusted] == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert exact_mcnemar(9, 1) == pytest.approx(22 / 1024)
    assert exact_mcnemar(1, 9) == exact_mcnemar(9, 1)


def test_the_headline_is_where_both_met_most():
    one = outcomes({"none": [1] * 4, "pgd": [1] * 4})
    results = [result(["pgd"]), result(["pgd"])]
    for place, extra in ((0, ["a", "b"]), (1, ["c"])):
        number = {
            "norm": "linf",
            "eps": 0.01,
            "eps_units": "image",
            "eps_image": 0.01,
            "target": "",
        }
        results[place].results += [
            SimpleNamespace(attack=name, unit="slice", **number) for name in (*extra, "worst")
        ]
    assert compare(one, one, results).at == Budget("linf", EPS, "image", EPS)
