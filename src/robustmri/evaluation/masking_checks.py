"""What probes of a classifier found out, and the checks that read it.

A robust accuracy is only as good as the attacks: a network whose gradient misleads, whose answer is
drawn anew each time, or depends on the other images of a batch, stands for other reasons than that
it is robust. See Athalye et al. 2018, Carlini et al. 2019 and Tramer et al. 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal

import msgspec

from robustmri.results.schema import Check, Status

NOTEWORTHY = 0.05
"""Of accuracy: what one attack more may cost before it is an alarm."""
FEWEST = 2
"""One slice that falls to one attack more is chance, two are a sign."""
SAME = 1e-4
"""Difference of logits, as a share of the largest, that rounding explains in the same batch."""
ALIKE = 1e-3
"""The same where the batch is another, and with it the order of the sums."""
STEEPEST = 2.0
"""Factor by which a gradient may differ from the slope that is measured along it."""
APART = 0.3
"""Share by which a gradient may differ from the slope in directions drawn by chance."""
UNLIKE = 0.8
"""The same where it says nothing of them."""
SAME_GRADIENT = 0.1
"""Share by which an image's gradient may differ in a batch; at a kink it may be either side's."""
ACCURACY_SHIFT = 0.03
BENT = (
    ", were it not right once it is followed along a step, and next to nothing left standing: the "
    "loss is sharply curved. What one long step leaves says little."
)
TOO_WEAK = " The evaluation's attacks were too weak to say anything: choose others, or more steps."

Outputs = Literal["logits", "softmax", "sigmoid"]


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A further attack on slices that every attack of the evaluation had left standing.

    Attributes:
        title: of the attack.
        broken: case ids of those that it fooled.
        climbed: how many of these the loss's own gradient reached too, once it had steps and
            restarts in plenty.
    """

    title: str
    broken: list[str]
    climbed: int = 0


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """What a classifier did on a few slices.

    Attributes:
        slices: that were asked about.
        repeat: largest difference between its answers to the same batch, as a share of the largest
            logit.
        alone: the same between an image in a batch, alone, and in another order.
        outputs: what its answers look like.
        company: largest difference between a slice's gradient in a batch and alone, as a share of
            the longer of the two.
        slope: at each slice with a gradient, the slope that is measured along it over the one that
            the gradient says; the best of several lengths. Empty where none has a gradient.
        directions: at each such slice, how far the slope in directions drawn by chance is from what
            the gradient says, as a share of the larger of the two.
        followed: at each such slice, how far the rise over a step is from what gradients all along
            it say, as a share of the larger of the two. Empty where it was not asked.
        validation: slices, accuracy on them now and as the training noted it; None if not known.
        robust: worst-case accuracy of the evaluation at the radius of the probes; None if nothing
            was tried at a radius.
        most_robust: the most at any of its radii.
        standing: case ids of the slices that were left standing and attacked further.
        longer: more steps of the gradient attack; None where there was none.
        queries: attacks that ask for no gradient.
        backward: attacks on another backward pass, such as one that takes rounding for the
            identity.
        replaced: what that took the place of.
        expected: where answers are drawn, slices, and those right on average of many answers,
            untouched and attacked; None for others.
        planted: slices, and those on which the attack found a weakness that was put there.
        grey: slices attacked at a radius at which any image can be made grey, those still right,
            and how many one answer to all could be right about.
        keeps: whether something in the classifier changes as it answers.
        moved: an attack on the slices that stood, moved by a pixel or little more; None where there
            was none.
        margin: slices, those right, those right by their margin alone, and how many one answer to
            all could be right about; None if not asked.
        stored: attacked slices that fooled, and those that still do as 8-bit files.
    """

    slices: int
    repeat: float = 0.0
    alone: float = 0.0
    company: float = 0.0
    outputs: Outputs = "logits"
    slope: list[float] = []
    directions: list[float] = []
    followed: list[float] = []
    validation: tuple[int, float, float] | None = None
    robust: float | None = None
    most_robust: float | None = None
    standing: list[str] = []
    longer: Tried | None = None
    queries: list[Tried] = []
    backward: list[Tried] = []
    replaced: list[str] = []
    expected: tuple[int, int, int] | None = None
    planted: tuple[int, int] | None = None
    grey: tuple[int, int, int] | None = None
    stored: tuple[int, int] | None = None
    keeps: bool = False
    moved: Tried | None = None
    margin: tuple[int, int, int, int] | None = None


def check_probes(probed: Probed) -> list[Check]:
    """Every check of this file whose question arises."""
    checks = (
        check_repeat,
        check_alone,
        check_outputs,
        check_company,
        check_slope,
        check_directions,
        check_queries,
        check_backward,
        check_longer,
        check_planted,
        check_grey,
        check_stored,
        check_training_record,
    )
    return [made for check in checks if (made := check(probed)) is not None]


