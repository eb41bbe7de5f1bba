"""Patients rather than slices: who is right, who is affected, which confusion costs what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from robustmri.evaluation.intervals import mean_interval, patient_accuracy, share_interval
from robustmri.evaluation.metrics import NO_ROWS, Rows, Setting, find_settings
from robustmri.results.budget import CLEAN, CORRUPTION, NO_BUDGET, WORST
from robustmri.results.outcomes import Column, Outcomes, find_right, met, numbered
from robustmri.results.patients import (
    Cost,
    Endpoint,
    MeanCost,
    Mistake,
    PatientFigures,
    PatientShare,
    Stratum,
)

LEVEL = 0.95
SIZES = ("small", "middle", "large")
"""Thirds of the slices that have a lesion, by its share of the picture."""
Flags = npt.NDArray[np.bool_]


def summarise_patients(
    outcomes: Outcomes, classes: Sequence[str], *, costs: Sequence[Cost] = ()
) -> PatientFigures:
    """Endpoints of every worst case, and strata, mistakes and costs under that of the headline.

    Args:
        outcomes: table with the rows of "worst" in it; planes, sizes of lesions and probabilities
            where it has them.
        classes: in the order of the classifier.
        costs: of every wrong answer, as `read_costs` gives them; none for no mean cost.
    """
    settings = find_settings(outcomes)
    clean = next((s for s in settings if s.attack == CLEAN), Setting(CLEAN, NO_BUDGET))
    worst = [setting for setting in settings if setting.attack == WORST]
    main = _headline(settings)
    before, after = settings.get(clean, NO_ROWS), settings.get(main, NO_ROWS) if main else NO_ROWS
    budget = main.budget if main else NO_BUDGET
    same = _of_same_slices(outcomes, before, after) if main else before
    strata = list(_strata(outcomes, same)) if main else []
    level = 1 - (1 - LEVEL) / max(1, len(strata))
    return PatientFigures(
        shares=[
            share
            for setting in ([clean, *worst] if len(before) else [])
            for share in _share(outcomes, classes, setting, settings[setting], before)
        ],
        attack=main.attack if main else "",
        norm=budget.norm,
        eps=budget.eps,
        eps_units=budget.eps_units,
        target=budget.target,
        level=level,
        strata=[
            _measure(outcomes, by, name, chosen, budget.target, same, after, level)
            for by, name, chosen in strata
        ],
        mistakes=_count_mistakes(outcomes, classes, same, after),
        costs=list(costs),
        mean_costs=_mean_costs(outcomes, costs, [(CLEAN, same), (WORST, after)]) if costs else [],
    )


def _headline(settings: dict[Setting, Rows]) -> Setting | None:
    """The worst case of the budget that most attacks were run in, of these the first; what is
    measured beside, by a scanner or in another threat than the first, is no headline.
    """
    within = [
        setting.budget
        for setting in settings
        if setting.attack not in (CLEAN, WORST)
        and setting.budget.eps
        and setting.budget.norm != CORRUPTION
    ]
    attacks: dict[Setting, int] = {}
    for budget in within:
        if budget.norm == within[0].norm:
            worst = Setting(WORST, budget)
            attacks[worst] = attacks.get(worst, 0) + 1
    return max(attacks, key=lambda one: attacks[one], default=None)


def _share(
    outcomes: Outcomes, classes: Sequence[str], setting: Setting, rows: Rows, before: Rows
) -> Iterator[PatientShare]:
    """A share for each endpoint that the table can tell."""
    budget, same = setting.budget, _of_same_slices(outcomes, before, rows)
    untouched = dict(_right_patients(outcomes, classes, same, budget.target))
    for endpoint, right in _right_patients(outcomes, classes, rows, budget.target):
        found = patient_accuracy(right, np.arange(len(right)))
        was = untouched[endpoint]
        yield PatientShare(
            endpoint=endpoint,
            attack=setting.attack,
            norm=budget.norm,
            eps=None if setting.attack == CLEAN else budget.eps,
            eps_units=budget.eps_units,
            target=budget.target,
            n=len(right),
            accuracy=found.accuracy,
            ci_low=found.interval.low,
            ci_high=found.interval.high,
            interval=found.interval.method,
            of=int(was.sum()),
            turned=int((was & ~right).sum()),
        )


def _of_same_slices(outcomes: Outcomes, untouched: Rows, attacked: Rows) -> Rows:
    """Those of the untouched rows whose slices were attacked: with a target, slices that are of its
    class are not.
    """
    return untouched[np.isin(outcomes["index"][untouched], outcomes["index"][attacked])]


def _right_slices(outcomes: Outcomes, rows: Rows, target: str) -> Flags:
    asked = {name: outcomes[name][rows] for name in ("label", "prediction", "target")}
    return find_right(asked, target)


def _right_patients(
    outcomes: Outcomes, classes: Sequence[str], rows: Rows, target: str
) -> Iterator[tuple[Endpoint, Flags]]:
    """Per patient, in the order of their ids, whether they are right."""
    right = _right_slices(outcomes, rows, target)
    _, patient = numbered(outcomes["group"][rows])
    sizes = np.bincount(patient)
    kept = np.bincount(patient, weights=right)
    yield "every slice", kept == sizes
    yield "majority", 2 * kept > sizes
    if "probabilities" not in outcomes:
        return
    given = outcomes["probabilities"][rows]
    if given.ndim == 1:  # Lists, of which one may be missing or of another length.
        given = np.stack([np.asarray(one, dtype=float) for one in given])
    sums = np.zeros((len(sizes), len(classes)))
    np.add.at(sums, patient, given)
    labels = np.zeros_like(sums)
    place = {name: number for number, name in enumerate(classes)}
    named_as = np.array([place[label] for label in outcomes["label"][rows]], dtype=np.intp)
    np.add.at(labels, (patient, named_as), 1)
    answer, truth = sums.argmax(axis=1), labels.argmax(axis=1)
    named = answer == truth if not target else (answer != place[target]) | (truth == place[target])
    yield "mean probability", named & np.isfinite(sums).all(axis=1)


def _strata(outcomes: Outcomes, before: Rows) -> Iterator[tuple[str, str, Column]]:
    """What the slices are divided by, the part's name, and the indexes of its slices."""
    index = outcomes["index"][before]
    for by, column in (("class", "label"), ("plane", "plane")):
        values = outcomes[column][before].astype(str) if column in outcomes else np.array([])
        names = [name for name in dict.fromkeys(values.tolist()) if name]
        if len(names) > 1 or by == "class":
            for name in sorted(names):
                yield by, name, index[values == name]
    if "lesion_area" not in outcomes:
        return
    share = outcomes["lesion_area"][before].astype(float)
    known = np.isfinite(share) & (share > 0)
    if known.sum() < len(SIZES):
        return
    edges = np.quantile(share[known], [1 / 3, 2 / 3])
    size = np.digitize(share, edges, right=True)
    limits = [f"{100 * edge:.2g} %" for edge in edges]
    said = (f"up to {limits[0]}", f"up to {limits[1]}", f"above {limits[1]}")
    for number, (name, of) in enumerate(zip(SIZES, said, strict=True)):
        chosen = index[known & (size == number)]
        if len(chosen):
            yield "lesion size", f"{name} ({of} of the picture)", chosen


