"""Which epoch is kept, and when a run has gone astray: decided on validation patients only, from
the epochs' rows.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

from robustmri.core.errors import DataError

Failure = Literal[
    "divergence", "collapse", "class collapse", "gradient masking", "robust overfitting"
]

COLLAPSE_SHARE = 0.5
"""Collapse: more than this share of the best robust accuracy is gone. Wong 2020 and Andriushchenko
and Flammarion 2020 see nearly all of it go within an epoch or two; ordinary epochs differ by a few
points."""
COLLAPSE_POINTS = 0.15
"""And at least so much of all slices: two standard errors of an accuracy near 50 % on 48 slices."""
ONE_STEP_GAP = 0.15
"""After a collapse one step is withstood and several are not. Sound networks have a gap of some 3
to 8 points.
"""
ONE_STEP_ONLY = 0.5
"""A gap that says collapse by itself, for a run that never was robust. Networks that met no attack
have one of up to 30 points."""
LOST_CLASS, KNOWN_CLASS = 0.05, 0.25
"""Class collapse: the worst class was known, and hardly any slice of it is named rightly any more,
untouched. What is named one of the other classes whatever is done to it looks robust."""
MASKED_POINTS = 0.10
"""Masking: the guard's steps leave so many more slices right than a single step does. A longer
search is the stronger one, so its being behind means that gradients mislead it; 10 points are 5 of
48 slices, more than random starts do."""
MANY_ZERO_GRADIENTS = 0.05
"""Masking: share of slices without any gradient. The same bound as in the checks of an
evaluation.
"""
OVERFITTING_PATIENCE = 5
"""Robust overfitting: epochs in a row that stay below the best stretch, which is as long."""
OVERFITTING_POINTS = 0.04
"""And by so much, median against median. Rice 2020 loses more after the decay of the learning rate;
medians of five epochs that jitter by 3 points rarely differ by 2."""
DECAYED = 0.5
"""Robust overfitting begins once the learning rate is below this share of its peak."""


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One row of epochs.csv.

    Attributes:
        epoch: its number, from 1.
        learning_rate: at its start.
        eps: radius of the training attack at its end, in image units; 0 without attack.
        train_loss: mean of the objective.
        validation_accuracy: on all validation slices, untouched.
        validation_robust_accuracy: under the guard, a PGD on the margin; None where nothing is
            attacked.
        validation_fgsm_accuracy: on the guard's slices under one full step, FGSM; None: not
            measured.
        zero_gradient_share: of the guard's slices that are right untouched, those whose input
            gradient is exactly 0; None: not measured.
        worst_class_accuracy: as validation_accuracy, of the class in which it is lowest; None: not
            measured.
        worst_class_robust_accuracy: the same under the guard.
        seconds: that it took.
    """

    epoch: int
    learning_rate: float
    eps: float
    train_loss: float
    validation_accuracy: float
    validation_robust_accuracy: float | None
    validation_fgsm_accuracy: float | None = None
    zero_gradient_share: float | None = None
    worst_class_accuracy: float | None = None
    worst_class_robust_accuracy: float | None = None
    seconds: float

    @property
    def robust_accuracy(self) -> float:
        """Accuracy under the guard; the clean one where nothing is attacked."""
        robust = self.validation_robust_accuracy
        return self.validation_accuracy if robust is None else robust

    @property
    def merit(self) -> float:
        """Clean accuracy; where robust accuracy was measured, the mean of the two, over all and in
        the worst class.
        """
        measured = [self.validation_accuracy, self.robust_accuracy]
        if self.worst_class_accuracy is not None and self.worst_class_robust_accuracy is not None:
            measured += [self.worst_class_accuracy, self.worst_class_robust_accuracy]
        return sum(measured) / len(measured)


