"""Projected gradient descent, and its two special cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from robustmri.attacks.engine import (
    LossName,
    climb,
    draw_seeds,
    exhausted,
    keep_worse,
    loss_against,
    random_points,
)
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor, described
from robustmri.attacks.step_rules import steepest
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import ThreatModelError
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class PGD(CheckedAttack):
    """Steepest steps on a loss, projected back into the ball, from one or more random starts.

    The step itself is `steepest` in `step_rules`; `ThreatModel.project` takes it back.

    Args:
        steps: number of steps.
        step_size: length of a step as a fraction of eps; the default covers 2.5 radii.
        restarts: random starts; the worst point of each image counts.
        random_start: begin at a random point of the ball, or at the image itself.
        loss: "cross_entropy", or "margin" (Carlini & Wagner's, which does not saturate).
        stop_when_fooled: leave each image at its first success; the accuracy is the same, the cost
            is not.
        keep: the "best" point visited, or the "last" one, as in the paper's own code; a single
            search for the last one does without the forward there.

    Reference: Madry et al. 2018, Sec. 2.1.
    """

    facts = Facts(
        "pgd", "PGD", "Madry et al. 2018, Sec. 2.1", doi="10.48550/arXiv.1706.06083", iterative=True
    )

    steps: int = 20
    step_size: float = 0.125
    restarts: int = 1
    random_start: bool = True
    loss: LossName = "cross_entropy"
    stop_when_fooled: bool = False
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.restarts < 1 or self.step_size <= 0:
            raise ThreatModelError(
                f"steps and restarts must be at least 1 and step_size positive, got {self.steps}, "
                f"{self.restarts} and {self.step_size}."
            )
        if self.restarts > 1 and not self.random_start:
            raise ThreatModelError(
                "restarts without a random start repeat one another. Set random_start, or "
                "restarts=1."
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
        found = None
        rows = torch.arange(len(images), device=images.device)
        seeds = draw_seeds(generator, len(images), each=self.restarts)
        for restart in range(self.restarts):
            if not len(rows) or (found is not None and exhausted(classifier)):
                break
            here, x, y = threat.at(rows), images[rows], labels[rows]
            own = [seeds[row][restart] for row in rows.tolist()]
            again = climb(
                classifier,
                x,
                y,
                here,
                start=random_points(x, here, own) if self.random_start else x,
                steps=self.steps,
                rule=steepest(self.step_size),
                objective=loss_against(self.loss, y, here),
                stop_when_fooled=self.stop_when_fooled,
                keep=self.keep,
                judged=self.keep == "best" or self.restarts > 1 or self.stop_when_fooled,
            )
            if found is None:
                found = again
            else:
                keep_worse(found, rows, again)
            if self.stop_when_fooled:
                rows = torch.nonzero(~found.fooled)[:, 0]
        return images.clone() if found is None else found.images


@described(Facts("fgsm", "FGSM", "Goodfellow et al. 2015, Sec. 4", doi="10.48550/arXiv.1412.6572"))
def fgsm(**settings: object) -> PGD:
    """The fast gradient sign method: one full step from the image. Reference: Goodfellow et al.
    2015, Sec. 4.
    """
    return PGD(**{"steps": 1, "step_size": 1.0, "random_start": False, **settings})  # type: ignore[arg-type]


@described(
    Facts(
        "bim",
        "BIM",
        "Kurakin et al. 2017, Sec. 2.2",
        doi="10.48550/arXiv.1607.02533",
        iterative=True,
    )
)
def bim(**settings: object) -> PGD:
    """The basic iterative method: PGD from the image itself. Reference: Kurakin et al. 2017, Sec.
    2.2.
    """
    return PGD(**{"random_start": False, **settings})  # type: ignore[arg-type]
