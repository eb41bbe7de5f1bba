"""Attacks that ask for logits or decisions only."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from robustmri.attacks import Square
from robustmri.attacks.engine import random_points
from robustmri.errors import ThreatModelError
from robustmri.threat.threat_model import ThreatModel

EPS = {"linf": 0.06, "l2": 0.5}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Metered:
    """A predictor that counts queries per call and may run out of them."""

    def __init__(self, network, limit=None):
        self.network, self.limit, self.asked = network, limit, []

    def __call__(self, images):
        self.asked.append(len(images))
        return self.network(images)

    @property
    def exhausted(self):
        return self.limit is not None and len(self.asked) >= self.limit


def test_square_beats_random_points_and_more_queries_only_help(norm, trained, blobs):
    images, labels = blobs
    threat = ThreatModel(norm, EPS[norm])
    fooled = [
        threat.fooled(trained(Square(queries)(trained, images, labels, threat, generator=seeded())), labels).sum()
        for queries in (1, 30, 200)
    ]
    noise = threat.fooled(trained(random_points(images, threat, list(range(len(images))))), labels).sum()
    assert noise <= fooled[0] < fooled[1] < fooled[2]


def test_square_leaves_an_image_at_its_first_success(trained, blobs):
    images, labels = blobs[0][:32], blobs[1][:32]
    metered = Metered(trained)
    threat = ThreatModel(eps=0.1)
    attacked = Square(50)(metered, images, labels, threat, generator=seeded())
    fooled = threat.fooled(trained(attacked), labels).sum()
    assert 0 < fooled < 32
    assert len(metered.asked) == 50
    assert metered.asked == sorted(metered.asked, reverse=True)
    assert metered.asked[-1] in (32 - fooled, 33 - fooled)  # One more where the last query is a success.


def test_square_ends_when_queries_are_spent(trained, blobs):
    metered = Metered(trained, limit=7)
    Square(50)(metered, blobs[0][:4], blobs[1][:4], ThreatModel(eps=1e-3), generator=seeded())
    assert len(metered.asked) == 8  # The last look is the one that ends it.


def test_square_asks_for_a_new_point_each_time(norm, make_network, make_images):
    """Patches on the pixels that may change; a patch that repaints nothing would be a query for nothing."""
    network, images = make_network("tanh").eval(), make_images(1) * 0.4 + 0.3
    mask = torch.zeros(8, 8)
    mask[1, 2] = mask[6, 3] = mask[6, 4] = 1
    seen = []

    def predictor(points):
        seen.append(points.clone())
        return network(points)

    for allowed in (None, mask):
        seen.clear()
        labels = network(images).argmax(1)
        Square(40)(predictor, images, labels, ThreatModel(norm, 1e-3, mask=allowed), generator=seeded())
        moved = [not torch.equal(one, other) for one, other in pairwise(seen)]
        assert sum(moved) >= (0.9 if norm == "linf" and allowed is None else 0.3) * len(moved)


def test_square_in_linf_lies_in_the_corners_of_the_ball(make_network, make_images):
    images = make_images(4) * 0.4 + 0.3
    network = make_network("tanh").eval()
    attacked = Square(60)(network, images, network(images).argmax(1), ThreatModel(eps=0.01), generator=seeded())
    torch.testing.assert_close((attacked - images).abs(), torch.full_like(images, 0.01))


def test_square_in_l2_has_full_length(make_network, make_images):
    images = make_images(4) * 0.4 + 0.3
    network = make_network("tanh").eval()
    attacked = Square(60)(network, images, network(images).argmax(1), ThreatModel("l2", 0.1), generator=seeded())
    torch.testing.assert_close((attacked - images).flatten(1).norm(dim=1), torch.full((4,), 0.1).double())


def test_settings_that_make_no_attack_are_refused():
    for build in (lambda: Square(0), lambda: Square(share=0.0), lambda: Square(share=1.5)):
        with pytest.raises(ThreatModelError):
            build()
