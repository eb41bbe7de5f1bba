"""What an epoch is worth."""

from __future__ import annotations

import pytest

from robustmri.models.classifier import Classifier
from robustmri.training import validation
from robustmri.training.settings import TrainSettings


@pytest.mark.parametrize("mirrored", [False, True])
def test_few_images_are_attacked_at_once_and_it_changes_nothing(
    fresh, choose, monkeypatch, mirrored
):
    settings = TrainSettings(
        objective="one-step", eps="1/255", guard_slices=0, precision="fp32", mirrored=mirrored
    )
    classifier = fresh().eval().requires_grad_(False)
    expected = validation.validate(classifier, choose, settings)
    met, asked = [], Classifier.outputs

    def outputs(self, images):
        met.append(len(images))
        return asked(self, images)

    monkeypatch.setattr(Classifier, "outputs", outputs)
    monkeypatch.setattr(validation, "AT_ONCE", 3)

    found = validation.validate(classifier, choose, settings)

    assert len(choose.labels) > 3
    assert max(met) == 3
    assert found == pytest.approx(expected)
