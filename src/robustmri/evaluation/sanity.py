"""Every check that an evaluation runs on itself; each passes, warns or fails, with numbers and the
images concerned.

A function returns None where its question does not arise (no such attack or radius was run). The
traps are those of Carlini et al. 2019, "On Evaluating Adversarial Robustness", and of Athalye et
al. 2018, "Obfuscated Gradients".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from robustmri.evaluation.budget_checks import (
    check_budget,
    check_distances,
    check_finite,
    check_gradients,
    check_headline,
    check_same_images,
    check_storable,
    check_verified,
    check_zero_eps,
)
from robustmri.evaluation.masking_checks import Probed, check_probes
from robustmri.evaluation.order_checks import (
    check_eps_order,
    check_iterative,
    check_large_eps,
    check_noise,
    check_one_answer,
)
from robustmri.evaluation.shortcut_checks import check_shortcuts
from robustmri.evaluation.study_checks import (
    check_chosen,
    check_class_order,
    check_classes,
    check_knowledge,
    check_patients,
    check_selection,
    check_split,
    check_training_attack,
)
from robustmri.results.outcomes import Outcomes
from robustmri.results.schema import Check

MOST_IDS = 50


def run_checks(
    outcomes: Outcomes,
    *,
    split_kind: str,
    groups: str,
    training_attack: str | None,
    trained: bool,
    divided: bool = False,
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
        trained: whether it was trained here, its epoch chosen on the validation set.
        divided: whether folds that came with the data divide patients.
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
        check_storable(outcomes),
        check_large_eps(outcomes, iterative, per_pixel) if region == "image" else None,
        None if zero_gradient_share is None else check_gradients(zero_gradient_share),
        check_budget(outcomes) if limited else None,
        check_knowledge(knowledge) if knowledge else None,
        *((*check_probes(probed), *check_shortcuts(probed)) if probed else ()),
        check_split(split_kind, groups, divided),
        check_patients(outcomes),
        check_chosen() if chosen else None,
        check_classes(outcomes, classes),
        check_class_order(outcomes),
        check_training_attack(outcomes, training_attack),
        check_selection(trained, evaluated_set),
    ]
    return [check for check in checks if check is not None]


def shorten_ids(check: Check) -> Check:
    """The check with its first `MOST_IDS` cases; its detail says how many more there are."""
    more = len(check.case_ids) - MOST_IDS
    if more <= 0:
        return check
    detail = f"{check.detail} {more} more cases are not listed."
    return msgspec.structs.replace(check, detail=detail, case_ids=check.case_ids[:MOST_IDS])
