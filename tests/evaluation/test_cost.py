"""What attacks spend is counted, and where it is limited they end in time with the best that they
have.
"""

from __future__ import annotations

import pytest
import torch

from robustmri.attacks import PGD, CarliniWagnerL2, Noise
from robustmri.evaluation import cost as accounts
from robustmri.evaluation.attacked import attack_batch
from robustmri.evaluation.cost import AttackCost, Metered
from robustmri.evaluation.settings import Limits
from robustmri.threat.threat_model import ThreatModel

THREAT = ThreatModel(eps=0.01)
"""So small that next to nothing is fooled."""


def spend(attack, trained, blobs, limits=None, n=16, threat=THREAT):
    images, labels = (part[:n] for part in blobs)
    cost = AttackCost(n, limits)
    points = attack(
        Metered(trained, cost), images, labels, threat, generator=torch.Generator().manual_seed(0)
    )
    return cost, points


def test_images_are_counted_each_way(trained, blobs):
    cost, _ = spend(PGD(steps=4), trained, blobs)
    assert (cost.gradients, cost.forwards) == (4 * 16, 5 * 16)
    assert not cost.cut_short
    cost, _ = spend(Noise(), trained, blobs)
    assert (cost.gradients, cost.forwards) == (0, 16)


def test_several_gradients_of_one_forward_are_counted_each(trained, blobs):
    cost = AttackCost(8)
    points = blobs[0][:8].clone().requires_grad_(True)
    logits = Metered(trained, cost)(points)
    for column in range(3):
        torch.autograd.grad(logits[:, column].sum(), points, retain_graph=True)
    assert (cost.forwards, cost.gradients) == (8, 24)


@pytest.mark.parametrize(
    ("limits", "gradients", "forwards"),
    [
        (Limits(gradients=3), 3, 4),
        (Limits(forwards=3), 2, 3),
        (Limits(gradients=5, forwards=3), 2, 3),
    ],
)
@pytest.mark.parametrize(
    "attack", [PGD(steps=10), PGD(steps=2, restarts=9), CarliniWagnerL2(steps=10)], ids=repr
)
def test_no_image_has_more_than_its_limit(trained, blobs, attack, limits, gradients, forwards):
    threat = ThreatModel("l2", torch.inf) if isinstance(attack, CarliniWagnerL2) else THREAT
    cost, _ = spend(attack, trained, blobs, limits, threat=threat)
    # PGD that begins again has looked at its last point without a gradient; CW is told at its
    # second search.
    assert cost.gradients <= 16 * gradients
    assert cost.forwards <= 16 * (forwards + 2)
    assert cost.cut_short


def test_an_attack_that_ends_just_in_time_was_not_cut_short(trained, blobs):
    cost, points = spend(PGD(steps=4), trained, blobs, Limits(gradients=5, forwards=6))
    assert not cost.cut_short
    assert torch.equal(points, spend(PGD(steps=4), trained, blobs)[1])
    cost, _ = spend(PGD(steps=6), trained, blobs, Limits(forwards=6))
    assert cost.cut_short


def test_a_shorter_search_is_the_beginning_of_a_longer_one(trained, blobs):
    assert torch.equal(
        spend(PGD(steps=10), trained, blobs, Limits(gradients=4))[1],
        spend(PGD(steps=4), trained, blobs)[1],
    )


def test_time_is_for_the_batch_together(trained, blobs, monkeypatch):
    """A clock that goes on by a second at each look: 16 images at half a second each have 8
    together.
    """
    now = iter(range(1000))
    monkeypatch.setattr(accounts.time, "monotonic", lambda: next(now))
    cost, _ = spend(PGD(steps=50), trained, blobs, Limits(seconds=0.5))
    assert cost.cut_short
    assert cost.gradients == 7 * 16


def test_both_searches_have_one_budget(trained, blobs):
    """The first one is lied to and believes that it has won at once; the second has what is
    left.
    """
    images, labels = blobs
    cost = AttackCost(len(images), Limits(gradients=6))
    attack_batch(
        PGD(steps=10, random_start=False),
        trained,
        lambda points: trained(points).roll(1, dims=1),
        images,
        labels,
        THREAT,
        generator=torch.Generator().manual_seed(0),
        cost=cost,
    )
    assert cost.cut_short
    right = int((trained(images).argmax(1) == labels).sum())
    first = right  # Each of them looked once with a gradient, and left.
    assert first < cost.gradients <= first + 5 * right
