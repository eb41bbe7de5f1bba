"""A suite: attacks one after another, each on the images that all before left standing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from robustmri.attacks.apgd import APGD, apgd_ce, apgd_t
from robustmri.attacks.engine import (
    Found,
    SeededGenerator,
    checked,
    draw_seeds,
    exact_classifier,
    exhausted,
    frozen,
    keep_worse,
    loss_against,
)
from robustmri.attacks.fmn import FMN
from robustmri.attacks.protocol import Attack, CheckedAttack, Facts, Predictor, described
from robustmri.attacks.square import Square
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import per_image
from robustmri.threat.threat_model import ThreatModel

ROUNDING = 1e-6
"""Adding a perturbation to an image rounds its pixels; a point may be so much further than eps."""


class CascadeResult(NamedTuple):
    """The worst point of each image, and the place of the member that broke it: -1 where none did,
    shape (n,).
    """

    images: Images
    broken_by: Tensor


@dataclass(frozen=True)
class Cascade(CheckedAttack):
    """Attacks one after another, each on the images that all before left standing: the worst case
    of each image.

    What an image draws at random does not depend on which others stand. A member that looks for the
    nearest fooling image is held to eps: a point further away is projected, and tested like any
    other.

    Args:
        members: name to attack, cheap ones first; they should leave each image at its first
            success. One that does not know the norm is left out.
        after: a member to an earlier one that must have come nearer to fooling an image than every
            other did, for the member to be run on it.
    """

    facts = Facts(
        "",
        "Suite",
        "Croce & Hein 2020, Sec. 6",
        doi="10.48550/arXiv.2003.01690",
        iterative=True,
    )

    members: Mapping[str, Attack]
    after: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        named = {*self.after, *self.after.values()}
        if not self.members or not named <= set(self.members):
            raise ThreatModelError(
                "expected one member or more, and names of members alone, got "
                f"{list(self.members)} and {sorted(named - set(self.members))}."
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
        return self.run(classifier, images, labels, threat, generator=generator).images

    def run(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> CascadeResult:
        """The same, and which member broke each image, as its place in `members`."""
        threat = self.check(images, labels, threat)
        exact, images = checked(exact_classifier(classifier), labels, threat), images.detach()
        low = torch.full((len(images),), -torch.inf, dtype=images.dtype, device=images.device)
        worst = Found(images.clone(), torch.zeros_like(low, dtype=torch.bool), low)
        broken_by, nearest = (
            torch.full_like(low, -1, dtype=torch.long),
            torch.full_like(low, -1, dtype=torch.long),
        )
        places = {name: place for place, name in enumerate(self.members)}
        seeds = draw_seeds(generator, len(images), each=len(self.members))
        for place, (name, attack) in enumerate(self.members.items()):
            if not knows_norm(attack, threat.norm):
                continue
            own = torch.nonzero(broken_by < 0)[:, 0]
            if name in self.after:
                own = own[nearest[own] == places[self.after[name]]]
            if not len(own):
                continue
            if place and exhausted(classifier):
                break
            here, x, y = threat.at(own), images[own], labels[own]
            seeded = SeededGenerator([seeds[row][place] for row in own.tolist()])
            points = attack(classifier, x, y, here, generator=seeded)
            inside = here.measure.size(points - x) <= torch.as_tensor(here.eps).to(x) + ROUNDING
            points = torch.where(per_image(inside, points), points, here.project(points, x))
            with frozen(classifier), torch.no_grad():
                logits = exact(points)  # Tested again, not trusted.
            merit = loss_against("margin", y, here)(
                points, logits, torch.arange(len(y), device=y.device)
            ).to(low)
            fooled = here.fooled(logits, y)
            nearest[own[merit > worst.merit[own]]] = place
            keep_worse(worst, own, Found(points, fooled, merit))
            broken_by[own[fooled]] = place
        return CascadeResult(worst.images, broken_by)


def knows_norm(attack: Attack, norm: str) -> bool:
    """Whether the attack can be run in that norm; one that states no facts is believed to."""
    facts = getattr(attack, "facts", None)
    return facts is None or norm in facts.norms


@described(
    Facts(
        "standard",
        "Standard suite",
        "Croce & Hein 2020, Sec. 6",
        doi="10.48550/arXiv.2003.01690",
        iterative=True,
        members={
            "apgd": "APGD",
            "apgd-ce": "APGD-CE",
            "apgd-t": "APGD-T",
            "fmn": "FMN",
            "square": "Square",
            "square-long": "Square (long)",
        },
    )
)
def standard(steps: int = 100, queries: int = 5000) -> Cascade:
    """AutoAttack's idea for two classes and more: nothing to tune, several objectives, one attack
    without gradients.

    A few steps on the margin break most images; those that stand get APGD on the log-odds and
    towards three other classes, FMN, and Square (not in l1). Of more than three others, the three
    that ten steps towards each bring nearest. An image that stands costs 410 gradients for three
    classes and 600 for ten, where AutoAttack takes 1900.

    Square is there for networks that hide their gradients. On those it comes nearer than the
    gradients lead, and that shows early: it gets a fifth of its queries on every image that stands,
    and all of them where it was the nearest.

    Args:
        steps: of each gradient attack but the first.
        queries: of Square, at most; and a fifth before.

    Reference: Croce & Hein 2020, Sec. 6.
    """
    members: dict[str, Attack] = {
        "apgd": APGD(steps=min(10, steps), stop_when_fooled=True),
        "apgd-ce": apgd_ce(steps=steps, stop_when_fooled=True),
        "apgd-t": apgd_t(steps=steps, targets=3, probe=min(10, steps), stop_when_fooled=True),
        "fmn": FMN(steps=steps),
        "square": Square(queries=-(-queries // 5)),
        "square-long": Square(queries=queries),
    }
    return Cascade(members, after={"square-long": "square"})
