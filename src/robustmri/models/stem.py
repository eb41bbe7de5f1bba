"""Slices for networks that were trained on three colour planes.

A grey value g, repeated in three planes and normalised plane by plane, is x_c = (g - mean_c) /
std_c. `Classifier` normalises it once, z = (g - mean) / std, so that x_c = scale_c * z + shift_c
with two constants per plane. Mean and std are those of the planes, averaged: 0.449 and 0.226 for
ImageNet.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustmri.core.arrays import Images, Logits

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# What `ClassifierSpec` normalises with, unless its weights ask for something else.
GREY_MEAN = 0.449
GREY_STD = 0.226


def grey_constants(mean: Sequence[float], std: Sequence[float]) -> tuple[float, float]:
    """What a grey image is normalised with for a network whose planes were normalised with these:
    their averages.

    Where all planes have the same constants, as RadImageNet's have, nothing at all is shifted by
    folding them.

    >>> grey_constants(IMAGENET_MEAN, IMAGENET_STD)
    (0.449, 0.226)
    """
    return round(sum(mean) / len(mean), 6), round(sum(std) / len(std), 6)


def plane_constants(
    mean: Sequence[float],
    std: Sequence[float],
    grey_mean: float = GREY_MEAN,
    grey_std: float = GREY_STD,
) -> tuple[Tensor, Tensor]:
    """Scale and shift that turn the one normalised grey plane into each colour plane, shape (3,)
    both.
    """
    mean_c, std_c = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    return grey_std / std_c, (grey_mean - mean_c) / std_c


def fold_planes(
    weight: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> tuple[Tensor, Tensor]:
    """Turn a first convolution over three planes into one over a single grey plane.

    The convolution is linear: sum_c w_c * (scale_c z + shift_c) = (sum_c scale_c w_c) * z +
    constant. This is exact where the kernel lies inside the image (everywhere for patches); at a
    zero-padded border the constant is off by the part of it that belongs to the padding, which is
    small since |shift_c| < 0.2 for ImageNet, and none where all planes are normalised alike.

    Args:
        weight: shape (out, 3, height, width).
        mean: what its planes are normalised with; the grey plane is normalised with
            `grey_constants` of it.
        std: likewise.

    Returns:
        The weight of shape (out, 1, height, width), and the constant of shape (out,) to add to what
        it computes.

    >>> weight, constant = fold_planes(torch.ones(1, 3, 1, 1))
    >>> round(weight.item(), 3), round(constant.item(), 3)
    (3.0, 0.003)
    """
    scale, shift = plane_constants(mean, std, *grey_constants(mean, std))
    planes = weight.to(torch.float64)
    folded = (planes * scale.view(1, 3, 1, 1)).sum(1, keepdim=True)
    constant = planes.sum((2, 3)) @ shift
    return folded.to(weight.dtype), constant.to(weight.dtype)


class ThreePlanes(nn.Module):
    """A foreign three-channel model behind an input of one channel or three, whose planes are all
    normalised with `GREY_MEAN` and `GREY_STD`; its logits, bare.

    Args:
        model: maps images of three planes to logits, or to an object with `logits`.
        mean: means that the model's planes are normalised with.
        std: standard deviations, likewise.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.model = model
        scale, shift = plane_constants(mean, std)
        self.register_buffer("scale", scale.float().view(1, 3, 1, 1))
        self.register_buffer("shift", shift.float().view(1, 3, 1, 1))

    def forward(self, images: Images) -> Logits:
        """Logits of images of one normalised grey plane, or of three."""
        output = self.model(images * self.scale + self.shift)
        logits: Logits = getattr(output, "logits", output)
        return logits
