from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from robustmri.evaluation.metrics import summarise
from robustmri.report.sections.worst_patients import find_worst
from robustmri.results.budget import CLEAN, NO_BUDGET, Budget
from robustmri.results.cases import CaseTable
from robustmri.results.outcomes import (
    Outcomes,
    confidence_when_fooled,
    count_classes,
    count_patients,
    count_turned,
    load_outcomes,
)
from robustmri.results.schema import load_result

AT = Budget("linf", 0.04, "image", 0.04)


def table(**columns):
    n = len(next(iter(columns.values())))
    whole = {
        "case_id": [str(k) for k in range(n)],
        "patient_id": ["p"] * n,
        "group": ["p"] * n,
        "label": ["a"] * n,
        "attack": ["pgd"] * n,
        "norm": ["linf"] * n,
        "eps": [0.04] * n,
        "eps_units": ["image"] * n,
        "target": [""] * n,
        "prediction": ["a"] * n,
        "confidence": [0.9] * n,
    } | columns
    return Outcomes({name: np.array(values, dtype=object) for name, values in whole.items()})


def test_counts_agree_with_the_result_file(pair):
    for folder in pair:
        outcomes, result = load_outcomes(folder), load_result(folder)
        clean, attacked = outcomes.rows(CLEAN, NO_BUDGET), outcomes.rows("worst", AT)
        counts = count_classes(clean, attacked, result.cohort.classes)
        number = next(
            number
            for number in result.results
            if (number.attack, number.eps, number.unit) == ("worst", 0.04, "slice")
        )
        assert sum(count.n for count in counts) == number.n
        assert sum(count.attacked for count in counts) == round(number.accuracy * number.n)
        assert count_patients(outcomes.rows("worst", AT)).total == result.split.n_patients


def test_patients_are_sorted_by_what_is_left():
    rows = table(group=["x", "x", "y", "y", "z"], prediction=["a", "a", "a", "b", "b"])
    fates = count_patients(rows)
    assert (fates.every, fates.some, fates.none) == (1, 1, 1)


def test_confidence_counts_only_what_the_attack_changed():
    clean = table(prediction=["a", "a", "a", "b"])
    attacked = table(prediction=["b", "b", "a", "b"], confidence=[0.8, 0.6, 0.9, 0.1])
    assert confidence_when_fooled(clean, attacked) == pytest.approx(0.7)
    assert confidence_when_fooled(clean, clean) is None


def test_rows_of_another_budget_stay_out():
    rows = table(
        eps=[0.04, 0.02, 0.04, 0.04],
        eps_units=["image", "image", "normalised", "image"],
        target=["", "", "", "b"],
    )
    assert rows.rows("pgd", AT)["case_id"].tolist() == ["0"]
    assert rows.rows("pgd", Budget("linf", 0.04, "image", 0.04, "b"))["case_id"].tolist() == ["3"]


def test_a_class_without_a_slice_is_left_out():
    rows = table(label=["a", "b"] * 2, attack=["none", "none", "pgd", "pgd"])
    counts = count_classes(rows.rows(CLEAN, NO_BUDGET), rows.rows("pgd", AT), ["b", "c", "a"])
    assert [(count.label, count.n, count.clean, count.attacked) for count in counts] == [
        ("b", 1, 0, 0),
        ("a", 1, 1, 1),
    ]
    assert len(rows) == len(list(rows)) == 11


def test_the_worst_patients_are_those_who_lose_most():
    source, names, n = np.random.default_rng(0), np.array(list("abc"), dtype=object), 400
    cases = np.array([f"c{number}" for number in range(n)], dtype=object)
    patients = np.array([f"P{number}" for number in source.integers(0, 40, n)], dtype=object)
    labels, clean, attacked = (names[source.integers(0, 3, n)] for _ in range(3))
    told = {"case_id": cases, "patient_id": patients, "label": labels}
    parts = table(**told, prediction=clean, attack=[CLEAN] * n), table(**told, prediction=attacked)
    outcomes = Outcomes({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    found = find_worst(outcomes, "pgd", AT)
    expected = []
    for patient in set(patients):
        own = [k for k in range(n) if patients[k] == patient]
        lost = [k for k in own if clean[k] == labels[k] != attacked[k]]
        called = Counter(sorted(attacked[k] for k in lost)).most_common(1)
        expected.append((-len(lost) / len(own), -len(lost), patient, called and called[0][0]))
    assert [
        (-one["lost"] / one["n"], -one["lost"], one["patient"], one["as"]) for one in found
    ] == (sorted(expected)[:10])


def test_with_a_target_another_wrong_answer_is_no_success():
    """Called something else, turned, turned from another wrong answer, wrong in that way anyway."""
    aim = Budget("linf", 0.04, "image", 0.04, "c")
    same = {"patient_id": list("wxyz"), "group": list("wxyz"), "clean_prediction": list("aabc")}
    same |= {"index": [0, 1, 2, 3], "eps_image": [0.04] * 4}
    before = table(**same, attack=[CLEAN] * 4, prediction=list("aabc"))
    after = table(
        **same, target=["c"] * 4, prediction=list("bccc"), confidence=[0.9, 0.6, 0.8, 1.0]
    )
    whole = Outcomes({name: np.concatenate([before[name], after[name]]) for name in before})
    clean, attacked = whole.rows(CLEAN, NO_BUDGET), whole.rows("pgd", aim)
    accuracy = next(one.accuracy for one in summarise(whole) if one.target)
    (count,) = count_classes(clean, attacked, ["a", "b", "c"], "c")
    assert (count.n, count.clean, count.attacked) == (4, 3, round(4 * accuracy)) == (4, 3, 1)
    fates = count_patients(clean, "c"), count_patients(attacked)
    assert [(one.every, one.none) for one in fates] == [(3, 1), (1, 3)]
    assert count_turned(clean, attacked, "c").turned == 2
    assert confidence_when_fooled(clean, attacked, "c") == pytest.approx(0.7)
    assert [one["patient"] for one in find_worst(whole, "pgd", aim)] == ["x", "y"]
    cases = CaseTable.of(whole)
    assert cases.right_under("pgd", aim).tolist() == [1, 0, 0, 0]
    assert cases.fates("pgd", aim).tolist() == ["holds", "falls", "wrong", "wrong"]
