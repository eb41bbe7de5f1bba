"""Two results side by side: the slices that both were tested on, what the same attacks left of
them, and the difference with an interval by patient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from robustmri.core.errors import ResultError
from robustmri.core.sizes import size_words
from robustmri.evaluation.intervals import paired_difference
from robustmri.evaluation.metrics import Setting, find_settings, worst_case
from robustmri.results.budget import CLEAN, NO_BUDGET, TITLES, WORST, Budget
from robustmri.results.comparison import Comparison, Paired, PatientTurn, Side
from robustmri.results.headline import main_budget
from robustmri.results.lineage import repairs
from robustmri.results.outcomes import Outcomes, find_right
from robustmri.results.schema import RobustnessReport

Words = Callable[[Budget], str]


class Slices(NamedTuple):
    """The slices that both were tested on, by id, and whose they are."""

    ids: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]
    labels: npt.NDArray[np.str_]


class Rights(NamedTuple):
    """Of the same slices, whether each of the two withstood."""

    place: npt.NDArray[np.intp]
    first: npt.NDArray[np.bool_]
    second: npt.NDArray[np.bool_]


def compare_results(
    results: Sequence[RobustnessReport],
    outcomes: Sequence[Outcomes],
    names: Sequence[str],
    *,
    words: Words,
    draws: int = 2000,
) -> Comparison:
    """Pair two results by slice, and draw intervals by patient.

    Only slices that both were tested on count, and only attacks that both met within the same
    budget; the worst case is that of the attacks that both met. What is left out is said in
    `Comparison.scope`.

    Args:
        results: two of them.
        outcomes: of each, with all columns.
        names: how each is called.
        words: says a budget, for the sentences.
        draws: bootstrap samples, and permutations.

    Raises:
        ResultError: other classes, no slice in common, or slices of one id that are not the same.
    """
    slices = find_common(results, outcomes, names)
    at, tables = main_budget(results), [_with_shared_worst(outcomes, place) for place in (0, 1)]
    found = [find_settings(table) for table in tables]
    untouched = Setting(CLEAN, NO_BUDGET)
    shared = [one for one in found[0] if one.attack != CLEAN and one in found[1]]
    titles = dict(TITLES) | {run.attack: run.title for run in results[0].attacks}

    def measure(setting: Setting, label: str = "") -> Paired | None:
        rights = _rights(tables, setting, slices)
        if label:
            rights = _only(rights, slices.labels[rights.place] == label)
        if not len(rights.place):
            return None
        name = titles.get(setting.attack, setting.attack)
        return _pair(setting, name, label, rights, slices, draws)

    numbers = [number for one in (untouched, *shared) if (number := measure(one)) is not None]
    main = _main_setting(shared, at)
    classes = [
        [number for label in results[0].cohort.classes if (number := measure(one, label))]
        for one in (untouched, main)
        if one is not None
    ]
    return Comparison(
        first=_side(results[0], names[0]),
        second=_side(results[1], names[1]),
        repairs=repairs(results),
        at=at,
        scope=_say_scope(results, outcomes, names, slices, found, words),
        numbers=adjust(numbers),
        classes=[one for rows in classes for one in adjust(rows)],
        patients=_turned_patients(_rights(tables, main, slices), slices) if main else [],
    )


def find_common(
    results: Sequence[RobustnessReport], outcomes: Sequence[Outcomes], names: Sequence[str]
) -> Slices:
    """The slices that both were tested on, sorted by id; errors as `compare_results`'."""
    one, other = (sorted(result.cohort.classes) for result in results)
    if one != other:
        raise ResultError(
            f"{names[0]} tells apart {', '.join(one)}, and {names[1]} {', '.join(other)}, so they "
            "cannot be compared. Evaluate both with the same classes (--classes THEIRS=OURS "
            "renames and merges)."
        )
    known = [_facts(table) for table in outcomes]
    shared = sorted(known[0].keys() & known[1].keys())
    if not shared:
        raise ResultError(
            f"{names[0]} and {names[1]} were measured on different slices, none in common, so they "
            "cannot be paired. Evaluate both on the same cohort, or write two reports."
        )
    unlike = [case for case in shared if known[0][case] != known[1][case]]
    if unlike:
        raise ResultError(
            f"{names[0]} and {names[1]} name {len(unlike)} of {len(shared)} slices alike that have "
            f"another patient or label (case {unlike[0]!r}), so they are not the same scans. "
            "Evaluate both on the same cohort, or write two reports."
        )
    facts = np.array([known[0][case] for case in shared], dtype=str)
    return Slices(np.array(shared, dtype=str), *facts.T)


