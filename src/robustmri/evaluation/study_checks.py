"""Checks of how a study was made: who is in which set, which epoch was kept, what the training had
seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from robustmri.evaluation.intervals import effective_patients
from robustmri.results.budget import CLEAN, CORRUPTION, RANDOM, RANDOM_SEARCH, WORST
from robustmri.results.outcomes import Outcomes
from robustmri.results.schema import Check, Status

CONFIDENCE = 0.975  # Each side of a two-sided interval of 95 %.
FEWEST_PATIENTS = 3
"""With fewer there is no figure to speak of."""
ENOUGH_PATIENTS = 30
"""With fewer a figure is that of these patients; so it is with fewer effective ones, where a few
patients have most of the slices.
"""
ENOUGH_OF_A_CLASS = 5
ENOUGH_SLICES = 20
"""With fewer another order of the classes is better by chance."""
EXCHANGED = 0.25
"""Share of the slices by which another order of the classes must be right on more."""
MOSTLY = 0.7
"""Share of the slices on which that order must be right."""
DRAWN = (RANDOM, RANDOM_SEARCH, "noise")
"""Attacks that draw the parameters of a physical threat, and search for nothing."""


def check_split(split_kind: str, groups: str, divided: bool = False) -> Check:
    """Slices of a patient are on one side only."""
    if split_kind == "slice" or divided:
        status: Status = "warn"
        how = "The folds divide patients" if divided else "Slices were split one by one"
        detail = (
            f"{how}: slices of one patient lie in training and test, so the "
            "accuracy is that for known patients and is too high for new ones. Use prepare "
            "--split patient."
        )
    elif split_kind == "none":
        status, detail = (
            "pass",
            "External validation: no slice of this cohort was set aside for training.",
        )
    elif groups == "inferred":
        status = "warn"
        detail = (
            "The source has no patient ids; near-duplicate slices were held together, but two "
            "unlike slices of one patient may lie on both sides, and intervals may be too narrow."
        )
    else:
        status, detail = (
            "pass",
            "Each patient's slices lie in one set only: the accuracy is that for new patients.",
        )
    return Check(name="split by patient", status=status, detail=detail)


def check_chosen() -> Check:
    """Nobody chose the slices by hand."""
    return Check(
        name="the whole set",
        status="warn",
        detail=(
            "The slices were named one by one or by their patients: the numbers are theirs alone, "
            "and say nothing about the set that they were taken from."
        ),
    )


def check_knowledge(knowledge: Mapping[str, str]) -> Check:
    """A classifier that offers no gradient was only asked: weaker attacks than one would make who
    has its weights.
    """
    asked = [f"{title} ({what})" for title, what in knowledge.items() if what != "nothing"]
    return Check(
        name="attacks had the gradient",
        status="warn",
        detail=(
            f"The classifier offers no gradient, so that only attacks by queries were run: "
            f"{', '.join(asked)}. They are weaker than those that climb the gradient: its robust "
            "accuracy may be overstated."
        ),
    )


def check_patients(outcomes: Outcomes) -> Check:
    """Enough patients were tested for their number to bound what was not seen; else the headline
    says that there were few.
    """
    clean = outcomes["attack"] == CLEAN
    groups, labels = (outcomes[name][clean].astype(str) for name in ("group", "label"))
    sizes = np.unique(groups, return_counts=True)[1].astype(float)
    patients = len(sizes)
    effective = effective_patients(sizes) if patients else 0.0
    each = {label: len(np.unique(groups[labels == label])) for label in np.unique(labels)}
    # Two-sided 95 % bound of a share of which nothing was seen in n patients.
    unseen = 1 - (1 - CONFIDENCE) ** (1 / patients) if patients else 1.0
    few = (
        min(patients, round(effective)) < ENOUGH_PATIENTS
        or min(each.values(), default=0) < ENOUGH_OF_A_CLASS
    )
    status: Status = "fail" if patients < FEWEST_PATIENTS else "warn" if few else "pass"
    named = ", ".join(f"{count} with {label}" for label, count in each.items())
    uneven = ""
    if patients - effective >= 1:
        uneven = (
            f" Some have many slices and others few: together they tell as much as {effective:.0f} "
            "patients with as many slices each."
        )
    return Check(
        name="enough patients for the claim",
        status=status,
        detail=(
            f"{patients} patients were tested ({named}).{uneven} What happened to none of "
            f"{patients} may still happen to {100 * unseen:.0f} % of all."
        )
        + (
            f" Fewer than {ENOUGH_PATIENTS}, so counted, or than {ENOUGH_OF_A_CLASS} of a class, "
            f"are too few for a claim, and fewer than {FEWEST_PATIENTS} for a figure."
            if few
            else ""
        ),
    )


def check_physics(outcomes: Outcomes) -> Check | None:
    """What a scanner or a physical threat changed was confirmed again, and random draws broke no
    more than a search.
    """
    rows = np.flatnonzero((outcomes["attack"] != CLEAN) & (outcomes["attack"] != WORST))
    if not len(rows):
        return None
    doubtful = int(np.sum(~outcomes["verified"][rows].astype(bool)))
    broke: dict[tuple[str, float], dict[str, int]] = {}
    names = ("norm", "eps", "attack", "fooled")
    for kind, eps, attack, fooled in zip(*(outcomes[name][rows] for name in names), strict=True):
        if kind != CORRUPTION:
            found = broke.setdefault((str(kind), float(eps)), {})
            found[str(attack)] = found.get(str(attack), 0) + int(fooled)
    weaker = []
    for (kind, eps), found in broke.items():
        drawn = max((n for attack, n in found.items() if attack in DRAWN), default=0)
        searched = max((n for attack, n in found.items() if attack not in DRAWN), default=drawn)
        if drawn > searched:
            weaker.append(f"{kind} {eps:g} ({drawn} slices against {searched})")
    said = f" Random draws broke more than a search: {', '.join(weaker)}." if weaker else ""
    return Check(
        name="scanner and physical threats in order",
        status="fail" if doubtful else "warn" if weaker else "pass",
        detail=(
            f"{len(rows) - doubtful} of {len(rows)} slices that a scanner or a physical threat "
            f"changed lie in their box and were confirmed by the original classifier.{said}"
        ),
    )


def check_classes(outcomes: Outcomes, classes: Sequence[str] = ()) -> Check:
    """Slices of every class were tested; with one class alone, a classifier that says nothing else
    is always right.
    """
    labels = np.unique(outcomes["label"][outcomes["attack"] == CLEAN].astype(str)).tolist()
    missing = [name for name in classes if name not in labels]
    alone = len(labels) < 2
    detail = f"Slices of {len(labels)} classes were tested: {', '.join(labels)}."
    if alone:
        detail = (
            f"Every slice that was tested is of one class ({', '.join(labels)}): a classifier that "
            "says so of every image would be right on all of them."
        )
    elif missing:
        detail += f" None is of {', '.join(missing)}, of which the figures say nothing."
    return Check(
        name="more than one class",
        status="fail" if alone else "warn" if missing else "pass",
        detail=detail,
    )


def check_class_order(outcomes: Outcomes) -> Check | None:
    """The classifier's answers carry the right names: no other order of its classes would be right
    far more often.
    """
    from scipy.optimize import linear_sum_assignment

    clean = outcomes["attack"] == CLEAN
    labels, answers = (outcomes[name][clean].astype(str) for name in ("label", "prediction"))
    names = np.unique(np.concatenate([labels, answers]))
    if len(labels) < ENOUGH_SLICES or len(np.unique(labels)) < 2:
        return None
    counts = np.array([[np.sum((labels == a) & (answers == b)) for b in names] for a in names])
    rows, columns = linear_sum_assignment(-counts)
    right, other = int(np.trace(counts)), int(counts[rows, columns].sum())
    exchanged = other - right >= EXCHANGED * len(labels) and other >= MOSTLY * len(labels)
    pairs = zip(names[rows], names[columns], strict=True)
    meant = ", ".join(f"{answer} for {truth}" for truth, answer in pairs if truth != answer)
    return Check(
        name="classes in their order",
        status="fail" if exchanged else "pass",
        detail=f"{right} of {len(labels)} untouched slices are right"
        + (
            f"; {other} would be, were its answers {meant}: are the classes in another order?"
            if exchanged
            else ", and no other order of the classes would be right on far more."
        ),
    )


def check_training_attack(outcomes: Outcomes, training_attack: str | None) -> Check | None:
    """A repaired classifier is tested with more than the attack that it was trained against."""
    if training_attack is None:
        return None
    used = {str(attack) for attack in np.unique(outcomes["attack"].astype(str))} - {
        CLEAN,
        WORST,
        "noise",
    }
    others = sorted(used - {training_attack})
    return Check(
        name="tested by attacks not trained on",
        status="pass" if others else "fail",
        detail=(
            f"Trained on {training_attack}; other attacks in the test: "
            f"{', '.join(others) or 'none'}."
        ),
    )


def check_selection(trained: bool, evaluated_set: str = "test") -> Check:
    """The kept epoch was not chosen on the images that it is judged by; of a classifier that was
    not trained here it is not known.
    """
    if not trained:
        status: Status = "warn"
        detail = "How the epoch was chosen is not known."
    elif evaluated_set == "validation":
        status = "fail"
        detail = (
            "The kept epoch was chosen on these very slices: compare settings by them, and "
            "report the test set."
        )
    else:
        status, detail = "pass", "The kept epoch was chosen on the validation set."
    return Check(name="selection on validation patients", status=status, detail=detail)
