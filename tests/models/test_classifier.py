from __future__ import annotations

import msgspec
import pytest
import torch
from torch import nn

from robustmri.models.classifier import Classifier, ClassifierSpec, as_logits


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


@pytest.mark.parametrize(
    ("facts", "outputs", "expected"),
    [
        ({}, [[1.0, 2.0]], [[1.0, 2.0]]),
        ({"ends_in": "softmax"}, [[0.25, 0.75]], [[0.25, 0.75]]),
        ({"ends_in": "softmax"}, [[0.0, 1.0]], [[0.0, 1.0]]),
        ({"ends_in": "sigmoid", "one_logit": True}, [[0.75]], [[0.25, 0.75]]),
        ({"ends_in": "sigmoid", "one_logit": True, "order": (1, 0)}, [[0.75]], [[0.75, 0.25]]),
        ({"ends_in": "sigmoid", "one_logit": True}, [[1.0]], [[0.0, 1.0]]),
        ({"ends_in": "sigmoid"}, [[0.5, 0.5]], [[0.5, 0.5]]),
    ],
)
def test_outputs_become_finite_logits_of_every_class(facts, outputs, expected):
    spec = ClassifierSpec(backbone="custom", classes=("ill", "well"), size=2, **facts)
    logits = as_logits(torch.tensor(outputs), spec)
    assert logits.isfinite().all()
    if facts:
        logits = logits.softmax(1)
    torch.testing.assert_close(logits, torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_outputs_of_another_shape_are_flattened():
    spec = ClassifierSpec(backbone="custom", classes=("ill", "well"), size=2, one_logit=True)
    assert as_logits(torch.tensor([3.0, 4.0]), spec).tolist() == [[0.0, 3.0], [0.0, 4.0]]
    spec = msgspec.structs.replace(spec, one_logit=False)
    assert as_logits(torch.ones(2, 2, 1, 1), spec).shape == (2, 2)


def test_mirror_images_are_asked_about_once_it_is_trained():
    spec = ClassifierSpec(backbone="custom", classes=("ill", "well"), size=2, mean=0.0, std=1.0)
    plain = Classifier(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten()), spec)
    mirrored = plain.answering(mirrored=True)
    assert (plain.spec.mirrored, mirrored.network) == (False, plain.network)
    images = torch.rand(3, 1, 1, 2)
    assert torch.equal(mirrored.train()(images), plain(images))
    both = (plain(images) + plain(images.flip(-1))) / 2
    torch.testing.assert_close(mirrored.eval()(images), both)
    assert torch.equal(both, mirrored(images.flip(-1)))
    assert torch.equal(mirrored.answering(mirrored=False)(images), plain(images))


def test_three_planes_have_constants_of_their_own():
    spec = ClassifierSpec(
        backbone="custom",
        classes=("a", "b", "c"),
        size=1,
        channels=3,
        mean=(0.0, 0.5, 1.0),
        std=(1.0, 0.5, 0.25),
    )
    assert msgspec.json.decode(msgspec.json.encode(spec), type=ClassifierSpec) == spec
    classifier = Classifier(nn.Flatten(), spec)
    images = torch.full((1, 1, 1, 1), 0.5, requires_grad=True)
    logits = classifier(images)
    assert logits.tolist() == [[0.5, 0.0, -2.0]]
    assert torch.autograd.grad(logits.sum(), images)[0].item() == 1 + 2 + 4
    assert not classifier.state_dict(), "its weights are the network's"
    assert classifier.to(torch.float64)(images.double()).dtype == torch.float64
