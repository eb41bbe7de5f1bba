"""Corruptions: each leaves an image an image, repeats itself, and grows with its severity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from robustmri.core.errors import DataError
from robustmri.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corrupt_slice

NAMES = list(CORRUPTIONS)


@pytest.fixture(scope="module")
def slices():
    """Two soft heads before a black background, shape (2, 1, 48, 40)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 40), indexing="ij")
    head = (y**2 + x**2 < 0.6).float()
    texture = 0.5 + 0.2 * torch.sin(7 * y) * torch.cos(5 * x)
    spot = 0.25 * ((y - 0.2) ** 2 + (x - 0.3) ** 2 < 0.02)
    return torch.stack([head * texture, head * (texture + spot)])[:, None]


@pytest.mark.parametrize("name", NAMES)
def test_every_corruption_keeps_its_promises(name, slices):
    before, stream = slices.clone(), torch.get_rng_state()
    state = np.random.get_state()[1].copy()
    changed = [corrupt(slices, name, severity, keys=["a", "b"]) for severity in SEVERITIES]
    for images in changed:
        assert images.shape == slices.shape
        assert images.dtype == slices.dtype
        assert torch.isfinite(images).all()
        assert images.min() >= 0
        assert images.max() <= 1
    # What is drawn is the same at every severity, so that each is the one before and more.
    sizes = [float((images - slices).abs().mean()) for images in changed]
    assert sizes == sorted(sizes)
    assert sizes[0] > 0
    assert sizes[-1] > 1.5 * sizes[0]
    assert torch.equal(corrupt(slices[1:], name, 3, keys=["b"])[0], changed[2][1])
    if name not in ("gibbs", "resolution"):  # Nothing is drawn for these.
        others = [corrupt(slices, name, 3, seed=seed, keys=["a", "b"]) for seed in (1, 2, 3)]
        assert not all(torch.equal(other, changed[2]) for other in others)
    unchanged = corrupt_slice(slices[0].numpy(), name, 0.0, ["a"])
    np.testing.assert_allclose(unchanged, slices[0].numpy(), atol=1e-5)
    assert torch.equal(slices, before)
    assert torch.equal(torch.get_rng_state(), stream)
    assert np.array_equal(np.random.get_state()[1], state)


def test_what_some_of_them_do(slices):
    image = slices[1].numpy()
    noisy = corrupt_slice(image, "rician-noise", 0.05, [0])
    assert noisy[0, :4].min() >= 0
    assert noisy[0, :4].mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.1)
    moved = corrupt_slice(image, "shift", 10.0, [0])
    centres = [
        np.array([np.average(axis, weights=one[0]) for axis in np.indices(image[0].shape)])
        for one in (image, moved)
    ]
    assert np.linalg.norm(centres[1] - centres[0]) == pytest.approx(4.0, rel=0.05)
    ghosts = corrupt_slice(image, "ghosting", 0.9, [0])
    background = image[0] == 0
    assert ghosts[0][background].max() > 0.05
    still = corrupt_slice(image, "motion", 3.0, [0])
    assert still.sum() == pytest.approx(image.sum(), rel=0.1)
    stripes = corrupt_slice(np.full((1, 64, 64), 0.5, np.float32), "spikes", 0.1, [0])
    assert stripes.max() - 0.5 == pytest.approx(0.1, rel=0.02)
    assert len(np.flatnonzero(np.abs(np.fft.fft2(stripes[0] - 0.5)) > 1.0)) == 2
    coarse = corrupt_slice(image, "resolution", 2.0, [0])
    assert np.abs(np.diff(coarse[0], axis=0)).max() < np.abs(np.diff(image[0], axis=0)).max()


def test_more_than_one_channel_is_changed_alike(slices):
    both = torch.cat([slices, slices], 1)
    for name in NAMES:
        changed = corrupt(both, name, 4)
        alike = (changed[:, 0] - changed[:, 1]).abs().max()
        assert (alike == 0) == (name != "rician-noise")  # Each receiver has its own noise.


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "fog"}, "no corruption 'fog'"),
        ({"severity": 6}, "severity must be one of"),
        ({"severity": 0}, "severity must be one of"),
        ({"images": torch.rand(1, 8, 8)}, "height, width"),
        ({"images": torch.rand(1, 1, 8, 8) * 255}, "in \\[0, 1\\]"),
        ({"images": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)}, "floating-point"),
        ({"images": torch.full((1, 1, 8, 8), torch.nan)}, "in \\[0, 1\\]"),
        ({"keys": [1, 2, 3]}, "a key for each of 1"),
    ],
)
def test_what_cannot_be_is_refused(given, said):
    usual = {"images": torch.zeros(1, 1, 8, 8), "name": "gamma", "severity": 1}
    with pytest.raises(DataError, match=said):
        corrupt(**{**usual, **given})


def test_the_page_has_the_table():
    page = (Path(__file__).parents[2] / "docs" / "corruptions.md").read_text(encoding="utf-8")
    for name, one in CORRUPTIONS.items():
        amounts = " | ".join(f"{amount:g}" for amount in one.amounts)
        assert f"| `{name}` | {one.what} | {amounts} | {one.source} |" in page


@pytest.mark.slow
def test_severities_are_as_similar_as_they_say():
    """By SSIM on phantoms, as `python -m benchmarks.severities` calibrated them."""
    from benchmarks.severities import mean_similarity, phantom_slices

    images = phantom_slices(12)
    for name, one in CORRUPTIONS.items():
        for amount, similarity in zip(one.amounts, one.similarity, strict=True):
            # Of twelve slices in place of 24.
            assert mean_similarity(images, name, amount) == pytest.approx(similarity, abs=0.04)
