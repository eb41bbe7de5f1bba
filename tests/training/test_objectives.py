from __future__ import annotations

import gc
import math
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustmri.attacks import PGD
from robustmri.losses import boosted_cross_entropy, kl_divergence
from robustmri.models.dual_norm import collapsed, make_dual
from robustmri.threat.threat_model import ThreatModel
from robustmri.training.objectives import (
    Batch,
    adversarial,
    free,
    mart,
    noisy,
    objective_of,
    one_step,
    standard,
    threat_of,
    trades,
    with_logit_pairing,
)
from robustmri.training.settings import TrainSettings

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
        losses.append(
            adversarial(ATTACK, replace(THREAT, eps=eps), precision="fp32")(
                half_trained, again(batch)
            )
        )
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


@pytest.mark.parametrize(
    ("epoch", "share"), [(0.0, 0.0), (1.0, 0.25), (2.0, 0.5), (4.0, 1.0), (9.0, 1.0)]
)
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


def cross_entropy_by_hand(p, label):
    return -math.log(p[label])


def kl_by_hand(p, q):
    return sum(one * math.log(one / other) for one, other in zip(p, q, strict=True))


def mart_by_hand(p, q, label):
    rival = max(share for other, share in enumerate(q) if other != label)
    return -math.log(q[label]) - math.log(1 - rival) + 5 * kl_by_hand(p, q) * (1 - p[label])


FORMULAS = {
    # objective, and its value for one image: p and q are the probabilities of its classes, clean
    # and attacked
    "standard": (standard(), lambda p, q, y: cross_entropy_by_hand(p, y)),
    "adversarial": (adversarial(ATTACK, THREAT), lambda p, q, y: cross_entropy_by_hand(q, y)),
    "with clean images": (
        adversarial(ATTACK, THREAT, clean_share=0.3),
        lambda p, q, y: 0.3 * cross_entropy_by_hand(p, y) + 0.7 * cross_entropy_by_hand(q, y),
    ),
    "one-step": (one_step(THREAT), lambda p, q, y: cross_entropy_by_hand(q, y)),
    "free": (free(THREAT), lambda p, q, y: cross_entropy_by_hand(q, y)),
    "trades": (
        trades(THREAT, beta=6),
        lambda p, q, y: cross_entropy_by_hand(p, y) + 6 * kl_by_hand(p, q),
    ),
    "mart": (mart(ATTACK, THREAT, weight=5), mart_by_hand),
}


@pytest.fixture
def far(make_network, make_images):
    """A network in double precision, and a batch whose attacked images are given."""
    network, images, labels = make_network("tanh"), make_images(6), torch.arange(6) % 3
    attacked = (images + 0.3 * make_images(6, seed=2) - 0.15).clamp(0, 1)
    with torch.no_grad():
        network[-1].weight *= 4
    return network, Batch(images, labels, 3.0, torch.Generator(), attacked=attacked)


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(far, name):
    network, batch = far
    objective, by_hand = FORMULAS[name]
    clean, attacked = (
        network(images).softmax(1).tolist() for images in (batch.images, batch.attacked)
    )
    values = [by_hand(*one) for one in zip(clean, attacked, batch.labels.tolist(), strict=True)]
    assert objective(network, batch).item() == pytest.approx(sum(values) / 6, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "standard"])
def test_logit_pairing(far, name):
    network, batch = far
    objective = FORMULAS[name][0]
    apart = [
        (one - other) ** 2
        for one, other in zip(
            network(batch.images).flatten().tolist(),
            network(batch.attacked).flatten().tolist(),
            strict=True,
        )
    ]
    expected = objective(network, batch).item() + 0.5 * sum(apart) / len(apart)
    assert with_logit_pairing(objective, 0.5)(network, batch).item() == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_without_a_radius_they_are_standard_training(half_trained, batch, train):
    half_trained.train(train)
    nowhere = replace(THREAT, eps=0.0)
    clean = standard()(half_trained, batch)
    for objective in (
        adversarial(ATTACK, nowhere),
        one_step(nowhere),
        trades(nowhere),
        free(nowhere, replays=1),
        with_logit_pairing(adversarial(ATTACK, nowhere, clean_share=0.5), 3.0),
    ):
        assert objective(half_trained, again(batch)) == clean
    boosted = boosted_cross_entropy(half_trained(batch.images), batch.labels).mean()
    assert mart(ATTACK, nowhere)(half_trained, batch) == boosted


MAKERS = {
    "adversarial": lambda threat, **more: adversarial(ATTACK, threat, **more),
    "one-step": one_step,
    "free": free,
    "trades": trades,
    "mart": lambda threat, **more: mart(ATTACK, threat, **more),
}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", MAKERS)
def test_attacked_images_lie_in_the_set(half_trained, batch, name, norm):
    mask = torch.zeros(32, 32)
    mask[8:24, 8:24] = 1
    threat = ThreatModel(norm=norm, eps=0.1 if norm == "linf" else 1.0, mask=mask)
    attacked = MAKERS[name](threat, ramp_epochs=6.0).attack(half_trained, batch).attacked
    delta = attacked - batch.images
    assert (threat.measure.size(delta) <= threat.eps / 2 + 1e-6).all(), (
        "in epoch 3 of 6 half of eps is due"
    )
    assert (threat.measure.size(delta) > 0).all()
    assert not (delta * (1 - mask)).any()
    assert attacked.min() >= 0
    assert attacked.max() <= 1


