"""EfficientNet-Lite0: depthwise convolutions, ReLU6 and no squeeze-and-excitation, so that it is
small and quick on a CPU.

Reference: Tan and Le 2019, Table 1; the Lite variants are of its authors' code
(tensorflow/tpu, models/official/efficientnet/lite).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from robustmri.core.arrays import Images, Logits

STEM, LAST = 32, 1280
EPS = 1e-3
"""Of batch-norm, as its authors have it; torch's own default is 1e-5."""


class Stage(NamedTuple):
    """Blocks of one width; the first of them has the stride."""

    blocks: int
    kernel: int
    stride: int
    widening: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class EfficientNetLite0(nn.Module):
    """The network of the published weights, without its dropout and without stochastic depth: a
    repair draws nothing that does not belong to an image.

    Args:
        classes: number of logits.
        channels: planes of the images.
    """

    def __init__(self, classes: int, channels: int = 1) -> None:
        super().__init__()
        self.stem = _convolution(channels, STEM, 3, stride=2)
        blocks, width = [], STEM
        for stage in STAGES:
            for number in range(stage.blocks):
                stride = 1 if number else stage.stride
                blocks.append(
                    InvertedBottleneck(width, stage.channels, stage.kernel, stride, stage.widening)
                )
                width = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.last = _convolution(width, LAST, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(LAST, classes)

    def forward(self, images: Images) -> Logits:
        """Logits of normalised images of shape (n, channels, height, width)."""
        features = self.last(self.blocks(self.stem(images)))
        logits: Logits = self.fc(self.pool(features).flatten(1))
        return logits


class InvertedBottleneck(nn.Module):
    """Widen, filter each channel on its own, narrow; and add what came, where the shape allows.

    Args:
        inputs: channels that come.
        outputs: channels that go.
        kernel: height and width of the filters in pixels.
        stride: of the filters.
        widening: channels in between, as a multiple of `inputs`.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, widening: int) -> None:
        super().__init__()
        width = widening * inputs
        self.widen = nn.Identity() if widening == 1 else _convolution(inputs, width, 1)
        self.filter = _convolution(width, width, kernel, stride=stride, groups=width)
        self.narrow = nn.Sequential(
            nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs, eps=EPS)
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Features of shape (n, outputs, ceil(height / stride), ceil(width / stride))."""
        found: Tensor = self.narrow(self.filter(self.widen(features)))
        return found + features if self.adds else found


class Halving(nn.Conv2d):
    """A convolution of stride 2 that pads as TensorFlow does, in which the weights were trained:
    an odd number of zeros has one more below and on the right.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Of shape (n, out_channels, ceil(height / 2), ceil(width / 2))."""
        (below, above), (right, left) = (
            self._around(side, kernel)
            for side, kernel in zip(input.shape[-2:], self.kernel_size, strict=True)
        )
        return super().forward(F.pad(input, (left, right, above, below)))

    @staticmethod
    def _around(side: int, kernel: int) -> tuple[int, int]:
        """Zeros after and before `side` pixels."""
        zeros = max(0, kernel - (2 - side % 2))
        return zeros - zeros // 2, zeros // 2


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    layer = (
        Halving(inputs, outputs, kernel, stride=2, groups=groups, bias=False)
        if stride == 2
        else nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    )
    return nn.Sequential(layer, nn.BatchNorm2d(outputs, eps=EPS), nn.ReLU6(inplace=True))
