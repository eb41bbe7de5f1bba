from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from robustmri.attacks import PGD
from robustmri.threat.threat_model import ThreatModel
from robustmri.training.objectives import Batch, adversarial, standard

ATTACK = PGD(steps=3, step_size=0.5)
THREAT = ThreatModel(eps=0.1)


@pytest.fixture
def batch(choose):
    return Batch(choose.images, choose.labels, 3.0, torch.Generator().manual_seed(0))


@pytest.fixture
def half_trained(train_for, tmp_path):
    classifier, _ = train_for(tmp_path / "run", epochs=2)
    return classifier


def again(batch):
    return batch._replace(generator=torch.Generator().manual_seed(0))


def test_standard_is_cross_entropy(half_trained, batch):
    expected = F.cross_entropy(half_trained(batch.images), batch.labels)
    assert standard()(half_trained, batch) == expected
    assert standard(0.1)(half_trained, batch) != expected


def test_the_worst_images_cost_more(half_trained, batch):
    clean = standard()(half_trained, batch)
    losses = [clean]
    for eps in (0.02, 0.05, 0.1):
        losses.append(adversarial(ATTACK, replace(THREAT, eps=eps), precision="fp32")(half_trained, again(batch)))
    assert losses == sorted(losses)
    assert losses[-1] > 1.2 * clean


def test_it_has_a_gradient_in_every_parameter_and_leaves_the_images(half_trained, batch):
    half_trained.train()
    before = batch.images.clone()
    adversarial(ATTACK, THREAT)(half_trained, batch).backward()
    for name, parameter in half_trained.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert torch.equal(batch.images, before)
    assert half_trained.training


def test_the_attack_does_not_touch_batch_norm(fresh, batch):
    """Its own forwards must not move the running statistics: only the step's one forward may."""
    attacked, plain = fresh().train(), fresh().train()
    adversarial(ATTACK, THREAT)(attacked, batch)
    standard()(plain, batch)
    assert attacked.network[1].num_batches_tracked == plain.network[1].num_batches_tracked == 1


@pytest.mark.parametrize(("epoch", "share"), [(0.0, 0.0), (1.0, 0.25), (2.0, 0.5), (4.0, 1.0), (9.0, 1.0)])
def test_eps_grows(half_trained, batch, epoch, share):
    ramped = adversarial(ATTACK, THREAT, ramp_epochs=4.0, precision="fp32")
    steady = adversarial(ATTACK, replace(THREAT, eps=share * 0.1), precision="fp32")
    batch = batch._replace(epoch=epoch)
    assert ramped(half_trained, again(batch)) == steady(half_trained, again(batch))
    if not share:
        assert ramped(half_trained, again(batch)) == standard()(half_trained, batch)


def test_same_generator_same_loss(half_trained, batch):
    loss = adversarial(ATTACK, THREAT)
    assert loss(half_trained, again(batch)) == loss(half_trained, again(batch))
    assert loss(half_trained, again(batch)) != loss(
        half_trained, batch._replace(generator=torch.Generator().manual_seed(1))
    )