def check_repeat(probed: Probed) -> Check:
    """The same images get the same answer twice; where it is drawn, the expected answer is attacked
    too.
    """
    drawn = not probed.repeat <= SAME
    said = f"Asked again about {probed.slices} slices, it answered "
    said += f"with logits that differ by {probed.repeat:.1%} of the largest" if drawn else "alike"
    said += "."
    if drawn and probed.expected is not None:
        slices, clean, attacked = probed.expected
        said += (
            f" The evaluation's {probed.robust:.1%} is that of single answers. By the average of "
            f"many, {clean} of {slices} slices are right untouched, and {attacked} under an attack "
            "on that average (EOT, Athalye et al. 2018)."
        )
    return Check(
        name="the same image gets the same answer twice",
        status="fail" if drawn else "pass",
        detail=said,
    )


def check_alone(probed: Probed) -> Check | None:
    """An image gets the same answer alone, in a batch, and in another order of it."""
    if not probed.repeat <= SAME:
        return None
    other = not probed.alone <= ALIKE
    return Check(
        name="an answer does not depend on the other images of the batch",
        status="fail" if other else "pass",
        detail=(
            f"Alone and in another order, logits of {probed.slices} slices differ by "
            f"{probed.alone:.1%} of the largest: an image's answer depends on the others, as with "
            "a batch-norm that uses the batch's statistics. Put it into evaluation mode."
            if other
            else f"{probed.slices} slices got the same answer alone, together and in another order."
        ),
    )


def check_outputs(probed: Probed) -> Check:
    """Answers are logits; probabilities round to 0 and 1, and take the gradient with them."""
    said = {
        "softmax": "The outputs lie in [0, 1] and sum to one: a softmax ends the network.",
        "sigmoid": "The outputs lie in [0, 1]: a sigmoid ends the network.",
    }
    note = " Attacks climb logits; leave that layer out, else saturation may pass for robustness."
    return Check(
        name="answers are logits",
        status="warn" if probed.outputs in said else "pass",
        detail=said[probed.outputs] + note
        if probed.outputs in said
        else "The outputs are no probabilities.",
    )


def check_company(probed: Probed) -> Check | None:
    """An image gets the same gradient alone and in a batch."""
    if not (probed.repeat <= SAME and probed.alone <= ALIKE):
        return None
    other = not probed.company <= SAME_GRADIENT
    return Check(
        name="a gradient does not depend on the other images of the batch",
        status="fail" if other else "pass",
        detail=(
            f"In a batch and alone, gradients differ by up to {probed.company:.0%} of the longer"
            + (", though answers do not: attacks climb another image's." if other else ".")
        ),
    )


def check_slope(probed: Probed) -> Check | None:
    """The loss rises along its gradient as the gradient says."""
    if not probed.slope:
        return None
    off = off_slope(probed.slope)
    status: Status = "fail" if 2 * off > len(probed.slope) else "pass"
    end = ": attacks climb a gradient that is not the network's."
    if status == "fail" and _curved(probed):
        status, end = "warn", BENT
    return Check(
        name="the loss rises as its gradient says",
        status=status,
        detail=(
            f"At {off} of {len(probed.slope)} slices the rise that was measured along the "
            f"gradient is not within a factor of {STEEPEST:g} of what the gradient says (measured "
            f"over said: {_range(probed.slope)}); more than half is a failure{end}"
        ),
    )


def check_directions(probed: Probed) -> Check | None:
    """The loss changes in directions drawn by chance as its gradient says."""
    if not probed.directions:
        return None
    apart = median(probed.directions)
    status: Status = "fail" if apart > UNLIKE else "warn" if apart > APART else "pass"
    said = {
        "pass": ".",
        "warn": ": a part of the gradient is missing or smoothed away, and attacks climb the rest.",
        "fail": ": it says nothing of most ways in which the answer changes.",
    }
    end = said[status]
    if status == "fail" and _curved(probed):
        status, end = "warn", BENT
    return Check(
        name="no part of the gradient is missing",
        status=status,
        detail=(
            f"In directions drawn by chance the loss of {len(probed.directions)} slices rises by "
            f"another amount than the gradient says: half of them by {apart:.0%} of the larger one "
            f"or more; over {APART:.0%} is a warning, over {UNLIKE:.0%} a failure{end}"
        ),
    )


def off_slope(ratios: Sequence[float]) -> int:
    """How many slopes are not within a factor of `STEEPEST` of what the gradient says."""
    return sum(not 1 / STEEPEST <= one <= STEEPEST for one in ratios)


def _curved(probed: Probed) -> bool:
    """Whether the gradient is right once it is followed, and next to nothing was left standing at
    any radius: a curved loss, which misled no attack.
    """
    right = bool(probed.followed) and median(probed.followed) <= APART
    return right and probed.most_robust is not None and probed.most_robust <= NOTEWORTHY


def check_queries(probed: Probed) -> Check | None:
    """Attacks that ask for no gradient break nothing that those with it left standing."""
    return _judge(
        probed,
        probed.queries,
        name="attacks without gradients break no more",
        blame="the gradient hides what queries find",
    )


