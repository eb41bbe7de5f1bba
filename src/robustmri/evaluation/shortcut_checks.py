"""Checks for ways to be right, or to stand, without reading the slice; they read what probes of the
classifier found.
"""

from __future__ import annotations

from robustmri.evaluation.masking_checks import SAME, Probed, say_left
from robustmri.results.schema import Check

FALLEN = 0.75
"""Of the slices that stood: as many must fall once they are moved, for robustness to be memory."""
MUCH = 0.2
"""Of accuracy that must be lost thereby; of few that stood each did so barely."""
BY_MARGIN = 0.8
"""Of the right slices: as many must be right by their margin alone for it to tell the class."""
ENOUGH = 8
"""Slices that must be right for that."""


def check_shortcuts(probed: Probed) -> list[Check]:
    """Every check of this file whose question arises."""
    checks = (check_kept, check_moved, check_margin)
    return [made for check in checks if (made := check(probed)) is not None]


def check_kept(probed: Probed) -> Check | None:
    """An answer leaves nothing behind in the classifier that a later one could depend on."""
    if not probed.repeat <= SAME:
        return None
    return Check(
        name="an answer leaves nothing behind",
        status="fail" if probed.keeps else "pass",
        detail=(
            "After it was asked about new slices, something in the classifier is another (a "
            "counter, a list, a buffer): what it answers depends on what it was asked before, and "
            "with it every figure here. Take that out."
            if probed.keeps
            else "Asked about new slices, it is what it was before."
        ),
    )


def check_moved(probed: Probed) -> Check | None:
    """Slices that stood still stand when they are moved by a pixel or two: robustness is not
    that of slices that are known by heart.
    """
    if probed.moved is None or not probed.standing:
        return None
    broken = probed.moved.broken
    share = len(broken) / len(probed.standing)
    learnt = share >= FALLEN and (probed.robust or 0.0) * share >= MUCH and len(broken) > 2
    return Check(
        name="slices moved by a pixel stand too",
        status="fail" if learnt else "pass",
        detail=f"{probed.moved.title}: {say_left(probed, broken)}"
        + (
            " What is robust are these very slices, as if they were stored, not others like them."
            if learnt
            else ""
        ),
        case_ids=broken if learnt else [],
    )


def check_margin(probed: Probed) -> Check | None:
    """The class cannot be told from the margin of the slices, where marks are."""
    if probed.margin is None:
        return None
    slices, right, by_margin, chance = probed.margin
    if right < ENOUGH or chance > slices / 2:
        return None
    told = by_margin >= BY_MARGIN * right and by_margin > chance + slices / 4
    return Check(
        name="the margin does not tell the class",
        status="fail" if told else "pass",
        detail=(
            f"Of {slices} slices {right} are right, and {by_margin} of these when all but the "
            f"outer eighth at each side is black (one answer to all: {chance})"
            + (": the classifier reads marks beside the head, not the head." if told else ".")
        ),
    )
