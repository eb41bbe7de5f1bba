"""Errors that a user can act on: what was expected, what came, and the next move."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class RobustMRIError(Exception):
    """Any failure with a known cause; the command line prints it in one line, without a
    traceback.
    """


class DataError(RobustMRIError):
    """Scans, cohort or split are not what the step needs."""


class ThreatModelError(RobustMRIError):
    """Images or settings do not fit the threat model."""


class CheckpointError(RobustMRIError):
    """A checkpoint is missing, damaged or belongs to another cohort."""


class SettingsError(RobustMRIError):
    """A recipe, an option or an override has a value that cannot be used."""


class DownloadError(RobustMRIError):
    """A file could not be fetched, or is not the file that was asked for."""


class ResultError(RobustMRIError):
    """A result folder is missing, incomplete or of another schema version."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Sentence that lists the choices, the nearest one first asked for.

    >>> did_you_mean("resnet81", ["resnet18", "vit"])
    "Did you mean 'resnet18'? Choices: resnet18, vit."
    """
    known = sorted(choices)
    near = get_close_matches(str(name), known, n=1)
    question = f"Did you mean {near[0]!r}? " if near else ""
    return f"{question}Choices: {', '.join(known)}."


def in_short(error: Exception) -> str:
    """What an error says, in one line of at most 200 letters; its kind where it says nothing.

    >>> in_short(ValueError("not\\n  so")), in_short(ValueError())
    ('not so', 'ValueError')
    """
    return " ".join(str(error).split())[:200] or type(error).__name__