def check_backward(probed: Probed) -> Check | None:
    """With rounding and the like taken for the identity on the way back (BPDA), attacks break
    nothing that was left standing.
    """
    return _judge(
        probed,
        probed.backward,
        name="attacks on another backward pass break no more",
        blame=f"the gradient is lost at {', '.join(probed.replaced)}",
    )


def check_longer(probed: Probed) -> Check | None:
    """Twice the steps break nothing more; where attacks climbed nothing, PGD breaks nothing."""
    if probed.longer is None or not probed.standing:
        return None
    broken = probed.longer.broken
    short: Status = "pass"
    if len(broken) >= FEWEST:
        short = "fail" if _misses_most(probed, len(broken)) else "warn"
    said = {"pass": "", "warn": " Give the attacks more steps.", "fail": TOO_WEAK}
    return Check(
        name="twice the steps break no more",
        status=short,
        detail=f"{probed.longer.title}: {say_left(probed, broken)}{said[short]}",
        case_ids=broken,
    )


def check_planted(probed: Probed) -> Check | None:
    """A copy of the classifier that was made weak within eps is broken."""
    if probed.planted is None:
        return None
    slices, found = probed.planted
    return Check(
        name="a planted weakness is found",
        status="pass" if found == slices else "fail",
        detail=(
            f"To a copy of the classifier a weakness was added that a step within eps lays bare; "
            f"the attack found it at {found} of {slices} slices."
        ),
    )


def check_grey(probed: Probed) -> Check | None:
    """On a few slices eps 0.5 leaves no more right than one answer to all would."""
    if probed.grey is None:
        return None
    slices, right, chance = probed.grey
    return Check(
        name="a few slices at eps 0.5 are at or below chance",
        status="fail" if right > chance else "pass",
        detail=(
            f"{right} of {slices} slices are right at eps 0.5, one answer to all would be for "
            f"{chance}: any image can be made one flat grey."
        ),
    )


def check_stored(probed: Probed) -> Check | None:
    """Attacked slices still fool once they are stored with 8 bits."""
    if probed.stored is None:
        return None
    fooled, kept = probed.stored
    return Check(
        name="successes survive storage in 8 bits",
        status="warn" if 2 * kept < fooled else "pass",
        detail=(
            f"{kept} of {fooled} attacked slices that fooled still do with their grey values "
            "rounded to 1/255; fewer than half is a warning: what fails may be no more than "
            "rounding."
        ),
    )


def check_training_record(probed: Probed) -> Check | None:
    """On the validation slices the classifier is as accurate as its training noted."""
    if probed.validation is None:
        return None
    slices, now, noted = probed.validation
    other = abs(now - noted) > max(ACCURACY_SHIFT, 2.5 / slices)
    return Check(
        name="as accurate as its training noted",
        status="warn" if other else "pass",
        detail=f"On {slices} validation slices it is right on {now:.1%}, its training noted "
        f"{noted:.1%}" + (": is the normalisation another, or the images?" if other else "."),
    )


def _judge(probed: Probed, tried: Sequence[Tried], *, name: str, blame: str) -> Check | None:
    """Of attacks of one kind: what falls to any of them counts."""
    if not probed.standing or not tried:
        return None
    fallen = sorted({case for one in tried for case in one.broken})
    hidden = max(len(one.broken) - one.climbed for one in tried)
    status: Status = "pass"
    masked = False
    if _alarming(probed, len(fallen)):
        masked = _alarming(probed, hidden)
        status = "fail" if masked or _misses_most(probed, len(fallen)) else "warn"
    detail = " ".join(f"{one.title}: {say_left(probed, one.broken)}" for one in tried)
    if masked:
        detail += f" Gradient attacks left them standing: {blame}."
    elif status == "fail":
        detail += TOO_WEAK
    elif status == "warn":
        detail += " The gradient finds them too, with more steps: the attacks were too short."
    return Check(name=name, status=status, detail=detail, case_ids=fallen)


def _alarming(probed: Probed, broken: int) -> bool:
    lost = (probed.robust or 0.0) * broken / len(probed.standing)
    return broken >= FEWEST and lost > NOTEWORTHY


def _misses_most(probed: Probed, broken: int) -> bool:
    """Whether most of what was left standing falls to one attack more, so that the evaluation's own
    say nothing.
    """
    return 2 * broken > len(probed.standing) and _alarming(probed, broken)


def say_left(probed: Probed, broken: Sequence[str]) -> str:
    """Both figures: what the evaluation says, and what would be left of it."""
    stood, robust = len(probed.standing), probed.robust or 0.0
    if not stood:
        return "no slice was left standing."
    left = robust * (1 - len(broken) / stood)
    return (
        f"breaks {len(broken)} of {stood} slices that stood: of {robust:.1%} about {left:.1%} "
        "are left."
    )


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
