"""One slice as an array, and small things that the corruptions share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
"""Grey values of one slice in [0, 1], shape (channels, height, width)."""
Random = np.random.RandomState
"""MONAI's transforms draw from one of this kind."""


def as_array(image: Any) -> Image:
    """What a transform of MONAI's returns, as an array."""
    return np.asarray(image, dtype=np.float32)


def coin(random: Random) -> int:
    """-1 or 1."""
    return 1 if random.uniform() < 0.5 else -1


def within_one(image: Image) -> Image:
    """Scaled down as a whole where its largest value exceeds 1, as preparing a scan does."""
    return image / max(float(image.max(initial=0.0)), 1.0)
