"""Numbers from the outcomes table: accuracy, confusion, and the worst case of each image.

The table is a mapping of columns (numpy arrays of equal length) with the names of
`outcomes.parquet`: a row for each image, attack and radius. Labels, predictions and targets are
class names; `group` is the patient, with ids that differ only by a trailing letter held together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from robustmri.evaluation.intervals import patient_accuracy, share_interval
from robustmri.results.budget import CLEAN, WORST, Budget
from robustmri.results.outcomes import Column, Outcomes, find_right, numbered
from robustmri.results.schema import Confusion, Result

Rows = npt.NDArray[np.intp]
NO_ROWS: Rows = np.array([], dtype=np.intp)


class Setting(NamedTuple):
    """An attack within a budget."""

    attack: str
    budget: Budget


def find_settings(outcomes: Outcomes) -> dict[Setting, Rows]:
    """Rows of each attack and budget, in the order in which they first appear."""
    n = len(outcomes["attack"])
    if not n:
        return {}
    code = np.zeros(n, dtype=np.int64)
    for name in ("attack", "norm", "eps_units", "target", "eps", "eps_image"):
        column = outcomes[name]
        if name.startswith("eps") and name != "eps_units":
            radii = np.asarray(column, dtype=np.float64)
            column = np.where(np.isfinite(radii), radii + 0.0, np.inf)
        values, places = numbered(column)
        code = code * len(values) + places
    _, first, places = np.unique(code, return_index=True, return_inverse=True)
    order = np.argsort(places, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(places, minlength=len(first)))[:-1])
    found = {}
    for row, rows in sorted(zip(first.tolist(), parts, strict=True), key=lambda one: one[0]):
        budget = Budget(
            str(outcomes["norm"][row]),
            finite(outcomes["eps"][row]),
            str(outcomes["eps_units"][row]),
            finite(outcomes["eps_image"][row]),
            str(outcomes["target"][row]),
        )
        found[Setting(str(outcomes["attack"][row]), budget)] = rows
    return found


def finite(number: Any) -> float | None:
    """The number; None where there is none, of which tables say infinite."""
    return float(number) if np.isfinite(number) else None


def count_confusion(
    labels: Column, predictions: Column, classes: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Counts, rows true and columns predicted.

    >>> count_confusion(np.array(["a", "a", "b"]), np.array(["a", "b", "b"]), ["a", "b"]).tolist()
    [[1, 1], [0, 1]]
    """
    place = {name: number for number, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, ([place[name] for name in labels], [place[name] for name in predictions]), 1)
    return counts


def worst_case(outcomes: Outcomes) -> Outcomes:
    """For each image and budget the worst that any attack did, as further rows with attack "worst".

    An image counts as right only if it withstood every attack, and was right before any: the image
    itself lies in S(x). Of several successes the one that leaves the true label least confidence is
    kept. Gradients and forwards are those of all attacks together. Minimal-norm attacks (infinite
    eps) have another budget and take no part.
    """
    settings = find_settings(outcomes)
    clean = np.concatenate(
        [rows for setting, rows in settings.items() if setting.attack == CLEAN] or [NO_ROWS]
    )
    budgets: dict[Budget, list[Rows]] = {}
    for (attack, budget), rows in settings.items():
        if attack not in (CLEAN, WORST) and budget.eps is not None:
            budgets.setdefault(budget, []).append(rows)
    parts = [
        _worst_within(outcomes, budget, np.concatenate(rows), clean)
        for budget, rows in budgets.items()
    ]
    if not parts:
        return Outcomes({name: column[:0] for name, column in outcomes.items()})
    return Outcomes({name: np.concatenate([part[name] for part in parts]) for name in outcomes})


def worst_budgets(outcomes: Outcomes) -> list[Budget]:
    """Budgets of which the table holds the worst case."""
    return [setting.budget for setting in find_settings(outcomes) if setting.attack == WORST]


def _worst_within(
    outcomes: Outcomes, budget: Budget, attacked: Rows, clean: Rows
) -> dict[str, Column]:
    images = outcomes["index"][attacked]
    rows = np.concatenate([attacked, clean[np.isin(outcomes["index"][clean], images)]])
    columns = {name: column[rows] for name, column in outcomes.items()}
    columns["target"] = np.full(len(rows), budget.target, dtype=object)
    right = find_right(Outcomes(columns))
    order = np.lexsort((columns["label_confidence"].astype(float), right, columns["index"]))
    _, first = np.unique(columns["index"][order], return_index=True)
    chosen = order[first]
    worst = {name: column[chosen] for name, column in columns.items()}
    n = len(chosen)
    told = {"attack": WORST, "norm": budget.norm, "eps_units": budget.eps_units, "broken_by": ""}
    for name, value in told.items():
        worst[name] = np.full(n, value, dtype=object)
    worst["eps"] = np.full(n, budget.eps)
    worst["eps_image"] = np.full(n, outcomes["eps_image"][attacked[0]], dtype=np.float64)
    worst["fooled"] = ~right[chosen]
    _, owner = np.unique(images, return_inverse=True)
    for name in {"gradients", "forwards"} & set(outcomes):
        spent = np.bincount(owner, weights=outcomes[name][attacked].astype(float))
        worst[name] = spent.astype(outcomes[name].dtype)
    return worst


