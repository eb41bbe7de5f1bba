from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from robustmri.core.errors import ThreatModelError
from robustmri.threat.eps import Eps, parse_eps


@pytest.mark.parametrize(
    ("text", "value", "units", "written"),
    [
        ("0.04", 0.04, "image", "0.04"),
        ("0", 0.0, "image", "0"),
        (" 8/255 ", 8 / 255, "image", "0.0313725"),
        ("8/255@image", 8 / 255, "image", "0.0313725"),
        ("0.04@normalised", 0.04, "normalised", "0.04@normalised"),
        ("1e-3", 0.001, "image", "0.001"),
    ],
)
def test_reads(text, value, units, written):
    eps = parse_eps(text)
    assert (eps.value, eps.units, str(eps)) == (value, units, written)


@pytest.mark.parametrize(
    "text", ["", "abc", "-0.1", "nan", "inf", "1/0", "8/", "0.04@255", "-8/255", "9" * 400 + "/2"]
)
def test_refuses(text):
    with pytest.raises(ThreatModelError, match="eps"):
        parse_eps(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e999"])
def test_says_which_numbers_are_radii(text):
    with pytest.raises(ThreatModelError, match="must be a finite number of at least 0"):
        parse_eps(text)


def test_a_radius_is_a_value():
    """It sorts, and is a key of a table."""
    assert sorted({Eps(0.2), Eps(0.1), Eps(0.1)}) == [Eps(0.1), Eps(0.2)]


def test_units():
    assert Eps(0.04).in_image_units(std=0.226) == 0.04
    assert Eps(0.04, "normalised").in_image_units(std=0.226) == pytest.approx(0.00904)


def test_a_radius_stays_what_it_is():
    with pytest.raises(FrozenInstanceError):
        Eps(0.1).value = 0.2