def adjust(numbers: Sequence[Paired]) -> list[Paired]:
    """The same with `p_adjusted` by Holm's method over all of them.

    Reference: Holm 1979.
    """
    values = np.array([number.p_value for number in numbers])
    order, n = np.argsort(values, kind="stable"), len(values)
    steps = np.minimum(np.maximum.accumulate(values[order] * (n - np.arange(n))), 1.0)
    adjusted = np.empty(n)
    adjusted[order] = steps
    return [
        msgspec.structs.replace(number, p_adjusted=float(value))
        for number, value in zip(numbers, adjusted, strict=True)
    ]


def exact_mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test.

    Reference: McNemar 1947.

    >>> exact_mcnemar(5, 0), exact_mcnemar(3, 3), exact_mcnemar(0, 0)
    (0.0625, 1.0, 1.0)
    """
    n, fewer = gained + lost, min(gained, lost)
    tail: int = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**n))


def _facts(outcomes: Outcomes) -> dict[str, tuple[str, str, str]]:
    """Patient, group and label of each case."""
    clean = outcomes.rows(CLEAN, NO_BUDGET)
    cases, *facts = (
        clean[name].astype(str) for name in ("case_id", "patient_id", "group", "label")
    )
    return dict(zip(cases, zip(*facts, strict=True), strict=True))


def _with_shared_worst(outcomes: Sequence[Outcomes], place: int) -> Outcomes:
    """One of the two tables; where the attacks within a budget differ, its worst case is taken anew
    over those that both met.
    """
    table = outcomes[place]
    met = [_attacks(one) for one in outcomes]
    uneven = {at for at in met[0].keys() & met[1].keys() if met[0][at] != met[1][at]}
    if not uneven:
        return table
    keep = np.ones(len(table["attack"]), dtype=bool)
    alone = np.zeros(len(keep), dtype=bool)
    for (attack, at), rows in find_settings(table).items():
        if at in uneven:
            keep[rows] = attack != WORST
            alone[rows] = attack not in met[0][at] & met[1][at]
        elif attack != CLEAN:
            alone[rows] = True
    kept = Outcomes({name: column[keep] for name, column in table.items()})
    worst = worst_case(Outcomes({name: column[~alone] for name, column in table.items()}))
    return Outcomes({name: np.concatenate([kept[name], worst[name]]) for name in table})


def _attacks(outcomes: Outcomes) -> dict[Budget, set[str]]:
    met: dict[Budget, set[str]] = {}
    for attack, at in find_settings(outcomes):
        if attack not in (CLEAN, WORST) and at.eps is not None:
            met.setdefault(at, set()).add(attack)
    return met


def _main_setting(shared: Sequence[Setting], at: Budget | None) -> Setting | None:
    here = [one for one in shared if at is not None and one.budget == at]
    return min(here, key=lambda one: one.attack != WORST, default=None)


def _rights(tables: Sequence[Outcomes], setting: Setting, slices: Slices) -> Rights:
    """Whether each of the two withstood an attack, on the common slices that both met it with."""
    withstood = []
    for table in tables:
        rows = table.rows(setting.attack, setting.budget)
        right = dict(zip(rows["case_id"].astype(str), find_right(rows).tolist(), strict=True))
        withstood.append(np.array([right.get(case, -1) for case in slices.ids], dtype=np.int8))
    place = np.flatnonzero((withstood[0] >= 0) & (withstood[1] >= 0))
    return Rights(place, withstood[0][place] == 1, withstood[1][place] == 1)


def _only(rights: Rights, keep: npt.NDArray[np.bool_]) -> Rights:
    return Rights(rights.place[keep], rights.first[keep], rights.second[keep])


def _pair(
    setting: Setting,
    title: str,
    label: str,
    rights: Rights,
    slices: Slices,
    draws: int,
) -> Paired:
    place, first, second = rights
    groups = slices.groups[place]
    change = paired_difference(first, second, groups, draws=draws)
    names, owner = np.unique(groups, return_inverse=True)
    size = np.bincount(owner, minlength=len(names))
    before, after = (
        2 * np.bincount(owner, weights=right, minlength=len(names)) > size
        for right in (first, second)
    )
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return Paired(
        attack=setting.attack,
        title=title,
        budget=setting.budget,
        label=label,
        n=len(place),
        n_patients=change.n_patients,
        first=float(first.mean()),
        second=float(second.mean()),
        difference=change.difference,
        low=change.low,
        high=change.high,
        method=change.method,
        p_value=change.p_value,
        p_adjusted=change.p_value,
        saved=int((second & ~first).sum()),
        lost=int((first & ~second).sum()),
        patients_saved=gained,
        patients_lost=lost,
        p_patients=exact_mcnemar(gained, lost),
    )


def _turned_patients(rights: Rights, slices: Slices) -> list[PatientTurn]:
    """Patients with a slice that turned; the most saved first."""
    place, first, second = rights
    turns = []
    for patient in np.unique(slices.patients[place]):
        here = slices.patients[place] == patient
        one, other = first[here], second[here]
        turn = PatientTurn(
            patient_id=str(patient),
            label=", ".join(np.unique(slices.labels[place][here])),
            n=int(here.sum()),
            first=int(one.sum()),
            second=int(other.sum()),
            saved=int((other & ~one).sum()),
            lost=int((one & ~other).sum()),
        )
        if turn.saved or turn.lost:
            turns.append(turn)
    return sorted(turns, key=lambda turn: (turn.lost - turn.saved, turn.patient_id))


def _side(result: RobustnessReport, name: str) -> Side:
    model = result.model
    return Side(
        name=name,
        backbone=model.backbone,
        training=model.name,
        checkpoint_sha256=model.checkpoint_sha256,
        outcomes_sha256=result.files.get("outcomes.parquet", ""),
    )


def _say_scope(
    results: Sequence[RobustnessReport],
    outcomes: Sequence[Outcomes],
    names: Sequence[str],
    slices: Slices,
    found: Sequence[dict[Setting, npt.NDArray[np.intp]]],
    words: Words,
) -> list[str]:
    """What is compared, and what is not."""
    tested = [len(set(table.rows(CLEAN, NO_BUDGET)["case_id"])) for table in outcomes]
    n, patients = len(slices.ids), len(np.unique(slices.groups))
    said = f"Compared on the {n} slices of {patients} patients that both were tested on"
    rest = [
        f"{count - n} more of {name}"
        for count, name in zip(tested, names, strict=True)
        if count > n
    ]
    scope = [said + (f"; {' and '.join(rest)} are left out." if rest else ".")]
    one, other = (result.cohort for result in results)
    if one.fingerprint != other.fingerprint:
        scope.append(
            f"The slices were prepared twice ({size_words(one.size)} {one.intensity}; "
            f"{size_words(other.size)} {other.intensity}) and are matched by id, patient and label."
        )
    if results[0].split.fingerprint != results[1].split.fingerprint:
        scope.append("The two were not split alike: each was tested on patients of its own test.")
    regions = [result.asked.region for result in results]
    if regions[0] != regions[1]:
        scope.append(
            f"{names[0]} was attacked in the {regions[0]}, {names[1]} in the {regions[1]}: what is "
            "said of attacks is not of the same attacker."
        )
    limits = [
        (one.asked.max_gradients, one.asked.max_forwards, one.asked.max_seconds) for one in results
    ]
    if limits[0] != limits[1]:
        scope.append(
            "Their attacks may spend different amounts on an image, so that the one that may spend "
            "less withstands more than it would."
        )
    return scope + _say_attacks(results, names, found, words)


def _say_attacks(
    results: Sequence[RobustnessReport],
    names: Sequence[str],
    found: Sequence[dict[Setting, npt.NDArray[np.intp]]],
    words: Words,
) -> list[str]:
    """Radii and attacks that only one met, and those that were set otherwise."""
    scope = []
    titles = {run.attack: run.title for result in results for run in result.attacks}
    budgets = [{one.budget for one in settings if one.attack != CLEAN} for settings in found]
    for place, name in enumerate(names):
        alone = sorted({words(at) for at in budgets[place] - budgets[1 - place]})
        if alone:
            scope.append(f"Only {name} was attacked within {', '.join(alone)}: not compared.")
    if budgets[0] and budgets[1] and not budgets[0] & budgets[1]:
        scope.append("They share no budget, so only untouched slices are compared.")
    for place, name in enumerate(names):
        alone = sorted(
            {
                titles.get(one.attack, one.attack)
                for one in found[place].keys() - found[1 - place].keys()
                if one.budget in budgets[1 - place] and one.attack not in (CLEAN, WORST)
            }
        )
        if alone:
            scope.append(
                f"Only {name} met {', '.join(alone)}: not compared, and no part of the worst case."
            )
    runs = [{run.attack: run.settings for run in result.attacks} for result in results]
    other = sorted(
        titles[name] for name in runs[0].keys() & runs[1].keys() if runs[0][name] != runs[1][name]
    )
    if other:
        scope.append(f"Run with other settings on each: {', '.join(other)}.")
    return scope
