"""What an attack spends on a batch, and how it learns that this is all it may spend."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from robustmri.attacks.protocol import Predictor
from robustmri.core.arrays import Images, Logits
from robustmri.evaluation.settings import Limits


class AttackCost:
    """The account of one attack on one batch, whichever predictors it searches on.

    Args:
        images: size of the batch.
        limits: what may be spent.

    Attributes:
        forwards: images that went through forwards, in all.
        gradients: images whose gradient came back, in all.
        cut_short: whether the attack was told to end.
    """

    def __init__(self, images: int, limits: Limits | None = None) -> None:
        self.images = images
        self.limits = limits or Limits()
        self.forwards = self.gradients = 0
        self.cut_short = False
        # Of any one image, at most: each may have been in every call.
        self._each_forward = self._each_gradient = 0.0
        # Points of each image in a call, where the attack says so; else once, and more often in a
        # call larger than the batch.
        self.each = 1
        self._began = time.monotonic()

    def count_forward(self, images: int) -> None:
        """So many images went through."""
        self.forwards += images
        self._each_forward += max(self.each, images / self.images)

    def count_gradient(self, images: int) -> None:
        """So many gradients came back."""
        self.gradients += images
        self._each_gradient += max(self.each, images / self.images)

    def left(self) -> float:
        """Forwards that each image may still have; one more, by which attacks end, is kept back."""
        return self.limits.forwards - 1 - self._each_forward if self.limits.forwards else math.inf

    def spent(self) -> bool:
        """Whether some image has had all it may have."""
        seconds, gradients, _ = self.limits
        over = bool(seconds) and time.monotonic() - self._began >= seconds * self.images
        over |= bool(gradients) and self._each_gradient >= gradients
        over |= self.left() <= 0
        self.cut_short |= over
        return over


class Metered:
    """A predictor whose use is put on an account.

    Args:
        predictor: what the attack searches on.
        cost: the account.
        decides: what the attack asks about the point that it ends on; none: `predictor`.
    """

    def __init__(
        self, predictor: Predictor, cost: AttackCost, decides: Predictor | None = None
    ) -> None:
        self.predictor, self.cost, self._decides = predictor, cost, decides or predictor

    def __call__(self, images: Images) -> Logits:
        """Logits of `images`."""
        self.cost.count_forward(len(images))
        if images.requires_grad and torch.is_grad_enabled():
            # At each way back: some attacks take several gradients of one forward.
            images.register_hook(lambda gradient: self.cost.count_gradient(len(gradient)))
        return self.predictor(images)

    def exact(self, images: Images) -> Logits:
        """Logits of `images` by the one that decides, see `attacks.engine.exact_classifier`."""
        self.cost.count_forward(len(images))
        return self._decides(images)

    @property
    def exhausted(self) -> bool:
        """What the engine asks before each step."""
        return self.cost.spent()

    @property
    def left(self) -> float:
        """What an attack asks that asks about several points of an image at once."""
        return self.cost.left()

    @contextmanager
    def several(self, each: int) -> Iterator[None]:
        """Calls within hold so many points of every image in them."""
        self.cost.each = each
        try:
            yield
        finally:
            self.cost.each = 1
