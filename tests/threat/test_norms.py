from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from norm_table import NORM_ROWS
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import L0, L1, L2, LINF, NORMS, find_norm


@pytest.fixture(params=[name for name, row in NORM_ROWS.items() if row.dual is not None])
def name(request: pytest.FixtureRequest) -> str:
    """Norms that have steps; l0 is a count, and has tests of its own."""
    return request.param


@pytest.fixture
def deltas() -> Tensor:
    scale = torch.tensor([0.0, 1e-12, 0.01, 1.0, 100.0], dtype=torch.float64).reshape(-1, 1, 1, 1)
    return scale * torch.randn(
        5, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


def test_every_norm_has_a_row():
    assert list(NORM_ROWS) == list(NORMS)
    assert all(bool(NORMS[name].dual) == (row.dual is not None) for name, row in NORM_ROWS.items())


@pytest.mark.parametrize("name", NORMS)
def test_size_is_the_textbook_norm_of_each_image(name, deltas):
    # A pixel counts once in l0, whatever its channels are.
    kept = deltas.abs().amax(1) if name == "l0" else deltas
    expected = [torch.linalg.vector_norm(delta, NORM_ROWS[name].order) for delta in kept]
    torch.testing.assert_close(NORMS[name].size(deltas), torch.stack(expected))


@pytest.mark.parametrize("name", NORMS)
def test_what_is_said_of_a_norm_is_so(name):
    """Two pixels are as large as the larger one; all of a step is on the steepest pixel."""
    norm = NORMS[name]
    assert norm.name == name
    one, two = torch.tensor([[[[0.3, 0.0]]]]), torch.tensor([[[[0.3, 0.2]]]])
    assert (norm.size(one) == norm.size(two)).item() == norm.per_pixel
    if norm.dual:
        assert (L0.size(norm.steepest(two)) == 1).item() == norm.sparse
    else:
        assert not norm.sparse


def test_equal_pixels_share_the_step_of_l1():
    direction = L1.steepest(torch.tensor([[[[2.0, -2.0, 1.0]]], [[[0.0, 0.0, 0.0]]]]))
    assert direction.flatten(1).tolist() == [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "linf",
            "No pixel changes by more than 0.04: 0.2 of the [0, 1] range, 51.0 of 255 grey levels, "
            "0.8 after normalisation (std 0.25).",
        ),
        (
            "l2",
            "The change of all 8 x 8 pixels together has a Euclidean length of at most 0.04: "
            "0.2 in units of the [0, 1] range, as much as 6.38 of 255 grey levels on every pixel.",
        ),
        (
            "l1",
            "The changes of all 8 x 8 pixels together, each without its sign, sum to at most "
            "0.04: 0.2 in units of the [0, 1] range, as much as 0.2 pixels from black to white.",
        ),
        ("l0", "At most 0.04 pixels change."),
    ],
)
def test_a_radius_in_words(name, sentence):
    assert NORMS[name].explain("0.04", 0.2, 0.25, (1, 8, 8)) == sentence


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("linf", "No colour of a pixel changes by more than 0.04: .* 51.0 of 255 levels, 0.8"),
        ("l2", "The change of all 4 x 8 pixels in their 3 .* 5.21 of 255 levels of each colour on"),
        ("l1", "The changes of all 4 x 8 pixels in their 3 channels together, .* 0.06667 pixels"),
        ("l0", "At most 0.04 pixels change."),
    ],
)
def test_a_radius_in_words_for_colours(name, sentence):
    assert re.match(sentence, NORMS[name].explain("0.04", 0.2, 0.25, (3, 4, 8)))


def test_a_pixel_of_three_channels_counts_once_in_l0():
    delta = torch.zeros(1, 3, 2, 2)
    delta[0, :, 0, 0], delta[0, 1, 1, 1] = 0.2, 0.5
    assert L0.size(delta).tolist() == [2]
    kept = L0.project(delta, 1.0)
    assert kept[0, :, 0, 0].tolist() == pytest.approx([0.2, 0.2, 0.2])
    assert L0.size(kept).tolist() == [1]


