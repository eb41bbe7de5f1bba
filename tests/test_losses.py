from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robustmri.core.errors import ThreatModelError
from robustmri.losses import (
    boosted_cross_entropy,
    cross_entropy,
    difference_of_logits_ratio,
    kl_divergence,
    log_odds,
    margin,
    targeted_ratio,
)

LN2 = math.log(2)
VALUES = [
    # loss, logits, label, value
    (cross_entropy, [0.0, 0.0], 0, LN2),
    (cross_entropy, [LN2, 0.0, 0.0], 0, LN2),
    (cross_entropy, [0.0, 1000.0], 0, 1000.0),
    (boosted_cross_entropy, [LN2, 0.0, 0.0], 0, LN2 - math.log(3 / 4)),
    (boosted_cross_entropy, [0.0, LN2, 0.0], 0, math.log(4) + LN2),
    (boosted_cross_entropy, [0.0, 1000.0], 0, 2000.0),
    (log_odds, [0.0, 0.0], 1, 0.0),
    (log_odds, [0.0, 0.0, 0.0], 2, LN2),
    (log_odds, [1000.0, 0.0], 0, -1000.0),
    (log_odds, [0.0, 1000.0], 0, 1000.0),
    (margin, [2.0, 0.5, 1.0], 0, -1.0),
    (margin, [2.0, 0.5, 1.0], 2, 1.0),
    # Zeroing the true logit instead of leaving it out would give 5.
    (margin, [-5.0, -7.0, -6.0], 0, -1.0),
    (margin, [3.0, 3.0], 1, 0.0),
    (difference_of_logits_ratio, [4.0, 1.0, 2.0], 0, -2 / 3),
    (difference_of_logits_ratio, [4.0, 1.0, 2.0], 1, 1.0),
    (difference_of_logits_ratio, [4.0, 1.0, 2.0, 3.0], 0, -1 / 2),
    (difference_of_logits_ratio, [0.04, 0.01, 0.02], 0, -2 / 3),
    (difference_of_logits_ratio, [1.0, 1.0, 1.0], 0, 0.0),
    (targeted_ratio, [4.0, 1.0, 2.0, 3.0, -9.0], 1, 3 / 2.5),
    (targeted_ratio, [4.0, 1.0, 2.0], 1, 3 / 2.5),
    (targeted_ratio, [4.0, 1.0, 2.0], 0, -2 / 2.5),
    (targeted_ratio, [0.04, 0.01, 0.02], 1, 3 / 2.5),
    (targeted_ratio, [1.0, 1.0, 1.0], 0, 0.0),
]
PER_LABEL = [
    boosted_cross_entropy,
    cross_entropy,
    log_odds,
    margin,
    difference_of_logits_ratio,
    targeted_ratio,
]


@pytest.fixture
def logits() -> Tensor:
    return 3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(50) % 4


@pytest.mark.parametrize(("loss", "logits", "label", "value"), VALUES)
def test_values(loss, logits, label, value):
    found = loss(torch.tensor([logits]), torch.tensor([label]))
    torch.testing.assert_close(found, torch.tensor([value]))


@pytest.mark.parametrize("loss", PER_LABEL)
def test_each_image_has_its_own_value_whatever_is_added_to_all_logits(loss, logits, labels):
    values = loss(logits, labels)
    assert values.shape == labels.shape
    torch.testing.assert_close(
        torch.cat([loss(logits[[i]], labels[[i]]) for i in range(50)]), values
    )
    torch.testing.assert_close(loss(logits - 100, labels), values)


@pytest.mark.parametrize("loss", [log_odds, margin, difference_of_logits_ratio])
def test_sign_says_whether_the_image_is_misclassified(loss, logits, labels):
    wrong = logits.argmax(1) != labels
    assert 0 < wrong.sum() < 50
    # Positive only where p_y < 1/2, so a positive value is not needed to be wrong.
    if loss is log_odds:
        assert (loss(logits, labels)[wrong] > 0).all()
    else:
        assert torch.equal(loss(logits, labels) > 0, wrong)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_log_odds_climb_the_way_the_cross_entropy_does(classes):
    logits = torch.randn(
        20, classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    logits.requires_grad_()
    labels = torch.arange(20) % classes
    torch.testing.assert_close(F.softplus(log_odds(logits, labels)), cross_entropy(logits, labels))
    one, other = (
        torch.autograd.grad(loss(logits, labels).sum(), logits)[0]
        for loss in (log_odds, cross_entropy)
    )
    torch.testing.assert_close(F.normalize(one), F.normalize(other))


def test_log_odds_keep_their_gradient_where_the_cross_entropy_loses_it():
    logits = torch.tensor([[200.0, 3.0, 1.0]], requires_grad=True)
    label = torch.tensor([0])
    lost, kept = (
        torch.autograd.grad(loss(logits, label).sum(), logits)[0]
        for loss in (cross_entropy, log_odds)
    )
    assert not lost.any()
    assert kept[0, 0] == -1
    torch.testing.assert_close(kept[0, 1:], torch.softmax(torch.tensor([3.0, 1.0]), 0))


def test_logit_ratio_needs_three_classes():
    for loss in (difference_of_logits_ratio, targeted_ratio):
        with pytest.raises(ThreatModelError, match="3 classes or more, got 2"):
            loss(torch.zeros(1, 2), torch.tensor([0]))


@pytest.mark.parametrize("classes", [3, 4, 10])
def test_the_targeted_ratio_has_a_slope_whatever_the_rank_of_the_target(classes):
    """The untargeted ratio is constant where the target ranks third: -1."""
    logits = torch.randn(
        1, classes, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    ).requires_grad_()
    for target in logits.argsort(1, descending=True)[0, 1:]:
        (slope,) = torch.autograd.grad(targeted_ratio(logits, target[None]).sum(), logits)
        assert slope[0, target] < -1e-3
    third = logits.argsort(1, descending=True)[0, 2]
    (flat,) = torch.autograd.grad(difference_of_logits_ratio(logits, third[None]).sum(), logits)
    assert flat.abs().max() < 1e-12


def test_kl_divergence(logits):
    assert kl_divergence(logits, logits + 5).abs().max() < 1e-12
    # 3/4 ln(3/4 / 1/2) + 1/4 ln(1/4 / 1/2)
    value = kl_divergence(torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]]))
    torch.testing.assert_close(value, torch.tensor([0.75 * math.log(1.5) + 0.25 * math.log(0.5)]))
    uneven = kl_divergence(logits, logits.flip(0))
    assert (uneven >= 0).all()
    assert not torch.allclose(uneven, kl_divergence(logits.flip(0), logits))
