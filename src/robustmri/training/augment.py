"""Random changes that keep a slice's meaning, for a whole batch at once, on its device (kornia)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from robustmri.core.arrays import Images
from robustmri.core.errors import SettingsError, did_you_mean

LEVELS = {
    # rotation in degrees, shift as a fraction of the side, change of scale, change of brightness
    # and contrast
    "light": (8.0, 0.03, 0.05, 0.05),
    "standard": (15.0, 0.06, 0.10, 0.15),
}


@cache
def _pipeline(level: str) -> nn.Module:
    import kornia.augmentation as K

    rotation, shift, scale, brightness = LEVELS[level]
    # Mirroring keeps the anatomy: either hemisphere can bear any of the tumours.
    return nn.Sequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomAffine(rotation, translate=(shift, shift), scale=(1 - scale, 1 + scale), p=0.9),
        K.RandomContrast((1 - brightness, 1 + brightness), p=0.5),
        K.RandomBrightness((1 - brightness, 1 + brightness), p=0.5),
    )


def augmentation(level: str) -> Callable[[Images, int], Images]:
    """A function (images in [0, 1], seed) -> images in [0, 1]; the same seed gives the same images.

    Raises:
        SettingsError: no such level.
    """
    if level == "none":
        return lambda images, seed: images
    if level not in LEVELS:
        raise SettingsError(
            f"There is no augmentation {level!r}. {did_you_mean(level, ['none', *LEVELS])}"
        )

    def change(images: Images, seed: int) -> Images:
        # Kornia draws from torch's global generator: lend it one of our own, and give the global
        # one back.
        devices = [images.device] if images.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(seed)
            changed: Images = _pipeline(level)(images)
            return changed.clamp(0.0, 1.0)

    return change
