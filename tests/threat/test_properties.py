"""What holds for each change, radius, bound and mask; hypothesis looks for one that breaks it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robustmri.core.errors import ThreatModelError
from robustmri.threat.eps import Eps, parse_eps
from robustmri.threat.norms import NORMS
from robustmri.threat.threat_model import ThreatModel

CONVEX = ("linf", "l2", "l1")
# l1 aims a hundred-thousandth inside, and sums of many pixels round.
SLACK = {"linf": 1e-12, "l2": 1e-12, "l1": 2e-5, "l0": 0.0}
norms = st.sampled_from(list(NORMS))
convex = st.sampled_from(CONVEX)
seeds = st.integers(0, 2**31 - 1)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(1, 5), st.integers(1, 5))
scales = st.sampled_from([0.0, 1e-12, 0.01, 1.0, 100.0])
radii = st.one_of(st.sampled_from([0.0, 1.0, math.inf]), st.floats(1e-6, 30.0))


def draw(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def deltas_like(draws: st.DrawFn, shape: tuple[int, ...]) -> Tensor:
    """Changes of a batch, some of its pixels exactly 0, each image on a scale of its own."""
    seed = draws(seeds)
    scale = draws(st.lists(scales, min_size=shape[0], max_size=shape[0]))
    grown = draw(shape, seed) * torch.tensor(scale, dtype=torch.float64).reshape(-1, 1, 1, 1)
    return torch.where(draw(shape, seed + 1) > -1, grown, 0.0)


deltas = shapes.flatmap(deltas_like)
pairs = shapes.flatmap(lambda shape: st.tuples(deltas_like(shape), deltas_like(shape)))


@given(norms, deltas, radii)
def test_projection_lies_in_the_ball_and_leaves_what_lies_there(name, delta, eps):
    norm = NORMS[name]
    projected = norm.project(delta, eps)
    assert (norm.size(projected) <= eps * (1 + 1e-12)).all()
    inside = norm.size(delta) <= eps * (1 - SLACK[name])
    assert torch.equal(projected[inside], delta[inside])
    again = norm.project(projected, eps)
    torch.testing.assert_close(again, projected, rtol=2 * SLACK[name], atol=SLACK[name])


@given(norms, deltas, radii)
def test_projection_turns_no_pixel_round_and_enlarges_none(name, delta, eps):
    projected = NORMS[name].project(delta, eps)
    assert (projected * delta >= 0).all()
    assert (projected.abs() <= delta.abs()).all()


@given(norms, deltas, st.lists(radii, min_size=4, max_size=4))
def test_projection_of_a_batch_is_that_of_its_images(name, delta, eps):
    norm, radius = NORMS[name], torch.tensor(eps[: len(delta)], dtype=torch.float64)
    singly = [norm.project(delta[[i]], radius[i].item()) for i in range(len(delta))]
    torch.testing.assert_close(norm.project(delta, radius), torch.cat(singly), rtol=0, atol=1e-12)


@given(convex, pairs, st.floats(-8, 8))
def test_size_is_a_norm(name, pair, factor):
    (delta, other), size = pair, NORMS[name].size
    torch.testing.assert_close(size(factor * delta), abs(factor) * size(delta))
    assert (size(delta + other) <= (size(delta) + size(other)) * (1 + 1e-12)).all()
    assert torch.equal(size(delta) == 0, ~delta.flatten(1).any(1))


@given(convex, deltas, st.floats(0.1, 10.0))
def test_a_larger_ball_holds_the_smaller(name, delta, eps):
    """The projection is no further away, and grows with the radius."""
    norm = NORMS[name]
    near, far = (norm.project(delta, radius) for radius in (eps, 1.5 * eps))
    assert (norm.size(near) <= norm.size(far) + 1e-12).all()
    assert ((delta - far).abs() <= (delta - near).abs() + 1e-9).all()


@given(convex, pairs)
def test_no_direction_climbs_more_steeply(name, pair):
    (gradient, other), norm = pair, NORMS[name]
    best = (norm.steepest(gradient) * gradient).flatten(1).sum(1)
    torch.testing.assert_close(best, NORMS[norm.dual].size(gradient))
    gain = (gradient * other).flatten(1).sum(1)
    assert (gain <= best * norm.size(other) * (1 + 1e-9) + 1e-12).all()


@given(convex, shapes, seeds)
def test_random_start_lies_in_the_unit_ball_and_repeats(name, shape, seed):
    norm, like = NORMS[name], torch.zeros(shape[1:])
    one, same = (norm.random_start(like, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert torch.equal(one, same)
    assert one.shape == like.shape
    assert norm.size(one[None].double()) <= 1 + 1e-6  # Sums of float32.


@dataclass(frozen=True)
class Drawn:
    """Images, where an attack would like to go, and what it may do."""

    images: Tensor
    points: Tensor
    threat: ThreatModel


@st.composite
def threats(draws: st.DrawFn) -> Drawn:
    shape, seed = draws(shapes), draws(seeds)
    low = draws(st.sampled_from([0.0, -1.0]))
    images = (low + (1.0 - low) * (1.6 * torch.rand(shape, generator=_seeded(seed)) - 0.3)).clamp(
        low, 1.0
    )
    mask = draws(st.sampled_from(["none", "shared", "each"]))
    free = torch.rand(shape, generator=_seeded(seed + 1)) < 0.7
    each = torch.tensor(draws(st.lists(radii, min_size=shape[0], max_size=shape[0])))
    norm = draws(norms)
    # In linf more than the bounds span is refused.
    each = each.clamp(max=1.0 - low) if norm == "linf" else each
    shared = st.sampled_from([0.0, 0.1, 1.0 - low if norm == "linf" else 2.0, math.inf])
    threat = ThreatModel(
        norm,
        draws(shared) if draws(st.booleans()) else each,
        bounds=(low, 1.0),
        mask={"none": None, "shared": free[0], "each": free}[mask],
    )
    points = images.double() + draws(st.sampled_from([0.1, 1.0, 50.0])) * draw(shape, seed + 2)
    return Drawn(images.double(), points, threat)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(threats())
def test_projected_points_lie_in_the_set(drawn):
    threat, images = drawn.threat, drawn.images
    threat.check(images, torch.zeros(len(images), dtype=torch.long))
    points = threat.project(drawn.points, images)
    delta = points - images
    assert ((points >= threat.bounds[0]) & (points <= threat.bounds[1])).all()
    assert not delta[threat.allow(torch.ones_like(delta)) == 0].any()
    # 1e-9: images of [-1, 1] are added and taken away.
    assert (threat.measure.size(delta) <= torch.as_tensor(threat.eps) + 1e-9).all()
    assert torch.equal(threat.project(images, images), images)


@given(threats())
def test_a_part_of_the_batch_has_the_part_of_the_threat(drawn):
    threat, images = drawn.threat, drawn.images
    whole = threat.project(drawn.points, images)
    for i in range(len(images)):
        row = torch.tensor([i])
        alone = threat.at(row).project(drawn.points[row], images[row])
        torch.testing.assert_close(alone, whole[row], rtol=0, atol=1e-12)


@given(st.integers(2, 5), st.integers(1, 6), seeds, st.floats(0.01, 3.0))
def test_nobody_fools_by_confidence_who_does_not_fool(classes, n, seed, confidence):
    logits = draw((n, classes), seed)
    labels = torch.randint(classes, (n,), generator=_seeded(seed))
    for target in (None, 0):
        threat = ThreatModel(target=target)
        sure = threat.fooled(logits, labels, confidence)
        assert not (sure & ~threat.fooled(logits, labels)).any()
        assert not threat.fooled(logits.index_fill(1, torch.tensor(0), torch.nan), labels).any()


@given(st.floats(0, 1e6), st.sampled_from(["image", "normalised"]))
def test_a_radius_is_read_as_it_is_written(value, units):
    eps = Eps(float(f"{value:g}"), units)
    assert parse_eps(str(eps)) == eps
    assert parse_eps(f"  {value!r}@{units} ") == Eps(value, units)


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_fraction_is_its_quotient(above, below):
    assert parse_eps(f"{above}/{below}").value == pytest.approx(above / below, rel=1e-15)


@given(st.one_of(st.text(max_size=12), st.text("0123456789.e/@-", max_size=12)))
def test_any_other_text_is_refused_in_our_own_words(text):
    try:
        value = parse_eps(text).value
    except ThreatModelError:
        return
    assert math.isfinite(value)
    assert value >= 0
