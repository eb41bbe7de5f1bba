"""The radius eps, with its units: 0.04 means little before someone says of what."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from robustmri.core.errors import ThreatModelError

Units = Literal["image", "normalised"]


@dataclass(frozen=True, order=True)
class Eps:
    """A radius as someone stated it.

    Args:
        value: the number.
        units: "image", a fraction of the [0, 1] range; or "normalised", added after subtracting the
            mean and dividing by the standard deviation, as papers that perturb normalised tensors
            do.
    """

    value: float
    units: Units = "image"

    def in_image_units(self, std: float) -> float:
        """The same radius as a fraction of the [0, 1] range, for a classifier that divides by
        `std`.

        >>> round(255 * Eps(0.04, "normalised").in_image_units(std=0.226), 2)
        2.31
        """
        return self.value if self.units == "image" else self.value * std

    def __str__(self) -> str:
        return f"{self.value:g}" + ("" if self.units == "image" else "@normalised")


def parse_eps(said: str | float | Eps) -> Eps:
    """Read "0.04", "8/255", "2.3/255" or, in normalised units, "0.04@normalised"; a number is in
    image units.

    Raises:
        ThreatModelError: not a finite number of at least zero, or unknown units.

    >>> parse_eps("8/255").value == parse_eps(8 / 255).value == 8 / 255
    True
    >>> parse_eps("0.04@normalised")
    Eps(value=0.04, units='normalised')
    """
    units: str = ""
    if isinstance(said, Eps):
        text, units, value = repr(said), said.units, said.value
    elif isinstance(said, str):
        text = said
        number, _, units = said.strip().partition("@")
        value = _number(number, text)
    else:
        value = _float(said)
        text = repr(said)
    if not math.isfinite(value) or value < 0:
        raise ThreatModelError(f"eps must be a finite number of at least 0, got {_short(text)}.")
    if units in ("", "image"):
        return Eps(value)
    if units == "normalised":
        return Eps(value, "normalised")
    raise ThreatModelError(
        f"eps {_short(text)} has unknown units {_short(units)}. Write 0.04 (image units) or "
        "0.04@normalised."
    )


def eps_text(said: str | float | Eps) -> str:
    """An eps as settings keep it: text with its units, to the last digit.

    >>> eps_text(8 / 255), eps_text(Eps(0.04, "normalised")), eps_text("8/255")
    ('0.03137254901960784', '0.04@normalised', '8/255')
    """
    if isinstance(said, str):
        return said
    eps = parse_eps(said)
    return repr(eps.value) + ("" if eps.units == "image" else "@normalised")


def radii_text(said: object) -> tuple[str, ...]:
    """One eps or several, each as settings keep it.

    >>> radii_text(0.04), radii_text([0.04, "8/255"])
    (('0.04',), ('0.04', '8/255'))
    """
    several = isinstance(said, Iterable) and not isinstance(said, str)
    parts: list[Any] = list(said) if several else [said]  # type: ignore[call-overload]
    return tuple(map(eps_text, parts))


def split_radii(text: str) -> list[str]:
    """The radii of a text that commas divide.

    Raises:
        ThreatModelError: a comma stands where a decimal point should.

    >>> split_radii("0.04, 8/255")
    ['0.04', '8/255']
    """
    # "0,5" is not 0 and 5: nobody asks for the two in a breath. With a space, or more radii, it is.
    if re.fullmatch(r"\s*0,\d+(@\w*)?\s*", text) or re.search(
        r"(?<![\d./])(\d+,0\d|[1-9]\d*,\d+/)", text
    ):
        point = re.sub(r"(?<![\d./])(\d+),(\d+)", r"\1.\2", text.strip())
        raise ThreatModelError(
            f"eps {_short(text)} has a comma for its decimal point. Write {point}; a comma "
            "divides one eps from the next."
        )
    return [part.strip() for part in text.split(",") if part.strip()]


def check_eps(
    eps: Eps,
    norm: str,
    *,
    std: float | None = None,
    shape: tuple[int, int, int] | None = None,
) -> None:
    """Refuse a radius within which nothing, or everything, could be done to an image.

    Args:
        eps: the radius.
        norm: that it is measured in.
        std: that the classifier divides by; None: not known yet, and a normalised eps is let pass.
        shape: channels, height and width of an image; None: not known yet.

    Raises:
        ThreatModelError: more than the whole range of grey values, or no whole number of pixels.

    >>> check_eps(Eps(8.0), "linf")
    Traceback (most recent call last):
        ...
    robustmri.core.errors.ThreatModelError: eps 8 is 8 times the largest change that there is in
    linf: from black to white. Did you mean 8/255? Write a fraction of the [0, 1] range, such as
    0.04 or 8/255.
    """
    if norm == "l0" and (eps.units == "normalised" or 0 < eps.value < 1):
        raise ThreatModelError(
            f"eps {eps} in l0 must be a number of pixels of at least 1: it counts those that "
            "change. Write 10 or the like."
        )
    if eps.units == "normalised" and std is None:
        return
    image, largest = eps.in_image_units(std or 1.0), _largest(norm, shape)
    if image <= largest:
        return
    units = "@normalised" if eps.units == "normalised" else ""
    meant = f"Did you mean {eps.value:g}/255{units}? " if norm != "l0" and eps.value <= 255 else ""
    how = (
        f"{meant}Write a fraction of the [0, 1] range, such as 0.04 or 8/255."
        if largest == 1
        else f"Take at most {largest:g}."
    )
    pixels = "" if shape is None else f"all {shape[1] * shape[2]} pixels "
    where = f"{pixels}from black to white"
    raise ThreatModelError(
        f"eps {eps} is {image / largest:.3g} times the largest change that there is in {norm}: "
        f"{where}. {how}"
    )


def _largest(norm: str, shape: tuple[int, int, int] | None) -> float:
    """Size of the change from black to white; infinite where that is not known."""
    if norm == "linf":
        return 1.0
    if shape is None or norm not in ("l2", "l1", "l0"):
        return math.inf
    values = math.prod(shape)
    return {"l2": math.sqrt(values), "l1": float(values), "l0": float(shape[1] * shape[2])}[norm]


def _number(number: str, text: str) -> float:
    if "," in number:
        raise ThreatModelError(
            f"eps {_short(text)} holds a comma. One eps is meant here; write its decimal point as "
            "in 0.04."
        )
    try:
        over, slash, under = number.partition("/")
        divisor = float(under) if slash else 1.0
        if not 0 < divisor < math.inf:
            raise ValueError(under)
        return float(over) / divisor
    except ValueError as error:
        raise ThreatModelError(
            f"eps {_short(text)} is not a number. Write 0.04, 8/255 or 0.04@normalised."
        ) from error


def _float(said: object) -> float:
    try:
        if isinstance(said, bool):
            raise TypeError
        return float(said)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise ThreatModelError(
            f"eps must be a number, a text such as 8/255, or an Eps, got {type(said).__name__}."
        ) from error


def _short(text: str) -> str:
    """The text as a message can hold it."""
    return repr(text if len(text) <= 40 else f"{text[:30]}...")
