"""Physical threats: what their transforms do, and what an attack over their parameters promises."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from robustmri.attacks import APGD, ATTACKS, PGD, Noise, bim, make_attack
from robustmri.attacks.protocol import searches_parameters
from robustmri.core.errors import ThreatModelError
from robustmri.core.settings import help_of
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.threat.physical import PhysicalThreat
from robustmri.threat.physical_transforms import (
    TRANSFORMS,
    Affine,
    BiasField,
    Deformation,
    Gamma,
    Patch,
)

KINDS = list(TRANSFORMS)
SMOOTH = [kind for kind in KINDS if kind != "patch"]
ATTACKED = [PGD(steps=3, restarts=2), APGD(steps=4), bim(steps=2), Noise(draws=3)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_slices(n: int = 5, height: int = 12, width: int = 14) -> Tensor:
    """Float64 slices with a black border, as an MRI's background is."""
    images = torch.rand(n, 1, height, width, generator=seeded(n), dtype=torch.float64)
    images[:, :, :2] = 0
    return images


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 5 * 6, 3)
    ).double()


def smooth(images: Tensor) -> Tensor:
    return functional.interpolate(images, size=(24, 24), mode="bicubic").clamp(0, 1)


def draw(kind: str, images: Tensor, eps: float) -> Tensor:
    count = TRANSFORMS[kind].count(tuple(images.shape[-2:]), eps)
    return 2 * torch.rand(len(images), count, generator=seeded(7), dtype=images.dtype) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_without_eps_nothing_changes(kind):
    images = make_slices()
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        given = images.to(dtype)
        changed = PhysicalThreat(kind, 0.0).change(given)
        assert torch.equal(changed.at(changed.start), given)
        assert torch.equal(TRANSFORMS[kind].apply(images, draw(kind, images, 0.0), 0.0), images)
        if kind in SMOOTH:
            still = PhysicalThreat(kind).change(given)
            assert torch.equal(still.at(still.start), given)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_stays_an_image(kind):
    images = make_slices()
    for eps in (TRANSFORMS[kind].usual, TRANSFORMS[kind].largest):
        changed = TRANSFORMS[kind].apply(images, draw(kind, images, eps), eps)
        assert changed.shape == images.shape
        assert torch.isfinite(changed).all()
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert not torch.equal(changed, images)


@pytest.mark.parametrize("kind", SMOOTH)
@pytest.mark.parametrize("share", [0.0, 0.37])
def test_gradients_are_those_of_the_transform(kind, share):
    """By finite differences; at the image itself too, where an attack may begin."""
    # Smooth: in an interpolation the slope jumps wherever a place crosses a pixel.
    fade = torch.linspace(0, math.pi, 24, dtype=torch.float64).sin()
    images = (0.2 + 0.6 * smooth(make_slices(2, 4, 4))) * fade * fade[:, None]
    eps = TRANSFORMS[kind].usual
    values, weight = share * draw(kind, images, eps), smooth(make_slices(2, 3, 3))

    def weighed(values: Tensor) -> Tensor:
        return (TRANSFORMS[kind].apply(images, values, eps) * weight).flatten(1).sum(1)

    point = values.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(weighed(point).sum(), point)
    ways = 1e-6 * torch.eye(values.shape[1], dtype=values.dtype)
    measured = torch.stack([weighed(values + w) - weighed(values - w) for w in ways], 1) / 2e-6
    jumps = 0.1 if kind in ("affine", "deformation") else 1e-6
    assert (slope - measured).norm() <= jumps * measured.norm()


def test_what_each_transform_does():
    images = make_slices(2, 12, 12)
    rows = torch.zeros(2, 4, dtype=torch.float64)
    rows[:, 1] = 1.0
    down = Affine().apply(images, rows, 100 / 12)
    torch.testing.assert_close(down[:, :, 1:], images[:, :, :-1])
    turned = Affine().apply(images, torch.eye(1, 4, dtype=torch.float64).expand(2, 4), 90.0)
    assert min(float((turned - images.rot90(k, (2, 3))).abs().max()) for k in (1, -1)) < 1e-6
    # Weights of all points add up to 1: moved alike, they shift the image.
    moves = torch.zeros(2, 2, 49, dtype=torch.float64)
    moves[:, 0] = 1.0
    shifted = Deformation().apply(images, moves.flatten(1), 100 / 12)
    torch.testing.assert_close(shifted[..., :-1], images[..., 1:])
    bright = Gamma().apply(images, -torch.ones(2, 1, dtype=torch.float64), 1.0)
    torch.testing.assert_close(bright, images**0.5, atol=1e-6, rtol=1e-6)
    square = Patch().apply(images, torch.ones(2, 2 + 9, dtype=torch.float64), 25.0)
    assert (square[:, :, -3:, -3:] == 1).all()
    assert torch.equal(square[:, :, :-3], images[:, :, :-3])


@pytest.mark.parametrize("size", [(24, 12), (12, 24)])
def test_moves_are_in_percent_of_the_width_along_both_axes(size):
    images = make_slices(1, *size)
    moved = round(size[1] / 6)
    rows = torch.zeros(1, 4, dtype=torch.float64)
    rows[:, 1] = 1.0
    down = Affine().apply(images, rows, 100 / 6)
    torch.testing.assert_close(down[:, :, moved:], images[:, :, :-moved], atol=1e-6, rtol=0)
    moves = torch.zeros(1, 2, 49, dtype=torch.float64)
    moves[:, 1] = 1.0
    up = Deformation().apply(images, moves.flatten(1), 100 / 6)
    torch.testing.assert_close(up[:, :, :-moved], images[:, :, moved:], atol=1e-6, rtol=0)


