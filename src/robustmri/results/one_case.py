"""One slice that was asked about: what `case` found, and the workbench shows."""

from __future__ import annotations

import msgspec


class CaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about one slice.

    Attributes:
        answer: of the classifier about the untouched slice, with its probability of each class.
        norm: in which the smallest eps is.
        smallest_eps: upper bound of the smallest change that makes it say something else, in units
            of the [0, 1] range; None where none was found.
        grey_levels: the same of 255, where the norm bounds each pixel by itself.
        nearest: what it says instead: the nearest wrong diagnosis.
        share_in_lesion: of the change's energy, where the lesion's outline is known.
        lesion_share: of the pixels that are in the lesion.
        more_fragile: share of a result's slices, right untouched and attacked in that norm, that
            are known to take a smaller change; None without a result.
        compared_with: how many slices these are.
        attacks: that were tried.
    """

    answer: str
    probabilities: dict[str, float]
    norm: str
    smallest_eps: float | None
    grey_levels: float | None
    nearest: str
    nearest_probabilities: dict[str, float]
    share_in_lesion: float | None = None
    lesion_share: float | None = None
    more_fragile: float | None = None
    compared_with: int = 0
    attacks: tuple[str, ...] = ()
