"""Residual networks with the names, the order and the first weights of MONAI's, without its import:
that takes longer than torch's.

Reference: He et al. 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustmri.core.arrays import Images, Logits

PLANES = (64, 128, 256, 512)


class ResNet(nn.Module):
    """A ResNet with a 7 x 7 stem of stride 2, max-pooling and four stages.

    Args:
        layers: blocks of each stage.
        bottleneck: blocks of three convolutions in place of two.
        classes: number of logits.
        channels: planes of the images.
        width: factor of the planes of every layer.
    """

    def __init__(
        self,
        layers: Sequence[int],
        *,
        bottleneck: bool,
        classes: int,
        channels: int = 1,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        planes = [int(width * one) for one in PLANES]
        block, reads = Bottleneck if bottleneck else BasicBlock, planes[0]
        self.conv1 = nn.Conv2d(channels, reads, 7, stride=2, padding=3, bias=False)
        self.bn1, self.act = nn.BatchNorm2d(reads), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stages = []
        for stage, (inside, blocks) in enumerate(zip(planes, layers, strict=True)):
            strides, made = [1 if stage == 0 else 2] + [1] * (blocks - 1), []
            for stride in strides:
                made.append(block(reads, inside, stride))
                reads = inside * block.expansion
            stages.append(nn.Sequential(*made))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(reads, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Images) -> Logits:
        """Logits of normalised images, shape (n, channels, h, w)."""
        values = self.maxpool(self.act(self.bn1(self.conv1(images))))
        values = self.layer4(self.layer3(self.layer2(self.layer1(values))))
        logits: Logits = self.fc(torch.flatten(self.avgpool(values), 1))
        return logits


class BasicBlock(nn.Module):
    """Two convolutions, and what came in added."""

    expansion = 1

    def __init__(self, reads: int, inside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(reads, inside, 3, stride=stride, padding=1, bias=False)
        self.bn1, self.act = nn.BatchNorm2d(inside), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(inside, inside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inside)
        self.downsample = _shortcut(reads, inside, stride)

    def forward(self, values: Tensor) -> Tensor:
        """The next values."""
        inside = self.act(self.bn1(self.conv1(values)))
        inside = self.bn2(self.conv2(inside))
        inside += values if self.downsample is None else self.downsample(values)
        out: Tensor = self.act(inside)
        return out


class Bottleneck(nn.Module):
    """Three convolutions, the middle one of fewer planes, and what came in added."""

    expansion = 4

    def __init__(self, reads: int, inside: int, stride: int) -> None:
        super().__init__()
        writes = inside * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(reads, inside, 1, bias=False), nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inside)
        self.conv3, self.bn3 = nn.Conv2d(inside, writes, 1, bias=False), nn.BatchNorm2d(writes)
        self.act = nn.ReLU(inplace=True)
        self.downsample = _shortcut(reads, writes, stride)

    def forward(self, values: Tensor) -> Tensor:
        """The next values."""
        inside = self.act(self.bn1(self.conv1(values)))
        inside = self.act(self.bn2(self.conv2(inside)))
        inside = self.bn3(self.conv3(inside))
        inside += values if self.downsample is None else self.downsample(values)
        out: Tensor = self.act(inside)
        return out


def _shortcut(reads: int, writes: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and reads == writes:
        return None
    convolution = nn.Conv2d(reads, writes, 1, stride=stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(writes))