def read_epochs(run: str | Path) -> list[Epoch]:
    """The rows of a run folder's epochs.csv.

    Raises:
        DataError: it is missing, empty or damaged.
    """
    path = Path(run) / "epochs.csv"
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = [
                {str(name): value or None for name, value in row.items()}
                for row in csv.DictReader(stream)
            ]
        epochs = msgspec.convert(rows, list[Epoch], strict=False)
    # Of whole numbers with thousands of digits there are two kinds of errors more.
    except (OSError, csv.Error, ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"{path} is missing or damaged ({error}). It is the record of a training; train again "
            "in another --out."
        ) from error
    if not epochs:
        raise DataError(f"{path} has no epoch. Train again in another --out.")
    return epochs


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """Training went astray in an epoch.

    Attributes:
        kind: what went wrong.
        epoch: the epoch that showed it.
        back_to: the epoch to go back to, see `rollback_epoch`; None if there is none.
        sentence: what happened, with its numbers.
    """

    kind: Failure
    epoch: int
    back_to: int | None
    sentence: str

    @property
    def ends_training(self) -> bool:
        """Whether more epochs would not help: robust overfitting. After the others, training goes
        on from `back_to`.
        """
        return self.kind == "robust overfitting"


def pareto_front(history: Sequence[Epoch]) -> list[Epoch]:
    """The epochs that no other one beats in clean and in robust accuracy, the most accurate first.

    Of equals the latest. Only epochs at the largest eps count, and of these none that collapsed or
    masks its gradients, unless all did.
    """
    front: list[Epoch] = []
    for row in sorted(
        _eligible(history),
        key=lambda row: (-row.validation_accuracy, -row.robust_accuracy, -row.epoch),
    ):
        if not front or row.robust_accuracy > front[-1].robust_accuracy:
            front.append(row)
    return front


def choose(
    history: Sequence[Epoch], *, clean_cost: float | None = None, reference: float | None = None
) -> Epoch:
    """The epoch whose weights are kept.

    With `clean_cost` the most robust of the epochs that lose at most so much clean accuracy; if
    there is none, the one that loses least. Without, the one of highest merit. The latest of
    equals; which epochs count, as in `pareto_front`.

    Args:
        history: rows so far, at least one.
        clean_cost: percentage points.
        reference: clean validation accuracy of the checkpoint that is repaired, as a fraction; None
            (from scratch): the best of this run.
    """
    rows = _eligible(history)
    if clean_cost is None:
        return max(rows, key=lambda row: (row.merit, row.epoch))
    affordable = [row for row in rows if _cost(row, history, reference) <= clean_cost + 1e-9]
    if not affordable:
        return max(rows, key=lambda row: (row.validation_accuracy, row.robust_accuracy, row.epoch))
    return max(
        affordable, key=lambda row: (row.robust_accuracy, row.validation_accuracy, row.epoch)
    )


def worth_keeping(
    history: Sequence[Epoch], *, clean_cost: float | None = None, reference: float | None = None
) -> list[Epoch]:
    """The epochs that `choose` may still name, whatever epochs follow at this eps: only their
    weights are needed.

    From scratch with a clean cost the bar rises with each better epoch, so it is the whole front;
    otherwise the choice.
    """
    if clean_cost is not None and reference is None:
        return pareto_front(history)
    return [choose(history, clean_cost=clean_cost, reference=reference)]


def rollback_epoch(history: Sequence[Epoch]) -> Epoch | None:
    """The epoch to go back to once training has gone astray: the best sound one at the largest eps
    that any was at.

    Not what `choose` names: a clean cost that no epoch meets yet would lead back to the least
    robust one. None if no attacked epoch was sound.
    """
    sound = [row for n, row in enumerate(history) if row.eps > 0 and not _spoiled(history[: n + 1])]
    return max(sound, key=lambda row: (row.eps, row.merit, row.epoch), default=None)


def explain_choice(
    history: Sequence[Epoch], *, clean_cost: float | None = None, reference: float | None = None
) -> str:
    """Why `choose` chose, in a sentence."""
    row = choose(history, clean_cost=clean_cost, reference=reference)
    if row.validation_robust_accuracy is None:
        return f"Epoch {row.epoch} has the highest clean accuracy."
    if clean_cost is None:
        over = "" if row.worst_class_accuracy is None else ", over all and in the worst class"
        return f"Epoch {row.epoch} has the highest mean of clean and robust accuracy{over}."
    than = "the start" if reference is not None else "the best epoch of this run"
    lost = _cost(row, history, reference)
    if lost > clean_cost + 1e-9:
        return (
            f"No epoch loses at most {_points(clean_cost)} of clean accuracy against {than}; epoch "
            f"{row.epoch} loses least, {lost:.1f} points."
        )
    change = f"loses {lost:.1f} points of clean accuracy" if lost > 0 else "loses no clean accuracy"
    return (
        f"Epoch {row.epoch} is the most robust within {_points(clean_cost)}: it {change} against "
        f"{than}."
    )


