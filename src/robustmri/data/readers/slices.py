"""Which slices of a volume become cases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from robustmri.core.errors import SettingsError

NOT_SQUARE = "has pixels that are not square, which are read as if they were"


@dataclass(frozen=True)
class SliceChoice:
    """A rule that picks slices, which are counted from 1.

    Attributes:
        kind: "mask" (those with lesion), "middle" (third), "all", "range" or "every".
        first: of a range, included; likewise `last`.
        step: of "every": one of so many.
    """

    kind: str
    first: int = 1
    last: int = 0
    step: int = 1

    def choose(self, count: int, lesion: Sequence[bool] | None = None) -> list[int]:
        """Places, from 0, of the chosen ones of `count` slices.

        Args:
            count: number of slices.
            lesion: whether each holds lesion; None where there is no mask.

        >>> parse_slices("middle").choose(9), parse_slices("2:3").choose(9)
        ([3, 4, 5], [1, 2])
        >>> parse_slices("every:4").choose(9)
        [0, 4, 8]
        """
        if self.kind == "mask" and lesion is not None:
            return [place for place in range(count) if lesion[place]]
        if self.kind in ("mask", "middle"):
            return list(range(count // 3, count - count // 3))
        if self.kind == "range":
            return list(range(self.first - 1, min(self.last, count)))
        return list(range(0, count, self.step))

    def __str__(self) -> str:
        """In words.

        >>> str(parse_slices("10:20"))
        'slices 10 to 20'
        """
        return {
            "mask": "slices with lesion",
            "middle": "the middle third of the slices",
            "all": "all slices",
            "range": f"slices {self.first} to {self.last}",
            "every": f"one of {self.step} slices",
        }[self.kind]


def parse_slices(text: str) -> SliceChoice:
    """A choice as a person writes it: mask, middle, all, A:B or every:N.

    Raises:
        SettingsError: none of these.
    """
    if text in ("mask", "middle", "all"):
        return SliceChoice(text)
    span = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text, re.ASCII)
    if span and 1 <= int(span[1]) <= int(span[2]):
        return SliceChoice("range", int(span[1]), int(span[2]))
    every = re.fullmatch(r"every:(\d{1,9})", text, re.ASCII)
    if every and int(every[1]):
        return SliceChoice("every", step=int(every[1]))
    raise SettingsError(
        f"slices cannot be {text!r}: expected mask, middle, all, A:B (from 1, both included) or "
        "every:N."
    )
