"""Settings of an attack as they come from a recipe: refused by name and by kind before the attack
sees them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from robustmri.core.errors import SettingsError, ThreatModelError, did_you_mean


def read_settings(name: str, make: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    """`settings`, each of the kind that the attack declares.

    Args:
        name: of the attack, for messages.
        make: the attack's dataclass, or a function with that of another one's settings.
        settings: as a recipe holds them.

    Raises:
        SettingsError: a setting that the attack does not have, or a value of another kind.
    """
    if not settings:
        return {}
    kind = make if isinstance(make, type) else type(make())
    hints = get_type_hints(kind)
    known = {field.name: hints[field.name] for field in fields(kind) if field.init}
    if kind is not make:
        hints = get_type_hints(make)
        parameters = inspect.signature(make).parameters.values()
        own = {
            word.name: hints.get(word.name, Any)
            for word in parameters
            if word.kind is not word.VAR_KEYWORD
        }
        known = {**known, **own} if len(own) < len(parameters) else own
    return {setting: _read(name, setting, value, known) for setting, value in settings.items()}


def check_kinds(attack: Any) -> None:
    """Refuse an attack one of whose numbers, flags or words is of another kind.

    Args:
        attack: a dataclass.

    Raises:
        ThreatModelError: names the setting and its value.
    """
    hints = get_type_hints(type(attack))
    for field in fields(attack):
        kind = hints[field.name]
        value = getattr(attack, field.name)
        if kind is int:
            wanted, fits = "a whole number", isinstance(value, Integral)
        elif kind is float:
            wanted, fits = "a finite number", isinstance(value, Real) and math.isfinite(value)
        elif kind is bool:
            wanted, fits = "True or False", isinstance(value, bool)
        elif get_origin(kind) is Literal:
            wanted, fits = f"one of {', '.join(get_args(kind))}", value in get_args(kind)
        else:
            continue
        if not fits or (kind is not bool and isinstance(value, bool)):
            raise ThreatModelError(
                f"{type(attack).__name__}: {field.name} must be {wanted}, got {value!r:.80}."
            )


def _read(name: str, setting: str, value: Any, known: dict[str, Any]) -> Any:
    if setting not in known:
        raise SettingsError(
            f"Attack {name!r} has no setting {setting!r}. {did_you_mean(setting, known)}"
        )
    try:
        return msgspec.convert(value, known[setting])
    except msgspec.ValidationError as error:
        raise SettingsError(f"Attack {name!r}: {setting} cannot be {value!r}. {error}.") from error
    except TypeError:  # A type that msgspec does not know: the attack's own checks must do.
        return value
