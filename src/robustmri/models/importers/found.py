"""What an importer finds: a network of somebody else's file, and what the file says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from robustmri.core.sizes import Size
from robustmri.models.classifier import Constant, EndsIn, Format


@dataclass(frozen=True)
class Found:
    """A network and what is known of it; what the file does not say is None or empty.

    Attributes:
        network: in evaluation mode; normalised images of shape (n, channels, h, w) to
            whatever it ends in.
        backbone: its name: of a library's network that network's, else "imported-" and the kind of
            file. Never the file's own name, which may not leave a hospital.
        how: what it is and how it was read, in words.
        format: how a checkpoint keeps it.
        channels: planes that it takes.
        size: height and width of its images in pixels, one number where they are equal.
        classes: their names, in the order of its outputs.
        mean: what its images are normalised with.
        std: likewise.
        ends_in: what comes out of it.
        guessed: sentences on what was assumed so far.
        black_box: content of the ONNX file, where the network is a black box.
    """

    network: nn.Module
    backbone: str
    how: str
    format: Format = "backbone"
    channels: Literal[1, 3] = 1
    size: Size | None = None
    classes: tuple[str, ...] = ()
    mean: Constant | None = None
    std: Constant | None = None
    ends_in: EndsIn | None = None
    guessed: tuple[str, ...] = field(default=())
    black_box: bytes = b""
