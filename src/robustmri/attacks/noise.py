"""Random noise, the control arm: what any attack must beat to be one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robustmri.attacks.engine import checked, draw_seeds, exhausted, frozen, random_points
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import ThreatModelError
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class Noise(CheckedAttack):
    """The first of several random points of S(x) that fools, or the last one drawn.

    Args:
        draws: random points for each image.
    """

    facts = Facts("noise", "Random noise", "the control arm", knowledge="decisions")

    draws: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1:
            raise ThreatModelError(f"draws must be at least 1, got {self.draws}.")

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
        predict = checked(classifier, labels, threat)
        points = images.clone()
        rows = torch.arange(len(images), device=images.device)
        seeds = draw_seeds(generator, len(images), each=self.draws)
        with frozen(classifier), torch.no_grad():
            for draw in range(self.draws):
                if not len(rows) or (draw and exhausted(classifier)):
                    break
                here = threat.at(rows)
                points[rows] = random_points(
                    images[rows], here, [seeds[row][draw] for row in rows.tolist()]
                )
                rows = rows[~here.fooled(predict(points[rows]), labels[rows])]
        return points
