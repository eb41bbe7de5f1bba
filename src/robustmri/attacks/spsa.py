"""SPSA: a gradient guessed from the logits at pairs of points, for classifiers whose own gradient
is hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robustmri.attacks.engine import (
    AttackLoss,
    Look,
    LossName,
    asking,
    by_forward,
    climb,
    exhausted,
    loss_against,
)
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor
from robustmri.attacks.step_rules import Rule, Seen, State, adam, steepest, uniform_change
from robustmri.attacks.streams import like, open_streams, signs, with_stream
from robustmri.core.arrays import Images, Labels, Logits, PerImage
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import per_image
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class SPSA(CheckedAttack):
    """Steps along (f(x + r v) - f(x - r v)) v / 2r, averaged over random signs v; no gradient is
    asked for.

    Pairs stay within the bounds and the mask, but may lie outside the ball: only the steps must
    not.

    Args:
        steps: number of steps.
        step_size: length of a step as a fraction of eps. Adam's is that of a change that is even
            over all pixels.
        samples: pairs of forwards for each step.
        reach: r, how far the pairs lie from the point in each pixel, in image units.
        rule: "adam", as in the paper, or "steepest".
        loss: "margin", as in the paper, or "cross_entropy".
        stop_when_fooled: leave each image at its first success.

    Reference: Uesato et al. 2018, Sec. 3.2 and Appendix B; Spall 1992.
    """

    facts = Facts(
        "spsa",
        "SPSA",
        "Uesato et al. 2018; Spall 1992",
        doi="10.48550/arXiv.1802.05666",
        knowledge="scores",
    )

    steps: int = 20
    step_size: float = 0.125
    samples: int = 32
    reach: float = 0.01
    rule: Literal["adam", "steepest"] = "adam"
    loss: LossName = "margin"
    stop_when_fooled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.samples < 1 or self.step_size <= 0 or self.reach <= 0:
            raise ThreatModelError(
                "steps and samples must be at least 1, step_size and reach positive, got "
                f"{self.steps}, {self.samples}, {self.step_size} and {self.reach}."
            )

    def search(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> Images:
        """See `Attack`."""
        rule = steepest(self.step_size) if self.rule == "steepest" else _even_adam(self.step_size)
        return climb(
            classifier,
            images,
            labels,
            threat,
            start=images,
            steps=self.steps,
            look=self._look(classifier, threat),
            rule=with_stream(rule, open_streams(generator, len(images), images.device)),
            objective=loss_against(self.loss, labels, threat),
            stop_when_fooled=self.stop_when_fooled,
        ).images

    def _look(self, budget: Predictor, threat: ThreatModel) -> Look:
        def look(
            classifier: Predictor, points: Images, rows: Tensor, objective: AttackLoss, state: State
        ) -> tuple[PerImage, Logits, Images]:
            values, logits, total = by_forward(classifier, points, rows, objective, state)
            here = threat.at(rows)
            for sample in range(1, self.samples + 1):
                if exhausted(budget):
                    break
                sign = here.allow(like(signs(state["stream"] ^ sample, points[:1].numel()), points))
                pair = torch.cat([points + self.reach * sign, points - self.reach * sign]).clamp(
                    *here.bounds
                )
                with asking(budget, 2):
                    sides, _, _ = by_forward(classifier, pair, rows.repeat(2), objective, state)
                difference = torch.nan_to_num(
                    sides[: len(rows)] - sides[len(rows) :], posinf=0.0, neginf=0.0
                )
                total = total + per_image(difference, points) * sign
            return values, logits, total / (2 * self.reach * self.samples)

        return look


def _even_adam(step_size: float) -> Rule:
    """Adam with a learning rate that is the same part of eps in every norm."""
    unit = adam(1.0)

    def update(seen: Seen, state: State) -> tuple[Images, State]:
        proposed, after = unit.update(seen, state)
        return seen.points + uniform_change(step_size, seen.threat, seen.points) * (
            proposed - seen.points
        ), after

    return Rule(unit.init, update)
