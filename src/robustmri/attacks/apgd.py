"""Auto-PGD: steps that find their own length, away from the label or towards one class after another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustmri.arrays import Images, Labels
from robustmri.attacks.engine import (
    Found,
    LossName,
    checked,
    climb,
    draw_seeds,
    exhausted,
    frozen,
    loss_against,
    loss_towards,
    random_points,
    worse_of,
)
from robustmri.attacks.protocol import Predictor
from robustmri.attacks.rules import adaptive, adaptive_sparse
from robustmri.errors import ThreatModelError
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class APGD:
    """PGD without a step size to choose: it halves its step, and returns to the best point, where it makes no progress.

    In l1 its steps are sparse, and the number of pixels adapts instead.

    Args:
        steps: number of steps.
        restarts: random starts; the worst point of each image counts.
        loss: "margin", "cross_entropy", or "dlr", the margin over the spread of the logits, for 3 classes or more.
        targets: 0: away from the label. Otherwise towards so many of the other classes, one after another, the
            likeliest first; an image that becomes any wrong class counts. A target of the threat is tried alone.
        stop_when_fooled: leave each image at its first success; the accuracy is the same, the cost is not.

    Reference: Croce & Hein 2020, Sec. 3; for l1 Croce & Hein 2021, Sec. 3.
    """

    steps: int = 100
    restarts: int = 1
    loss: LossName = "margin"
    targets: int = 0
    stop_when_fooled: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1 or self.targets < 0:
            raise ThreatModelError(
                f"steps and restarts must be at least 1 and targets at least 0, got {self.steps}, {self.restarts} and "
                f"{self.targets}."
            )

    def __call__(
        self, classifier: Predictor, images: Images, labels: Labels, threat: ThreatModel, *, generator: torch.Generator
    ) -> Images:
        """See `Attack`."""
        threat.check(images, labels)
        threat.check_radius()
        threat.check_norm("linf", "l2", "l1")
        images = images.detach()
        if not len(images):
            return images.clone()
        seeds = draw_seeds(generator, len(images), each=self.restarts * max(self.targets, 1))
        aims = self._aims(classifier, images, labels, threat) * self.restarts
        found: Found | None = None
        rows = torch.arange(len(images), device=images.device)
        for attempt, aim in enumerate(aims):
            if not len(rows) or (found is not None and exhausted(classifier)):
                break
            here, x, y = threat.at(rows), images[rows], labels[rows]
            again = climb(
                classifier, x, y, here,
                start=random_points(x, here, [seeds[row][attempt] for row in rows.tolist()]),
                steps=self.steps, rule=(adaptive_sparse if threat.norm == "l1" else adaptive)(self.steps),
                objective=loss_against(self.loss, y, here) if aim is None else loss_towards(self.loss, aim[rows]),
                stop_when_fooled=self.stop_when_fooled,
            )  # fmt: skip
            if found is None:
                found = again
            else:
                worse = worse_of(Found(*(part[rows] for part in found)), again)
                for part, values in zip(found, worse, strict=True):
                    part[rows] = values
            if self.stop_when_fooled:
                rows = torch.nonzero(~found.fooled)[:, 0]
        return images.clone() if found is None else found.images

    def _aims(
        self, classifier: Predictor, images: Images, labels: Labels, threat: ThreatModel
    ) -> list[Tensor] | list[None]:
        """Classes to go to, one for each image and try; None: where the threat says."""
        if not self.targets or threat.target is not None:
            return [None]
        with frozen(classifier), torch.no_grad():
            logits = checked(classifier, labels, threat)(images)
        ranked = logits.scatter(1, labels[:, None], -torch.inf).sort(dim=1, descending=True, stable=True).indices
        return list(ranked[:, : min(self.targets, logits.shape[1] - 1)].unbind(1))


def apgd_ce(**settings: object) -> APGD:
    """APGD on the cross-entropy (its log-odds). Reference: Croce & Hein 2020, Sec. 3."""
    return APGD(**{"loss": "cross_entropy", **settings})  # type: ignore[arg-type]


def apgd_dlr(**settings: object) -> APGD:
    """APGD on the logit ratio; needs three classes. Reference: Croce & Hein 2020, Sec. 4."""
    return APGD(**{"loss": "dlr", **settings})  # type: ignore[arg-type]


def apgd_t(**settings: object) -> APGD:
    """APGD towards each of the nine likeliest other classes. Reference: Croce & Hein 2020, Sec. 5."""
    return APGD(**{"targets": 9, **settings})  # type: ignore[arg-type]
