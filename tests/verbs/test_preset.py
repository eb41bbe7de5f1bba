"""A network for a machine and a time."""

from __future__ import annotations

import pytest

from robustmri.core.errors import SettingsError
from robustmri.training.cost import TimeEstimate
from robustmri.verbs.preset import LOOKED_AT, choose_preset

SOURCE = "phantom:patients=10,slices=10"


@pytest.fixture
def costs(monkeypatch):
    """Seconds of each training for 100 slices, by its size in pixels."""
    asked = []

    def set_to(**seconds):
        def expected(classifier, train, validation, settings):
            assert len(train.labels) == LOOKED_AT
            size = train.images.shape[-1]
            asked.append(size)
            return TimeEstimate(seconds[f"at_{size}"] * LOOKED_AT / 80, 3)

        monkeypatch.setattr("robustmri.training.loop.expected_time", expected)
        return asked

    return set_to


@pytest.mark.usefixtures("tiny_networks")
@pytest.mark.parametrize(
    ("minutes", "chosen"),
    [(100, "poster-offline"), (10, "poster-cpu"), (1, "poster-small"), (0.01, "poster-small")],
)
def test_the_largest_network_that_fits(costs, tmp_path, minutes, chosen):
    costs(at_224=1500, at_96=150, at_64=15)
    name, reason = choose_preset(SOURCE, tmp_path, minutes)
    assert name == chosen
    assert ("too much" in reason) == (minutes == 0.01)
    assert "30 s" in reason, "the time that the smallest would take"
    assert ("poster-offline" in reason) == (minutes >= 10), "what cannot fit is not measured"


@pytest.mark.usefixtures("tiny_networks")
def test_a_resumed_run_stays_with_what_was_chosen(costs, tmp_path):
    asked = costs(at_224=1500, at_96=150, at_64=15)
    first = choose_preset(SOURCE, tmp_path, 10)
    looked = len(asked)
    assert choose_preset(SOURCE, tmp_path, 1000) == first
    assert len(asked) == looked


def test_a_time_is_needed(tmp_path):
    with pytest.raises(SettingsError, match="add --minutes"):
        choose_preset(SOURCE, tmp_path, 0)
