from __future__ import annotations

import math

import pytest
import torch

from robustmri.attacks.engine import random_points
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import L2
from robustmri.threat.threat_model import ThreatModel

LOGITS = torch.tensor(
    [
        [2.0, 1.0, 0.0],
        [1.0, 2.0, 0.0],
        [0.0, 1.0, 2.0],
        [torch.nan, 1.0, 2.0],
        [0.0, torch.inf, 1.0],
    ]
)


@pytest.mark.parametrize(
    ("target", "labels", "confidence", "expected"),
    [
        (None, [0, 0, 0, 0, 0], 0.0, [False, True, True, False, False]),
        (None, [0, 1, 2, 2, 1], 0.0, [False, False, False, False, False]),
        (2, [0, 0, 0, 0, 0], 0.0, [False, False, True, False, False]),
        # The true class is no success.
        (2, [2, 2, 2, 2, 2], 0.0, [False, False, False, False, False]),
        (None, [1, 0, 0, 0, 0], 0.9, [True, True, True, False, False]),
        (None, [1, 0, 0, 0, 0], 1.1, [False, False, True, False, False]),
        (2, [0, 0, 1, 0, 0], 0.9, [False, False, True, False, False]),
        (2, [0, 0, 0, 0, 0], 1.1, [False, False, False, False, False]),
    ],
)
def test_fooled(target, labels, confidence, expected):
    before = LOGITS.clone()
    won = ThreatModel(target=target).fooled(LOGITS, torch.tensor(labels), confidence)
    assert won.tolist() == expected
    torch.testing.assert_close(LOGITS, before, equal_nan=True)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_lands_inside_and_leaves_points_that_are_inside(norm):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(20, 1, 6, 6, generator=generator, dtype=torch.float64).round(decimals=1)
    points = images + 0.5 * torch.randn(20, 1, 6, 6, generator=generator, dtype=torch.float64)
    mask = torch.rand(20, 1, 6, 6, generator=generator) < 0.5
    threat = ThreatModel(norm, 0.3, mask=mask)
    projected = threat.project(points, images)
    assert projected.min() >= 0
    assert projected.max() <= 1
    assert (threat.measure.size(projected - images) <= 0.3 + 1e-12).all()
    assert torch.equal(projected[~mask], images[~mask])
    torch.testing.assert_close(threat.project(projected, images), projected)


def test_what_rounding_adds_to_many_pixels_stays_within_the_radius_of_l1():
    """In float32, where the sum over 4096 pixels of an image would lead out again."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(20, 1, 64, 64, generator=generator)
    points = images + torch.randn(images.shape, generator=generator)
    changes = ThreatModel("l1", 300.0).project(points, images).double() - images.double()
    sizes = changes.abs().flatten(1).sum(1)
    assert (sizes <= 300).all()
    assert (sizes > 299.99).all()


def test_at_keeps_each_image_with_its_own_radius_and_mask():
    eps, mask = (
        torch.tensor([0.1, 0.2, 0.3]),
        torch.arange(3).reshape(3, 1, 1, 1).expand(3, 1, 4, 4),
    )
    part = ThreatModel("l2", eps, mask=mask, target=1).at(torch.tensor([2, 0]))
    assert torch.equal(part.eps, eps[[2, 0]])
    assert part.mask[:, 0, 0, 0].tolist() == [2, 0]
    assert (part.norm, part.target) == ("l2", 1)


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4), (1, 1, 4, 4), (3, 4, 4)])
def test_at_keeps_a_shared_mask_whole(shape):
    mask = torch.ones(shape)
    assert ThreatModel(mask=mask).at(torch.tensor([1])).mask is mask


def test_random_l2_points_fill_the_ball_of_the_free_pixels():
    """A start drawn over all 64 pixels and then masked to 3 would lie deep inside: sqrt(3 / 64) of
    the way.
    """
    images = torch.full((3000, 1, 8, 8), 0.5)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[0, :3] = True
    starts = random_points(images, ThreatModel("l2", 0.2, mask=mask), list(range(3000))) - images
    assert not starts[:, :, ~mask].any()
    filled = (L2.size(starts) / 0.2) ** 3
    ranks = torch.arange(1, 3001) / 3000
    # A uniform sample exceeds it once in a thousand times.
    assert (filled.sort().values - ranks).abs().max() < 0.0356


def test_random_points_stay_inside_the_bounds():
    images = torch.cat([torch.zeros(50, 1, 4, 4), torch.ones(50, 1, 4, 4)])
    for norm in ("linf", "l2"):
        points = random_points(images, ThreatModel(norm, 0.3), list(range(100)))
        assert points.min() >= 0
        assert points.max() <= 1
        assert not torch.equal(points, images)


@pytest.mark.parametrize("eps", [-0.1, math.nan])
def test_radius_must_be_a_number_of_at_least_zero(eps):
    with pytest.raises(ThreatModelError, match="at least 0"):
        ThreatModel(eps=eps)


def test_names_what_it_does_not_know():
    with pytest.raises(ThreatModelError, match="Choices: l0, l1, l2, linf"):
        ThreatModel("l3")
    with pytest.raises(ThreatModelError, match="index of a class, got -1"):
        ThreatModel(target=-1)


def test_z_scored_images_are_told_where_the_mean_belongs():
    with pytest.raises(ThreatModelError, match=r"got \[-1.62, 3.07\].*mean and std to Classifier"):
        ThreatModel().check(torch.tensor([[[[-1.62, 3.07]]]]), torch.tensor([0]))


def test_eight_grey_levels_are_the_default():
    assert ThreatModel() == ThreatModel("linf", 8 / 255, (0.0, 1.0), None, None)