def test_a_bias_field_stays_within_its_gain():
    grey = torch.full((4, 1, 32, 32), 0.1, dtype=torch.float64)
    gain = BiasField().apply(grey, draw("bias-field", grey, 0.3), 0.3) / 0.1
    assert gain.min() >= 1 / 1.3 - 1e-9
    assert gain.max() <= 1.3 + 1e-9
    assert gain.max() / gain.min() > 1.3  # All of eps is used somewhere.
    smooth = (gain.diff(dim=2).abs().amax(), gain.diff(dim=3).abs().amax())
    assert max(smooth) < 0.3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attack", ATTACKED, ids=lambda one: type(one).__name__)
def test_an_attack_over_parameters_keeps_its_promises(kind, attack, network):
    """In the box; the same again; alone as in the batch; what it returns is T(x, p)."""
    images = make_slices()
    labels = network(images).argmax(1)
    threat = PhysicalThreat(kind)
    changed = threat.change(images)
    start = changed.start
    points = attack(
        changed.seen_by(network), start, labels, changed.box, generator=seeded()
    ).detach()
    assert points.abs().max() <= 1
    assert torch.equal(points[..., -1], start[..., -1])
    whole = attack(network, images, labels, threat, generator=seeded())
    assert torch.equal(whole, changed.at(points))
    generator = seeded()
    alone = torch.cat(
        [
            attack(network, images[[row]], labels[[row]], threat, generator=generator)
            for row in range(len(images))
        ]
    )
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-9)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_search_finds_what_is_known_to_be_there():
    """Whether the sum of a slice is above a bound: gamma crosses it at a known exponent."""
    image = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)

    def bright(images: Tensor) -> Tensor:
        mean = images.mean((1, 2, 3)) - 0.4
        return 50 * torch.stack([mean, -mean], 1)

    needed = math.log(0.4) / math.log(0.5) - 1
    for share, falls in ((0.999, False), (1.001, True)):
        for attack in (PGD(steps=20), APGD(steps=20)):
            threat = PhysicalThreat("gamma", share * needed)
            found = attack(bright, image, torch.tensor([0]), threat)
            assert (bright(found).argmax(1) != 0).item() == falls


def test_the_setting_names_them_all():
    """Its help is written out: the command line answers without torch."""
    said = help_of(EvaluateSettings, "threat")
    assert said.endswith(f"{', '.join(KINDS[:-1])} or {KINDS[-1]}")


def test_a_target_is_the_goal():
    image = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)

    def thirds(images: Tensor) -> Tensor:
        mean = images.mean((1, 2, 3))
        return torch.stack([-(mean - 0.5).abs(), 2 * (mean - 0.6), 2 * (0.4 - mean)], 1)

    for target in (1, 2):
        threat = PhysicalThreat("gamma", 0.9, target=target)
        found = PGD()(thirds, image, torch.tensor([0]), threat)
        assert thirds(found).argmax(1).item() == target


FEW = {
    "spsa": {"steps": 2, "samples": 4},
    "square": {"queries": 5},
    "standard": {"steps": 2, "queries": 3},
    "universal": {"epochs": 1},
    "vmi-fgsm": {"steps": 1},
}


def test_every_attack_searches_or_says_why_not(network):
    images = make_slices(2)
    labels = network(images).argmax(1)
    able = [
        name
        for name, (facts, _) in ATTACKS.items()
        if searches_parameters(facts, make_attack(name))
    ]
    assert not {"di-fgsm", "ti-fgsm"} & set(able)
    assert {"pgd", "apgd", "fgsm", "bim", "spsa", "square", "standard", "noise"} <= set(able)
    for name in able:
        attack = make_attack(name, **FEW.get(name, {}))
        found = attack(network, images, labels, PhysicalThreat("gamma", 0.0))
        assert torch.equal(found, images), name
    for name in set(ATTACKS) - set(able):
        with pytest.raises(ThreatModelError, match="parameters of a physical threat"):
            make_attack(name)(network, images, labels, PhysicalThreat("gamma"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PhysicalThreat("bias"), "bias-field"),
        (lambda: PhysicalThreat("affine", 60.0), "Take at most 45"),
        (lambda: PhysicalThreat("gamma", -1.0), "at least 0"),
        (lambda: PhysicalThreat("gamma", math.inf), "finite"),
        (lambda: PhysicalThreat("gamma", "0.3@normalised"), "no normalised units"),
        (lambda: PhysicalThreat("gamma").change(torch.rand(2, 1, 4, 4, 4)), "height, width"),
        (lambda: PhysicalThreat("gamma").change(torch.rand(2, 1, 4, 4) * 9), "must lie in"),
        (
            lambda: PGD()(
                lambda x: x.flatten(1),
                torch.rand(1, 1, 2, 2),
                torch.tensor([0]),
                PhysicalThreat("gamma"),
                eps=0.1,
            ),
            "in the PhysicalThreat",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(make, said):
    with pytest.raises(ThreatModelError, match=said):
        make()
