from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from robustmri.attacks import PGD
from robustmri.threat.threat_model import ThreatModel
from robustmri.training.objectives import Batch, adversarial, free, standard, trades
from robustmri.training.weight_perturbation import moved
from tiny import same_weights

THREAT = ThreatModel(eps=0.05)
ATTACKED = adversarial(PGD(steps=2, step_size=0.5), THREAT, precision="fp32")
KINDS = pytest.mark.parametrize(("kind", "size"), [("awp", 0.01), ("sam", 0.1)], ids=["awp", "sam"])


@pytest.fixture
def batch(choose):
    return Batch(choose.images, choose.labels, 3.0, torch.Generator().manual_seed(0))


@pytest.fixture
def network(fresh):
    return fresh().train()


def perturbed(kind, network, objective, batch, size):
    return moved(kind, network, lambda: objective(network, batch).backward(), size=size)


def copy_of(network):
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def test_awp_moves_each_layer_by_its_norm_along_its_gradient(make_network, make_images):
    network = make_network("batch_norm")
    batch = Batch(make_images(8), torch.arange(8) % 3, 0.0, torch.Generator())
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    gradients = torch.autograd.grad(standard()(network, batch), list(network.parameters()))
    with perturbed("awp", network, standard(), batch, size=0.02):
        for (name, parameter), gradient in zip(network.named_parameters(), gradients, strict=True):
            expected = before[name].clone()
            if parameter.dim() > 1:
                expected += 0.02 * before[name].norm() / gradient.norm() * gradient
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-12)


def test_sam_moves_all_weights_together(make_network, make_images):
    network = make_network("batch_norm")
    batch = Batch(make_images(8), torch.arange(8) % 3, 0.0, torch.Generator())
    before = nn.utils.parameters_to_vector(network.parameters()).detach()
    gradient = torch.cat(
        [
            part.flatten()
            for part in torch.autograd.grad(standard()(network, batch), list(network.parameters()))
        ]
    )
    with perturbed("sam", network, standard(), batch, size=0.5):
        here = nn.utils.parameters_to_vector(network.parameters()).detach()
    torch.testing.assert_close(
        here, before + 0.5 * gradient / gradient.norm(), rtol=1e-12, atol=1e-12
    )


@KINDS
@pytest.mark.parametrize(
    "objective",
    [standard(), ATTACKED, trades(THREAT, steps=2, precision="fp32")],
    ids=["standard", "adversarial", "trades"],
)
def test_the_loss_is_higher_inside(network, batch, objective, kind, size):
    found = objective.attack(network, batch)
    outside = objective(network, found)
    with perturbed(kind, network, objective, found, size=size):
        assert objective(network, found) > 1.005 * outside
    assert objective(network, found) == outside


@KINDS
def test_everything_is_as_it_was_on_leaving(network, batch, kind, size):
    """Weights and statistics bit for bit; the batch-norm sees the step's own forward only."""
    before = copy_of(network)
    gradients = [torch.randn_like(parameter) for parameter in network.parameters()]
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    with perturbed(kind, network, ATTACKED, batch, size=size):
        assert not torch.equal(network.network[0].weight, before["network.0.weight"])
    assert all(torch.equal(value, before[name]) for name, value in copy_of(network).items())
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)


@KINDS
def test_an_error_inside_leaves_no_trace(network, batch, kind, size):
    before = copy_of(network)
    with pytest.raises(ZeroDivisionError), perturbed(kind, network, standard(), batch, size=size):
        raise ZeroDivisionError
    assert all(torch.equal(value, before[name]) for name, value in copy_of(network).items())


@pytest.mark.parametrize(
    ("kind", "size"), [("awp", 0.0), ("sam", 0.0), ("none", 0.1)], ids=["awp 0", "sam 0", "none"]
)
def test_no_move_is_no_work(network, batch, kind, size):
    forwards = []
    network.register_forward_hook(lambda *said: forwards.append(said))
    weight = network.network[0].weight.detach().clone()
    with perturbed(kind, network, ATTACKED, batch, size=size):
        assert torch.equal(network.network[0].weight, weight)
    assert not forwards


@KINDS
def test_free_climbs_once_for_each_step(network, batch, kind, size):
    """A loss that is deaf to its own gradient moves the weights, and not the images."""
    objective = free(THREAT, replays=2)
    deaf, found, again = (
        replace(objective, listen=None),
        objective.attack(network, batch),
        batch._replace(replay=1),
    )
    with moved(kind, network, lambda: deaf(network, found).backward(), size=size):
        assert torch.equal(objective.attack(network, again).attacked, found.attacked)
        objective(network, found).backward()
    assert not torch.equal(objective.attack(network, again).attacked, found.attacked)


@KINDS
def test_a_loss_in_parts_moves_as_the_whole_does(make_network, make_images, kind, size):
    network = make_network("tanh")
    whole = Batch(make_images(8), torch.arange(8) % 3, 0.0, torch.Generator())
    with perturbed(kind, network, standard(), whole, size=size):
        expected = nn.utils.parameters_to_vector(network.parameters()).detach()

    def climb():
        for rows, share in ((slice(0, 3), 3 / 8), (slice(3, 8), 5 / 8)):
            (
                share
                * standard()(
                    network, whole._replace(images=whole.images[rows], labels=whole.labels[rows])
                )
            ).backward()

    with moved(kind, network, climb, size=size):
        here = nn.utils.parameters_to_vector(network.parameters()).detach()
    torch.testing.assert_close(here, expected, rtol=1e-10, atol=1e-12)


@KINDS
def test_wrapped_networks_move_too(fresh, batch, kind, size):
    """Under mixed precision Fabric refuses any backward but its own."""
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    network = fresh().train()
    model = fabric.setup_module(network)
    before = copy_of(network)
    found = ATTACKED.attack(model, batch)
    with moved(kind, model, lambda: fabric.backward(ATTACKED(model, found)), size=size):
        assert not torch.equal(network.network[0].weight, before["network.0.weight"])
        fabric.backward(ATTACKED(model, found))
    assert torch.equal(network.network[0].weight, before["network.0.weight"])
    assert network.network[0].weight.grad.abs().sum() > 0
    assert not same_weights(network, fresh()), "the step's own forward did move batch-norm"
