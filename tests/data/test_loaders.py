from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_images, load_labels, load_masks
from robustmri.data.prepare import write_cohort
from scans import SliceList, slices_of


def test_images_come_in_the_order_asked_for(cohort: Cohort) -> None:
    images = load_images(cohort, (5, 0))
    assert images.shape == (2, 1, 32, 32)
    assert images.dtype == torch.float32
    np.testing.assert_allclose(images[0, 0].numpy(), cohort.images[5] / 65535, atol=1e-7)
    assert images.min() >= 0
    assert images.max() <= 1
    images.zero_()
    assert cohort.images[5].any()


def test_labels_fit_the_classes(cohort: Cohort) -> None:
    labels = load_labels(cohort, range(len(cohort)))
    assert labels.dtype == torch.int64
    assert [cohort.classes[label] for label in labels] == [case.label for case in cohort.cases]


def test_masks(cohort: Cohort, tmp_path: Path) -> None:
    masks = load_masks(cohort, [3])
    assert masks is not None
    assert masks.shape == (1, 1, 32, 32)
    assert masks.dtype == torch.bool
    bare = write_cohort(
        SliceList([replace(i, mask=None) for i in slices_of()]), tmp_path / "bare", size=16
    )  # type: ignore[type-var]
    assert load_masks(bare, [3]) is None


def test_no_index_gives_an_empty_batch(cohort: Cohort) -> None:
    assert load_images(cohort, ()).shape == (0, 1, 32, 32)
    assert load_labels(cohort, ()).shape == (0,)
