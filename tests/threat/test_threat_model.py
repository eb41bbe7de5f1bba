from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

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


def test_signals_and_volumes_are_images_and_a_matrix_is_none():
    """(n, channels, ...) with one axis or more to follow."""
    labels = torch.zeros(4, dtype=torch.long)
    for shape in ((4, 1, 5), (4, 1, 5, 6), (4, 1, 5, 6, 7)):
        ThreatModel().check(torch.zeros(shape), labels)
    with pytest.raises(ThreatModelError, match=r"got \(4, 5\) and \(4,\)"):
        ThreatModel().check(torch.zeros(4, 5), labels)


IMAGES = torch.full((2, 1, 4, 5), 0.5)
LABELS_OF_IMAGES = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("shape", "images", "fits"),
    [
        ((4, 5), IMAGES, True),
        ((1, 5), IMAGES, True),
        ((1, 4, 5), IMAGES, True),
        ((1, 1, 4, 5), IMAGES, True),
        ((2, 1, 4, 5), IMAGES, True),
        ((2, 1, 1, 1), IMAGES, True),
        ((3, 1, 4, 5), IMAGES, False),
        ((5, 4), IMAGES, False),
        ((2, 4, 5), IMAGES, False),
        ((1, 2, 1, 4, 5), IMAGES, False),
        ((1, 4, 5), IMAGES[:, 0], True),
        # A mask for each of several signals cannot be told from one of several channels.
        ((2, 4, 5), IMAGES[:, 0], False),
        ((2, 1, 4, 5), IMAGES[:1], False),
    ],
)
def test_which_masks_fit(shape, images, fits):
    threat, labels = ThreatModel(mask=torch.ones(shape)), LABELS_OF_IMAGES[: len(images)]
    if fits:
        threat.check(images, labels)
        assert threat.allow(images).shape == images.shape
    else:
        with pytest.raises(ThreatModelError, match="does not fit images of shape"):
            threat.check(images, labels)


@pytest.mark.parametrize(
    ("eps", "fits"),
    [
        (torch.tensor(0.1), True),
        (torch.tensor([0.1, 0.0]), True),
        (torch.tensor([0.1]), False),
        (torch.tensor([[0.1, 0.2]]), False),
        (torch.tensor(-0.1), False),
        (torch.tensor([0.1, -0.1]), False),
        (torch.tensor([0.1, math.nan]), False),
    ],
)
def test_which_radii_fit(eps, fits):
    if fits:
        ThreatModel(eps=eps).check(IMAGES, LABELS_OF_IMAGES)
    else:
        with pytest.raises(ThreatModelError, match="one radius of at least 0 per image"):
            ThreatModel(eps=eps).check(IMAGES, LABELS_OF_IMAGES)


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (IMAGES, LABELS_OF_IMAGES > 0, "integer labels, got torch.float32 and torch.bool"),
        (IMAGES, LABELS_OF_IMAGES.double(), "integer labels"),
        (IMAGES.byte(), LABELS_OF_IMAGES, "floating-point images"),
        (IMAGES, LABELS_OF_IMAGES[:1], r"got \(2, 1, 4, 5\) and \(1,\)"),
        (IMAGES, LABELS_OF_IMAGES - 1, "at least 0, got -1"),
        (IMAGES + 0.51, LABELS_OF_IMAGES, r"must lie in \[0.0, 1.0\], got \[1.01, 1.01\]"),
        (IMAGES - 0.51, LABELS_OF_IMAGES, "must lie in"),
        (IMAGES * math.nan, LABELS_OF_IMAGES, "NaN or infinite"),
        (IMAGES * math.inf, LABELS_OF_IMAGES, "NaN or infinite"),
    ],
)
def test_what_no_attack_could_be_honest_about(images, labels, said):
    with pytest.raises(ThreatModelError, match=said):
        ThreatModel().check(images, labels)


def test_images_may_reach_the_bounds_and_no_further():
    images = torch.tensor([-1.0, 2.0]).reshape(2, 1, 1, 1)
    ThreatModel(bounds=(-1.0, 2.0)).check(images, LABELS_OF_IMAGES)
    for bounds in ((-0.9, 2.0), (-1.0, 1.9)):
        with pytest.raises(ThreatModelError, match="must lie in"):
            ThreatModel(bounds=bounds).check(images, LABELS_OF_IMAGES)
    ThreatModel().check(images[:0], LABELS_OF_IMAGES[:0])


def test_what_some_attacks_cannot_use_is_refused():
    ThreatModel(eps=0.0).check_radius()
    ThreatModel(eps=torch.tensor([0.0, 9.0])).check_radius()
    for eps in (math.inf, torch.tensor(math.inf), torch.tensor([0.1, math.inf])):
        with pytest.raises(ThreatModelError, match="needs a finite eps"):
            ThreatModel(eps=eps).check_radius()
    ThreatModel("l2").check_norm("linf", "l2")
    with pytest.raises(ThreatModelError, match="knows the norms linf, l1, got l2"):
        ThreatModel("l2").check_norm("linf", "l1")


def test_the_smallest_threats_are_threats():
    assert ThreatModel(eps=0.0, target=0) == ThreatModel("linf", 0.0, (0.0, 1.0), 0, None)


def test_every_norm_projects_into_bounds_of_ones_own():
    """Signed images, of which l1 and l0 look into the box."""
    images = torch.tensor([-0.9, 0.0, 0.9]).reshape(1, 1, 1, 3)
    points = images + torch.tensor([-3.0, 1.0, 3.0])
    for norm, expected in {
        "linf": [-1.0, 0.5, 1.0],
        "l2": [-1.0, 0.5 / math.sqrt(19), 1.0],
        "l1": [-1.0, 0.3, 1.0],
    }.items():
        found = ThreatModel(norm, 0.5, bounds=(-1.0, 1.0)).project(points, images)
        assert found.flatten().tolist() == pytest.approx(expected, abs=1e-4), norm
    found = ThreatModel("l0", 1, bounds=(-1.0, 1.0)).project(points, images)
    torch.testing.assert_close(found.flatten(), torch.tensor([-0.9, 1.0, 0.9]))


def test_a_threat_stays_what_it_is():
    with pytest.raises(FrozenInstanceError):
        ThreatModel().eps = 1.0


def test_z_scored_images_are_told_where_the_mean_belongs():
    with pytest.raises(ThreatModelError, match=r"got \[-1.62, 3.07\].*mean and std to Classifier"):
        ThreatModel().check(torch.tensor([[[[-1.62, 3.07]]]]), torch.tensor([0]))


def test_eight_grey_levels_are_the_default():
    assert ThreatModel() == ThreatModel("linf", 8 / 255, (0.0, 1.0), None, None)
