"""Random numbers for a whole batch at once, each image's from its own stream: a hash of seed, step
and place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustmri.attacks.engine import draw_seeds
from robustmri.attacks.step_rules import Rule, Seen, State

_GOLDEN = -7046029254386353131
"""2^64 divided by the golden ratio, as a signed number: splitmix64's increment."""


def open_streams(generator: torch.Generator, n: int, device: torch.device) -> Tensor:
    """One stream for each image, int64 of shape (n,); an image takes one number from
    `generator`.
    """
    seeds = draw_seeds(generator, n, each=1)
    return torch.tensor([own for (own,) in seeds], dtype=torch.int64, device=device).reshape(n)


def advance(streams: Tensor) -> Tensor:
    """The streams of the next step."""
    return _mix(streams + _GOLDEN)


def uniforms(streams: Tensor, k: int) -> Tensor:
    """`k` numbers in [0, 1) for each stream, float64 of shape (n, k); the first ones are the same
    however many follow.

    >>> streams = torch.tensor([7, 8])
    >>> torch.equal(uniforms(streams, 3)[:, :2], uniforms(streams, 2))
    True
    >>> torch.equal(uniforms(streams, 2)[1:], uniforms(streams[1:], 2))
    True
    """
    places = _mix(torch.arange(1, k + 1, device=streams.device) * _GOLDEN)
    bits = _mix(streams[:, None] ^ places) >> 11 & (1 << 53) - 1
    return bits.to(torch.float64) * 2.0**-53


def signs(streams: Tensor, k: int) -> Tensor:
    """`k` numbers that are -1 or 1 for each stream, float64 of shape (n, k)."""
    return torch.where(uniforms(streams, k) < 0.5, -1.0, 1.0)


def normals(streams: Tensor, k: int) -> Tensor:
    """`k` standard normal numbers for each stream, float64 of shape (n, k). Reference: Box & Muller
    1958.
    """
    half = uniforms(streams, 2 * k)
    # 1 - u lies in (0, 1], where the logarithm is finite.
    return (-2 * (1 - half[:, :k]).log()).sqrt() * (2 * math.pi * half[:, k:]).cos()


def like(numbers: Tensor, images: Tensor) -> Tensor:
    """Numbers of shape (n, pixels of an image), as images of the type of `images`."""
    return numbers.reshape(images.shape).to(images)


def with_stream(rule: Rule, streams: Tensor) -> Rule:
    """`rule` with each image's stream in its state, under "stream", one step further after each
    update.
    """

    def init(start: Tensor) -> State:
        return {"stream": streams, **rule.init(start)}

    def update(seen: Seen, state: State) -> tuple[Tensor, State]:
        points, after = rule.update(seen, state)
        return points, {**after, "stream": advance(state["stream"])}

    return Rule(init, update)


def _mix(z: Tensor) -> Tensor:
    """splitmix64's finaliser on int64, whose products wrap around. Reference: Steele, Lea & Flood
    2014, Fig. 17.
    """
    z = (z ^ _shifted(z, 30)) * -4658895280553007687
    z = (z ^ _shifted(z, 27)) * -7723592293110705685
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, by: int) -> Tensor:
    """`z` shifted right with zeros coming in: torch's own shift repeats the sign."""
    return z >> by & (1 << 64 - by) - 1
