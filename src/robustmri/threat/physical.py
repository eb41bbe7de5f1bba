"""A physical threat: not any small change of the pixels, but a transform with a box of parameters.

The search for its worst case is an l-infinity attack on another function, p to f(T(x, p)). So every
such attack can make it, and every success is verified as those in image space are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustmri.core.arrays import Images, Logits
from robustmri.core.errors import ThreatModelError
from robustmri.threat.eps import Eps, parse_eps
from robustmri.threat.physical_transforms import Transform, find_transform
from robustmri.threat.threat_model import HALVES, ThreatModel, read_target


@dataclass(frozen=True)
class PhysicalThreat:
    """All images T(x, p) of a transform T, with every parameter p in [-1, 1] times eps.

    Args:
        kind: "bias-field", "gamma", "affine", "deformation" or "patch".
        eps: how much the parameters may do, in the unit of the kind (see
            `robustmri.threat.physical_transforms`); None: its usual one.
        target: class that the attacker wants to see; None: any wrong class will do.

    >>> from robustmri import PGD
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> darker_or_brighter = PhysicalThreat("bias-field", eps=0.3)
    >>> PGD(restarts=3)(network, images, labels, darker_or_brighter).shape
    torch.Size([2, 1, 8, 8])
    """

    kind: str
    eps: float | None = None
    target: int | None = None

    def __post_init__(self) -> None:
        eps = self.transform.usual if self.eps is None else self.eps
        object.__setattr__(self, "eps", check_amount(parse_eps(eps), self.transform))
        object.__setattr__(self, "target", read_target(self.target))

    @property
    def transform(self) -> Transform:
        """What is done to a slice."""
        return find_transform(self.kind)

    @property
    def amount(self) -> float:
        """`eps` as a number."""
        return float(self.eps or 0.0)

    def change(self, images: Images) -> Changed:
        """What the parameters do to these images.

        Raises:
            ThreatModelError: the images are not two-dimensional, or not in [0, 1].
        """
        labels = torch.zeros(len(images), dtype=torch.long) if isinstance(images, Tensor) else None
        ThreatModel(eps=0.0).check(images, labels if labels is not None else torch.empty(0))
        if images.dim() != 4:
            raise ThreatModelError(
                f"a physical threat needs images (n, channels, height, width), got shape "
                f"{tuple(images.shape)}."
            )
        return Changed(images, self)


def check_amount(eps: Eps, transform: Transform) -> float:
    """The eps of a physical threat as a number.

    Raises:
        ThreatModelError: it is in normalised units, or more than makes sense.

    >>> check_amount(Eps(60.0), find_transform("affine"))
    Traceback (most recent call last):
        ...
    robustmri.core.errors.ThreatModelError: eps 60 is too much for affine (rotation in degrees,
    shift and scale in %). Take at most 45; 5 is usual.
    """
    if eps.units == "normalised":
        raise ThreatModelError(
            f"eps {eps} of {transform.name} has no normalised units: it is the "
            f"{transform.meaning}. Write {eps.value:g}."
        )
    if eps.value > transform.largest:
        raise ThreatModelError(
            f"eps {eps} is too much for {transform.name} ({transform.meaning}). Take at most "
            f"{transform.largest:g}; {transform.usual:g} is usual."
        )
    return eps.value


class Changed:
    """A batch of images as functions of the parameters of a threat.

    An attack sees points of shape (n, 1, 1, k + 1): k parameters, and the number of the image,
    which its mask keeps; so it may drop images and ask about others in any order.

    Args:
        images: originals, shape (n, c, h, w).
        threat: what may be done to them.
    """

    def __init__(self, images: Images, threat: PhysicalThreat) -> None:
        self.images, self.threat = images.detach(), threat
        self._count = threat.transform.count((images.shape[-2], images.shape[-1]), threat.amount)

    @property
    def start(self) -> Tensor:
        """The images as they are (of a patch: a grey one), shape (n, 1, 1, k + 1)."""
        n, like = len(self.images), self.images
        # Of 16 bits a parameter would have three digits.
        dtype = torch.float32 if like.dtype in HALVES else like.dtype
        points = torch.zeros(n, 1, 1, self._count + 1, dtype=dtype, device=like.device)
        points[:, 0, 0, -1] = (torch.arange(n, device=like.device) + 0.5) / max(n, 1)
        return points

    @property
    def box(self) -> ThreatModel:
        """What an attack may do to the points: any parameter in [-1, 1]."""
        free = torch.ones(1, 1, self._count + 1, dtype=torch.bool, device=self.images.device)
        free[..., -1] = False
        return ThreatModel("linf", 1.0, bounds=(-1.0, 1.0), target=self.threat.target, mask=free)

    def at(self, points: Tensor) -> Images:
        """T(x, p) for each point, in the type of the images."""
        number = (points[:, 0, 0, -1].detach() * len(self.images)).long()
        images = self.images[number.clamp(0, max(len(self.images) - 1, 0))]
        values = points[:, 0, 0, :-1]
        if images.dtype != values.dtype:
            images = images.to(values.dtype)
        changed = self.threat.transform.apply(images, values, self.threat.amount)
        return changed.to(self.images.dtype)

    def seen_by(self, classifier: Callable[[Images], Logits]) -> SeenChanged:
        """The classifier as a function of the points."""
        return SeenChanged(classifier, self)


class SeenChanged(nn.Module):
    """p to f(T(x, p)): what an attack on the parameters climbs."""

    def __init__(self, classifier: Callable[[Images], Logits], changed: Changed) -> None:
        super().__init__()
        self.classifier, self.changed = classifier, changed

    def forward(self, points: Tensor) -> Logits:
        """Logits of the changed images."""
        return self.classifier(self.changed.at(points))

    def exact(self, points: Tensor) -> Logits:
        """Logits by the one that decides, see `attacks.engine.exact_classifier`."""
        decides = getattr(self.classifier, "exact", self.classifier)
        return decides(self.changed.at(points))

    @property
    def exhausted(self) -> bool:
        """What the engine asks before each step."""
        return bool(getattr(self.classifier, "exhausted", False))