def watch(
    history: Sequence[Epoch], *, clean_cost: float | None = None, reference: float | None = None
) -> Alarm | None:
    """Whether the last epoch shows that training went astray; a pure function of the rows.

    - divergence: the loss is not finite.
    - collapse (catastrophic overfitting): at full eps the guard's accuracy has lost more than half
      of its best and more than 15 points, while a single step is withstood as before; or, from the
      second epoch on, a single step is withstood by 50 points more than several. Where no single
      step was measured: while clean accuracy held or the loss fell.
    - class collapse: one class is hardly ever named rightly any more, untouched.
    - gradient masking: the guard is weaker than its own first step, or slices have no gradient: its
      accuracy is not to be trusted.
    - robust overfitting: with a small learning rate, the guard's accuracy stays below its best
      stretch while the loss goes on falling. Not as long as no epoch is within the clean cost:
      later ones may be.

    Args:
        history: all rows so far, also those that training was rolled back from.
        clean_cost: as in `choose`.
        reference: as in `choose`.

    Reference: Wong et al. 2020, arXiv:2001.03994; Andriushchenko and Flammarion 2020,
        arXiv:2007.02617; Rice et al. 2020, arXiv:2002.11569; Athalye et al. 2018, arXiv:1802.00420.
    """
    if not history or history[-1].validation_robust_accuracy is None or history[-1].eps == 0:
        return None
    found = _spoiled(history) or _overfits(history, clean_cost, reference)
    if found is None:
        return None
    kind, sentence = found
    safe = rollback_epoch(history[:-1])
    return Alarm(
        kind=kind, epoch=history[-1].epoch, back_to=safe.epoch if safe else None, sentence=sentence
    )


def alarms(
    history: Sequence[Epoch], *, clean_cost: float | None = None, reference: float | None = None
) -> list[Alarm]:
    """What `watch` said after each epoch."""
    heard = (
        watch(history[: n + 1], clean_cost=clean_cost, reference=reference)
        for n in range(len(history))
    )
    return [alarm for alarm in heard if alarm]


def _cost(row: Epoch, history: Sequence[Epoch], reference: float | None) -> float:
    """Points of clean accuracy that an epoch loses."""
    if reference is None:
        reference = max(other.validation_accuracy for other in history)
    return 100 * (reference - row.validation_accuracy)


def _points(number: float) -> str:
    return f"{number:g} point" + ("" if number == 1 else "s")


def _eligible(history: Sequence[Epoch]) -> list[Epoch]:
    """Sound epochs at the largest eps: while eps still grows, an epoch has not met the full
    threat.
    """
    full = _at_full_eps(history)
    spoiled = {row.epoch for n, row in enumerate(history) if _spoiled(history[: n + 1])}
    return [row for row in full if row.epoch not in spoiled] or full


def _at_full_eps(history: Sequence[Epoch]) -> list[Epoch]:
    largest = max(row.eps for row in history)
    return [row for row in history if row.eps == largest]


