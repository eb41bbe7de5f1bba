"""Where pixels may change: the head is the phantom's, the lesion is the one that was outlined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robustmri.core.errors import DataError
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_region
from robustmri.data.prepare import write_cohort
from robustmri.data.regions import find_head, find_region, find_threshold
from scans import SliceList, slices_of


def overlap(found: np.ndarray, expected: np.ndarray) -> float:
    """Dice's coefficient."""
    return float(2 * (found & expected).sum() / (found.sum() + expected.sum()))


def disc(size: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    return np.hypot(rows, columns) < radius


def test_the_threshold_is_the_one_that_a_search_finds() -> None:
    generator = np.random.default_rng(0)
    image = np.concatenate([generator.normal(20, 6, 700), generator.normal(90, 15, 300)])
    grid = np.linspace(image.min() + 1, image.max() - 1, 2000)
    between = [
        (image <= t).mean()
        * (image > t).mean()
        * (image[image <= t].mean() - image[image > t].mean()) ** 2
        for t in grid
    ]
    assert find_threshold(image) == pytest.approx(grid[np.argmax(between)], abs=1.5)


def test_the_head_is_whole() -> None:
    """A scalp with a gap around dark bone, a grey brain with a dark middle, noise, and a bright
    speck outside.
    """
    image = (
        np.where(disc(96, 40), 0.03, 0.0)
        + 0.3 * disc(96, 33)
        + 0.7 * (disc(96, 40) & ~disc(96, 36))
    )
    image[:12, 46:48] = image[disc(96, 12)] = 0.0
    image[2:4, 2:4] = 1.0
    image += np.random.default_rng(0).uniform(0, 0.03, image.shape)
    found = find_head((65535 * image / image.max()).astype(np.uint16))
    assert overlap(found, disc(96, 40)) > 0.98
    assert not found[:6, :6].any()


def test_a_slice_without_contrast_is_all_head() -> None:
    assert find_head(np.zeros((16, 16), dtype=np.uint16)).all()


def test_regions_of_a_cohort(cohort: Cohort) -> None:
    rows = [5, 0, 3]
    lesions = cohort.masks(rows)
    assert lesions is not None
    lesion, outside, brain = (
        find_region(cohort, rows, name) for name in ("lesion", "outside-lesion", "brain")
    )
    assert find_region(cohort, rows, "image") is None
    np.testing.assert_array_equal(lesion, lesions)
    np.testing.assert_array_equal(outside, ~lesions)
    assert brain is not None
    assert 0.1 < brain.mean() < 0.95
    loaded = load_region(cohort, rows, "brain")
    assert loaded is not None
    assert loaded.shape == (3, 1, 32, 32)
    np.testing.assert_array_equal(loaded[:, 0].numpy(), brain)
    assert load_region(cohort, rows, "image") is None


@pytest.mark.parametrize("region", ["lesion", "outside-lesion"])
def test_a_lesion_that_is_not_outlined_is_told(cohort: Cohort, tmp_path: Path, region) -> None:  # type: ignore[no-untyped-def]
    some = [
        replace(item, mask=None) if place == 2 else item for place, item in enumerate(slices_of())
    ]
    other = write_cohort(SliceList(some), tmp_path / "some", size=32)
    name = other.cases[2].case_id
    with pytest.raises(
        DataError, match=rf"{region}.*1 of 3 slices have none, the first is '{name}'"
    ):
        find_region(other, [0, 1, 2], region)
    assert find_region(other, [0, 1], region) is not None
    bare = write_cohort(
        SliceList([replace(item, mask=None) for item in slices_of()]), tmp_path / "bare", size=32
    )
    with pytest.raises(DataError, match="2 of 2 slices have none"):
        find_region(bare, [0, 1], region)