def _measure(
    outcomes: Outcomes,
    by: str,
    name: str,
    chosen: Column,
    target: str,
    before: Rows,
    after: Rows,
    level: float,
) -> Stratum:
    untouched, attacked = (
        rows[np.isin(outcomes["index"][rows], chosen)] for rows in (before, after)
    )
    patients, right = outcomes["group"][attacked], _right_slices(outcomes, attacked, target)
    interval = share_interval(right, patients, level=level)
    return Stratum(
        by=by,  # type: ignore[arg-type]
        name=name,
        n_slices=len(attacked),
        n_patients=len(met(patients)[0]),
        clean=float(_right_slices(outcomes, untouched, target).mean()),
        accuracy=float(right.mean()),
        ci_low=interval.low,
        ci_high=interval.high,
        interval=interval.method,
    )


def _count_mistakes(
    outcomes: Outcomes, classes: Sequence[str], before: Rows, after: Rows
) -> list[Mistake]:
    """Every pair of classes that is confused at all, the ones confused most under attack first."""
    found = []
    for truth in classes:
        for answer in classes:
            untouched, attacked = (
                rows[(outcomes["label"][rows] == truth) & (outcomes["prediction"][rows] == answer)]
                for rows in (before, after)
            )
            if truth != answer and (len(untouched) or len(attacked)):
                found.append(
                    Mistake(
                        truth=truth,
                        answer=answer,
                        clean=len(untouched),
                        attacked=len(attacked),
                        patients=len(set(outcomes["group"][attacked].tolist())),
                    )
                )
    return sorted(found, key=lambda one: -one.attacked)


def _mean_costs(
    outcomes: Outcomes, costs: Sequence[Cost], settings: list[tuple[str, Rows]]
) -> list[MeanCost]:
    table = {(one.truth, one.answer): one.cost for one in costs}
    found = []
    for attack, rows in settings:
        if not len(rows):
            continue
        pairs = zip(outcomes["label"][rows], outcomes["prediction"][rows], strict=True)
        values = [table.get((str(truth), str(answer)), 0.0) for truth, answer in pairs]
        interval = mean_interval(values, outcomes["group"][rows], level=LEVEL)
        found.append(
            MeanCost(
                attack=attack,
                mean=float(np.mean(values)),
                ci_low=interval.low,
                ci_high=interval.high,
                interval=interval.method,
            )
        )
    return found