def _spoiled(history: Sequence[Epoch]) -> tuple[Failure, str] | None:
    """What makes the last epoch's weights or its robust accuracy worthless, with a sentence."""
    last = history[-1]
    if last.validation_robust_accuracy is None:
        return None
    if not math.isfinite(last.train_loss):
        return (
            "divergence",
            f"Epoch {last.epoch}: the loss is not finite any more ({last.train_loss}).",
        )
    robust, one_step, zero = (
        last.robust_accuracy,
        last.validation_fgsm_accuracy,
        last.zero_gradient_share,
    )
    if zero is not None and zero > MANY_ZERO_GRADIENTS:
        return "gradient masking", (
            f"Epoch {last.epoch}: of the validation slices that are right untouched {zero:.0%} "
            f"have no gradient, so an accuracy of {robust:.1%} under a gradient attack says little."
        )
    if one_step is not None and robust - one_step > MASKED_POINTS:
        return "gradient masking", (
            f"Epoch {last.epoch}: accuracy is {robust:.1%} under many steps and {one_step:.1%} "
            "under one; the gradient misleads, and the first figure is not to be trusted."
        )
    worst = last.worst_class_accuracy
    known = max(history[:-1], key=lambda row: row.worst_class_accuracy or 0.0, default=last)
    if worst is not None and worst < LOST_CLASS and (known.worst_class_accuracy or 0) > KNOWN_CLASS:
        return "class collapse", (
            f"Epoch {last.epoch}: of one class {worst:.1%} is named rightly, untouched, after "
            f"{known.worst_class_accuracy:.1%} in epoch {known.epoch}: the network answers "
            "with the others, which looks robust."
        )
    # Not in the first epoch of a repair, which may still be the network that was broken.
    if (
        one_step is not None
        and one_step - robust >= ONE_STEP_ONLY
        and any(row.eps > 0 for row in history[:-1])
    ):
        return "collapse", (
            f"Epoch {last.epoch}: the network withstands one step ({one_step:.1%}) and not several "
            f"({robust:.1%}): catastrophic overfitting."
        )
    before = _at_full_eps(history)[:-1]
    if not before:
        return None
    peak = max(before, key=lambda row: row.robust_accuracy)
    fall = peak.robust_accuracy - robust
    if not (fall > COLLAPSE_SHARE * peak.robust_accuracy and fall > COLLAPSE_POINTS):
        fall = 0.0
    if one_step is not None:
        if fall and one_step - robust >= ONE_STEP_GAP:
            return "collapse", (
                f"Epoch {last.epoch}: the network withstands one step ({one_step:.1%}) and not "
                f"several ({robust:.1%}, after {peak.robust_accuracy:.1%} in epoch {peak.epoch}): "
                "catastrophic overfitting."
            )
        return None
    held = last.validation_accuracy >= peak.validation_accuracy or last.train_loss < peak.train_loss
    # A network that has learnt nothing names one class whatever is done to the image: no robustness
    # to lose.
    learnt = peak.validation_accuracy > peak.robust_accuracy
    if fall and held and learnt:
        return "collapse", (
            f"Epoch {last.epoch}: robust accuracy fell from {peak.robust_accuracy:.1%} in epoch "
            f"{peak.epoch} to {robust:.1%} though training seemed to go on: catastrophic "
            "overfitting."
        )
    return None


def _overfits(
    history: Sequence[Epoch], clean_cost: float | None, reference: float | None
) -> tuple[Failure, str] | None:
    rows, n = (
        [row for row in _at_full_eps(history) if math.isfinite(row.train_loss)],
        OVERFITTING_PATIENCE,
    )
    last = rows[-n:]
    if len(rows) < 2 * n or last[0].learning_rate > DECAYED * max(
        row.learning_rate for row in history
    ):
        return None
    if clean_cost is not None:
        kept = choose(history, clean_cost=clean_cost, reference=reference)
        if _cost(kept, history, reference) > clean_cost + 1e-9:
            return None
    stretches = [rows[start : start + n] for start in range(len(rows) - 2 * n + 1)]
    best = max(stretches, key=_typical)
    fall = _typical(best) - _typical(last)
    below = all(row.robust_accuracy < _typical(best) for row in last)
    learning = median(row.train_loss for row in last) < median(row.train_loss for row in best)
    if not (fall > OVERFITTING_POINTS and below and learning):
        return None
    return "robust overfitting", (
        f"Epoch {last[-1].epoch}: robust accuracy is {_typical(last):.1%} in the last {n} epochs "
        f"and was {_typical(best):.1%} in epochs {best[0].epoch} to {best[-1].epoch}, though the "
        "loss still falls: robust overfitting."
    )


def _typical(rows: Sequence[Epoch]) -> float:
    return median(row.robust_accuracy for row in rows)
