"""What a setting says of itself: its help and its bounds stand at its field, and are read from
there.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from robustmri.core.errors import SettingsError, did_you_mean

SEEDS = 2**63 - 1
"""The largest seed that every generator takes."""
MANY = 10**6
"""More epochs, steps or images of a step than anybody has."""


def about(
    help: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> msgspec.Meta:
    """What stands in `Annotated` at a field: its help, with the unit, and its bounds."""
    bounds = {"at_least": at_least, "at_most": at_most, "above": above, "below": below}
    return msgspec.Meta(description=help, extra=bounds)


@lru_cache
def _hints(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def help_of(kind: type[msgspec.Struct], name: str) -> str:
    """The help of a setting, as the command line shows it."""
    return _meta(kind, name).description or ""


def choices_of(kind: type[msgspec.Struct], name: str) -> tuple[str, ...]:
    """The values that a setting may have; none where it is free.

    >>> class Small(msgspec.Struct):
    ...     size: Annotated[Literal["s", "m"], about("of a shirt")] = "s"
    >>> choices_of(Small, "size"), help_of(Small, "size")
    (('s', 'm'), 'of a shirt')
    """
    found = _hints(kind)[name]
    found = get_args(found)[0] if get_origin(found) is Annotated else found
    return get_args(found) if get_origin(found) is Literal else ()


def bounds_of(kind: type[msgspec.Struct], name: str) -> str:
    """The bounds of a setting in words; empty where it has none."""
    words = {"at_least": "at least", "at_most": "at most", "above": "above", "below": "below"}
    bounds = (_meta(kind, name).extra or {}).items()
    return " and ".join(
        f"{words[key]} {_written(limit)}" for key, limit in bounds if limit is not None
    )


def check_bounds(settings: msgspec.Struct) -> None:
    """Refuse values outside the bounds of their fields, and numbers that are not finite.

    Raises:
        SettingsError: names the setting, its bounds and the value.
    """
    kind = type(settings)
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        choices = choices_of(kind, name)
        if choices and value not in choices:
            known = map(str, choices)
            raise SettingsError(f"{name} cannot be {value!r}. {did_you_mean(str(value), known)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        bounds = _meta(kind, name).extra or {}
        least, most, above, below = map(bounds.get, ("at_least", "at_most", "above", "below"))
        wrong = (
            not -math.inf < value < math.inf  # Of whole numbers too, however many digits they have.
            or (least is not None and value < least)
            or (most is not None and value > most)
            or (above is not None and value <= above)
            or (below is not None and value >= below)
        )
        if wrong:
            what = bounds_of(kind, name) or "a finite number"
            raise SettingsError(f"{name} must be {what}, got {_written(value)}.")


def check_number(name: str, value: float, *, above: bool = False) -> None:
    """Refuse a number of a call that is too small, or no finite one.

    Raises:
        SettingsError: names it and its bound.

    >>> check_number("minutes", 0.5, above=True)
    """
    if not (value > 0 if above else value >= 0) or value == math.inf:
        bound = "a finite number above" if above else "a finite number of at least"
        raise SettingsError(f"{name} must be {bound} 0, got {_written(value)}.")


def _written(number: Any) -> str:
    """A number as a message can hold it.

    >>> _written(0.5), _written(1000000), _written(10**5000)
    ('0.5', '1000000', 'a number of 5001 digits')
    """
    if isinstance(number, float):
        return str(number)
    if abs(number) < 10**24:
        return str(number)
    return f"a number of {int(number.bit_length() * math.log10(2)) + 1} digits"


def _meta(kind: type[msgspec.Struct], name: str) -> Any:
    hint = _hints(kind)[name]
    for part in get_args(hint) if get_origin(hint) is Annotated else ():
        if isinstance(part, msgspec.Meta):
            return part
    return msgspec.Meta()
