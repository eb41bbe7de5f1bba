"""The radius eps, with its units: 0.04 means little before someone says of what."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

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


def parse_eps(text: str) -> Eps:
    """Read "0.04", "8/255" or, in normalised units, "0.04@normalised".

    Raises:
        ThreatModelError: not a finite number of at least zero, or unknown units.

    >>> parse_eps("8/255").value == 8 / 255
    True
    >>> parse_eps("0.04@normalised")
    Eps(value=0.04, units='normalised')
    """
    number, _, units = text.strip().partition("@")
    try:
        value = float(Fraction(number)) if "/" in number else float(number)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise ThreatModelError(
            f"eps {text!r} is not a number. Write 0.04, 8/255 or 0.04@normalised."
        ) from error
    if not math.isfinite(value) or value < 0:
        raise ThreatModelError(f"eps must be a finite number of at least 0, got {text!r}.")
    if units in ("", "image"):
        return Eps(value)
    if units == "normalised":
        return Eps(value, "normalised")
    raise ThreatModelError(
        f"eps {text!r} has unknown units {units!r}. Write 0.04 (image units) or 0.04@normalised."
    )
