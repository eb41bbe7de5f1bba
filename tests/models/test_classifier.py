from __future__ import annotations

import msgspec
import pytest
import torch
from torch import nn

from robustmri.models.classifier import Classifier, ClassifierSpec


def test_images_are_normalised_inside():
    spec = ClassifierSpec(backbone="custom", classes=("ill", "well"), size=2, mean=0.5, std=0.25)
    classifier = Classifier(nn.Flatten(), spec)
    assert classifier(torch.full((1, 1, 1, 2), 0.75)).tolist() == [[1.0, 1.0]]
    assert classifier.classes == ("ill", "well")


def test_spec_is_frozen_and_survives_json():
    spec = ClassifierSpec(backbone="resnet18", classes=("glioma", "meningioma"), size=64)
    assert msgspec.json.decode(msgspec.json.encode(spec), type=ClassifierSpec) == spec
    with pytest.raises(AttributeError):
        spec.size = 32
