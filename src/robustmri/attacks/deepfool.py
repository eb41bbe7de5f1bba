"""DeepFool: the nearest boundary of the linearised classifier, again and again until it is
crossed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustmri.attacks.bisection import check_halvings, shorten
from robustmri.attacks.engine import Found, checked, exhausted, frozen, gradient_of
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor
from robustmri.attacks.step_rules import feasible
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import broadcast_eps, find_norm, per_image
from robustmri.threat.threat_model import ThreatModel

NUDGE = 1e-4
"""What each step goes beyond the boundary, in image units, as in the authors' code: steps cut by
the bounds creep up to it and would never cross."""


@dataclass(frozen=True)
class DeepFool(CheckedAttack):
    """A near image that fools: each step goes to the nearest of the boundaries that a linear
    classifier would have.

    Each image stops as soon as it fools. The radius of the threat is not used: the distances are
    the result. An image for which no fooling point is found comes back unchanged. With a target,
    the boundary is that between the target and the class that leads. In the second half of the
    steps, beyond the paper, gradients that only push a pixel through its bounds are left out: an
    image that is mostly black then still arrives.

    Args:
        steps: most steps that an image takes.
        candidates: how many of the most likely wrong classes are looked at; each costs a gradient
            in every step.
        overshoot: how much further than the sum of its steps each point lies, as a fraction.
        halvings: forwards at the end, which take each point back to the boundary; see `shorten`. 0:
            none, as the paper.

    Reference: Moosavi-Dezfooli et al. 2016, Algorithm 2 and Eq. 11.
    """

    facts = Facts(
        "deepfool",
        "DeepFool",
        "Moosavi-Dezfooli et al. 2016",
        doi="10.48550/arXiv.1511.04599",
        norms=("linf", "l2"),
        minimal=True,
    )

    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02
    halvings: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.candidates < 1 or self.overshoot < 0:
            raise ThreatModelError(
                "steps and candidates must be at least 1 and overshoot not negative, got "
                f"{self.steps}, {self.candidates} and {self.overshoot}."
            )
        check_halvings(self.halvings)

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
        found = Found(
            images.clone(), torch.zeros_like(labels, dtype=torch.bool), torch.zeros_like(labels)
        )
        rows = torch.arange(len(images), device=images.device)
        points, total = images.clone(), torch.zeros_like(images)
        with frozen(classifier):
            for step in range(self.steps + 1):
                last, here = step == self.steps or exhausted(classifier), threat.at(rows)
                points = points.detach().requires_grad_(not last)
                with torch.set_grad_enabled(not last):
                    logits = predict(points)
                    leads = self._leads(logits, labels[rows], here)
                won = here.fooled(logits, labels[rows])
                found.images[rows[won]], found.fooled[rows[won]] = points.detach()[won], True
                if last or won.all():
                    break
                total = total + _nearest(points, leads, here, cut=2 * step < self.steps)
                left = ~won
                rows, total, here = rows[left], total[left], threat.at(rows[left])
                originals = images[rows]
                total = here.project(originals + total, originals) - originals
                points = here.project(originals + (1 + self.overshoot) * total, originals)
        return shorten(classifier, images, labels, threat, found, halvings=self.halvings)

    def _leads(self, logits: Tensor, labels: Labels, threat: ThreatModel) -> list[Tensor]:
        """Differences of logits that have to become positive: any of them, one per candidate
        class.
        """
        if threat.target is not None:
            others = logits.detach().clone()
            others[:, threat.target] = -torch.inf
            return [
                logits[:, threat.target] - logits.gather(1, others.argmax(1, keepdim=True))[:, 0]
            ]
        wrong = logits.detach().scatter(1, labels[:, None], -torch.inf)
        ranked = wrong.topk(min(self.candidates, logits.shape[1] - 1), dim=1).indices
        return [
            (logits.gather(1, rival) - logits.gather(1, labels[:, None]))[:, 0]
            for rival in ranked.split(1, dim=1)
        ]


def _nearest(points: Images, leads: list[Tensor], threat: ThreatModel, *, cut: bool) -> Images:
    """The shortest way to a boundary of the classifier as it looks from `points`.

    Args:
        points: where the classifier was asked.
        leads: differences of logits there, any of which has to become positive.
        threat: norm, mask and bounds.
        cut: whether the bounds may cut the step short, or the other pixels have to make up for
            those that are stuck.
    """
    shortest = torch.full_like(leads[0].detach(), torch.inf)
    way = torch.zeros_like(points)
    for lead in leads:
        gradient = threat.allow(torch.nan_to_num(gradient_of(lead.sum(), points, again=True)))
        if not cut:
            gradient = feasible(gradient, points.detach(), threat)
        distance = NUDGE + lead.detach().abs() / find_norm(threat.measure.dual).size(gradient)
        nearer = distance < shortest  # Never where the gradient is zero: infinite, or not a number.
        shortest = torch.where(nearer, distance, shortest)
        step = broadcast_eps(distance, gradient) * threat.measure.steepest(gradient)
        way = torch.where(per_image(nearer, way), step, way)
    return way
