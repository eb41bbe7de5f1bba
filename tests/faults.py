"""Networks that look robust and are not, or are broken otherwise: each has one fault around a
sound network.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, STD = 0.449, 0.226


class Around(nn.Module):
    """A fault around a sound network, which gets normalised images."""

    def __init__(self, network: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.around = network, forward

    def forward(self, images: Tensor) -> Tensor:
        return self.around(self.network, images)


class Backwards(torch.autograd.Function):
    """The identity, whose gradient is changed."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return images.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.change(gradient), None


class Rounded(nn.Module):
    """Grey values on a few levels, with a share of the images themselves leaking through."""

    def __init__(self, levels: int = 16, leak: float = 0.0) -> None:
        super().__init__()
        self.levels, self.leak = levels, leak

    def forward(self, images: Tensor) -> Tensor:
        grey = (images * STD + MEAN).clamp(0, 1)
        steps = (grey * (self.levels - 1)).round() / (self.levels - 1)
        return (steps - MEAN) / STD + self.leak * images


def jpeg(images: Tensor) -> Tensor:
    grey = ((images.detach() * STD + MEAN).clamp(0, 1) * 255).round().byte().numpy()
    out = []
    for one in grey[:, 0]:
        stream = io.BytesIO()
        Image.fromarray(one).save(stream, "JPEG", quality=30)
        out.append(np.asarray(Image.open(stream), dtype=np.float32) / 255)
    return ((torch.from_numpy(np.stack(out))[:, None] - MEAN) / STD).to(images)


