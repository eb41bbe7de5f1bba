"""The network that a search runs on a CPU: the same gradient, and only where that is so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustmri.models import packed as module
from robustmri.models.packed import BlockConvolution, PackedConvolution, packed, repack
from robustmri.models.resnet import ResNet

IMAGES = torch.rand(3, 1, 33, 40, generator=torch.Generator().manual_seed(0))
pytestmark = pytest.mark.skipif(
    not module._possible(IMAGES), reason="this processor has no packed convolutions"
)


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = ResNet((1, 1, 1, 1), bottleneck=False, classes=3, width=0.125)
    for name, part in list(made.named_modules()):
        if isinstance(part, nn.BatchNorm2d):
            parent, _, child = name.rpartition(".")
            setattr(made.get_submodule(parent), child, nn.Identity())
    return made.eval().requires_grad_(False)


def gradient_of(network: nn.Module) -> Tensor:
    points = IMAGES.clone().requires_grad_(True)
    return torch.autograd.grad((network(points) * torch.arange(3)).sum(), points)[0]


def test_sums_and_relus_go_with_the_convolutions(network):
    made = packed(network, IMAGES)
    parts = list(made.modules())
    assert sum(isinstance(part, BlockConvolution) for part in parts) == 1
    assert sum(isinstance(part, PackedConvolution) and part.relu for part in parts) == 8
    torch.testing.assert_close(made(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)
    expected = gradient_of(network)
    torch.testing.assert_close(
        gradient_of(made), expected, rtol=0, atol=1e-4 * expected.abs().max().item()
    )


def test_new_weights_are_taken_over(network):
    made = packed(network, IMAGES)
    for part in network.parameters():
        part.mul_(0.9)
    repack(made)
    torch.testing.assert_close(made(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)


class Drawing(nn.Module):
    """A defence by chance; traced, its one draw would be a constant."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inside = network

    def forward(self, images: Tensor) -> Tensor:
        return self.inside(images + 1e-4 * torch.randn(1))


def test_a_network_that_draws_is_left_alone(network):
    drawing = Drawing(network)
    assert packed(drawing, IMAGES) is drawing


def test_another_gradient_is_refused(network, monkeypatch):
    back = PackedConvolution.back
    monkeypatch.setattr(PackedConvolution, "back", lambda self, *given: -back(self, *given).flip(3))
    assert packed(network, IMAGES) is network
