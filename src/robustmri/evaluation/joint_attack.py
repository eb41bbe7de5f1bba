"""An attack on a classifier and its detector together: a wrong answer counts only where there is no
alarm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from robustmri.attacks.apgd import adaptive, adaptive_sparse
from robustmri.attacks.engine import (
    AttackLoss,
    climb,
    draw_seeds,
    loss_against,
    random_points,
)
from robustmri.attacks.protocol import Predictor
from robustmri.attacks.step_rules import Rule, steepest
from robustmri.core.arrays import Images, Labels, Logits, PerImage
from robustmri.evaluation.detectors import Judge
from robustmri.losses import log_odds
from robustmri.threat.norms import per_image
from robustmri.threat.threat_model import ThreatModel

STEPS = 60


@dataclass(frozen=True)
class Unnoticed(ThreatModel):
    """The threat of an attacker who must also raise no alarm.

    Args:
        classes: of the classifier; of what it is asked, the first columns are its logits, the last
            one is the score, between them lie the logits that have to agree.
        threshold: score above which there is alarm.
    """

    classes: int = 2
    threshold: float = 0.0

    def fooled(self, logits: Logits, labels: Labels, confidence: float = 0.0) -> Tensor:
        """Which images are named wrongly, and pass; a score that is no number does not."""
        wrong = super().fooled(logits[:, : self.classes], labels, confidence)
        return wrong & (logits[:, -1] <= self.threshold)


def in_columns(judge: Judge) -> Predictor:
    """All that is said of images in one tensor, as `Unnoticed` expects it."""

    def predict(points: Images) -> Logits:
        logits, others, score = judge(points)
        return torch.cat([logits, others.flatten(1), score[:, None]], 1)

    return predict


def search_unnoticed(
    judge: Judge,
    threshold: float,
    images: Images,
    labels: Labels,
    threat: ThreatModel,
    *,
    classes: int,
    units: tuple[float, float],
    start: Images,
    generator: torch.Generator,
    steps: int = STEPS,
) -> Images:
    """Images of S(x) that are named wrongly and raise no alarm, as far as such are found.

    Three searches, each on what the ones before it left. They climb the lead of the wrong class or
    the distance to the threshold, whichever is the smaller one, in units of what is usual; the sum
    of the log-odds against the label and of what removes the doubt; and, from the end of an attack
    on the classifier alone, the answer until it is wrong and from there on the score.

    Args:
        judge: classifier and detector.
        threshold: score above which there is alarm.
        images: originals, shape (n, c, h, w).
        labels: true classes, shape (n,).
        threat: set that must not be left, with the attacker's goal.
        classes: of the classifier.
        units: usual sizes of the classifier's lead and of a score's distance to the threshold.
        start: what an attack on the classifier alone has found.
        generator: source of the random starts.
        steps: of each search.

    Returns:
        The points, where nothing was found those of `start`.

    Reference: Carlini & Wagner 2017 (Adversarial examples are not easily detected), Sec. 2.4, for
    the joint loss; Bryniarski et al. 2022, Sec. 4.1, for the third; Athalye et al. 2018, Sec. 4.1,
    for rounding.
    """
    predict = in_columns(judge)
    with torch.no_grad():
        there = predict(start)
    goal = Unnoticed(
        threat.norm,
        threat.eps,
        threat.bounds,
        threat.target,
        threat.mask,
        classes=classes,
        threshold=threshold,
    )
    found, left = start.clone(), torch.nonzero(~goal.fooled(there, labels))[:, 0]
    seeds = draw_seeds(generator, len(images), each=2)
    adapted: Rule = (adaptive_sparse if threat.measure.sparse else adaptive)(steps)
    searches: list[tuple[Aim, Rule, int | None]] = [
        (partial(smaller_lead, units=units), adapted, 0),
        (sum_of_both, adapted, 1),
        (in_turn, steepest(2.5 / steps), None),
    ]
    for aim, rule, draw in searches:
        if not len(left):
            break
        x, y, here = images[left], labels[left], goal.at(left)
        again = climb(
            predict,
            x,
            y,
            here,
            start=start[left]
            if draw is None
            else random_points(x, here, [seeds[row][draw] for row in left.tolist()]),
            steps=steps,
            rule=rule,
            objective=aim(y, goal),
            stop_when_fooled=True,
        )
        found[left] = torch.where(per_image(again.fooled, x), again.images, found[left])
        left = left[~again.fooled]
    return found


Aim = Callable[[Labels, Unnoticed], AttackLoss]


def smaller_lead(labels: Labels, goal: Unnoticed, *, units: tuple[float, float]) -> AttackLoss:
    """How far the answer is wrong, or the score below its threshold, whichever is less."""
    wrong = loss_against("margin", labels, goal)

    def value(points: Images, columns: Logits, rows: Tensor) -> PerImage:
        ahead = wrong(points, columns[:, : goal.classes], rows) / units[0]
        return torch.minimum(ahead, (goal.threshold - columns[:, -1]) / units[1])

    return value


def sum_of_both(labels: Labels, goal: Unnoticed) -> AttackLoss:
    """Log-odds against the label, and those of the answers that have to agree; where there are
    none, less half the score, in nats if it is a squared distance.
    """
    wrong = loss_against("cross_entropy", labels, goal)

    def value(points: Images, columns: Logits, rows: Tensor) -> PerImage:
        others = _others(columns, goal)
        said = wrong(points, columns[:, : goal.classes], rows)
        if not others:
            return said - columns[:, -1] / 2
        return said + torch.stack([wrong(points, one, rows) for one in others]).amin(0)

    return value


def in_turn(labels: Labels, goal: Unnoticed) -> AttackLoss:
    """What is amiss with the point: that the answer is right, else that there is alarm."""
    against = loss_against("cross_entropy", labels, goal)

    def value(points: Images, columns: Logits, rows: Tensor) -> PerImage:
        answers, others = columns[:, : goal.classes], _others(columns, goal)
        wrong = ThreatModel(target=goal.target).fooled(answers, labels[rows])
        named = answers.detach().argmax(1)
        doubt = columns[:, -1] / 2
        if others:
            doubt = torch.stack([log_odds(one, named) for one in others]).amax(0)
        return torch.where(wrong, -doubt, against(points, answers, rows))

    return value


def _others(columns: Logits, goal: Unnoticed) -> list[Logits]:
    return (
        list(columns[:, goal.classes : -1].split(goal.classes, 1))
        if (columns.shape[1] > goal.classes + 1)
        else []
    )