class Jpeg(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return jpeg(images)


def leaking(network: nn.Module, images: Tensor) -> Tensor:
    """Rounded inputs, and a gradient of 1e-3 that has nothing to do with the answer."""
    return network(Rounded()(images)) + 1e-3 * images.flatten(1)[:, 400:403]


def noisy(network: nn.Module, images: Tensor) -> Tensor:
    return network(images + 0.05 / STD * torch.randn_like(images))


def dropped(network: nn.Module, images: Tensor) -> Tensor:
    return network(F.dropout(images, 0.3, training=True))


def resized(network: nn.Module, images: Tensor) -> Tensor:
    side = images.shape[-1]
    small = int(torch.randint(side - 8, side, ()))
    left, top = (int(torch.randint(side - small + 1, ())) for _ in range(2))
    shrunk = F.interpolate(images, size=(small, small), mode="bilinear")
    edges = (left, side - small - left, top, side - small - top)
    return network(F.pad(shrunk, edges, value=-MEAN / STD))


class Counter(nn.Module):
    """Gives another answer every third time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        logits = self.network(images)
        return logits.roll(1, 1) if self.calls % 3 == 0 else logits


class Cache(nn.Module):
    """Keeps its first answer to an image, and gives it to the image at the same place of the next
    batch of that size.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.kept = network, {}

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        last = self.kept.get(len(images), logits.detach())
        self.kept[len(images)] = logits.detach().roll(1, 0)
        return logits + (last - logits).detach()


class TrainingNorm(nn.Module):
    """A batch-norm that stays in training mode, after the network or before it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.norm, self.network = nn.BatchNorm2d(1), network

    def train(self, mode: bool = True) -> TrainingNorm:
        super().train(mode)
        self.norm.training = True
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.norm(images))


def left_in_training(network: nn.Module) -> nn.Module:
    """The network's own batch-norm, right behind a convolution, deaf to `eval`."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign]
            module.training = True
    return network


def batch_statistics(network: nn.Module, images: Tensor) -> Tensor:
    centred = images - images.mean((0, 2, 3), keepdim=True)
    return network(centred / images.std((0, 2, 3), keepdim=True) * 0.8 - 1.2)


def shattered(network: nn.Module, images: Tensor) -> Tensor:
    return network(images + 1e-3 * torch.sin(images * 1e5))


def nan_slope(network: nn.Module, images: Tensor) -> Tensor:
    nothing = (images - images.detach()).flatten(1).pow(2).sum(1, keepdim=True).sqrt()
    return network(images) + nothing


def another_slope(network: nn.Module, images: Tensor) -> Tensor:
    """The answer of the network, the gradient of something else."""
    other = torch.stack([images.flatten(1).mean(1), images[:, 0, 0, 0], images[:, 0, -1, -1]], 1)
    return network(images).detach() + other - other.detach()


def nan_far_from_eight_bits(network: nn.Module, images: Tensor) -> Tensor:
    levels = (images * STD + MEAN) * 255
    strange = ((levels - levels.round()).abs() > 0.05).flatten(1).any(1)
    return network(images).masked_fill(strange[:, None], torch.nan)


def constant(network: nn.Module, images: Tensor) -> Tensor:
    return network(images) * 0.01 + torch.tensor([0.0, 50.0, 0.0])


def one_hot(network: nn.Module, images: Tensor) -> Tensor:
    return F.one_hot(network(images).argmax(1), 3).float()


def coarse_outside(network: nn.Module, images: Tensor) -> Tensor:
    """Exact on 8-bit grey values, as files of slices have them, and 16 levels elsewhere."""
    levels = (images * STD + MEAN) * 255
    known = ((levels - levels.round()).abs() < 0.02).flatten(1).all(1)[:, None, None, None]
    return network(torch.where(known, images, Rounded()(images)))


def flipped(network: nn.Module, images: Tensor) -> Tensor:
    return network(Backwards.apply(images, torch.neg))


def vanishing(network: nn.Module, images: Tensor) -> Tensor:
    return network(Backwards.apply(images, lambda slope: 1e-30 * slope))


def saturated(network: nn.Module, images: Tensor) -> Tensor:
    return (1000 * network(images)).softmax(1)


def inverted(network: nn.Module, images: Tensor) -> Tensor:
    """Normalised as if white were 0."""
    return network(-images)


def of_a_neighbour(network: nn.Module, images: Tensor) -> Tensor:
    """The gradient of the next image of the batch."""
    return network(Backwards.apply(images, lambda slope: slope.roll(1, 0)))


def thinned(network: nn.Module, images: Tensor) -> Tensor:
    """All but five of a thousand parts of the gradient are cut to zero, the small ones."""

    def cut(slope: Tensor) -> Tensor:
        least = slope.abs().flatten(1).quantile(0.995, 1)[:, None, None, None]
        return slope.where(slope.abs() >= least, 0.0)

    return network(Backwards.apply(images, cut))


def cast_to_bytes(network: nn.Module, images: Tensor) -> Tensor:
    """Sixteen grey values by a cast, and a gradient that has nothing to do with the answer."""
    levels = ((images * STD + MEAN).clamp(0, 1) * 15 + 0.5).to(torch.uint8)
    return network((levels.float() / 15 - MEAN) / STD) + 1e-3 * images.flatten(1)[:, 400:403]


def voting(network: nn.Module, images: Tensor) -> Tensor:
    """Five hard votes, and a gradient that has nothing to do with them."""
    votes = [F.one_hot(network(images + by).argmax(1), 3) for by in (-0.3, -0.1, 0.0, 0.1, 0.3)]
    return sum(votes).float() + 1e-3 * network(images.roll((5, 5), (2, 3)))


def masked_member(network: nn.Module, images: Tensor) -> Tensor:
    """The sum of two, of which the heavier one has no gradient."""
    return network(images) + 3 * network(Rounded()(images))


def otherwise_climbed(network: nn.Module, images: Tensor) -> Tensor:
    """Looks elsewhere while somebody asks for a gradient."""
    return network(images.roll((8, 8), (2, 3)) if images.requires_grad else images)


def by_position(network: nn.Module, images: Tensor) -> Tensor:
    """The further down the batch, the more of the first class."""
    logits = network(images)
    return logits + 0.05 * torch.arange(len(logits))[:, None] * torch.eye(3)[0]


def abstaining(network: nn.Module, images: Tensor) -> Tensor:
    """No number where it is not sure."""
    logits = network(images)
    return logits.masked_fill(logits.softmax(1).amax(1, keepdim=True) < 0.9, torch.nan)


def overflowing(network: nn.Module, images: Tensor) -> Tensor:
    """Float16 inside, which ends at 65504."""
    return (1e6 * network(images)).half().float()


class Stored(nn.Module):
    """Knows slices by heart, and whatever lies near them."""

    def __init__(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.network, self.images, self.labels = network, (images - MEAN) / STD, labels

    def forward(self, images: Tensor) -> Tensor:
        far = torch.cdist(images.detach().flatten(1), self.images.flatten(1), p=float("inf"))
        known = (far.amin(1) < 0.15 / STD)[:, None]
        return self.network(images) + 100 * F.one_hot(self.labels[far.argmin(1)], 3) * known


class Remembering(nn.Module):
    """Gives its first answer again to whatever lies near what it was asked about before."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.asked, self.answers = network, torch.zeros(0, 1024), torch.zeros(0)

    def forward(self, images: Tensor) -> Tensor:
        logits, flat = self.network(images), images.detach().flatten(1)
        for row, one in enumerate(flat):
            if not len(self.asked) or (self.asked - one).abs().amax(1).min() > 0.2 / STD:
                self.asked = torch.cat([self.asked, one[None]])
                self.answers = torch.cat([self.answers, logits[row].detach().argmax()[None]])
        near = torch.cdist(flat, self.asked, p=float("inf")).argmin(1)
        return logits + 50 * F.one_hot(self.answers[near].long(), 3)


def around(forward: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[nn.Module], nn.Module]:
    return lambda network: Around(network, forward)
