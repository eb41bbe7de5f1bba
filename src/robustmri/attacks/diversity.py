"""What makes a gradient depend less on one classifier: looking through a smaller copy, and
smoothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robustmri.core.arrays import Images
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import per_image


def resize_and_pad(
    images: Images, numbers: Tensor, probability: float, smallest: float, ground: float
) -> Images:
    """Some of the images, resized by (bi-, tri-)linear interpolation and put at a random place on
    an even ground.

    Args:
        images: slices (n, channels, h, w) or volumes (n, channels, d, h, w).
        numbers: random numbers in [0, 1), shape (n, 2 + axes): whether, how small, and where along
            each axis.
        probability: with which an image is resized at all.
        smallest: side of the smallest copy, as a share of the image's.
        ground: grey value around it.

    Reference: Xie et al. 2019, Sec. 3.3, where copies are larger than the image and smaller than
    the network's input.
    """
    axes = images.dim() - 2
    if axes not in (2, 3):
        raise ThreatModelError(
            f"diversity resizes slices and volumes, got images of shape {tuple(images.shape)}. Set "
            "diversity=0."
        )
    inside = torch.ones_like(images[:, :1], dtype=torch.bool)
    sources = []
    for axis, size in enumerate(images.shape[2:]):
        least = max(1, int(size * smallest))
        side = least + (numbers[:, 1] * (size - least + 1)).long()
        corner = (numbers[:, 2 + axis] * (size - side + 1)).long()
        place = torch.arange(size, device=images.device) - corner[:, None]
        shape = [len(images), *(size if other == axis else 1 for other in range(axes))]
        inside = inside & ((place >= 0) & (place < side[:, None])).reshape(shape)[:, None]
        # Pixel centres, in the units of grid_sample: the image spans [-1, 1].
        sources.append(((2 * place + 1).to(images.dtype) / side[:, None] - 1).reshape(shape))
    grid = torch.stack(
        [source.expand(images.shape[:1] + images.shape[2:]) for source in reversed(sources)], -1
    )
    resized = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    resized = torch.where(inside, resized, ground)
    return torch.where(per_image(numbers[:, 0] < probability, images), resized, images)


def smooth(gradient: Images, kernel: int) -> Images:
    """Convolution of each channel with a Gaussian of `kernel` pixels along each axis, cut off at
    three deviations.

    Reference: Dong et al. 2019, Eq. 8 and Sec. 3.3.
    """
    if kernel == 1:
        return gradient
    weights = (
        torch.linspace(-3, 3, kernel, dtype=gradient.dtype, device=gradient.device)
        .square()
        .div(-2)
        .exp()
    )
    weights = (weights / weights.sum()).reshape(1, 1, -1)
    for axis in range(2, gradient.dim()):  # A Gaussian is the product of those along each axis.
        lines = gradient.movedim(axis, -1)
        shape = lines.shape
        gradient = F.conv1d(lines.reshape(-1, 1, shape[-1]), weights, padding=kernel // 2).reshape(
            shape
        )
        gradient = gradient.movedim(-1, axis)
    return gradient
