"""Auto-PGD: steps that find their own length, away from the label or towards one class after
another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustmri.attacks.engine import (
    Found,
    LossName,
    checked,
    climb,
    draw_seeds,
    exhausted,
    frozen,
    keep_worse,
    loss_against,
    loss_towards,
    random_points,
)
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor, described
from robustmri.attacks.step_rules import adaptive, adaptive_sparse
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import ThreatModelError
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class APGD(CheckedAttack):
    """PGD without a step size to choose: it halves its step, and returns to the best point, where
    it makes no progress.

    In l1 its steps are sparse, and the number of pixels adapts instead.

    Args:
        steps: number of steps.
        restarts: random starts; the worst point of each image counts.
        loss: "margin", "cross_entropy", or "dlr", the margin over the spread of the logits, for 3
            classes or more.
        targets: 0: away from the label. Otherwise towards so many of the other classes, one after
            another, the likeliest first; an image that becomes any wrong class counts. A target of
            the threat is tried alone.
        probe: steps towards each of the other classes, where there are more than `targets`, that
            find out which of them are worth all steps: those that come nearest. 0: take the
            likeliest.
        stop_when_fooled: leave each image at its first success; the accuracy is the same, the cost
            is not.

    Reference: Croce & Hein 2020, Sec. 3; for l1 Croce & Hein 2021, Sec. 3.
    """

    facts = Facts(
        "apgd",
        "APGD",
        "Croce & Hein 2020, Sec. 3; l1: 2021",
        doi="10.48550/arXiv.2003.01690",
        iterative=True,
    )

    steps: int = 100
    restarts: int = 1
    loss: LossName = "margin"
    targets: int = 0
    probe: int = 0
    stop_when_fooled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.restarts < 1 or self.targets < 0 or self.probe < 0:
            raise ThreatModelError(
                "steps and restarts must be at least 1, targets and probe at least 0, got "
                f"{self.steps}, {self.restarts}, {self.targets} and {self.probe}."
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
        ranked = self._ranked(classifier, images, labels, threat)
        probed = len(ranked) if self.probe and len(ranked) > self.targets else 0
        attempts = self.restarts * (min(self.targets, len(ranked)) or 1)
        seeds = iter(zip(*draw_seeds(generator, len(images), each=attempts + probed), strict=True))
        low = torch.full((len(images),), -torch.inf, dtype=images.dtype, device=images.device)
        found = Found(images.clone(), torch.zeros_like(low, dtype=torch.bool), low)
        begun = False

        def attempt(aim: Tensor | None, steps: int) -> tuple[Tensor, Found] | None:
            """Rows that were tried, and what came of them; none where nothing is left to do."""
            nonlocal begun
            own = next(seeds)
            rows = torch.nonzero(~found.fooled | (not self.stop_when_fooled))[:, 0]
            if not len(rows) or (begun and exhausted(classifier)):
                return None
            begun = True
            here, x, y = threat.at(rows), images[rows], labels[rows]
            again = climb(
                classifier,
                x,
                y,
                here,
                start=random_points(x, here, [own[row] for row in rows.tolist()]),
                steps=steps,
                rule=(adaptive_sparse if threat.measure.sparse else adaptive)(steps),
                objective=loss_against(self.loss, y, here)
                if aim is None
                else loss_towards(self.loss, aim[rows]),
                stop_when_fooled=self.stop_when_fooled,
            )
            keep_worse(found, rows, again)
            return rows, again

        if probed:
            near = torch.full_like(low[:, None].expand(-1, probed), -torch.inf)
            for place, other in enumerate(ranked):
                tried = attempt(other, self.probe)
                if tried:
                    near[tried[0], place] = tried[1].merit
            best = near.sort(dim=1, descending=True, stable=True).indices
            ranked = list(torch.stack(ranked, 1).gather(1, best).unbind(1))
        aims: list[Tensor | None] = [*ranked[: self.targets]] or [None]
        for aim in aims * self.restarts:
            attempt(aim, self.steps)
        return found.images

    def _ranked(
        self, classifier: Predictor, images: Images, labels: Labels, threat: ThreatModel
    ) -> list[Tensor]:
        """The other classes of each image, the likeliest first; none where only the label, or the
        threat, says.
        """
        if not self.targets or threat.target is not None:
            return []
        with frozen(classifier), torch.no_grad():
            logits = checked(classifier, labels, threat)(images)
        ranked = (
            logits.scatter(1, labels[:, None], -torch.inf)
            .sort(dim=1, descending=True, stable=True)
            .indices
        )
        return list(ranked[:, :-1].unbind(1))


@described(Facts("apgd-ce", "APGD-CE", "Croce & Hein 2020, Sec. 3", iterative=True))
def apgd_ce(**settings: object) -> APGD:
    """APGD on the cross-entropy (its log-odds). Reference: Croce & Hein 2020, Sec. 3."""
    return APGD(**{"loss": "cross_entropy", **settings})  # type: ignore[arg-type]


@described(Facts("apgd-dlr", "APGD-DLR", "Croce & Hein 2020, Sec. 4", iterative=True))
def apgd_dlr(**settings: object) -> APGD:
    """APGD on the logit ratio; needs three classes. Reference: Croce & Hein 2020, Sec. 4."""
    return APGD(**{"loss": "dlr", **settings})  # type: ignore[arg-type]


@described(Facts("apgd-t", "APGD-T", "Croce & Hein 2020, Sec. 5", iterative=True))
def apgd_t(**settings: object) -> APGD:
    """APGD towards each of the nine likeliest other classes. Reference: Croce & Hein 2020, Sec.
    5.
    """
    return APGD(**{"targets": 9, **settings})  # type: ignore[arg-type]