def summarise(
    outcomes: Outcomes,
    *,
    suites: Mapping[str, Sequence[str]] | None = None,
    level: float = 0.95,
) -> list[Result]:
    """Accuracy of each attack and budget by slice and by patient, with intervals by patient.

    `suites` names the members of each attack that is made of several, in their order.

    `median_distance` (minimal-norm attacks, in their norm) is over slices that were right before; a
    slice that was not fooled counts as infinitely far, and the median is None where that is so for
    half of them.
    """
    right, alone, found = find_right(outcomes), count_alone(outcomes), []
    for (attack, budget), rows in find_settings(outcomes).items():
        correct, patients = right[rows], outcomes["group"][rows]
        limited = attack != CLEAN and budget.eps is not None
        by_slice = share_interval(correct, patients, level=level)
        by_patient = patient_accuracy(correct, patients, level=level)
        numbers = (
            ("slice", len(rows), float(np.mean(correct)), by_slice),
            ("patient", by_patient.n, by_patient.accuracy, by_patient.interval),
        )
        for unit, n, share, interval in numbers:
            result = Result(
                attack=attack,
                norm=budget.norm,
                eps=budget.eps if limited else None,
                eps_units=cast(Literal["image", "normalised"], budget.eps_units),
                eps_image=budget.eps_image if limited else None,
                target=budget.target,
                unit=cast(Literal["slice", "patient"], unit),
                n=n,
                accuracy=share,
                ci_low=interval.low,
                ci_high=interval.high,
                interval=interval.method,
                median_distance=None
                if limited or attack == CLEAN
                else _median_distance(outcomes, rows, budget.norm),
                only=alone.get(Setting(attack, budget)) if unit == "slice" else None,
                broken_by=count_broken_by(outcomes, rows, (suites or {}).get(attack, ()))
                if unit == "slice"
                else {},
            )
            found.append(result)
    return found


def count_alone(outcomes: Outcomes) -> dict[Setting, int]:
    """For each attack the images, right untouched, that it fooled and no other attack of its
    budget.

    Attacks that were run on fewer images than the others take no part, nor do budgets with one
    attack only.
    """
    settings = find_settings(outcomes)
    broken = ~find_right(outcomes) & (outcomes["clean_prediction"] == outcomes["label"])
    budgets: dict[Budget, dict[Setting, Rows]] = {}
    for setting, rows in settings.items():
        if setting.attack not in (CLEAN, WORST) and setting.budget.eps is not None:
            budgets.setdefault(setting.budget, {})[setting] = rows
    counts: dict[Setting, int] = {}
    for attacks in budgets.values():
        most = max(map(len, attacks.values()))
        fooled = {
            setting: np.unique(outcomes["index"][rows[broken[rows]]])
            for setting, rows in attacks.items()
            if len(rows) == most
        }
        if len(fooled) > 1:
            met, times = np.unique(np.concatenate(list(fooled.values())), return_counts=True)
            once = met[times == 1]
            counts |= {
                setting: int(np.isin(images, once).sum()) for setting, images in fooled.items()
            }
    return counts


def count_broken_by(outcomes: Outcomes, rows: Rows, members: Sequence[str]) -> dict[str, int]:
    """How many of the rows each member of a suite broke, in their order; nothing where none of them
    broke any.

    So a suite's curve has none: that is one search over all radii, and no member's own.
    """
    counts = Counter(outcomes["broken_by"][rows].tolist()) if members else Counter()
    return {name: counts[name] for name in members} if any(counts[name] for name in members) else {}


def _median_distance(outcomes: Outcomes, rows: Rows, norm: str) -> float | None:
    rows = rows[outcomes["clean_prediction"][rows] == outcomes["label"][rows]]
    if not len(rows):
        return None
    distance = np.where(
        find_right(outcomes)[rows], np.inf, outcomes[f"distance_{norm}"][rows].astype(float)
    )
    return finite(np.quantile(distance, 0.5, method="higher"))


def count_confusions(outcomes: Outcomes, classes: Sequence[str]) -> list[Confusion]:
    """Confusion of each attack and budget without a target."""
    return [
        Confusion(
            attack=attack,
            norm=budget.norm,
            eps_units=budget.eps_units,
            eps=budget.eps if attack != CLEAN and budget.eps is not None else None,
            counts=count_confusion(
                outcomes["label"][rows], outcomes["prediction"][rows], classes
            ).tolist(),
        )
        for (attack, budget), rows in find_settings(outcomes).items()
        if not budget.target
    ]
