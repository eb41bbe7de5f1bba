"""The nearest fooling image that can be found: every search for it, each followed by a walk along
the boundary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustmri.attacks.apgd import adaptive, adaptive_sparse
from robustmri.attacks.bisection import check_halvings, shorten
from robustmri.attacks.carlini_wagner import CarliniWagnerL2
from robustmri.attacks.ddn import DDN
from robustmri.attacks.deepfool import DeepFool
from robustmri.attacks.elastic_net import ElasticNet
from robustmri.attacks.engine import (
    Found,
    SeededGenerator,
    checked,
    climb,
    draw_seeds,
    exact_classifier,
    exhausted,
    frozen,
    loss_against,
)
from robustmri.attacks.fmn import FMN, cosine
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor
from robustmri.attacks.step_rules import Rule, Seen, State
from robustmri.core.arrays import Images, Labels, PerImage
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import per_image
from robustmri.threat.threat_model import ThreatModel

PRESS = 20
SMALLER = {"linf": 0.97, "l1": 0.9}
"""Steps of each round within a smaller radius, and the part of the radius that it is given."""
ROUNDS = 12
"""Of clipping pixels at their bounds; each finds some, and nearly always few do."""


@dataclass(frozen=True)
class Nearest(CheckedAttack):
    """Nearest image that fools, by all that is here: for what is reported as a smallest eps.

    Every search that knows the norm is run (linf: DeepFool, FMN; l2: also DDN and CW-L2; l1: FMN,
    EAD, and DDN, whose points of l2 may lie at a nearer part of the boundary). From the point that
    each has found a walk along the boundary looks for where it comes nearer to the image, and the
    nearest point of all is kept. At each step of the walk the classifier is taken for linear, the
    point of its boundary that is nearest to the image, within the bounds, is found exactly, and the
    walk goes a part of the way to it and back onto the boundary. In linf and l1, where a walk ends
    in corners, APGD then looks from the best point for another within a radius that is a little
    smaller, again and again. The radius of the threat is not used: the distances are the result. An
    image for which no fooling point is found comes back unchanged.

    With its defaults an image costs, of three classes, 500 gradients in linf at most and 1000 in l2
    and l1.

    Args:
        steps: of each search but DeepFool, which takes half as many at most; of CW-L2 and EAD for
            each of five weights, three fifths and four fifths as many.
        walk: steps along the boundary from each point that was found; 0: none.
        reach: first part of the way that a step goes; the last one is a twentieth of it.
        presses: rounds of 20 steps within the smaller radius, in linf and l1; 0: none.
        halvings: forwards at the end, which take each point back to the boundary; see `shorten`.

    Reference: Brendel et al. 2019 and Croce & Hein 2020 (FAB), Sec. 3, for the idea of a walk; the
    step is the second's without its extrapolation.
    """

    facts = Facts(
        "nearest",
        "Nearest",
        "Croce & Hein 2020 (FAB), Sec. 3",
        doi="10.48550/arXiv.1907.02044",
        norms=("linf", "l2", "l1"),
        minimal=True,
    )

    steps: int = 100
    walk: int = 100
    reach: float = 0.3
    presses: int = 5
    halvings: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        least = self.steps >= 2 and self.walk >= 0 and self.presses >= 0
        if not least or not 0 < self.reach <= 1:
            raise ThreatModelError(
                "steps must be at least 2, walk and presses at least 0 and reach above 0 and at "
                f"most 1, got {self.steps}, {self.walk}, {self.presses} and {self.reach}."
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
        best, members = images.clone(), self.members(threat.norm)
        seeds = draw_seeds(generator, len(images), each=len(members))
        ends = []
        for place, attack in enumerate(members):
            if place and exhausted(classifier):
                break
            seeded = SeededGenerator([own[place] for own in seeds])
            known = threat.norm in attack.facts.norms
            here = threat if known else replace(threat, norm=attack.facts.norms[0])
            ends.append(attack(classifier, images, labels, here, generator=seeded))
            best = _nearer(ends[-1], best, images, threat)
        for end in ends if self.walk else []:
            if exhausted(classifier):
                break
            best = _nearer(
                self._walk(classifier, end, images, labels, threat), best, images, threat
            )
        return self._press(classifier, best, images, labels, threat)

    def members(self, norm: str) -> list[CheckedAttack]:
        """The searches that know the norm, and in l1 DDN, which looks in its own."""
        steps, weights, back = self.steps, 5, self.halvings
        searches: list[CheckedAttack] = [
            DeepFool(steps=steps // 2, halvings=back),
            FMN(steps=steps, halvings=back),
            DDN(steps=steps, halvings=back),
            CarliniWagnerL2(steps=max(1, 3 * steps // 5), searches=weights, halvings=back),
            ElasticNet(steps=max(1, 4 * steps // 5), searches=weights, halvings=back),
        ]
        extra = (DDN,) if norm == "l1" else ()
        return [one for one in searches if norm in one.facts.norms or isinstance(one, extra)]

    def _walk(
        self,
        classifier: Predictor,
        end: Images,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
    ) -> Images:
        """Where the walk from `end` comes, and the images themselves where nothing fools."""
        rows = torch.nonzero((end != images).flatten(1).any(1))[:, 0]
        if not len(rows):
            return images
        x, y, here = images[rows], labels[rows], threat.at(rows)
        found = climb(
            classifier,
            x,
            y,
            here,
            start=end[rows],
            steps=self.walk,
            rule=self._rule(),
            objective=loss_against("margin", y, here),
            minimal=True,
        )
        return self._back(classifier, found, rows, images, labels, threat)

    def _press(
        self,
        classifier: Predictor,
        best: Images,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
    ) -> Images:
        """The best points, or nearer ones: an image that fools within the smaller radius is asked
        for one that is as much smaller again, the others for half as much less than they have.
        """
        if threat.norm not in SMALLER:
            return best
        less = torch.full_like(images.flatten(1)[:, 0], 1 - SMALLER[threat.norm])
        for _ in range(self.presses):
            rows = torch.nonzero((best != images).flatten(1).any(1))[:, 0]
            if not len(rows) or exhausted(classifier):
                break
            x, y, size = images[rows], labels[rows], threat.measure.size(best - images)[rows]
            here = replace(threat.at(rows), eps=size * (1 - less[rows]))
            found = climb(
                classifier,
                x,
                y,
                here,
                start=here.project(best[rows], x),
                steps=PRESS,
                rule=(adaptive_sparse if threat.measure.sparse else adaptive)(PRESS),
                objective=loss_against("margin", y, here),
                stop_when_fooled=True,
            )
            less[rows] = torch.where(found.fooled, less[rows], less[rows] / 2)
            nearer = self._back(classifier, found, rows, images, labels, threat)
            best = _nearer(nearer, best, images, threat)
        return best

    def _back(
        self,
        classifier: Predictor,
        found: Found,
        rows: Tensor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
    ) -> Images:
        """What was found of some images, taken back to the boundary; of the others, and where that
        does not fool, the images themselves.
        """
        x, y, here = images[rows], labels[rows], threat.at(rows)
        nearer = shorten(classifier, x, y, here, found, halvings=self.halvings)
        if exhausted(classifier):
            return images
        points = images.clone()
        points[rows] = torch.where(per_image(found.fooled, x), nearer, x)
        # Asked about all together, as whoever gets them will: on the boundary rounding decides.
        exact = checked(exact_classifier(classifier), labels, threat)
        with frozen(classifier), torch.no_grad():
            fools = threat.fooled(exact(points), labels)
        return torch.where(per_image(fools, points), points, images)

    def _rule(self) -> Rule:
        def update(seen: Seen, state: State) -> tuple[Images, State]:
            images, points, gradient = seen.images, seen.points, seen.gradient
            low, high = seen.threat.bounds
            lead = seen.values.to(points)
            # <gradient, change from the image> has to be so much on the boundary.
            needed = (gradient * (points - images)).flatten(1).sum(1) - lead
            nearest = images + least_change(
                gradient, needed, low - images, high - images, seen.threat.norm
            )
            back = points + least_change(
                gradient, -lead, low - points, high - points, seen.threat.norm
            )
            part = cosine(self.reach, self.reach / 20, seen.step, self.walk)
            return back + part * (nearest - back), state

        return Rule(lambda start: {}, update)


def least_change(
    gradient: Images, needed: PerImage, low: Images, high: Images, norm: str
) -> Images:
    """The smallest change within bounds along which a linear function grows by `needed`; as much as
    the bounds allow where that is less.

    Args:
        gradient: of the function.
        needed: growth of each image, of either sign.
        low, high: bounds of the change, at most and at least 0.
        norm: "linf", "l2" or "l1".

    Reference: Croce & Hein 2020 (FAB), Sec. 3.1, problem 5.

    >>> slope = torch.tensor([[[[3.0, 1.0]]]])
    >>> bound = torch.tensor([[[[0.5, 9.0]]]])
    >>> least_change(slope, torch.tensor([3.0]), -bound, bound, "linf")
    tensor([[[[0.5000, 1.5000]]]])
    >>> least_change(slope, torch.tensor([3.0]), -bound, bound, "l1")
    tensor([[[[0.5000, 1.5000]]]])
    >>> least_change(slope, torch.tensor([1.0]), -bound, bound, "l2")
    tensor([[[[0.3000, 0.1000]]]])
    """
    sign = torch.where(needed < 0, -1.0, 1.0).to(gradient)
    slope = (per_image(sign, gradient) * gradient).flatten(1)
    wanted = needed.abs().to(slope)
    # How far each pixel may go where it helps; the slope is taken as positive from here on.
    room = torch.where(slope > 0, high.flatten(1), -low.flatten(1)).clamp_min(0.0)
    steep = slope.abs()
    sizes = _fill(steep, wanted, room) if norm == "l1" else _level(steep, wanted, room, norm)
    return (sizes * slope.sign()).reshape(gradient.shape)


def _fill(steep: Tensor, wanted: PerImage, room: Tensor) -> Tensor:
    """In l1 the steepest pixels go to their bounds, the last of them as far as it must."""
    order = steep.argsort(dim=1, descending=True)
    gains = (steep * room).gather(1, order)
    left = (wanted[:, None] - gains.cumsum(1) + gains).clamp_min(0.0)
    tiny = torch.finfo(steep.dtype).tiny
    taken = torch.minimum(room.gather(1, order), left / steep.gather(1, order).clamp_min(tiny))
    return torch.zeros_like(steep).scatter(1, order, taken)


def _level(steep: Tensor, wanted: PerImage, room: Tensor, norm: str) -> Tensor:
    """In l2 each pixel goes in proportion to its slope, in linf all go alike, until a bound stops
    it; the others make up for it.
    """
    weight = steep if norm == "l2" else (steep > 0).to(steep)
    stopped = torch.zeros_like(steep, dtype=torch.bool)
    level = torch.zeros_like(wanted)
    tiny = torch.finfo(steep.dtype).tiny
    for _ in range(ROUNDS):
        gained = (steep * room * stopped).sum(1)
        free = (steep * weight * ~stopped).sum(1)
        level = (wanted - gained).clamp_min(0.0) / free.clamp_min(tiny)
        more = stopped | (level[:, None] * weight >= room)
        if bool((more == stopped).all()):
            break
        stopped = more
    return torch.minimum(level[:, None] * weight, room)


def _nearer(found: Images, best: Images, images: Images, threat: ThreatModel) -> Images:
    """Of two points of each image the nearer one; the image itself says that none was found."""

    def moved(points: Images) -> Tensor:
        return (points != images).flatten(1).any(1)

    size = threat.measure.size
    nearer = moved(found) & (~moved(best) | (size(found - images) < size(best - images)))
    return torch.where(per_image(nearer, found), found, best)
