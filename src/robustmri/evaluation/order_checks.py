"""Checks of attacks against each other: what is stronger by construction must break no less, and a
radius at which nothing is left of a slice leaves nothing right.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import numpy as np

from robustmri.evaluation.budget_checks import ids_of, radius_of
from robustmri.evaluation.metrics import Rows, Setting, find_settings
from robustmri.results.budget import CLEAN, WORST, Budget
from robustmri.results.outcomes import Outcomes, find_right
from robustmri.results.schema import Check

SINGLE_STEP = ("fgsm",)
NOISE = "noise"
FEWEST_OTHERS = 5  # Slices of other classes, all of which one answer got wrong.
# A point of accuracy: what chance alone may do to orders that hold on average, not for each image.
SLACK = 0.01
LARGE_EPS = 0.5  # Any image can be made one flat grey: nothing of the scan is left.


def check_one_answer(outcomes: Outcomes) -> Check | None:
    """The classifier tells classes apart; one that answers one class to all is robust and
    useless.
    """
    rows = np.flatnonzero(outcomes["attack"] == CLEAN)
    labels, answers = (outcomes[name][rows].astype(str) for name in ("label", "prediction"))
    given = np.unique(answers)
    others = int(np.sum(labels != answers))
    if len(np.unique(labels)) < 2 or (len(given) == 1 and others < FEWEST_OTHERS):
        return None
    return Check(
        name="more than one answer",
        status="fail" if len(given) == 1 else "pass",
        detail=(
            f"All {len(rows)} untouched slices are answered {str(given[0])!r}, though {others} are "
            "another class: it is one answer, which no attack need change."
            if len(given) == 1
            else f"{len(given)} classes are answered to {len(rows)} untouched slices."
        ),
    )


def check_noise(outcomes: Outcomes, iterative: Collection[str]) -> Check | None:
    """Attacks that climb do at least as much as random noise of the same size."""
    settings = find_settings(outcomes)
    pairs = [
        (f"{many} {radius_of(budget)}", rows, settings[Setting(many, budget)])
        for (single, budget), rows in settings.items()
        if single == NOISE
        for many in dict.fromkeys(attack for attack, _ in settings)
        if many in iterative and (many, budget) in settings
    ]
    return _compare(
        outcomes,
        pairs,
        name="iterative attacks at least as strong as random noise",
        claim="{now:.1%} right under {what}, {before:.1%} under noise",
    )


def check_iterative(outcomes: Outcomes, iterative: Collection[str]) -> Check | None:
    """Many steps do at least as much as one; if not, the gradient misleads and robustness is
    overstated.
    """
    settings = find_settings(outcomes)
    drops = [
        (f"{many} {radius_of(budget)}", rows, settings[Setting(many, budget)])
        for (single, budget), rows in settings.items()
        if single in SINGLE_STEP
        for many in dict.fromkeys(attack for attack, _ in settings)
        if many in iterative
        if (many, budget) in settings
    ]
    return _compare(
        outcomes,
        drops,
        name="iterative attacks at least as strong as one step",
        claim="{now:.1%} right under {what}, {before:.1%} under one step",
    )


def check_eps_order(outcomes: Outcomes) -> Check | None:
    """A larger eps never leaves more images right; worst cases are compared where they are over the
    same attacks.

    One step may go too far where the loss is curved: what rises under such an attack alone, and
    not in the worst case, is a warning.
    """
    settings = find_settings(outcomes)
    attacks: dict[Budget, list[str]] = {}
    for attack, budget in settings:
        attacks.setdefault(budget, []).append(attack)
    clean = [rows for setting, rows in settings.items() if setting.attack == CLEAN]
    curves: dict[tuple[str, ...], list[tuple[float, Budget, Rows]]] = {}
    for (attack, budget), rows in settings.items():
        if attack != CLEAN and budget.eps is not None:
            eps_image = float(outcomes["eps_image"][rows[0]])
            # A physical threat has a unit of its own, and no radius in the image's.
            eps_image = eps_image if np.isfinite(eps_image) else budget.eps
            members = sorted(attacks[budget]) if attack == WORST else []
            curves.setdefault((attack, budget.norm, budget.target, *members), []).append(
                (eps_image, budget, rows)
            )
    pairs, firm = [], []
    for (attack, _, target, *_), points in curves.items():
        untouched = before = clean[0] if clean and not target else None
        for _, budget, rows in sorted(points, key=lambda point: point[0]):
            if before is not None:
                pairs.append((f"{attack} {radius_of(budget)}", before, rows))
                if attack not in SINGLE_STEP or before is untouched:
                    firm.append(pairs[-1])
            before = rows
    found, others = (
        _compare(
            outcomes,
            some,
            name="accuracy does not rise with eps",
            claim="{now:.1%} right under {what}, {before:.1%} at the next smaller eps",
        )
        for some in (pairs, firm)
    )
    if not found or found.status != "fail" or (others and others.status == "fail"):
        return found
    too_far = (
        " Only one step alone does so, which goes too far where the loss is curved: a warning."
    )
    return msgspec.structs.replace(found, status="warn", detail=found.detail + too_far)


def check_large_eps(
    outcomes: Outcomes, iterative: Collection[str], per_pixel: Collection[str]
) -> Check | None:
    """At eps 0.5 the classifier can do no better than to give one answer to all; if it does, the
    attack is at fault.
    """
    right = find_right(outcomes)
    reached = {
        f"{attack} {radius_of(budget)}": rows
        for (attack, budget), rows in find_settings(outcomes).items()
        if attack in (*iterative, WORST)
        and budget.norm in per_pixel
        and not budget.target
        and LARGE_EPS <= float(outcomes["eps_image"][rows[0]]) < np.inf
    }
    if not reached:
        return None
    chances = {what: _commonest(outcomes, rows) for what, rows in reached.items()}
    shares = {what: float(np.mean(right[rows])) for what, rows in reached.items()}
    above = [what for what in reached if shares[what] > chances[what]]
    numbers = "; ".join(
        f"{what}: {shares[what]:.1%} right, chance {chances[what]:.1%}" for what in reached
    )
    standing = [rows[right[rows]] for what, rows in reached.items() if what in above]
    return Check(
        name="at or below chance at eps 0.5",
        status="fail" if above else "pass",
        detail=f"{numbers} (chance: one answer to all, that of the commonest class).",
        case_ids=ids_of(outcomes, np.concatenate(standing)) if standing else [],
    )


def _compare(
    outcomes: Outcomes, pairs: Collection[tuple[str, Rows, Rows]], *, name: str, claim: str
) -> Check | None:
    """Accuracy must not rise from the first rows of a pair to the second, of the same images."""
    if not pairs:
        return None
    right = find_right(outcomes)
    rises: list[tuple[float, str]] = []
    revived: set[str] = set()
    for what, earlier, later in pairs:
        before, now = float(np.mean(right[earlier])), float(np.mean(right[later]))
        if now > before:
            rises.append((now - before, claim.format(what=what, now=now, before=before)))
            fallen = outcomes["index"][earlier[~right[earlier]]]
            revived |= set(
                ids_of(outcomes, later[right[later] & np.isin(outcomes["index"][later], fallen)])
            )
    if not rises:
        return Check(name=name, status="pass", detail=f"{len(pairs)} comparisons hold.")
    return Check(
        name=name,
        status="fail" if max(rise for rise, _ in rises) > SLACK else "warn",
        detail=(
            f"{len(rises)} of {len(pairs)} comparisons fail: "
            f"{'; '.join(text for _, text in rises)}. Up to {SLACK:.0%} is a warning, more a "
            "failure."
        ),
        case_ids=sorted(revived),
    )


def _commonest(outcomes: Outcomes, rows: Rows) -> float:
    _, counts = np.unique(outcomes["label"][rows].astype(str), return_counts=True)
    return float(counts.max() / len(rows))
