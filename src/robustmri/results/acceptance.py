"""What a classifier is meant for, and what its numbers must be at least: given by people, never by
the tool.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from robustmri.core.errors import SettingsError, did_you_mean
from robustmri.results.budget import Budget

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLE = "worst_case=0.5"


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """What people decided beforehand.

    Attributes:
        intended_use: of the classifier, in their words.
        version: of the classifier or the device, as they count.
        decided_by: who decided the minima, and when.
        minimum: name of a number to the least that it must be, as a fraction; see `parse_minimum`.
    """

    intended_use: str = ""
    version: str = ""
    decided_by: str = ""
    minimum: dict[str, float] = {}


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A minimum, and the number that it was held against.

    `bound` is what of the number counts: the accuracy itself, or the lower bound of its interval.
    """

    name: str
    title: str
    budget: Budget
    unit: Literal["slice", "patient"]
    bound: Literal["accuracy", "low"]
    least: float
    measured: float
    met: bool


def read_acceptance(path: Path | str) -> Acceptance:
    """Read a TOML file with `intended_use`, `version`, `decided_by` and a table `min`.

    Raises:
        SettingsError: no such file, not TOML, or something else in it.
    """
    if not Path(path).is_file():
        raise SettingsError(f"{path} is not a file. Name a TOML file with criteria.")
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from error
    known = ("intended_use", "version", "decided_by", "min")
    for name in found:
        if name not in known:
            raise SettingsError(f"{path}: {name!r} is not known. {did_you_mean(name, known)}")
    minima = found.pop("min", {})
    wrong = [name for name, value in found.items() if not isinstance(value, str)]
    if wrong or not isinstance(minima, dict):
        raise SettingsError(
            f"{path}: {(wrong or ['min'])[0]} must be "
            + ("a text in quotes." if wrong else f"a table, as in [min] {EXAMPLE}.")
        )
    return Acceptance(**found, minimum={name: _share(name, one) for name, one in minima.items()})


def parse_minimum(texts: Iterable[str]) -> dict[str, float]:
    """Read "worst_case=0.5", "clean=90 %", "pgd@8/255=0.4", "patients.worst_case=0.6" or
    "worst_case.low=0.4": of patients instead of slices, the lower bound instead of the accuracy.

    Raises:
        SettingsError: no "=", no number from 0 to 1, or a name given twice.

    >>> parse_minimum(["worst_case=0.5", "clean=90 %"])
    {'worst_case': 0.5, 'clean': 0.9}
    """
    found: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not equals or not name.strip():
            raise SettingsError(f"--min needs NAME=VALUE, as in {EXAMPLE}, got {text!r}.")
        if name.strip() in found:
            raise SettingsError(f"--min {name.strip()} is given twice.")
        found[name.strip()] = _share(name.strip(), value.strip())
    return found


def join_acceptance(
    criteria: Path | str | None, minimum: Mapping[str, float] | None = None
) -> Acceptance:
    """What a file says, single minima replaced by those that were given beside it."""
    read = read_acceptance(criteria) if criteria else Acceptance()
    given = {name: _share(name, value) for name, value in (minimum or {}).items()}
    return msgspec.structs.replace(read, minimum={**read.minimum, **given})


def _share(name: str, value: Any) -> float:
    """A fraction, from a number or a text with or without %."""
    percent = isinstance(value, str) and value.endswith("%")
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value.removesuffix("%") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        number = math.nan
    number = number / 100 if percent else number
    if 0 <= number <= 1:
        return number
    hint = f" Did you mean {value} %?" if not percent and 1 < number <= 100 else ""
    raise SettingsError(
        f"The least {name} must be from 0 to 1, or 0 % to 100 %, got {value}.{hint}"
    )
