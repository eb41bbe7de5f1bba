"""Square attack: random search by square patches, from scores alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustmri.attacks.engine import by_forward, climb, loss_against
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor
from robustmri.attacks.step_rules import Rule, Seen, State
from robustmri.attacks.streams import open_streams, signs, uniforms, with_stream
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import broadcast_eps, per_image
from robustmri.threat.threat_model import ThreatModel

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10 000 queries, those after which the share of pixels to change is halved."""
_TINY = 1e-12


@dataclass(frozen=True)
class Square(CheckedAttack):
    """Random patches, each kept if the margin gets worse for the classifier; an image is left at
    its first success.

    It asks for logits only, never for a gradient: where it does better than PGD, the gradients
    mislead. A query is one forward. Volumes get cubes; with a mask, patches are put on pixels that
    may change. Norms: linf and l2.

    Args:
        queries: forwards for each image; the schedule of the patches' sizes is stretched to as
            many.
        share: share of the pixels in the first patch.

    Reference: Andriushchenko et al. 2020, Algorithms 1 to 4.
    """

    facts = Facts(
        "square",
        "Square",
        "Andriushchenko et al. 2020",
        doi="10.48550/arXiv.1912.00049",
        norms=("linf", "l2"),
        knowledge="scores",
    )

    queries: int = 1000
    share: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queries < 1 or not 0 < self.share <= 1:
            raise ThreatModelError(
                f"queries must be at least 1 and share in (0, 1], got {self.queries} and "
                f"{self.share}."
            )

    def search(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> Images:
        """See `Attack`."""
        streams = open_streams(generator, len(images), images.device)
        first = _stripes(streams, images) if threat.norm == "linf" else _tiles(streams, images)
        unit = threat.allow(first)
        unit = unit / per_image(threat.measure.size(unit), unit).clamp_min(_TINY)
        start = threat.project(images + broadcast_eps(threat.eps, images) * unit, images)
        found = climb(
            classifier,
            images,
            labels,
            threat,
            start=start,
            steps=self.queries - 1,
            rule=with_stream(self._search(), streams),
            look=by_forward,
            stop_when_fooled=True,
            objective=loss_against("margin", labels, threat),
        )
        return found.images

    def _search(self) -> Rule:
        """Keep the best point of each image, and propose it with another patch."""

        def init(start: Images) -> State:
            return {
                "best": start,
                "value": torch.full_like(start[:, :1].flatten(1)[:, 0], -torch.inf),
            }

        def update(seen: Seen, state: State) -> tuple[Images, State]:
            better = seen.values > state["value"]
            value = torch.where(better, seen.values.to(state["value"]), state["value"])
            best = torch.where(per_image(better, seen.points), seen.points, state["best"])
            share = _share(self.share, seen.step, self.queries)
            propose = _repaint if seen.threat.norm == "linf" else _move_mass
            return propose(best, seen, share, state["stream"]), {"best": best, "value": value}

        return Rule(init, update)


def _share(first: float, step: int, queries: int) -> float:
    """Share of the pixels in the patch of that step. Reference: Andriushchenko et al. 2020, Sec. 5.

    >>> _share(0.8, 0, 1000), _share(0.8, 900, 1000)
    (0.8, 0.0015625)
    """
    position = int(step / queries * 10_000)
    return float(first / 2 ** sum(position > halving for halving in _HALVINGS))


def _repaint(best: Images, seen: Seen, share: float, streams: Tensor) -> Images:
    """linf: all of a patch goes to +eps or to -eps, by a sign for each channel. Reference:
    Algorithm 3.
    """
    free, axes, channels = (
        seen.threat.allow(torch.ones_like(best)) != 0,
        best.dim() - 2,
        best.shape[1],
    )
    sides = _sides(free, share, least=1)
    patch = _inside(_corners(free, sides, streams, uniforms(streams, 2 * axes)), sides, best) & free
    sign = signs(streams ^ 1, channels).reshape(*best.shape[:2], *[1] * axes).to(best)
    eps = broadcast_eps(seen.threat.eps, best)
    low, high = seen.threat.bounds
    painted, other = (
        torch.where(patch, (seen.images + s * eps).clamp(low, high), best) for s in (sign, -sign)
    )
    # A query for the point that is there already would be lost; about half of them with one
    # channel.
    idle = (painted - best).abs().flatten(1).amax(1) < 1e-7
    return torch.where(per_image(idle, best), other, painted)


def _move_mass(best: Images, seen: Seen, share: float, streams: Tensor) -> Images:
    """l2: the perturbation of one patch goes to another, as a bump added to what is there.
    Reference: Algorithm 4.
    """
    free, axes, channels = (
        seen.threat.allow(torch.ones_like(best)) != 0,
        best.dim() - 2,
        best.shape[1],
    )
    sides = _sides(free, share, least=3)
    sides = sides + (sides + 1) % 2  # Odd ones have a middle.
    places = uniforms(streams, 4 * axes + 1)
    corners = _corners(free, sides, streams, places[:, : 2 * axes])
    receiver = _inside(corners, sides, best)
    giver = _inside(_corners(free, sides, streams ^ 2, places[:, 2 * axes : 4 * axes]), sides, best)
    delta = best - seen.images
    moved = _length(delta * (receiver | giver)).square()
    spare = (
        torch.as_tensor(seen.threat.eps).to(moved) ** 2 - delta.flatten(1).square().sum(1)
    ).clamp_min(0)
    split = (places[:, -1] * axes).long()
    sign = signs(streams ^ 1, channels).reshape(*best.shape[:2], *[1] * axes).to(best)
    bump = (
        sign
        * _bumps(_places(corners, best), per_image(sides, best), per_image(split, best), best)
        * receiver
        * free
    )
    old = delta * receiver
    new = bump / _length(bump).clamp_min(_TINY) + old / _length(old).clamp_min(_TINY)
    new = new / _length(new).clamp_min(_TINY) * (per_image(spare / channels, best) + moved).sqrt()
    delta = torch.where(receiver, new, torch.where(giver, 0.0, delta))
    # Back to full length, which the bounds had shortened.
    delta = delta / per_image(seen.threat.measure.size(delta), delta).clamp_min(_TINY)
    return seen.images + broadcast_eps(seen.threat.eps, best) * delta


def _length(delta: Images) -> Tensor:
    """Euclidean length of each channel, ready to broadcast."""
    return (
        delta.flatten(2).square().sum(2).sqrt().reshape(*delta.shape[:2], *[1] * (delta.dim() - 2))
    )


def _sides(free: Tensor, share: float, least: int) -> Tensor:
    """Side of the square (cube) that covers `share` of the pixels that may change, shape (n,)."""
    count = free.any(1).flatten(1).sum(1).to(torch.float64)
    return (share * count).pow(1 / (free.dim() - 2)).round().long().clamp_min(least)


def _corners(free: Tensor, sides: Tensor, streams: Tensor, places: Tensor) -> Tensor:
    """Lowest corner of a patch, shape (n, axes): anywhere inside the image, or around a pixel that
    may change.
    """
    axes = free.dim() - 2
    sizes = torch.tensor(free.shape[2:], device=free.device)
    room = (sizes - sides[:, None]).clamp_min(0)
    anywhere = (places[:, :axes] * (room + 1)).long()
    if free.all():
        return anywhere
    counts = free.any(1).flatten(1).cumsum(1)
    chosen = (uniforms(streams ^ 4, 1) * counts[:, -1:]).long()
    flat = (counts <= chosen).sum(1).clamp_max(counts.shape[1] - 1)
    pixel = torch.stack(torch.unravel_index(flat, free.shape[2:]), 1)
    around = pixel - (places[:, axes : 2 * axes] * sides[:, None]).long()
    near = torch.minimum(around.clamp_min(0), room)
    return torch.where(free.flatten(1).all(1)[:, None], anywhere, near)


def _along(axis: int, images: Images) -> Tensor:
    """Index of each pixel along a spatial axis, ready to broadcast."""
    return torch.arange(images.shape[axis + 2], device=images.device).reshape(
        -1, *[1] * (images.dim() - 3 - axis)
    )


def _inside(corners: Tensor, sides: Tensor, images: Images) -> Tensor:
    """Which pixels lie in each image's patch."""
    inside = torch.ones_like(images[:, :1], dtype=torch.bool)
    for place in _places(corners, images):
        inside = inside & (place >= 0) & (place < per_image(sides, images))
    return inside


def _places(corners: Tensor, images: Images) -> list[Tensor]:
    """Distance of each pixel from its image's corner, along each axis."""
    return [
        _along(axis, images) - per_image(corners[:, axis], images)
        for axis in range(images.dim() - 2)
    ]


def _bumps(places: list[Tensor], side: Tensor, split: Tensor, images: Images) -> Images:
    """Two bumps of opposite sign side by side along the axis `split`, high in their middles.

    At distance m (in pixels, the largest over the axes) from its middle a bump is 1/(m+1)^2 +
    1/(m+2)^2 + ... over half the side. Reference: Andriushchenko et al. 2020, Sec. 4.3.
    """
    half = side // 2
    distance, positive = torch.zeros_like(half), torch.ones_like(half, dtype=torch.bool)
    for axis, place in enumerate(places):
        first = place < half
        middle = torch.where(
            split == axis, torch.where(first, half // 2, half + (side - half) // 2), half
        )
        positive = positive & (first | (split != axis))
        distance = torch.maximum(distance, (place - middle).abs())
    terms = (
        1
        / torch.arange(1, max(images.shape[2:]) + 3, device=images.device, dtype=images.dtype) ** 2
    )
    sums = torch.cat([terms.new_zeros(1), terms.cumsum(0)])
    top = (half + 1).clamp_max(len(sums) - 1)
    bump = sums[top] - sums[torch.minimum(distance, top)]
    return torch.where(positive, bump, -bump)


def _stripes(streams: Tensor, images: Images) -> Images:
    """A sign for each line along the first axis, and for each channel. Reference: Algorithm 1 and
    Sec. 4.2.
    """
    one = images[:, :, :1].shape
    return signs(streams ^ 3, math.prod(one[1:])).reshape(one).expand(images.shape).to(images)


def _tiles(streams: Tensor, images: Images) -> Images:
    """Tiles of bumps, five along the shortest axis, with a sign for each channel of each.
    Reference: Sec. 4.3.
    """
    side = max(1, min(images.shape[2:]) // 5)
    tile, tiles = torch.zeros((), dtype=torch.long, device=images.device), 1
    for axis, size in enumerate(images.shape[2:]):
        along = -(-size // side)
        tile, tiles = tile * along + _along(axis, images) // side, tiles * along
    numbers = uniforms(streams ^ 3, tiles * (images.shape[1] + 1))
    numbers = numbers.reshape(len(images), images.shape[1] + 1, tiles)[..., tile]
    places = [_along(axis, images) % side for axis in range(images.dim() - 2)]
    split = (numbers[:, :1] * len(places)).long()
    return torch.where(numbers[:, 1:] < 0.5, -1, 1) * _bumps(
        places, torch.tensor(side).to(split), split, images
    )
