"""The classifier that decides, asked about each point once."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from robustmri.attacks.protocol import Predictor
from robustmri.core.arrays import Images, Logits

Mark = tuple[int, int]
_WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def logits_of(classifier: Predictor, images: Images) -> Logits:
    """Logits of the original classifier in float32."""
    with torch.no_grad():
        logits: Logits = classifier(images)
    return logits.float()


class Exact:
    """The original classifier in float32, with a memory of the points that it has seen.

    An attack asks it about the point that it ends on, a suite about what its member returns, and
    the verification about what counts in the end: often the very same points, and half of what an
    undefended network's evaluation costs.

    Args:
        classifier: the original, in evaluation mode.
    """

    def __init__(self, classifier: Predictor) -> None:
        self._classifier = classifier
        self._seen: dict[Mark, Logits] = {}

    def __call__(self, images: Images) -> Logits:
        """Logits of `images`; only points that are new go through the classifier."""
        marks = _marks(images)
        new = [row for row, mark in enumerate(marks) if mark not in self._seen]
        if len(new) == len(marks):
            logits = logits_of(self._classifier, images)
            self._seen.update(zip(marks, logits, strict=True))
            return logits
        if new:
            fresh = logits_of(self._classifier, images[new])
            self._seen.update(zip((marks[row] for row in new), fresh, strict=True))
        return torch.stack([self._seen[mark] for mark in marks])

    def knows(self, images: Images) -> list[bool]:
        """For each point whether it has been seen."""
        return [mark in self._seen for mark in _marks(images)]


def _marks(images: Images) -> list[Mark]:
    """Two 64-bit sums of each image's bits times fixed random numbers, found where the image is.

    Integers wrap around, so their sums do not depend on an order. Two images that differ share both
    sums with a probability of 2^-64. Reference: Carter & Wegman 1979, for their kind of hashing.
    """
    bits = images.detach().flatten(1).contiguous().view(_WHOLE[images.element_size()])
    first, second = _factors(bits.shape[1], bits.device)
    numbers = bits.to(torch.int64)
    return list(
        zip((numbers * first).sum(1).tolist(), (numbers * second).sum(1).tolist(), strict=True)
    )


@lru_cache(maxsize=4)
def _factors(pixels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(pixels)
    drawn = torch.randint(-(2**63), 2**63 - 1, (2, pixels), generator=generator) | 1
    first, second = drawn.to(device)
    return first, second