@pytest.mark.parametrize("name", MAKERS)
def test_given_images_are_not_searched_again(half_trained, batch, name):
    objective = MAKERS[name](THREAT)
    found = objective.attack(half_trained, batch)
    state = batch.generator.get_state()
    assert objective.attack(half_trained, found).attacked is found.attacked
    assert objective(half_trained, found) == objective(half_trained, again(batch))
    assert torch.equal(batch.generator.get_state(), state)


@pytest.fixture
def sloped():
    """Two classes, and one slope for all images; images that are far from the bounds."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(2, 64, generator=generator) / 8)
    images = 0.3 + 0.4 * torch.rand(20, 1, 8, 8, generator=generator)
    return network, Batch(images, torch.arange(20) % 2, 3.0, torch.Generator().manual_seed(0))


def test_trades_reaches_a_corner_where_the_prediction_changes_most(sloped):
    """Oracle: along a linear classifier the divergence grows both ways, and the noise decides
    which.
    """
    network, batch = sloped
    slope = (network[1].weight[0] - network[1].weight[1]).sign().reshape(1, 1, 8, 8)
    found = (
        trades(THREAT, steps=10, step_size=0.25, precision="fp32").attack(network, batch).attacked
    )
    ways = ((found - batch.images) * slope).flatten(1)
    assert torch.allclose(ways.abs(), torch.full_like(ways, 0.1), atol=1e-6)
    assert torch.equal(ways.sign(), ways[:, :1].sign().expand_as(ways)), (
        "each image goes one way in all its pixels"
    )
    assert ways[:, 0].unique().numel() > 1


def test_trades_climbs_the_divergence_and_asks_for_no_label(half_trained, batch):
    objective = trades(THREAT, precision="fp32")
    found = objective.attack(half_trained, batch).attacked
    other = objective.attack(
        half_trained, again(batch)._replace(labels=(batch.labels + 1) % 3)
    ).attacked
    assert torch.equal(found, other)
    half_trained.eval()
    clean = half_trained(batch.images)

    def apart(images):
        return kl_divergence(half_trained(images), clean).mean()

    noise = (torch.rand(batch.images.shape, generator=batch.generator) - 0.5).sign()
    assert apart(found) > 3 * apart((batch.images + 0.1 * noise).clamp(0, 1))


def test_trades_starts_in_bfloat16_too(sloped):
    """Logits near 8 are 1/16 apart there, and the first step moves these by 1/1000: it must not
    begin on a plateau.
    """
    network, batch = sloped
    with torch.no_grad():
        network[1].bias += 8
    found = trades(THREAT, precision="bf16").attack(network, batch).attacked
    assert ((found - batch.images).abs().flatten(1).mean(1) > 0.09).all()


def test_one_step_goes_further_than_the_radius_and_comes_back(sloped):
    network, batch = sloped
    uphill = (network[1].weight[1] - network[1].weight[0]).sign().reshape(1, 1, 8, 8)
    uphill = torch.where(batch.labels[:, None, None, None] == 0, uphill, -uphill)
    ways = (
        one_step(THREAT, precision="fp32").attack(network, batch).attacked - batch.images
    ) * uphill
    # From u in [-eps, eps] to min(u + 1.25 eps, eps): at the edge where u > -eps / 4, which is 5
    # times in 8.
    assert ways.min() >= 0.25 * 0.1 - 1e-6
    assert (ways > 0.1 - 1e-6).float().mean().item() == pytest.approx(5 / 8, abs=0.05)


def test_free_steps_by_the_gradient_that_trains(half_trained, batch):
    half_trained.train()
    objective = free(THREAT, replays=3)
    assert objective.replays == 3
    points = objective.attack(half_trained, again(batch)).attacked
    for replay in range(3):
        here = batch._replace(replay=replay)
        assert torch.equal(objective.attack(half_trained, here).attacked, points), replay
        half_trained.zero_grad()
        objective(half_trained, here._replace(attacked=points)).backward()
        gradients = [parameter.grad for parameter in half_trained.parameters()]
        given = points.clone().requires_grad_(True)
        loss = F.cross_entropy(half_trained(given), batch.labels)
        expected = torch.autograd.grad(loss, [given, *half_trained.parameters()])
        for one, other in zip(gradients, expected[1:], strict=True):
            torch.testing.assert_close(one, other)
        points = THREAT.project(points + 0.1 * expected[0].sign(), batch.images)


def test_free_keeps_batches_apart_and_forgets_them(half_trained, batch):
    """Two batches may share a step, their gradients being summed; and no batch may stay in
    memory.
    """
    objective = free(THREAT, replays=2)
    first, second = (
        batch._replace(images=batch.images[rows].clone(), labels=batch.labels[rows])
        for rows in (slice(0, 10), slice(10, 24))
    )
    starts = [objective.attack(half_trained, part).attacked for part in (first, second)]
    assert [len(start) for start in starts] == [10, 14]
    for part, start in zip((first, second), starts, strict=True):
        assert torch.equal(objective.attack(half_trained, part._replace(replay=1)).attacked, start)
    gone = weakref.ref(first.images)
    del first, part, start
    gc.collect()
    assert gone() is None


def test_noise_is_gaussian_unclipped_and_every_images_own(half_trained, batch):
    found = noisy(0.3).attack(half_trained, again(batch)).attacked
    noise = found - batch.images
    assert noise.std().item() == pytest.approx(0.3, rel=0.05)
    assert abs(noise.mean().item()) < 0.02
    assert found.min() < -0.1, "an image that is clipped is not what will be voted on"
    one = noisy(0.3).attack(half_trained, again(batch)._replace(images=batch.images[:1])).attacked
    assert torch.equal(one, found[:1])
    assert len({float(row.sum()) for row in noise}) == len(noise)


SETTINGS = {
    "eps": "0.1",
    "attack_steps": 2,
    "attack_step_size": 0.5,
    "label_smoothing": 0.1,
    "precision": "fp32",
    "eps_ramp_epochs": 6.0,
}
COMMON = {"ramp_epochs": 6.0, "label_smoothing": 0.1}
LAST = PGD(steps=2, step_size=0.5, keep="last")
NAMED = [
    ({"objective": "standard"}, standard(0.1)),
    ({"objective": "adversarial"}, adversarial(LAST, THREAT, **COMMON, precision="fp32")),
    (
        {"objective": "adversarial", "clean_share": 0.4},
        adversarial(LAST, THREAT, **COMMON, clean_share=0.4, precision="fp32"),
    ),
    (
        {"objective": "one-step", "logit_pairing": 0.5},
        with_logit_pairing(one_step(THREAT, **COMMON, precision="fp32"), 0.5),
    ),
    ({"objective": "noisy", "noise": 0.3}, noisy(0.3, label_smoothing=0.1)),
    ({"objective": "free", "replays": 3}, free(THREAT, replays=3, **COMMON)),
    (
        {"objective": "trades", "beta": 2.0},
        trades(THREAT, beta=2.0, steps=2, step_size=0.5, **COMMON, precision="fp32"),
    ),
    (
        {"objective": "mart", "beta": 3.0, "label_smoothing": 0.0},
        mart(LAST, THREAT, weight=3.0, ramp_epochs=6.0, precision="fp32"),
    ),
]


@pytest.mark.parametrize(
    ("settings", "objective"), NAMED, ids=[str(settings) for settings, _ in NAMED]
)
def test_settings_name_objectives(half_trained, batch, settings, objective):
    named = objective_of(TrainSettings(**{**SETTINGS, **settings}), half_trained)
    assert named(half_trained, again(batch)) == objective(half_trained, again(batch))
    assert named.replays == objective.replays


@pytest.mark.parametrize("kind", ["normalised", "image"])
def test_settings_name_the_threat(fresh, kind):
    settings = TrainSettings(objective="adversarial", eps=f"0.1@{kind}", norm="l2")
    assert threat_of(settings, fresh()) == ThreatModel(
        norm="l2", eps=0.1 * 0.226 if kind == "normalised" else 0.1
    )


@pytest.mark.parametrize("name", ["adversarial", "trades", "mart"])
def test_each_kind_of_images_has_a_batch_norm_of_its_own(half_trained, batch, name):
    make_dual(half_trained)
    half_trained.train()
    norm = half_trained.network[1]
    more = {"clean_share": 0.5} if name == "adversarial" else {}
    objective = MAKERS[name](THREAT, precision="fp32", **more)
    before = norm.clean.num_batches_tracked.item()
    kept = collapsed(half_trained)
    found = objective.attack(half_trained, again(batch))
    expected = MAKERS[name](THREAT, precision="fp32", **more).attack(kept, again(batch))
    assert torch.equal(found.attacked, expected.attacked), "attacked is the network that is kept"
    objective(half_trained, found).backward()
    assert norm.clean.num_batches_tracked == norm.attacked.num_batches_tracked == before + 1
    seen = {}
    for branch, images in {"clean": found.images, "attacked": found.attacked}.items():
        activations = half_trained.network[0]((images - 0.449) / 0.226)
        seen[branch] = 0.9 * kept.network[1].running_mean + 0.1 * activations.mean((0, 2, 3))
    torch.testing.assert_close(norm.clean.running_mean, seen["clean"])
    torch.testing.assert_close(norm.attacked.running_mean, seen["attacked"])
    assert not torch.allclose(seen["clean"], seen["attacked"], rtol=1e-3)
