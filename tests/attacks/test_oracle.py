"""Linear classifiers, whose nearest fooling image is known in closed form: margin over the dual
norm of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from norm_table import NORM_ROWS
from robustmri.attacks import CarliniWagnerL2, make_attack
from robustmri.attacks.engine import SeededGenerator
from robustmri.attacks.hop_skip_jump import HopSkipJump
from robustmri.threat.norms import L2
from robustmri.threat.threat_model import ThreatModel

N, D = 6, 64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(classes: int, *, far: float = 0.0, seed: int = 0) -> nn.Module:
    """Random weights; all classes but the first two are `far` logits below them."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(D, classes)).double()
    with torch.no_grad():
        network[1].weight.copy_(
            torch.randn(classes, D, generator=seeded(seed), dtype=torch.float64)
        )
        network[1].bias.zero_()[2:] = -far
        # Undecided between the two about a grey image.
        network[1].bias[:2] -= network[1].weight[:2].sum(1) / 2
    return network


def central(network: nn.Module, n: int = N) -> Tensor:
    """Images near mid-grey, from which no bounds are met, about 0.25 (l2) from the boundary and on
    both sides of it.
    """
    across = network[1].weight[0] - network[1].weight[1]
    sides = (0.25 - 0.5 * (torch.arange(n) % 2)).reshape(n, 1, 1, 1)
    noise = torch.randn(n, 1, 8, 8, generator=seeded(1), dtype=torch.float64)
    return (0.5 + 0.01 * noise + sides * (across / across.norm()).reshape(1, 8, 8)).detach()


