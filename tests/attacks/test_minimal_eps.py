"""One search for the whole curve, against the attack run at every radius."""

from __future__ import annotations

import pytest
import torch

from robustmri.attacks import PGD, cw
from robustmri.attacks.minimal_eps import bracket_eps
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import NORMS
from robustmri.threat.threat_model import ThreatModel

RADII = {
    "linf": [0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.16, 0.2],
    "l2": [0.1, 0.2, 0.3, 0.4, 0.6, 0.9, 1.2, 1.5],
}
ATTACK = PGD(steps=20, loss="margin", random_start=False, stop_when_fooled=True)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Counting:
    def __init__(self, network):
        self.network, self.gradients, self.forwards = network, 0, 0

    def __call__(self, points):
        self.forwards += len(points)
        self.gradients += len(points) if points.requires_grad else 0
        return self.network(points)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_agrees_with_the_attack_at_every_radius_for_less(norm, trained, blobs):
    images, labels = blobs
    one, many = Counting(trained), Counting(trained)
    threat = ThreatModel(norm)
    found = bracket_eps(ATTACK, one, images, labels, threat, RADII[norm], generator=seeded())
    for eps in RADII[norm]:
        attacked = ATTACK(many, images, labels, ThreatModel(norm, eps), generator=seeded())
        alone = (trained(attacked).argmax(1) == labels).float().mean().item()
        held = (found.high > eps).float().mean().item()
        assert held <= alone + 1 / len(labels)  # One image: at another radius the steps are others.
        assert held == pytest.approx(alone, abs=0.05)
    assert one.gradients < many.gradients / 3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_bracket_is_true(norm, trained, blobs):
    images, labels = blobs
    labels = labels.clone()
    labels[:3] = (labels[:3] + 1) % 3  # Wrong before any attack.
    found = bracket_eps(
        ATTACK, trained, images, labels, ThreatModel(norm), RADII[norm], generator=seeded()
    )
    radii = torch.tensor([-torch.inf, 0.0, *RADII[norm], torch.inf])
    place = {
        name: torch.searchsorted(radii, values)
        for name, values in found._asdict().items()
        if name != "images"
    }
    wrong = trained(images).argmax(1) != labels
    assert wrong.sum() >= 3
    assert (found.low[wrong] == -torch.inf).all()
    assert (found.high[wrong] == 0).all()
    # Neighbours: exact to the spacing of the radii.
    assert torch.equal(place["high"], place["low"] + 1)
    fooled = trained(found.images).argmax(1) != labels
    assert torch.equal(fooled, torch.isfinite(found.high))
    sizes = NORMS[norm].size(found.images - images)
    assert (sizes[fooled] <= found.high[fooled] + 1e-6).all()
    assert torch.equal(found.images[~fooled], images[~fooled])


def test_an_image_that_holds_at_the_largest_radius_is_asked_once(make_network, make_images):
    network, images = make_network("linear"), make_images(4)
    with torch.no_grad():
        network[-1].bias.copy_(torch.tensor([1e3, 0.0, 0.0]))
    counting = Counting(network.eval())
    labels = torch.zeros(4, dtype=torch.long)
    found = bracket_eps(
        cw(steps=5), counting, images, labels, ThreatModel(), [0.01, 0.1, 0.2], generator=seeded()
    )
    assert counting.gradients == 4 * 5
    assert (found.low == 0.2).all()
    assert torch.isinf(found.high).all()


def test_targets_and_masks_are_kept(trained, blobs):
    images, labels = blobs
    mask = torch.rand(12, 12, generator=seeded()) < 0.7
    threat = ThreatModel("linf", target=2, mask=mask)
    found = bracket_eps(ATTACK, trained, images, labels, threat, RADII["linf"], generator=seeded())
    moved = torch.isfinite(found.high) & (found.high > 0)
    assert moved.sum() > 10
    assert (trained(found.images[moved]).argmax(1) == 2).all()
    assert not (found.images - images)[..., ~mask].any()
    # An image of the target's own class cannot be made so.
    assert torch.isinf(found.high[labels == 2]).all()


def test_an_image_does_not_depend_on_the_batch(trained, blobs):
    images, labels, attack = blobs[0][:12], blobs[1][:12], PGD(steps=5, stop_when_fooled=True)
    whole = bracket_eps(
        attack, trained, images, labels, ThreatModel(), RADII["linf"], generator=seeded()
    )
    shared = seeded()
    for k in range(12):
        one = bracket_eps(
            attack,
            trained,
            images[[k]],
            labels[[k]],
            ThreatModel(),
            RADII["linf"],
            generator=shared,
        )
        assert (one.low.item(), one.high.item()) == (whole.low[k].item(), whole.high[k].item())
        torch.testing.assert_close(one.images[0], whole.images[k])


def test_no_images(trained, blobs):
    found = bracket_eps(
        ATTACK, trained, blobs[0][:0], blobs[1][:0], ThreatModel(), [0.1], generator=seeded()
    )
    assert [len(part) for part in found] == [0, 0, 0, 0]


@pytest.mark.parametrize("radii", [[], [0.0, 0.1], [0.2, 0.1], [0.1, torch.inf], [0.1, 0.1]])
def test_radii_that_make_no_curve_are_refused(radii, trained, blobs):
    with pytest.raises(ThreatModelError, match="positive, finite and ascending"):
        bracket_eps(ATTACK, trained, *blobs, ThreatModel(), radii, generator=seeded())


class Blurred:
    """A view whose answers are off, so that it denies what the original says at the boundary."""

    def __init__(self, network):
        self.network = self.exact = network

    def __call__(self, points):
        logits = self.network(points)
        ahead = torch.tensor([[0.3, 0.0, 0.0]])
        return logits + (logits.detach().argmax(1) != 0)[:, None] * ahead


def test_a_success_that_the_original_has_confirmed_counts(trained, blobs):
    """As it does within a single radius: the view's denial is no reason to throw it away."""
    images, labels = blobs
    images, labels = images[labels == 0], labels[labels == 0]
    view, eps = Blurred(trained), 0.08
    alone = ATTACK(view, images, labels, ThreatModel(eps=eps), generator=seeded())
    fooled = trained(alone).argmax(1) != labels
    assert (fooled & (view(alone).argmax(1) == labels)).any(), "nothing is asked here"
    found = bracket_eps(ATTACK, view, images, labels, ThreatModel(), [eps], generator=seeded())
    assert torch.equal(torch.isfinite(found.high), fooled)
