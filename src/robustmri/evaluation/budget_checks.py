"""Checks of each attack by itself: every image measured again, within its radius, on the same
slices, and what counts is the worst of them.
"""

from __future__ import annotations

import numpy as np

from robustmri.evaluation.metrics import Rows, find_settings, worst_case
from robustmri.results.budget import CLEAN, WORST, Budget
from robustmri.results.outcomes import Outcomes, find_right
from robustmri.results.schema import Check

MANY_ZERO = 0.05
ROUNDING = 1e-6  # Distances are measured on float32 pixels of the [0, 1] range.
GREY_LEVEL = 1 / 255  # Of a slice that is stored with 8 bits.


def check_verified(outcomes: Outcomes) -> Check:
    """Every returned image was confirmed by a fresh forward pass and measured again."""
    rows = np.flatnonzero(outcomes["attack"] != CLEAN)
    doubtful = rows[~outcomes["verified"][rows].astype(bool)]
    return Check(
        name="every attacked image re-verified",
        status="fail" if len(doubtful) else "pass",
        detail=(
            f"{len(rows) - len(doubtful)} of {len(rows)} attacked images were confirmed by a fresh "
            "forward pass of the original classifier, their distance and range measured again."
        ),
        case_ids=ids_of(outcomes, doubtful),
    )


def check_finite(outcomes: Outcomes) -> Check:
    """The classifier answers every image, untouched or attacked, with numbers; other confidences
    are stored as NaN.
    """
    broken = np.flatnonzero(
        ~np.isfinite(outcomes["confidence"].astype(float)) & (outcomes["attack"] != WORST)
    )
    clean = np.sum(outcomes["attack"][broken] == CLEAN)
    return Check(
        name="every logit a finite number",
        status="fail" if len(broken) else "pass",
        detail=(
            f"{clean} untouched and {len(broken) - clean} attacked images got logits that are NaN "
            "or infinite"
        )
        + (": a broken classifier, not a robust one." if len(broken) else "."),
        case_ids=ids_of(outcomes, broken),
    )


def check_distances(outcomes: Outcomes) -> Check:
    """No attacked image is further from its original than eps."""
    limit = outcomes["eps_image"].astype(float)
    sizes = {
        name.removeprefix("distance_"): column.astype(float)
        for name, column in outcomes.items()
        if name.startswith("distance_")
    }
    distance = np.select([outcomes["norm"] == norm for norm in sizes], list(sizes.values()), np.inf)
    # A comparison with NaN is false, so a distance that is not a number counts as outside.
    inside = np.logical_and.reduce([np.isfinite(size) for size in sizes.values()])
    inside &= distance <= limit * (1 + ROUNDING) + ROUNDING
    outside = np.flatnonzero(~inside & (outcomes["attack"] != CLEAN))
    worst = "" if not len(outside) else f" The furthest: {distance[outside].max():.6g}."
    return Check(
        name="perturbations within eps",
        status="fail" if len(outside) else "pass",
        detail=(
            f"{len(outside)} attacked images lie further than eps from the original, measured "
            f"again.{worst}"
        ),
        case_ids=ids_of(outcomes, outside),
    )


def check_same_images(outcomes: Outcomes) -> Check:
    """Every budget attack was run on the images of the clean row, each once."""
    expected: set[int] = set(outcomes["index"][outcomes["attack"] == CLEAN].tolist())
    wrong = []
    for (attack, budget), rows in find_settings(outcomes).items():
        images = outcomes["index"][rows].tolist()
        if (
            budget.eps is not None
            and not budget.target
            and (set(images) != expected or len(images) != len(expected))
        ):
            wrong.append(f"{attack} {radius_of(budget)}: {len(images)} rows")
    return Check(
        name="same images for every attack",
        status="fail" if wrong or not expected else "pass",
        detail=f"{len(expected)} images were classified untouched; attacks on another set: "
        f"{'; '.join(wrong) or 'none'}.",
    )