def radius(
    network: nn.Module, images: Tensor, norm: str, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Labels given by the network, and the distance from each image to the nearest other class."""
    weight, logits = network[1].weight.detach(), network(images).detach()
    labels = logits.argmax(1)
    gaps = logits.gather(1, labels[:, None]) - logits
    differences = weight[labels][:, None] - weight
    if mask is not None:
        differences = differences * mask.flatten().to(differences)
    distances = gaps / torch.linalg.vector_norm(differences, NORM_ROWS[norm].dual, dim=2)
    return labels, distances.scatter(1, labels[:, None], torch.inf).amin(1)


def assert_fools_from(
    name: str,
    network: nn.Module,
    images: Tensor,
    threat: ThreatModel,
    *,
    beyond: float = 1.001,
) -> None:
    """With the radii of `threat`, one per image, times `beyond` the attack wins all images that can
    be won, and times 0.999 none; in one batch, in which an image draws the same for both.
    """
    both, labels = torch.cat([images, images]), network(images).argmax(1).repeat(2)
    eps = torch.cat([0.999 * threat.eps, beyond * threat.eps])
    numbers = torch.randint(2**62, (len(images),), generator=seeded()).tolist()
    attacked = make_attack(name, **EXACT.get(name, {}))(
        network, both, labels, replace(threat, eps=eps), generator=SeededGenerator(numbers * 2)
    )
    inside, outside = network(attacked).argmax(1).chunk(2)
    own = labels[: len(images)]
    assert torch.equal(inside, own)
    if threat.target is None:
        assert (outside != own).all()
    else:
        assert (outside == threat.target).all()
    assert torch.equal(threat.fooled(network(attacked), labels).chunk(2)[1], outside != own)


# Enough steps for the l2 attacks to turn from a random start to the gradient: each of 1/8 eps
# shrinks what is across it by 1 / 1.125.
EXACT = {
    "fgsm": {},
    "bim": {},
    "pgd": {"steps": 60},
    "cw": {"steps": 60},
    "mi-fgsm": {},
    "ni-fgsm": {},
    "vmi-fgsm": {"neighbours": 2},
    "apgd": {},
    "apgd-ce": {},
    "apgd-t": {"steps": 50},
    "standard": {"steps": 50, "queries": 20},
}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("name", EXACT)
def test_flips_just_beyond_the_closed_form_radius(name, classes, norm):
    network = linear(classes, far=100.0)
    images = central(network)
    _, nearest = radius(network, images, norm)
    assert nearest.max() < 0.3
    assert_fools_from(name, network, images, ThreatModel(norm, nearest))


@pytest.mark.parametrize("classes", [10])
def test_holds_just_inside_the_closed_form_radius_whatever_the_attack(budget_row, norm, classes):
    network = linear(classes, far=1.0)
    images = central(network, 32)
    labels, nearest = radius(network, images, norm)
    attacked = budget_row.attack(
        network, images, labels, ThreatModel(norm, 0.999 * nearest), generator=seeded()
    )
    assert torch.equal(network(attacked).argmax(1), labels)


@pytest.mark.parametrize(
    ("classes", "far", "slack"), [(2, 0.0, 1.02), (5, 100.0, 1.02), (10, 1.0, 1.05)]
)
def test_carlini_wagner_finds_the_closed_form_distance(classes, far, slack):
    network = linear(classes, far=far)
    images = central(network)
    labels, nearest = radius(network, images, "l2")
    attacked = CarliniWagnerL2()(network, images, labels, ThreatModel("l2"), generator=seeded())
    assert (network(attacked).argmax(1) != labels).all()
    distance = L2.size(attacked - images)
    assert (distance >= nearest * (1 - 1e-9)).all()
    # 2 %: Adam's steps near the boundary are finite. Among ten near classes the margin turns from
    # one to another.
    assert (distance <= slack * nearest).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", [*EXACT, "apgd-dlr"])
def test_targeted_flips_just_beyond_the_distance_to_the_target(name, norm):
    network = linear(5, far=100.0)
    images = central(network)
    _, nearest = radius(network, images, norm)
    for target in (0, 1):
        assert_fools_from(name, network, images, ThreatModel(norm, nearest, target=target))


@pytest.mark.parametrize("name", ["apgd", "apgd-ce", "apgd-t", "standard"])
def test_l1_with_active_bounds(name):
    """The best change takes the pixels of the largest weights, one after another, each as far as 0
    or 1.
    """
    network = linear(2)
    images = torch.rand(N, 1, 8, 8, generator=seeded(3), dtype=torch.float64).round(decimals=1)
    with torch.no_grad():
        network[1].weight.mul_(0.1)
        network[1].bias.add_(torch.tensor([0.7, 0.0]) - network(images).mean(0))
    weight, logits = network[1].weight.detach(), network(images).detach()
    labels = logits.argmax(1)
    nearest = []
    for image, label, own in zip(images, labels, logits, strict=True):
        difference = (weight[label] - weight[1 - label]).reshape(1, 8, 8)
        order = difference.abs().flatten().argsort(descending=True)
        slope, room = (
            difference.abs().flatten()[order],
            room_for(image, difference).flatten()[order],
        )
        before = room.cumsum(0) - room
        reach = solve(
            lambda eps, s=slope, r=room, b=before: (
                s * torch.minimum((eps - b).clamp_min(0), r)
            ).sum(),
            own[label] - own[1 - label],
        )
        assert 0.5 < reach < 9
        assert (before < reach).sum() > 1  # The bounds do bind.
        nearest.append(reach)
    # 2 %: the number of pixels adapts in few checkpoints.
    threat = ThreatModel("l1", torch.tensor(nearest, dtype=torch.float64))
    assert_fools_from(name, network, images, threat, beyond=1.02)


def test_targeted_carlini_wagner_finds_the_distance_to_the_target():
    network = linear(5, far=100.0)
    images = central(network)
    labels, nearest = radius(network, images, "l2")
    threat = ThreatModel("l2", target=1)
    attacked = CarliniWagnerL2()(network, images, labels, threat, generator=seeded())
    assert (network(attacked).argmax(1) == 1).all()
    moved = L2.size(attacked - images)[labels == 0]
    assert (moved <= 1.02 * nearest[labels == 0]).all()  # 2 %: as above.
    assert len(moved) not in (0, N)


def room_for(images: Tensor, weight: Tensor) -> Tensor:
    """How far each pixel can go towards lower `weight . x` before it meets 0 or 1."""
    return torch.where(weight > 0, images, 1 - images)


def solve(gain: Callable[[float], float], wanted: float) -> float:
    """The radius at which the growing function `gain` reaches `wanted`, by bisection."""
    low, high = 0.0, 10.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if gain(middle) < wanted else (low, middle)
    return high


MASK = torch.rand(8, 8, generator=torch.Generator().manual_seed(7)) < 0.6


@pytest.mark.parametrize("mask", [None, MASK], ids=["everywhere", "mask"])
@pytest.mark.parametrize("name", EXACT)
def test_linf_with_active_bounds(name, mask):
    network = linear(2)
    images = torch.rand(N, 1, 8, 8, generator=seeded(3), dtype=torch.float64).round(decimals=1)
    with torch.no_grad():
        network[1].weight.mul_(0.1)
        network[1].bias.add_(torch.tensor([0.7, 0.0]) - network(images).mean(0))
    weight, logits = network[1].weight.detach(), network(images).detach()
    labels = logits.argmax(1)
    nearest = []
    for image, label, own in zip(images, labels, logits, strict=True):
        difference = (weight[label] - weight[1 - label]).reshape(1, 8, 8) * (
            1 if mask is None else mask
        )
        room = room_for(image, difference)
        reach = solve(
            lambda eps, d=difference, r=room: (d.abs() * r.clamp(max=eps)).sum(),
            own[label] - own[1 - label],
        )
        nearest.append(reach)
        # The bounds do bind, else this test is the one without them.
        assert (room < reach)[difference != 0].any()
    threat = ThreatModel("linf", torch.tensor(nearest, dtype=torch.float64), mask=mask)
    assert_fools_from(name, network, images, threat)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", EXACT)
def test_mask_leaves_the_weights_inside_it(name, norm):
    network = linear(3, far=100.0)
    images = central(network)
    _, nearest = radius(network, images, norm, MASK)
    assert_fools_from(name, network, images, ThreatModel(norm, nearest, mask=MASK))


def test_carlini_wagner_with_active_bounds():
    """The nearest point lies where every free pixel moves in proportion to its weight, and the rest
    stop at 0 or 1.
    """
    network = linear(2)
    images = torch.rand(N, 1, 8, 8, generator=seeded(3), dtype=torch.float64)
    images = torch.where(images < 0.5, 0.02, images)
    with torch.no_grad():
        network[1].weight.mul_(0.1)
        network[1].bias.add_(torch.tensor([1.0, 0.0]) - network(images).mean(0))
    logits = network(images).detach()
    labels = logits.argmax(1)
    attacked = CarliniWagnerL2(steps=100)(
        network, images, labels, ThreatModel("l2"), generator=seeded()
    )
    assert (network(attacked).argmax(1) != labels).all()
    for image, label, own, found in zip(images, labels, logits, attacked, strict=True):
        difference = (
            (network[1].weight[label] - network[1].weight[1 - label]).detach().reshape(1, 8, 8)
        )
        room = room_for(image, difference)
        pace = solve(
            lambda t, d=difference, r=room: (d.abs() * torch.minimum(t * d.abs(), r)).sum(),
            own[label] - own[1 - label],
        )
        nearest = torch.minimum(pace * difference.abs(), room).norm()
        assert (room < pace * difference.abs()).any()
        assert nearest * (1 - 1e-9) <= (found - image).norm() <= 1.02 * nearest  # 2 %: as above.


@pytest.mark.parametrize("mask", [None, MASK], ids=["everywhere", "mask"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_hop_skip_jump_finds_the_closed_form_distance(norm, mask):
    network = linear(3, far=1.0)
    images = central(network, 2)
    labels, nearest = radius(network, images, norm, mask)
    attack = HopSkipJump(steps=10, samples=200)
    attacked = attack(network, images, labels, ThreatModel(norm, mask=mask), generator=seeded())
    assert (network(attacked).argmax(1) != labels).all()
    distance = ThreatModel(norm).measure.size(attacked - images)
    assert (distance >= nearest * (1 - 1e-9)).all()
    # Directions are felt at random; in linf a pixel whose sign is felt wrongly costs a whole eps.
    assert (distance <= {"linf": 1.3, "l2": 1.1}[norm] * nearest).all()


@pytest.mark.parametrize("confidence", [0.5, 2.0])
@pytest.mark.parametrize("target", [None, 1])
def test_carlini_wagner_fools_by_its_confidence_and_no_more(confidence, target):
    network = linear(2)
    images = central(network)
    labels, nearest = radius(network, images, "l2")
    attack = CarliniWagnerL2(confidence=confidence)
    attacked = attack(network, images, labels, ThreatModel("l2", target=target), generator=seeded())
    logits = network(attacked).detach()
    lead = logits[:, 1] - logits[:, 0]
    lead = torch.where(labels == 0, lead, -lead)
    moved = torch.ones_like(labels, dtype=torch.bool) if target is None else labels != target
    assert (lead[moved] >= confidence).all()
    length = (network[1].weight[0] - network[1].weight[1]).norm().item()
    exact = nearest + confidence / length
    assert (L2.size(attacked - images)[moved] <= 1.02 * exact[moved]).all()  # 2 %: as above.
