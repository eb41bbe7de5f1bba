from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from robustmri.models.classifier import ClassifierSpec
from robustmri.models.stem import (
    GREY_MEAN,
    GREY_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    ThreePlanes,
    fold_planes,
)


def colour_planes(grey, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    """A grey image repeated in three planes and normalised plane by plane, the way pretrained
    networks expect it.
    """
    return (grey.expand(-1, 3, -1, -1) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(
        3, 1, 1
    )


def test_constants_are_the_classifiers():
    spec = ClassifierSpec(backbone="resnet18", classes=("a", "b"), size=32)
    assert (spec.mean, spec.std) == (GREY_MEAN, GREY_STD)


def test_folded_stem_computes_what_three_planes_do():
    grey = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(8, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    folded, constant = fold_planes(weight)
    one = F.conv2d((grey - GREY_MEAN) / GREY_STD, folded, constant)
    assert folded.shape == (8, 1, 7, 7)
    torch.testing.assert_close(one, F.conv2d(colour_planes(grey), weight), rtol=1e-4, atol=1e-4)


def test_three_planes_sees_the_image_the_model_was_trained_on():
    grey, mean, std = torch.rand(1, 1, 4, 4), (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
    seen = ThreePlanes(nn.Flatten(), mean, std)((grey - GREY_MEAN) / GREY_STD)
    torch.testing.assert_close(
        seen, colour_planes(grey, mean, std).flatten(1), rtol=1e-5, atol=1e-5
    )


def test_three_planes_takes_logits_out_of_an_output_object():
    class Output:
        def __init__(self, logits):
            self.logits = logits

    class Foreign(nn.Module):
        def forward(self, images):
            return Output(images.mean((2, 3)))

    assert ThreePlanes(Foreign())(torch.zeros(2, 1, 4, 4)).shape == (2, 3)
