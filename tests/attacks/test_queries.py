"""Attacks that ask for logits or decisions only."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from robustmri.attacks import SPSA, HopSkipJump, Noise, Square, cw
from robustmri.attacks.engine import random_points
from robustmri.attacks.hop_skip_jump import _away
from robustmri.core.errors import ThreatModelError
from robustmri.evaluation import cost as accounts
from robustmri.evaluation.settings import Limits
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
        threat.fooled(
            trained(Square(queries)(trained, images, labels, threat, generator=seeded())), labels
        ).sum()
        for queries in (1, 30, 200)
    ]
    noise = threat.fooled(
        trained(random_points(images, threat, list(range(len(images))))), labels
    ).sum()
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
    # One more where the last query is a success.
    assert metered.asked[-1] in (32 - fooled, 33 - fooled)


def test_noise_ends_when_queries_are_spent(trained, blobs):
    metered = Metered(trained, limit=3)
    Noise(draws=20)(metered, blobs[0][:4], blobs[1][:4], ThreatModel(eps=1e-3), generator=seeded())
    assert len(metered.asked) == 3


def test_square_ends_when_queries_are_spent(trained, blobs):
    metered = Metered(trained, limit=7)
    Square(50)(metered, blobs[0][:4], blobs[1][:4], ThreatModel(eps=1e-3), generator=seeded())
    assert len(metered.asked) == 8  # The last look is the one that ends it.


def test_square_asks_for_a_new_point_each_time(norm, make_network, make_images):
    """Patches on the pixels that may change; a patch that repaints nothing would be a query for
    nothing.
    """
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
        Square(40)(
            predictor, images, labels, ThreatModel(norm, 1e-3, mask=allowed), generator=seeded()
        )
        moved = [not torch.equal(one, other) for one, other in pairwise(seen)]
        assert sum(moved) >= (0.9 if norm == "linf" and allowed is None else 0.3) * len(moved)


def test_square_in_linf_lies_in_the_corners_of_the_ball(make_network, make_images):
    images = make_images(4) * 0.4 + 0.3
    network = make_network("tanh").eval()
    attacked = Square(60)(
        network, images, network(images).argmax(1), ThreatModel(eps=0.01), generator=seeded()
    )
    torch.testing.assert_close((attacked - images).abs(), torch.full_like(images, 0.01))


def test_square_in_l2_has_full_length(make_network, make_images):
    images = make_images(4) * 0.4 + 0.3
    network = make_network("tanh").eval()
    attacked = Square(60)(
        network, images, network(images).argmax(1), ThreatModel("l2", 0.1), generator=seeded()
    )
    torch.testing.assert_close(
        (attacked - images).flatten(1).norm(dim=1),
        torch.full((4,), 0.1).double(),
        atol=2e-6,
        rtol=0,
    )


@pytest.mark.parametrize("rule", ["adam", "steepest"])
def test_spsa_is_nearly_as_strong_as_the_gradient(rule, norm, trained, blobs):
    images, labels = blobs[0][:32], blobs[1][:32]
    threat = ThreatModel(norm, {"linf": 0.08, "l2": 0.6}[norm])
    guessed, few, known = (
        threat.fooled(
            trained(attack(trained, images, labels, threat, generator=seeded())), labels
        ).sum()
        for attack in (
            SPSA(samples=64, rule=rule),
            SPSA(samples=2, rule=rule),
            cw(random_start=False),
        )
    )
    assert 8 < known < 28
    # Adam moves all pixels about equally much, which in l2 is not the steepest way.
    assert guessed >= (0.6 if (norm, rule) == ("l2", "adam") else 0.9) * known
    assert few < guessed


def test_spsa_needs_no_gradient_and_stays_within_the_bounds(make_network, make_images):
    network, images = make_network("tanh").eval(), make_images(3)
    seen = []

    def steps_only(points):
        assert not torch.is_grad_enabled()
        seen.append((points.min(), points.max()))
        return network(points)

    labels = network(images).argmax(1)
    mask = torch.zeros(8, 8)
    mask[2:5] = 1
    attacked = SPSA(steps=3)(
        steps_only, images, labels, ThreatModel(eps=0.05, mask=mask), generator=seeded()
    )
    assert min(low for low, _ in seen) >= 0
    assert max(high for _, high in seen) <= 1
    assert not torch.equal(attacked, images)


def test_spsa_ends_when_queries_are_spent(trained, blobs):
    metered = Metered(trained, limit=9)
    SPSA()(metered, blobs[0][:4], blobs[1][:4], ThreatModel(eps=1e-3), generator=seeded())
    assert len(metered.asked) == 10  # The last look is the one that ends it.


@pytest.mark.parametrize("target", [None, 1])
def test_hop_skip_jump_asks_for_decisions_only(norm, target, trained, blobs):
    images, labels = blobs[0][:6], blobs[1][:6]

    def decisions(points):
        return torch.nn.functional.one_hot(trained(points).argmax(1), 3).to(points)

    attack = HopSkipJump(steps=3, samples=30)
    threat = ThreatModel(norm, target=target)
    one, other = (
        attack(classifier, images, labels, threat, generator=seeded())
        for classifier in (trained, decisions)
    )
    assert torch.equal(one, other)
    wanted = labels != (-1 if target is None else target)
    assert torch.equal(threat.fooled(trained(one), labels), wanted)
    assert torch.equal(one[~wanted], images[~wanted])


def test_hop_skip_jump_comes_nearer_with_more_steps(norm, trained, blobs):
    images, labels = blobs[0][:16], blobs[1][:16]
    threat = ThreatModel(norm)
    far, near = (
        HopSkipJump(steps=steps, samples=50)(trained, images, labels, threat, generator=seeded())
        for steps in (1, 8)
    )
    far, near = (threat.measure.size(points - images) for points in (far, near))
    # The first steps are the same; 1e-6: float32 forwards of other batches.
    assert (near <= far + 1e-6).all()
    assert near.mean() < 0.7 * far.mean()


@pytest.mark.parametrize("limit", [1, 3, 20, 60])
def test_hop_skip_jump_ends_when_queries_are_spent(limit, trained, blobs):
    images, labels = blobs[0][:4], blobs[1][:4]
    metered = Metered(trained, limit=limit)
    attacked = HopSkipJump()(metered, images, labels, ThreatModel("l2"), generator=seeded())
    assert len(metered.asked) == limit
    moved = (attacked != images).flatten(1).any(1)
    assert (trained(attacked).argmax(1) != labels)[moved].all()


@pytest.mark.parametrize("n", [1, 4])
def test_hop_skip_jump_asks_about_a_small_batch_no_more_often(n, trained, blobs):
    cost = accounts.AttackCost(n, Limits(forwards=40))
    images, labels = blobs[0][:n], blobs[1][:n]
    HopSkipJump()(
        accounts.Metered(trained, cost), images, labels, ThreatModel("l2"), generator=seeded()
    )
    assert cost.cut_short
    assert 38 * n <= cost.forwards <= 41 * n


@pytest.mark.parametrize(
    "attack", [HopSkipJump(), SPSA(steps=9, samples=8)], ids=lambda one: type(one).__name__
)
@pytest.mark.parametrize("n", [2, 16])
def test_a_part_of_a_batch_is_asked_about_no_more_often(attack, n, trained, blobs):
    """The others were wrong untouched, or fell to an attack before."""
    cost = accounts.AttackCost(16, Limits(forwards=40))
    threat = ThreatModel("l2") if isinstance(attack, HopSkipJump) else ThreatModel(eps=0.001)
    images, labels = blobs[0][:n], blobs[1][:n]
    attack(accounts.Metered(trained, cost), images, labels, threat, generator=seeded())
    assert cost.cut_short
    assert 30 * n <= cost.forwards <= 42 * n


def test_settings_that_make_no_attack_are_refused():
    for build in (
        lambda: Square(0),
        lambda: Square(share=0.0),
        lambda: Square(share=1.5),
        lambda: SPSA(steps=0),
        lambda: SPSA(samples=0),
        lambda: SPSA(reach=0.0),
        lambda: SPSA(rule="none"),
        lambda: HopSkipJump(steps=0),
        lambda: HopSkipJump(samples=0),
        lambda: HopSkipJump(starts=0),
    ):
        with pytest.raises(ThreatModelError):
            build()


def test_nobody_is_fooled_however_short_the_step():
    """After fifteen halvings the points stay where they were."""
    asked = []

    def never(images):
        asked.append(len(images))
        return torch.stack([torch.ones(len(images)), torch.zeros(len(images))], 1)

    points, labels = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.long)
    found, fooled = _away(
        never, points, points, torch.ones_like(points), torch.ones(2), labels, ThreatModel()
    )
    assert torch.equal(found, points)
    assert not fooled.any()
    assert asked == [2] * 15
