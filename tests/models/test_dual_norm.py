from __future__ import annotations

import pytest
import torch
from torch import nn

from robustmri.models.dual_norm import DualNorm, collapsed, make_dual, using
from robustmri.models.optimised import OptimisedView
from tiny import same_weights

BRANCHES = ("clean", "attacked")


@pytest.fixture
def plain(make_network):
    return make_network("batch_norm").float()


@pytest.fixture
def dual(make_network):
    network = make_network("batch_norm").float()
    assert make_dual(network) == 2
    return network


@pytest.fixture
def images(make_images):
    return make_images(8).float()


def move_apart(network):
    """Give the clean branch what the attacked one does not have."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, DualNorm):
                module.clean.running_mean += 0.3
                module.clean.weight *= 1.5


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("branch", BRANCHES)
def test_with_equal_branches_it_is_the_plain_network(plain, dual, images, branch, train):
    plain.train(train)
    dual.train(train)
    with using(dual, branch):
        assert torch.equal(dual(images), plain(images))
    assert same_weights(collapsed(dual, branch), plain)


@pytest.mark.parametrize("branch", BRANCHES)
def test_images_move_the_statistics_and_weights_of_one_branch_alone(plain, dual, images, branch):
    other = BRANCHES[branch == "clean"]
    before = collapsed(dual, other)
    with using(dual, branch):
        dual(images).sum().backward()
    assert same_weights(collapsed(dual, other), before)
    plain(images)
    assert same_weights(collapsed(dual, branch), plain)
    norms = [module for module in dual.modules() if isinstance(module, DualNorm)]
    assert all(getattr(norm, branch).weight.grad is not None for norm in norms)
    assert all(getattr(norm, other).weight.grad is None for norm in norms)


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_collapsed_network_is_an_ordinary_one(plain, dual, images, branch):
    move_apart(dual)
    network = collapsed(dual, branch).eval()
    assert list(network.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(network.state_dict())
    with using(dual.eval(), branch), torch.no_grad():
        expected = dual(images)
    assert torch.equal(plain.eval()(images), expected)
    view = OptimisedView(network, images, precision="fp32")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in view._network.modules()), (
        "it can be folded"
    )
    torch.testing.assert_close(view(images), expected, rtol=1e-4, atol=1e-4)


def test_the_attacked_branch_is_kept_and_used_unless_told_otherwise(dual, images):
    move_apart(dual)
    dual.eval()
    assert torch.equal(collapsed(dual)(images), dual(images))
    with using(dual, "clean"):
        assert not torch.allclose(collapsed(dual)(images), dual(images))


def test_collapsing_leaves_the_network_dual(dual):
    weights = collapsed(dual).state_dict()
    for value in weights.values():
        value.zero_()
    assert sum(isinstance(module, DualNorm) for module in dual.modules()) == 2
    assert dual[1].attacked.running_var.min() > 0


def test_the_branch_goes_back_after_an_error(dual):
    with using(dual, "clean"):
        assert dual[1].branch == "clean"
    with pytest.raises(ZeroDivisionError), using(dual, "clean"):
        raise ZeroDivisionError
    assert dual[1].branch == "attacked"


def test_networks_that_are_not_dual_are_left_alone(plain, images):
    assert collapsed(plain) is plain
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    with using(plain, "clean"):
        pass
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_making_it_twice_makes_it_once(dual):
    names = list(dual.state_dict())
    assert make_dual(dual) == 0
    assert list(dual.state_dict()) == names
