from __future__ import annotations

import pytest
import torch

from robustmri.core.errors import SettingsError
from robustmri.training.augment import LEVELS, augmentation


@pytest.fixture
def images(choose):
    extremes = torch.zeros(2, 1, *choose.images.shape[2:])
    extremes[1] = 1
    return torch.cat([choose.images, extremes])


@pytest.mark.parametrize("level", LEVELS)
def test_the_seed_decides_and_nothing_else(images, level):
    change = augmentation(level)
    before = images.clone()
    torch.manual_seed(1)
    one = change(images, 7)
    torch.manual_seed(2)
    assert torch.equal(change(images, 7), one)
    assert not torch.equal(change(images, 8), one)
    assert torch.equal(images, before)


@pytest.mark.parametrize("level", LEVELS)
def test_the_global_generator_is_given_back(images, level):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    augmentation(level)(images, 7)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("level", LEVELS)
def test_images_stay_images(images, level):
    for seed in range(5):
        changed = augmentation(level)(images, seed)
        assert changed.shape == images.shape
        assert changed.dtype == images.dtype
        assert 0 <= changed.min() <= changed.max() <= 1


def test_every_image_gets_its_own_change(images):
    same = images[:1].repeat(8, 1, 1, 1)
    changed = augmentation("standard")(same, 0)
    assert len({tuple(image.flatten().tolist()) for image in changed}) >= 6


def test_more_is_more(images):
    distance = {
        level: (augmentation(level)(images, 0) - images).abs().mean() for level in ("none", *LEVELS)
    }
    assert 0 == distance["none"] < distance["light"] < distance["standard"]


def test_unknown_level():
    with pytest.raises(SettingsError, match="Did you mean 'light'"):
        augmentation("ligth")
