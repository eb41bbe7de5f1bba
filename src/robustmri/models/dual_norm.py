"""Two batch-norms in place of one: attacked images differ from clean ones in their statistics.

Training with both kinds of images normalises each with its own pair of statistics, scale and shift;
all other weights are shared. What is kept afterwards is one branch, as an ordinary network.
Reference: Xie et al. 2020 (AdvProp); Han et al. 2021, on medical images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from torch import Tensor, nn

from robustmri.models.optimised import BATCH_NORMS

Branch = Literal["clean", "attacked"]
Network = TypeVar("Network", bound=nn.Module)


class DualNorm(nn.Module):
    """A batch-norm for clean images and one for attacked images, of which one is in use.

    Args:
        norm: what both begin as.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.clean = copy.deepcopy(norm)
        self.attacked = norm
        self.branch: Branch = "attacked"

    def forward(self, features: Tensor) -> Tensor:
        """What the branch in use makes of `features`."""
        normalised: Tensor = (
            self.clean(features) if self.branch == "clean" else self.attacked(features)
        )
        return normalised


def make_dual(network: nn.Module) -> int:
    """Put a `DualNorm` in the place of each batch-norm of `network`; returns how many there are.

    Do it before the optimiser and averages are made: they must know the weights of both branches.
    """
    places = [
        (parent, name, child)
        for parent in network.modules()
        if not isinstance(parent, DualNorm)
        for name, child in parent.named_children()
        if isinstance(child, BATCH_NORMS)
    ]
    for parent, name, child in places:
        setattr(parent, name, DualNorm(child))
    return len(places)


@contextmanager
def using(network: nn.Module, branch: Branch) -> Iterator[None]:
    """Inside, every `DualNorm` of `network` uses `branch`; other networks are left as they are."""
    duals = {module: module.branch for module in network.modules() if isinstance(module, DualNorm)}
    try:
        for dual in duals:
            dual.branch = branch
        yield
    finally:
        for dual, before in duals.items():
            dual.branch = before


def collapsed(network: Network, branch: Branch = "attacked") -> Network:
    """An ordinary network with one branch alone, under the names of before; `network` itself if
    nothing in it is dual.

    The attacked branch is the one to keep and to attack: the clean one has never met an attacked
    image, so its statistics do not fit them.
    """
    if not any(isinstance(module, DualNorm) for module in network.modules()):
        return network
    plain = copy.deepcopy(network)
    for parent in list(plain.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DualNorm):
                setattr(parent, name, getattr(child, branch))
    return plain
