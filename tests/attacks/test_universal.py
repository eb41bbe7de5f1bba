"""One change for all images: the same for each, learnt on some patients and used on others."""

from __future__ import annotations

import pytest
import torch

from robustmri.attacks import Universal, add_universal, learn_universal
from robustmri.attacks.engine import random_points
from robustmri.core.errors import ThreatModelError
from robustmri.threat.threat_model import ThreatModel

EPS = {"linf": 0.15, "l2": 1.2}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_fools_images_that_it_has_not_seen(norm, trained, blobs):
    images, labels = blobs
    threat = ThreatModel(norm, EPS[norm])
    change = learn_universal(trained, images[:64], labels[:64], threat, generator=seeded())
    assert change.shape == (1, 1, 12, 12)
    assert threat.measure.size(change) <= EPS[norm] + 1e-6
    fooled = (
        threat.fooled(trained(add_universal(change, images[64:], threat)), labels[64:])
        .float()
        .mean()
    )
    noise = random_points(images[64:], threat, list(range(64)))
    assert fooled > threat.fooled(trained(noise), labels[64:]).float().mean() + 0.15


def test_every_image_gets_the_same_change(norm, make_network, make_images):
    network, images = make_network("tanh"), 0.4 * make_images(6) + 0.3
    labels = network.eval()(images).argmax(1)
    threat = ThreatModel(norm, 0.05)
    delta = (
        Universal(epochs=2, batch_size=4)(network, images, labels, threat, generator=seeded())
        - images
    )
    torch.testing.assert_close(delta, delta[:1].expand_as(delta), rtol=0, atol=1e-12)
    assert threat.measure.size(delta).min() > 0.01


def test_each_image_keeps_its_own_set(trained, blobs):
    images, labels = blobs[0][:8], blobs[1][:8]
    mask = torch.rand(8, 1, 12, 12, generator=seeded()) < 0.5
    threat = ThreatModel(eps=torch.linspace(0, 0.1, 8), mask=mask)
    delta = Universal()(trained, images, labels, threat, generator=seeded()) - images
    assert not delta[~mask].any()
    assert (delta.flatten(1).abs().amax(1) <= threat.eps + 1e-6).all()
    assert delta[1:].flatten(1).any(1).all()


def test_towards_a_target(trained, blobs):
    images, labels = blobs
    threat = ThreatModel(eps=0.2, target=1)
    attacked = Universal(epochs=20)(trained, images, labels, threat, generator=seeded())
    # Twice as often as untouched: the network names each class about equally often.
    assert (trained(attacked).argmax(1) == 1).sum() >= 2 * (trained(images).argmax(1) == 1).sum()


def test_an_image_that_is_lost_beyond_the_clip_counts_no_more(make_network, make_images):
    network, images = make_network("tanh").eval(), make_images(3)
    labels, threat = network(images).argmax(1), ThreatModel(eps=0.05)
    change = learn_universal(
        network, images, labels, threat, attack=Universal(clip=-1e3), generator=seeded()
    )
    assert not change.any()


def test_it_ends_when_queries_are_spent(trained, blobs):
    class Metered:
        asked = 0

        def __call__(self, images):
            self.asked += 1
            return trained(images)

        @property
        def exhausted(self):
            return self.asked >= 3

    metered = Metered()
    Universal(epochs=9, batch_size=2)(
        metered, blobs[0][:8], blobs[1][:8], ThreatModel(eps=0.1), generator=seeded()
    )
    assert metered.asked == 3


def test_settings_that_make_no_attack_are_refused():
    for settings in ({"epochs": 0}, {"batch_size": 0}, {"step_size": 0.0}):
        with pytest.raises(ThreatModelError):
            Universal(**settings)


def test_from_no_images_nothing_is_learnt(trained, blobs):
    change = learn_universal(
        trained, blobs[0][:0], blobs[1][:0], ThreatModel(eps=0.1), generator=seeded()
    )
    assert change.shape == (1, *blobs[0].shape[1:])
    assert not change.any()