@pytest.mark.parametrize(
    "eps",
    [
        0.0,
        0.5,
        math.inf,
        torch.tensor(0.5),
        torch.tensor([0.1, 0.0, 0.2, 0.3, math.inf]),
    ],
    ids=str,
)
def test_projection_is_the_nearest_point_of_the_ball(name, deltas, eps):
    norm = NORMS[name]
    projected = norm.project(deltas, eps)
    assert projected.dtype == deltas.dtype
    sizes = norm.size(projected)
    assert (sizes <= torch.as_tensor(eps, dtype=torch.float64) * (1 + 1e-7)).all()
    inside = norm.size(deltas) <= torch.as_tensor(eps)
    assert torch.equal(projected[inside], deltas[inside])
    # l1 aims a hundred-thousandth inside, so that the rounding of many pixels does not lead out
    # again.
    close = {"rtol": 1e-5, "atol": 1e-5} if name == "l1" else {}
    torch.testing.assert_close(norm.project(projected, eps), projected, **close)
    # The nearest point of a convex set: no other point of it lies on the outer side.
    for trial in range(20):
        unit = norm.random_start(deltas[0], torch.Generator().manual_seed(trial)).to(deltas)
        radius = (
            torch.as_tensor(eps, dtype=torch.float64).clamp(max=1e3).expand(5).reshape(-1, 1, 1, 1)
        )
        other = radius * unit
        slack = 1e-6 + (1e-5 * radius * deltas.abs().amax() if name == "l1" else 0.0)
        assert (
            ((deltas - projected) * (other - projected)).flatten(1).sum(1)
            <= torch.as_tensor(slack).flatten()
        ).all()


def test_steepest_direction_reaches_the_dual_norm(name, deltas):
    direction = NORMS[name].steepest(deltas)
    torch.testing.assert_close(
        NORMS[name].size(direction), torch.tensor([0.0, 1, 1, 1, 1], dtype=torch.float64)
    )
    gain = (direction * deltas).flatten(1).sum(1)
    torch.testing.assert_close(
        gain, torch.linalg.vector_norm(deltas.flatten(1), NORM_ROWS[name].dual, dim=1)
    )


@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1.0, 1e25])
def test_steepest_direction_survives_gradients_whose_squares_do_not(name, scale):
    """A confident network's gradients are this small, and their squares are zero (or infinite) in
    float32.
    """
    gradient = scale * torch.tensor([[[[3.0, -4.0]]]])
    torch.testing.assert_close(
        NORMS[name].steepest(gradient), torch.tensor([[[NORM_ROWS[name].steepest]]])
    )


def draw(name: str, shape: tuple[int, ...], n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([NORMS[name].random_start(torch.zeros(shape), generator) for _ in range(n)])


def kolmogorov_distance(values: Tensor) -> float:
    """Largest gap between the distribution of `values` and the uniform one on [0, 1]."""
    ranks = torch.arange(1, len(values) + 1) / len(values)
    return (values.sort().values - ranks).abs().max().item()


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 2, 2), (1, 4, 4)])
def test_l2_start_is_uniform_in_the_ball(shape):
    """Uniform in a ball of d dimensions means that (distance from the centre)^d is uniform, not the
    distance.
    """
    starts = draw("l2", shape, 4000)
    distance = L2.size(starts)
    assert distance.max() <= 1
    # 0.0307: a uniform sample of 4000 exceeds it once in a thousand times.
    assert kolmogorov_distance(distance ** math.prod(shape)) < 0.0307
    directions = starts.flatten(1) / distance[:, None]
    assert directions.mean(0).abs().max() < 0.05
    torch.testing.assert_close(
        directions.T @ directions / 4000,
        torch.eye(math.prod(shape)) / math.prod(shape),
        rtol=0,
        atol=0.03,
    )


