"""Identities between attacks, and the order of their strength on a trained network."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from robustmri.attacks import ATTACKS, PGD, bim, cw, fgsm, make_attack
from robustmri.attacks.engine import SeededGenerator
from robustmri.core.errors import SettingsError
from robustmri.threat.threat_model import ThreatModel

EPS = {"linf": [0.0, 0.02, 0.05, 0.08, 0.12, 0.2], "l2": [0.0, 0.2, 0.4, 0.6, 0.9, 1.5]}

ITERATIVE = [name for name, known in ATTACKS.items() if known.facts.iterative]
# Of attacks that take long by default; the order of strength is the same.
SHORT: dict[str, dict[str, int]] = {
    **{name: {"steps": 25} for name in ("apgd", "apgd-ce", "apgd-dlr", "apgd-t")},
    "vmi-fgsm": {"neighbours": 5},
}


@pytest.fixture
def blobs(blobs):
    """Half of them."""
    return blobs[0][:64], blobs[1][:64]


def accuracy(network, attack, images, labels, threat) -> float:
    attacked = attack(network, images, labels, threat, generator=torch.Generator().manual_seed(0))
    return (network(attacked).argmax(1) == labels).float().mean().item()


def accuracies(network, attack, images, labels, norm, radii) -> list[float]:
    """At each radius, all in one batch; an image draws the same at each."""
    n = len(labels)
    many, own = images.repeat(len(radii), 1, 1, 1), labels.repeat(len(radii))
    threat = ThreatModel(norm, torch.tensor(radii).repeat_interleave(n))
    seeded = SeededGenerator([*range(n)] * len(radii))
    attacked = attack(network, many, own, threat, generator=seeded)
    right = network(attacked).argmax(1) == own
    return right.reshape(-1, n).float().mean(1).tolist()


def falls(accuracies: list[float]) -> bool:
    return all(later <= earlier for earlier, later in pairwise(accuracies))


def test_fgsm_and_bim_are_pgd(norm, make_network, make_images):
    network, images = make_network("tanh"), make_images(5)
    labels = network(images).argmax(1)
    assert fgsm() == PGD(steps=1, step_size=1, random_start=False)
    assert bim() == PGD(random_start=False)
    assert cw() == PGD(loss="margin")
    results = [
        attack(
            network,
            images,
            labels,
            ThreatModel(norm, 0.1),
            generator=torch.Generator().manual_seed(0),
        )
        for attack in (
            fgsm(keep="last"),
            PGD(steps=1, step_size=1, random_start=False, keep="last"),
        )
    ]
    assert torch.equal(*results)
    if norm == "linf":  # Goodfellow et al. 2015, Sec. 4, written out.
        points = images.clone().requires_grad_()
        torch.nn.functional.cross_entropy(network.eval()(points), labels).backward()
        assert torch.equal(results[0], (images + 0.1 * points.grad.sign()).clamp(0, 1))


@pytest.mark.parametrize("name", ["fgsm", *(name for name in ITERATIVE if name != "standard")])
def test_more_eps_never_raises_accuracy(name, norm, trained, blobs):
    images, labels = blobs
    attack = make_attack(name, **SHORT.get(name, {}))
    curve = accuracies(trained, attack, images, labels, norm, [*EPS[norm][::2], EPS[norm][-1]])
    assert falls(curve)
    assert curve[0] > 0.9
    assert curve[-1] < 0.1


@pytest.mark.parametrize("name", ["bim", "pgd", "mi-fgsm", "ni-fgsm", "cw"])
def test_more_steps_never_raise_accuracy(name, norm, trained, blobs):
    images, labels = blobs
    threat = ThreatModel(norm, EPS[norm][3])
    curve = [
        accuracy(trained, make_attack(name, steps=steps, step_size=0.125), images, labels, threat)
        for steps in (1, 4, 32)
    ]
    assert falls(curve)
    assert curve[-1] < curve[0]


@pytest.mark.parametrize("name", ["apgd", "apgd-ce", "apgd-dlr", "apgd-t", "standard"])
def test_more_adaptive_steps_never_raise_accuracy(name, norm, trained, blobs):
    images, labels = blobs
    threat = ThreatModel(norm, EPS[norm][3])
    settings = {"queries": 20} if name == "standard" else {}
    curve = [
        accuracy(trained, make_attack(name, steps=steps, **settings), images, labels, threat)
        for steps in (1, 4, 32)
    ]
    assert falls(curve)
    assert curve[-1] < curve[0]


@pytest.mark.parametrize(
    ("norm", "eps"),
    [
        ("linf", 0.06),
        pytest.param("linf", 0.1, marks=pytest.mark.slow),
        ("l2", 0.5),
        pytest.param("l2", 0.8, marks=pytest.mark.slow),
        ("l1", 2.5),
    ],
)
def test_the_suite_is_no_weaker_than_its_members_nor_than_pgd(norm, eps, trained, blobs):
    images, labels = blobs[0][:40], blobs[1][:40]
    threat = ThreatModel(norm, eps)
    steps = 50 if norm == "l1" else 25  # In l1, 25 leave some to luck.
    suite = accuracy(
        trained, make_attack("standard", steps=steps, queries=30), images, labels, threat
    )
    others = [
        make_attack(name, steps=steps)
        for name in ("pgd", "cw", "apgd", "apgd-ce", "apgd-dlr", "apgd-t")
    ]
    assert suite <= min(accuracy(trained, one, images, labels, threat) for one in others)
    assert 0.1 < suite < 0.9


def test_more_restarts_never_raise_accuracy(norm, trained, blobs):
    images, labels = blobs
    threat = ThreatModel(norm, EPS[norm][3])
    attacks = [PGD(steps=2, step_size=0.3, restarts=restarts) for restarts in (1, 2, 4, 8)]
    assert falls([accuracy(trained, attack, images, labels, threat) for attack in attacks])


def test_noise_is_weaker_than_one_step_and_one_step_than_many(norm, trained, blobs):
    images, labels = blobs
    noise, one, several, more = (
        accuracy(trained, attack, images, labels, ThreatModel(norm, EPS[norm][3]))
        for attack in (
            make_attack("noise", draws=10),
            fgsm(),
            PGD(),
            PGD(steps=60, step_size=0.05, restarts=2),
        )
    )
    assert noise > one >= several >= more
    assert noise > 0.9


@pytest.mark.parametrize("name", [name for name in ITERATIVE if name.endswith("i-fgsm")])
def test_momentum_is_no_weaker_than_one_step(name, norm, trained, blobs):
    """So that the check on an evaluation may ask for it."""
    images, labels = blobs
    curves = [
        accuracies(trained, attack, images, labels, norm, EPS[norm][2:5])
        for attack in (fgsm(), make_attack(name, **SHORT.get(name, {})))
    ]
    assert all(one >= many for one, many in zip(*curves, strict=True))


def test_minimal_distances_agree_with_the_accuracy_at_each_radius(trained, blobs):
    """An image whose nearest fooling point lies within eps is not robust at eps, whatever PGD
    says.
    """
    images, labels = blobs
    attacked = make_attack("cw-l2")(
        trained, images, labels, ThreatModel("l2"), generator=torch.Generator()
    )
    distance = torch.linalg.vector_norm((attacked - images).flatten(1), dim=1)
    assert (trained(attacked).argmax(1) != labels).all()
    radii = EPS["l2"][1:]
    survived = [(distance > eps).float().mean().item() for eps in radii]
    left = accuracies(trained, PGD(), images, labels, "l2", radii)
    # One image in twenty: each search stops at a slightly different place near the boundary.
    assert survived == pytest.approx(left, abs=0.05)


def test_masking_more_never_lowers_accuracy(norm, trained, blobs):
    images, labels = blobs
    order = torch.rand(12, 12, generator=torch.Generator().manual_seed(0))
    masks = [order < share for share in (1.0, 0.6, 0.3, 0.1, 0.0)]
    curve = [
        accuracy(trained, bim(), images, labels, ThreatModel(norm, EPS[norm][4], mask=mask))
        for mask in masks
    ]
    assert falls(curve[::-1])
    assert curve[-1] > 0.9
    assert curve[0] < 0.3


def test_unknown_attacks_and_settings_are_named():
    with pytest.raises(SettingsError, match=r"no attack 'pdg'\. Did you mean 'pgd'"):
        make_attack("pdg")
    with pytest.raises(SettingsError, match=r"'bim'.*stepz"):
        make_attack("bim", stepz=3)


@pytest.mark.parametrize("eps", [15.0, 40.0, 100.0])
def test_in_l1_a_larger_radius_is_used(eps):
    """A step that is longer than what one pixel has left goes on to the next steepest."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 2))
    images = torch.full((4, 1, 32, 32), 0.5)
    weight = network[1].weight.detach().diff(dim=0)[0]
    # As much as the twenty steepest pixels reach, with half of the range each.
    clean = (weight * 0.5).sum() + weight.abs().topk(20).values.sum() * 0.5
    network[1].bias.data = torch.tensor([float(clean), 0.0])
    labels = network(images).argmax(1)
    for attack in (fgsm(), bim(steps=10), PGD(steps=20)):
        attacked = attack(network, images, labels, ThreatModel("l1", eps))
        assert (network(attacked).argmax(1) != labels).all(), attack
