from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from robustmri.core.errors import ThreatModelError
from robustmri.threat.eps import Eps, check_eps, eps_text, parse_eps, radii_text, split_radii


@pytest.mark.parametrize(
    ("text", "value", "units", "written"),
    [
        ("0.04", 0.04, "image", "0.04"),
        ("0", 0.0, "image", "0"),
        (" 8/255 ", 8 / 255, "image", "0.0313725"),
        ("8/255@image", 8 / 255, "image", "0.0313725"),
        ("2.3/255", 2.3 / 255, "image", "0.00901961"),
        ("0.04@normalised", 0.04, "normalised", "0.04@normalised"),
        ("1e-3", 0.001, "image", "0.001"),
    ],
)
def test_reads(text, value, units, written):
    eps = parse_eps(text)
    assert (eps.value, eps.units, str(eps)) == (value, units, written)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "-0.1",
        "nan",
        "inf",
        "1/0",
        "8/",
        "8/inf",
        "-8/-255",
        "0.04@255",
        "-8/255",
        "9" * 400 + "/2",
    ],
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


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("0,04", "decimal point"),
        (10**400, "eps must be a number"),
        (10**5000, "eps must be a number"),
        (None, "got NoneType"),
        (True, "got bool"),
        ("9e400/7", "finite number"),
        ("9" * 5000, "finite number"),
    ],
    ids=lambda value: str(value)[:12] if not isinstance(value, int) else "number",
)
def test_says_what_an_eps_is(said, message):
    with pytest.raises(ThreatModelError, match=message) as told:
        parse_eps(said)
    assert len(str(told.value)) < 200


@pytest.mark.parametrize(
    ("text", "radii"),
    [
        ("0.04", ["0.04"]),
        ("0.04,8/255", ["0.04", "8/255"]),
        ("0, 1", ["0", "1"]),
        ("1,2", ["1", "2"]),
        ("0,5,10", ["0", "5", "10"]),
        ("0,04", None),
        ("0,5", None),
        ("0,04@normalised", None),
        ("0.5,0,04", None),
        ("2,3/255", None),
        ("1/255,2/255", ["1/255", "2/255"]),
        ("0,8/255", ["0", "8/255"]),
    ],
)
def test_a_comma_divides_radii_and_is_no_decimal_point(text, radii):
    if radii is not None:
        assert split_radii(text) == radii
    else:
        with pytest.raises(ThreatModelError, match="comma for its decimal point"):
            split_radii(text)


@pytest.mark.parametrize(
    ("said", "norm", "std", "message"),
    [
        (1.0, "linf", None, ""),
        (8.0, "linf", None, "Did you mean 8/255?"),
        (300.0, "linf", None, "Write a fraction"),
        ("8@normalised", "linf", None, ""),
        ("8@normalised", "linf", 0.226, "Did you mean 8/255@normalised?"),
        ("4@normalised", "linf", 0.226, ""),
        (8.0, "l2", None, ""),
        (33.0, "l2", 0.226, "Take at most 32"),
        (0.04, "l0", None, "number of pixels"),
        ("3@normalised", "l0", None, "number of pixels"),
        (12.0, "l0", None, ""),
    ],
)
def test_a_radius_within_which_everything_or_nothing_could_be_done_is_refused(
    said, norm, std, message
):
    shape = None if std is None else (1, 32, 32)
    if not message:
        check_eps(parse_eps(said), norm, std=std, shape=shape)
        return
    with pytest.raises(ThreatModelError, match=message.replace("?", r"\?")):
        check_eps(parse_eps(said), norm, std=std, shape=shape)


def test_numbers_texts_and_radii_are_one():
    assert parse_eps(eps_text(8 / 255)) == parse_eps(8 / 255) == parse_eps("8/255")
    assert radii_text(Eps(0.04, "normalised")) == radii_text(["0.04@normalised"])
