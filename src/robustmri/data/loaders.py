"""Slices of a cohort as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from robustmri.core.arrays import Images, Labels
from robustmri.data.cohort import Cohort
from robustmri.data.regions import Region, find_region


def load_images(cohort: Cohort, indexes: Iterable[int]) -> Images:
    """Slices as float32 in [0, 1], shape (k, channels, h, w)."""
    rows = cohort.images[np.fromiter(indexes, dtype=np.int64)]
    images = torch.from_numpy(rows.astype(np.float32)).div_(65535)
    return planes_first(images)


def planes_first(images: Tensor) -> Images:
    """Images as arrays hold them, shape (k, h, w) or (k, h, w, 3), as networks take them, shape (k,
    channels, h, w).
    """
    return images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()


def planes_last(images: Images) -> Tensor:
    """The way back."""
    return images[:, 0] if images.shape[1] == 1 else images.permute(0, 2, 3, 1)


def load_labels(cohort: Cohort, indexes: Iterable[int]) -> Labels:
    """Class indexes, int64, shape (k,)."""
    return torch.tensor([cohort.cases[index].class_index for index in indexes], dtype=torch.int64)


def load_masks(cohort: Cohort, indexes: Iterable[int]) -> Tensor | None:
    """Lesions as bool, shape (k, 1, h, w), empty where a case has none; None if no case of
    the cohort has one.
    """
    masks = cohort.masks(indexes)
    return None if masks is None else torch.from_numpy(masks).unsqueeze(1)


def load_region(cohort: Cohort, indexes: Sequence[int], region: Region) -> Tensor | None:
    """Where pixels may change, as bool, shape (k, 1, h, w); None for the whole image.

    Raises:
        DataError: the lesion of a slice is not outlined.
    """
    masks = find_region(cohort, indexes, region)
    return None if masks is None else torch.from_numpy(masks).unsqueeze(1)