def check_headline(outcomes: Outcomes) -> Check | None:
    """The headline is the worst case of each image, not an average over attacks."""
    expected = _right_by_image(worst_case(outcomes))
    if not expected:
        return None
    worst = outcomes["attack"] == WORST
    stated = _right_by_image(Outcomes({name: column[worst] for name, column in outcomes.items()}))
    wrong = [budget for budget in expected if stated.get(budget) != expected[budget]]
    return Check(
        name="headline is the worst case of each image",
        status="fail" if wrong else "pass",
        detail=(
            "An image counts as right only if it withstood every attack of its budget; recomputed "
            "from the table, "
        )
        + (
            f"{', '.join(map(radius_of, wrong))} differs."
            if wrong
            else f"{len(expected)} budgets agree."
        ),
    )


def check_zero_eps(outcomes: Outcomes) -> Check | None:
    """At eps = 0 nothing changes."""
    rows = np.flatnonzero((outcomes["attack"] != CLEAN) & (outcomes["eps"].astype(float) == 0))
    if not len(rows):
        return None
    moved = rows[outcomes["prediction"][rows] != outcomes["clean_prediction"][rows]]
    return Check(
        name="eps 0 is the clean image",
        status="fail" if len(moved) else "pass",
        detail=(
            f"{len(moved)} of {len(rows)} predictions at eps 0 differ from those of the untouched "
            "image."
        ),
        case_ids=ids_of(outcomes, moved),
    )


def check_storable(outcomes: Outcomes) -> Check | None:
    """The largest radius can change a slice that is stored with 8 bits by one grey level."""
    radii = outcomes["eps_image"][outcomes["attack"] == WORST].astype(float)
    radii = radii[np.isfinite(radii)]
    largest = float(radii.max()) if len(radii) else 0.0
    if not largest:
        return None
    small = largest < GREY_LEVEL / 2
    return Check(
        name="a radius that a stored slice can hold",
        status="warn" if small else "pass",
        detail=(
            f"The largest eps is {largest:.3g} of the grey range, {255 * largest:.2g} grey levels "
            "of 8 bits"
        )
        + (
            ": too small to change any pixel of a stored slice. To stand that is no robustness."
            if small
            else "."
        ),
    )


def check_gradients(zero_share: float) -> Check:
    """Gradient masking: few images have no loss gradient (0, missing, or not finite); a gradient
    attack leaves those where they are.
    """
    return Check(
        name="gradients are there to climb",
        status="pass" if zero_share == 0 else "warn" if zero_share <= MANY_ZERO else "fail",
        detail=(
            f"{zero_share:.1%} of the images have no loss gradient (exactly 0, missing or not "
            f"finite); up to {MANY_ZERO:.0%} is a warning, more a failure: such images look robust "
            "and are not."
        ),
    )


def check_budget(outcomes: Outcomes) -> Check:
    """Attacks came to their own end; one that was stopped before might have fooled more, or come
    nearer.
    """
    short = np.flatnonzero(outcomes["cut_short"].astype(bool) & (outcomes["attack"] != WORST))
    told = []
    for (attack, budget), rows in find_settings(outcomes).items():
        if cut := len(np.intersect1d(rows, short)):
            gradients, forwards = (
                float(np.mean(outcomes[name][rows])) for name in ("gradients", "forwards")
            )
            told.append(
                f"{attack} {radius_of(budget)}: {cut} of {len(rows)} images, after {gradients:.1f} "
                f"gradients and {forwards:.1f} forwards an image on average"
            )
    return Check(
        name="no attack ended by its budget",
        status="warn" if told else "pass",
        detail=f"Budget spent before the attack ended: {'; '.join(told)}. More might have fallen."
        if told
        else "No budget of time, gradients or forwards was spent before the attack ended.",
        case_ids=ids_of(outcomes, short),
    )


def _right_by_image(outcomes: Outcomes) -> dict[Budget, dict[int, bool]]:
    right = find_right(outcomes)
    return {
        budget: dict(zip(outcomes["index"][rows].tolist(), right[rows].tolist(), strict=True))
        for (_, budget), rows in find_settings(outcomes).items()
    }


def ids_of(outcomes: Outcomes, rows: Rows) -> list[str]:
    """Case ids of rows, each once."""
    return sorted({str(case) for case in outcomes["case_id"][rows]})


def radius_of(budget: Budget) -> str:
    """A norm, eps and target in words."""
    units = "" if budget.eps_units == "image" else f" ({budget.eps_units})"
    # An attack that looks for the nearest fooling image has none.
    eps = "" if budget.eps is None else f" {budget.eps:g}{units}"
    return f"{budget.norm}{eps}" + (f" to {budget.target}" if budget.target else "")
