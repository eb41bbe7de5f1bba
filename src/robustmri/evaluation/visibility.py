"""What a change looks like: how like the slice stays to what it was, and where the change lies."""

from __future__ import annotations

import torch
from torch import Tensor

from robustmri.core.arrays import Images, PerImage

WINDOW = 11
"""Side of the Gaussian window in which structure is compared, as in the paper."""


def structural_similarity(images: Images, others: Images) -> PerImage:
    """SSIM of each pair, shape (n,): 1 where they are the same. Grey values span [0, 1].

    Reference: Wang et al. 2004, Eq. 13, by MONAI.

    >>> image = torch.rand(1, 1, 16, 16)
    >>> round(float(structural_similarity(image, image)), 4)
    1.0
    """
    from monai.metrics.regression import SSIMMetric

    alike = torch.ones(len(images))
    rows = torch.nonzero((images != others).flatten(1).any(1))[:, 0]
    if len(rows):
        side = min(WINDOW, *images.shape[-2:])
        measure = SSIMMetric(spatial_dims=2, data_range=1.0, win_size=side - 1 + side % 2)
        found = measure(images[rows], others[rows])
        alike[rows.cpu()] = torch.as_tensor(found).reshape(len(rows)).cpu().float()
    return alike


def share_in(weights: Tensor, masks: Tensor) -> tuple[PerImage, PerImage]:
    """Share of each image's weight that lies in its mask, and the mask's share of the pixels; both
    shape (n,), NaN where there is no weight or no mask.

    Args:
        weights: at least 0, shape (n, 1, h, w).
        masks: bool, the same shape.
    """
    weights, masks = weights.double().flatten(1), masks.flatten(1)
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
