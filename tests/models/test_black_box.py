"""A classifier that only answers: asked about images as they are, and never climbed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from robustmri.core.errors import CheckpointError
from robustmri.models.black_box import BlackBox
from robustmri.models.checkpoint import describe_classifier
from robustmri.models.classifier import ClassifierSpec
from robustmri.models.optimised import OptimisedView

SPEC = ClassifierSpec(backbone="service", classes=("ill", "well"), size=4, mean=0.5, std=0.25)


def brightness(images):
    assert images.dtype == np.float32
    total = images.mean((1, 2, 3))
    return np.stack([-total, total], axis=1)


def test_it_is_asked_about_normalised_images_and_gives_no_gradient():
    box = BlackBox(brightness, SPEC)
    images = torch.full((3, 1, 4, 4), 0.75, requires_grad=True)
    logits = box(images)
    assert logits.tolist() == [[-1.0, 1.0]] * 3
    assert not logits.requires_grad
    assert not box.spec.gradients
    assert copy.deepcopy(box)(images).tolist() == logits.tolist()


def test_a_view_asks_about_the_same_images():
    """A search in lower precision would ask about others."""
    box = BlackBox(brightness, SPEC).eval()
    images = torch.rand(5, 1, 4, 4)
    view = OptimisedView(box, images, precision="fp32")
    torch.testing.assert_close(view(images), box(images))


def test_answers_that_are_not_one_for_each_image_are_refused():
    box = BlackBox(lambda images: np.zeros((1, 2)), SPEC)
    with pytest.raises(CheckpointError, match="gave 1 answers to 3 images"):
        box(torch.rand(3, 1, 4, 4))


def test_it_is_known_by_its_answers():
    def other(images):
        return brightness(images) * 2

    one, same, another = (
        describe_classifier(BlackBox(answer, SPEC)) for answer in (brightness, brightness, other)
    )
    assert one.identity == same.identity != another.identity
