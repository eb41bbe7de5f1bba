"""Checks that an evaluation runs on itself; each passes, warns or fails, with numbers and the
images concerned.

A function returns None where its question does not arise (no such attack or radius was run). The
traps are those of Carlini et al. 2019, "On Evaluating Adversarial Robustness", and of Athalye et
al. 2018, "Obfuscated Gradients".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
import numpy as np

from robustmri.evaluation.metrics import Rows, Setting, find_right, find_settings, worst_case
from robustmri.evaluation.probe_checks import Probed, check_probes
from robustmri.evaluation.study_checks import (
    check_chosen,
    check_classes,
    check_knowledge,
    check_patients,
    check_selection,
    check_split,
    check_training_attack,
)
from robustmri.results.budget import CLEAN, WORST, Budget
from robustmri.results.outcomes import Outcomes
from robustmri.results.schema import Check

SINGLE_STEP = ("fgsm",)
NOISE = "noise"
FEWEST_OTHERS = 5  # Slices of other classes, all of which one answer got wrong.
# A point of accuracy: what chance alone may do to orders that hold on average, not for each image.
SLACK = 0.01
LARGE_EPS = 0.5  # Any image can be made one flat grey: nothing of the scan is left.
MANY_ZERO = 0.05
ROUNDING = 1e-6  # Distances are measured on float32 pixels of the [0, 1] range.
MOST_IDS = 50


def run_checks(
    outcomes: Outcomes,
    *,
    split_kind: str,
    groups: str,
    training_attack: str | None,
    selected_on: str,
    evaluated_set: str = "test",
    zero_gradient_share: float | None = None,
    region: str = "image",
    limited: bool = False,
    chosen: bool = False,
    iterative: Collection[str] = (),
    per_pixel: Collection[str] = (),
    knowledge: Mapping[str, str] | None = None,
    probed: Probed | None = None,
    classes: Sequence[str] = (),
) -> list[Check]:
    """Every check whose question arises.

    Args:
        outcomes: table with the rows of "worst" in it.
        split_kind: "patient", "slice", "folds" or "none".
        groups: "patient", or "inferred" where the source has no patient ids.
        training_attack: attack that made the training examples; None for standard training.
        selected_on: where the kept epoch was chosen: "validation", or "last" where none was chosen.
        evaluated_set: which set of the split the outcomes are of, "test" or "validation".
        zero_gradient_share: share of clean images without a loss gradient; None if not measured.
        region: where pixels could change; only the whole "image" can be made one flat grey.
        chosen: whether slices were named in place of the whole set.
        limited: whether attacks had a budget of time, gradients or forwards.
        iterative: names of the attacks that should be at least as strong as a single step.
        per_pixel: names of the norms in which a large eps alone makes any image one flat grey.
        knowledge: of a classifier that offers no gradient, title of each attack to what it asks
            for; else nothing.
        probed: what the classifier did when it was asked further; None if it was not.
        classes: what the classifier tells apart.
    """
    checks = [
        check_verified(outcomes),
        check_finite(outcomes),
        check_distances(outcomes),
        check_same_images(outcomes),
        check_headline(outcomes),
        check_one_answer(outcomes),
        check_noise(outcomes, iterative),
        check_iterative(outcomes, iterative),
        check_eps_order(outcomes),
        check_zero_eps(outcomes),
        check_large_eps(outcomes, iterative, per_pixel) if region == "image" else None,
        None if zero_gradient_share is None else check_gradients(zero_gradient_share),
        check_budget(outcomes) if limited else None,
        check_knowledge(knowledge) if knowledge else None,
        *(check_probes(probed) if probed else ()),
        check_split(split_kind, groups),
        check_patients(outcomes),
        check_chosen() if chosen else None,
        check_classes(outcomes, classes),
        check_training_attack(outcomes, training_attack),
        check_selection(selected_on, evaluated_set),
    ]
    return [check for check in checks if check is not None]


def shorten_ids(check: Check) -> Check:
    """The check with its first `MOST_IDS` cases; its detail says how many more there are."""
    more = len(check.case_ids) - MOST_IDS
    if more <= 0:
        return check
    detail = f"{check.detail} {more} more cases are not listed."
    return msgspec.structs.replace(check, detail=detail, case_ids=check.case_ids[:MOST_IDS])


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
        case_ids=_ids(outcomes, doubtful),
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
        case_ids=_ids(outcomes, broken),
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
        case_ids=_ids(outcomes, outside),
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
            wrong.append(f"{attack} {_radius(budget)}: {len(images)} rows")
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
            f"{', '.join(map(_radius, wrong))} differs."
            if wrong
            else f"{len(expected)} budgets agree."
        ),
    )


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
        (f"{many} {_radius(budget)}", rows, settings[Setting(many, budget)])
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
        (f"{many} {_radius(budget)}", rows, settings[Setting(many, budget)])
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
    pairs = []
    for (attack, _, target, *_), points in curves.items():
        before = clean[0] if clean and not target else None
        for _, budget, rows in sorted(points, key=lambda point: point[0]):
            if before is not None:
                pairs.append((f"{attack} {_radius(budget)}", before, rows))
            before = rows
    return _compare(
        outcomes,
        pairs,
        name="accuracy does not rise with eps",
        claim="{now:.1%} right under {what}, {before:.1%} at the next smaller eps",
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
        case_ids=_ids(outcomes, moved),
    )


def check_large_eps(
    outcomes: Outcomes, iterative: Collection[str], per_pixel: Collection[str]
) -> Check | None:
    """At eps 0.5 the classifier can do no better than to give one answer to all; if it does, the
    attack is at fault.
    """
    right = find_right(outcomes)
    reached = {
        f"{attack} {_radius(budget)}": rows
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
        case_ids=_ids(outcomes, np.concatenate(standing)) if standing else [],
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
                f"{attack} {_radius(budget)}: {cut} of {len(rows)} images, after {gradients:.1f} "
                f"gradients and {forwards:.1f} forwards an image on average"
            )
    return Check(
        name="no attack ended by its budget",
        status="warn" if told else "pass",
        detail=f"Budget spent before the attack ended: {'; '.join(told)}. More might have fallen."
        if told
        else "No budget of time, gradients or forwards was spent before the attack ended.",
        case_ids=_ids(outcomes, short),
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
                _ids(outcomes, later[right[later] & np.isin(outcomes["index"][later], fallen)])
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


def _right_by_image(outcomes: Outcomes) -> dict[Budget, dict[int, bool]]:
    right = find_right(outcomes)
    return {
        budget: dict(zip(outcomes["index"][rows].tolist(), right[rows].tolist(), strict=True))
        for (_, budget), rows in find_settings(outcomes).items()
    }


def _commonest(outcomes: Outcomes, rows: Rows) -> float:
    _, counts = np.unique(outcomes["label"][rows].astype(str), return_counts=True)
    return float(counts.max() / len(rows))


def _ids(outcomes: Outcomes, rows: Rows) -> list[str]:
    return sorted({str(case) for case in outcomes["case_id"][rows]})


def _radius(budget: Budget) -> str:
    units = "" if budget.eps_units == "image" else f" ({budget.eps_units})"
    # An attack that looks for the nearest fooling image has none.
    eps = "" if budget.eps is None else f" {budget.eps:g}{units}"
    return f"{budget.norm}{eps}" + (f" to {budget.target}" if budget.target else "")