def test_linf_start_is_uniform_in_the_cube():
    starts = draw("linf", (1, 2, 2), 4000).flatten(1)
    for pixel in starts.T:
        assert kolmogorov_distance((pixel + 1) / 2) < 0.0307
    assert torch.corrcoef(starts.T).fill_diagonal_(0).abs().max() < 0.06


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 2, 3)])
def test_l1_start_is_uniform_in_the_ball(shape):
    """As for l2: (size)^d is uniform; and a half-space through the centre holds half of them."""
    starts = draw("l1", shape, 4000)
    sizes = L1.size(starts)
    assert sizes.max() <= 1
    assert kolmogorov_distance(sizes ** math.prod(shape)) < 0.0307
    assert (starts.flatten(1).mean(0).abs() < 0.05).all()
    # Five standard deviations of a coin.
    assert ((starts.flatten(1) > 0).float().mean(0) - 0.5).abs().max() < 0.04


def test_l1_projection_is_the_nearest_point_of_ball_and_box():
    """Against a solver that knows nothing of the method: alternating projections with Dykstra's
    corrections.
    """
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(8, 1, 3, 4, generator=generator, dtype=torch.float64)
    low, high = (
        sign * 0.4 * torch.rand(delta.shape, generator=generator, dtype=torch.float64)
        for sign in (-1, 1)
    )
    found = L1.project(delta, 1.0, (low, high))
    point, one, two = delta.clone(), torch.zeros_like(delta), torch.zeros_like(delta)
    for _ in range(200):
        ball = L1.project(point + one, 1.0)
        one = point + one - ball
        point = torch.minimum(torch.maximum(ball + two, low), high)
        two = ball + two - point
    # 1e-5: the projection's own distance to the rim.
    torch.testing.assert_close(found, point, rtol=0, atol=1e-5)
    # A clip afterwards wastes much of the radius.
    clipped = torch.minimum(torch.maximum(L1.project(delta, 1.0), low), high)
    assert (L1.size(clipped) < 0.8 * L1.size(found)).all()


def test_l0_keeps_the_largest_changes():
    delta = torch.tensor([[[[0.1, -0.5, 0.0, 0.3]]], [[[0.1, -0.5, 0.0, 0.3]]]])
    kept = L0.project(delta, torch.tensor([1.0, 3.0]))
    assert torch.equal(kept.flatten(1), torch.tensor([[0, -0.5, 0, 0], [0.1, -0.5, 0, 0.3]]))
    boxed = L0.project(delta, 1.0, (torch.tensor(-0.2), torch.tensor(1.0)))
    assert L0.size(boxed).tolist() == [1, 1]
    assert boxed.flatten(1)[0].tolist() == pytest.approx([0, 0, 0, 0.3])
    assert torch.equal(L0.project(delta, math.inf), delta)
    assert not L0.project(delta, 0.0).any()
    for step in (lambda: L0.steepest(delta), lambda: L0.random_start(delta, torch.Generator())):
        with pytest.raises(ThreatModelError, match="l0 norm has no"):
            step()


def test_unknown_norm():
    with pytest.raises(ThreatModelError, match=r"no norm 'linff'\. Did you mean 'linf'"):
        find_norm("linff")
    assert find_norm("linf") is LINF


@pytest.mark.parametrize("norm", [L2, L1])
@pytest.mark.parametrize("planes", [1, 3])
def test_what_is_projected_lies_within_eps_however_many_pixels(norm, planes):
    """As it is measured again, on the image; nothing to speak of is wasted."""
    draw = torch.Generator().manual_seed(0)
    images = 0.25 + 0.5 * torch.rand(8, planes, 224, 224, generator=draw)
    for eps in (2.0, 4.0, 8.0):
        delta = torch.randn(images.shape, generator=draw)
        points = images + norm.project(0.1 * delta, eps)
        size = norm.size(points - images)
        assert (size <= eps + 1e-6).all()
        assert (size >= eps * (1 - 3e-5)).all()
