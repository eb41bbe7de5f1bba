"""A linear classifier's smoothed radius is known in closed form: the distance to its boundary."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from robustmri.evaluation.smoothing import Smoothed, nearest_other

SAMPLES, SIGMA = 4000, 0.5


def linear(bias: float = 0.0) -> nn.Module:
    """Says 1 where the mean of sixteen pixels, times four, exceeds `bias`: l2 distances are its
    own."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).requires_grad_(False)
    network[1].weight.copy_(torch.tensor([[0.0], [0.25]]).expand(2, 16))
    network[1].bias.copy_(torch.tensor([0.0, -bias]))
    return network.eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(distance: float) -> torch.Tensor:
    """So far beyond the boundary at 2."""
    return torch.full((1, 4, 4), (2 + distance) / 4)


@pytest.mark.parametrize("distance", [-0.6, 0.3, 0.9])
def test_the_radius_of_a_linear_classifier_is_its_distance(distance):
    smoothed = Smoothed(linear(2.0), sigma=SIGMA, samples=SAMPLES)
    found = smoothed.certify(image(distance), generator())
    assert found.answer == int(distance > 0)
    # Never more than the truth; with 4000 copies at most a fifth of sigma less.
    assert abs(distance) - 0.2 * SIGMA < found.radius < abs(distance)
    few = Smoothed(linear(2.0), sigma=SIGMA, samples=100).certify(image(distance), generator())
    assert few.radius < found.radius


def test_the_bound_is_clopper_and_pearsons():
    found = Smoothed(linear(2.0), sigma=SIGMA, samples=500, alpha=0.01).certify(
        image(9.0), generator()
    )
    assert found.votes == 500
    assert found.share == pytest.approx(0.01 ** (1 / 500))
    assert math.isclose(found.radius, SIGMA * 2.3611, rel_tol=1e-3)


def test_an_open_vote_is_no_answer():
    smoothed = Smoothed(linear(2.0), sigma=SIGMA, samples=400)
    assert smoothed.certify(image(0.0), generator())[:2] == (-1, 0.0)
    assert smoothed.answer(image(0.0), generator()) == -1
    assert smoothed.answer(image(1.0), generator()) == 1


def test_a_certificate_is_wrong_as_seldom_as_it_says():
    """Near the boundary, where half of the guesses are: of 300 at 5 %, 29 would be one in 1000."""
    smoothed = Smoothed(linear(2.0), sigma=SIGMA, samples=200, guesses=20, alpha=0.05)
    draws = [smoothed.certify(image(0.02), generator(seed)) for seed in range(300)]
    wrong = [one for one in draws if one.radius > (0.02 if one.answer == 1 else 0.0)]
    assert 0 < len(wrong) < 29


def test_broken_answers_are_no_votes():
    def broken(images):
        return torch.full((len(images), 2), torch.nan)

    assert Smoothed(broken, samples=100).certify(image(1.0), generator()).answer == -1


def test_attack_and_certificate_bracket_the_distance():
    smoothed = Smoothed(linear(2.0), sigma=SIGMA, samples=SAMPLES)
    images, labels = torch.stack([image(0.4), image(-0.3)]), torch.tensor([1, 0])
    points, distances = nearest_other(
        smoothed, images, labels, steps=30, draws=64, generator=generator(), noise_of=generator
    )
    for row, distance in ((0, 0.4), (1, 0.3)):
        certified = smoothed.certify(images[row], generator(9)).radius
        assert certified < distance < float(distances[row]) < 1.4 * distance
        assert smoothed.answer(points[row], generator(7)) != labels[row]


@pytest.mark.parametrize("draws", [2, 64])
def test_the_most_fragile_fall_first(draws):
    """Also where the average over a few copies errs on the image itself."""
    smoothed = Smoothed(linear(2.0), sigma=SIGMA, samples=SAMPLES)
    away = [0.01, 0.05, 0.1, 0.2, 0.4]
    _, distances = nearest_other(
        smoothed,
        torch.stack([image(distance) for distance in away]),
        torch.ones(len(away), dtype=torch.long),
        steps=30,
        draws=draws,
        generator=generator(),
        noise_of=generator,
    )
    assert torch.isfinite(distances).all()
    assert (distances > torch.tensor(away)).all()
    assert (distances < torch.tensor(away) + 1.3 * SIGMA).all()


def test_of_nothing_nothing_is_found():
    smoothed = Smoothed(linear(), sigma=SIGMA, samples=10)
    nothing, labels = torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.long)
    given = {"steps": 2, "draws": 2, "generator": generator(), "noise_of": generator}
    assert nearest_other(smoothed, nothing, labels, **given)[1].shape == (0,)
