"""Ways to be right, or to stand, without reading the slice: what was asked before, slices that are
known by heart, marks beside the head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

from robustmri.core.arrays import Images, Labels, Logits
from robustmri.evaluation.exact import logits_of

MARGIN = 8
"""Of the height and of the width the eighth at each side is the margin."""
MOVED = 64
"""Slices are moved by the 64th part of a side, at least a pixel."""
DEEPEST = 4
"""Of lists in lists that are looked through for what was kept."""
_OF_TORCH = frozenset(vars(nn.Module())) - {"_parameters", "_buffers"}


def moved(images: Images) -> Images:
    """Slices moved down and to the right, by a pixel or little more; what leaves comes in again."""
    steps = [max(1, round(side / MOVED)) for side in images.shape[-2:]]
    return images.roll(steps, (-2, -1))


def margin_alone(images: Images) -> Images:
    """Slices of which nothing is left but the margin."""
    height, width = (max(1, side // MARGIN) for side in images.shape[-2:])
    alone = images.clone()
    alone[..., height:-height, width:-width] = 0
    return alone


def right_of_margin(classifier: nn.Module, images: Images, labels: Labels) -> int:
    """How many slices are right by their margin alone."""
    return int((logits_of(classifier, margin_alone(images)).argmax(1) == labels).sum())


class Forgetful:
    """The classifier as it is now, before each question.

    Args:
        classifier: that may keep something of what it is asked; left as it is.
    """

    def __init__(self, classifier: nn.Module) -> None:
        self.classifier = copy.deepcopy(classifier)

    def __call__(self, images: Images) -> Logits:
        """Logits of `images`."""
        answers: Logits = copy.deepcopy(self.classifier)(images)
        return answers


def keeps_something(classifier: nn.Module, images: Images) -> bool:
    """Whether anything in the classifier is another after it was asked about new images.

    What a network sets up when it is first asked does not count, so it is asked twice.

    Args:
        classifier: left as it is where it can be copied.
        images: that it has never been asked about, two or more.
    """
    try:
        classifier = copy.deepcopy(classifier)
        logits_of(classifier, images[:1])
        before = _state_of(classifier)
        for row in range(1, len(images)):
            logits_of(classifier, images[row : row + 1])
        return _state_of(classifier) != before
    except Exception:  # Whatever the code of a network raises; what cannot be seen is not known.
        return False


def _state_of(network: nn.Module) -> str:
    """A hash of the weights, and of all that the modules hold besides."""
    digest = blake2b(digest_size=16)
    for name, module in network.named_modules():
        for key, value in sorted(vars(module).items()):
            if key not in _OF_TORCH:
                for part in _parts(value):
                    digest.update(name.encode() + key.encode() + part)
    return digest.hexdigest()


def _parts(value: Any, depth: int = 0) -> Iterator[bytes]:
    """What a value is made of; of objects that are unknown nothing."""
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        yield str(tuple(plain.shape)).encode()
        yield plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    elif isinstance(value, (bool, int, float, str, type(None))):
        yield repr(value).encode()
    elif isinstance(value, nn.Module) or depth == DEEPEST:
        return
    elif isinstance(value, Mapping):
        yield str(len(value)).encode()
        for key, one in list(value.items()):
            yield repr(key).encode() if isinstance(key, (int, float, str)) else b""
            yield from _parts(one, depth + 1)
    elif isinstance(value, (list, tuple)) or hasattr(value, "popleft"):
        yield str(len(value)).encode()
        for one in list(value):
            yield from _parts(one, depth + 1)
    elif isinstance(value, (set, frozenset)):
        yield repr(sorted(map(repr, value))).encode()
