"""What a change looks like: how like the slice stays to what it was, and where the change lies."""

from __future__ import annotations

import torch
from torch import Tensor

from robustmri.core.arrays import Images, PerImage

WINDOW = 11
"""Side of the Gaussian window in which structure is compared, as in the paper."""
SIGMA = 1.5
LUMINANCE, CONTRAST = 0.01**2, 0.03**2


def structural_similarity(images: Images, others: Images) -> PerImage:
    """SSIM of each pair, shape (n,): 1 where they are the same. Grey values span [0, 1].

    Windows lie inside the image. Reference: Wang et al. 2004, Eq. 13.

    >>> image = torch.rand(1, 1, 16, 16)
    >>> round(float(structural_similarity(image, image)), 4)
    1.0
    """
    alike = torch.ones(len(images))
    rows = torch.nonzero((images != others).flatten(1).any(1))[:, 0]
    if len(rows):
        one, other = images[rows].float(), others[rows].float()
        means = _smoothed(torch.stack([one, other, one * one, other * other, one * other]))
        of_one, of_other, squares, other_squares, products = means
        luminance, squared = 2 * of_one * of_other, of_one**2 + of_other**2
        contrast = 2 * products - luminance + CONTRAST
        spread = squares + other_squares - squared + CONTRAST
        found = (luminance + LUMINANCE) / (squared + LUMINANCE) * (contrast / spread)
        alike[rows.cpu()] = found.flatten(1).mean(1).cpu()
    return alike


def _smoothed(values: Tensor) -> Tensor:
    """Gaussian means of windows, shape (..., h, w), as two products with matrices: of single planes
    they cost a tenth of a convolution.
    """
    height, width = values.shape[-2:]
    side = min(WINDOW, height, width)
    side += side % 2 - 1
    distance = torch.arange(side, device=values.device) - (side - 1) / 2
    weights = (-((distance / SIGMA) ** 2) / 2).exp()
    weights = weights / weights.sum()
    down, across = (_bands(weights, length) for length in (height, width))
    return down @ values @ across.T


def _bands(weights: Tensor, length: int) -> Tensor:
    """`weights` from each place of a line of that length on, a row for each place that has room."""
    places = torch.arange(length - len(weights) + 1, device=weights.device)[:, None]
    bands = weights.new_zeros(len(places), length)
    return bands.scatter(
        1,
        places + torch.arange(len(weights), device=weights.device),
        weights.expand(len(places), -1),
    )


def share_in(weights: Tensor, masks: Tensor) -> tuple[PerImage, PerImage]:
    """Share of each image's weight that lies in its mask, and the mask's share of the pixels; both
    shape (n,), NaN where there is no weight or no mask.

    Args:
        weights: at least 0, shape (n, channels, h, w).
        masks: bool, shape (n, 1, h, w) or that of the weights.
    """
    masks = masks.expand_as(weights).flatten(1)
    weights = weights.double().flatten(1)
    area = masks.double().mean(1)
    area = area.where(area > 0, torch.nan)
    total = weights.sum(1)
    inside = (weights * masks).sum(1) / total.where(total > 0, torch.nan)
    return inside.where(area > 0, torch.nan), area


def peak_signal_to_noise(l2: float, pixels: int) -> float:
    """PSNR in decibels of a change of that l2 size in an image of so many pixels in [0, 1].

    >>> round(peak_signal_to_noise(1.0, 100), 6)
    20.0
    """
    from math import inf, log10

    return -10 * log10(l2**2 / pixels) if l2 else inf
