"""Height and width of images: one number for squares, a pair for others."""

from __future__ import annotations

import re
from typing import Any

from robustmri.core.errors import SettingsError

Size = int | tuple[int, int]
"""Height and width in pixels; a number stands for both."""
SMALLEST, LARGEST = 8, 4096


def sides(size: Size) -> tuple[int, int]:
    """Height and width.

    >>> sides(224), sides((192, 256))
    ((224, 224), (192, 256))
    """
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def size_of(height: int, width: int) -> Size:
    """The size with these sides, a number where they are equal.

    >>> size_of(224, 224), size_of(192, 256)
    (224, (192, 256))
    """
    return height if height == width else (height, width)


def parse_size(said: Any, *, at_most: int = LARGEST) -> Size:
    """A size as a person writes it: 224, "224", "192x256" (height before width) or (192, 256).

    Raises:
        SettingsError: none of these, or a side out of bounds.

    >>> parse_size("224"), parse_size("192x256"), parse_size([96, 96])
    (224, (192, 256), 96)
    >>> parse_size("0x5")
    Traceback (most recent call last):
        ...
    robustmri.core.errors.SettingsError: size must have sides of 8 to 4096 pixels, got '0x5'.
    """
    parts: Any = said
    if isinstance(said, str):
        found = re.fullmatch(r"\s*([+-]?\d{1,9})(?:\s*[xX\u00d7]\s*([+-]?\d{1,9}))?\s*", said)
        parts = [int(part) for part in found.groups() if part is not None] if found else ()
    elif not isinstance(said, (tuple, list)):
        parts = (said,)
    if len(parts) not in (1, 2) or any(type(part) is not int for part in parts):
        raise SettingsError(
            f"size must be a number of pixels such as 224, or HEIGHTxWIDTH such as 192x256, got "
            f"{_short(said)}."
        )
    if not all(SMALLEST <= part <= at_most for part in parts):
        raise SettingsError(
            f"size must have sides of {SMALLEST} to {at_most} pixels, got {_short(said)}."
        )
    return size_of(parts[0], parts[-1])


def _short(said: Any) -> str:
    text = repr(said)
    return text if len(text) <= 40 else f"{text[:30]}..."


def size_option(size: Size) -> str:
    """As it is given on the command line.

    >>> size_option(224), size_option((192, 256))
    ('224', '192x256')
    """
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def size_words(size: Size) -> str:
    """In words, height before width.

    >>> size_words(224), size_words((192, 256))
    ('224 px', '192 x 256 px')
    """
    return f"{size} px" if isinstance(size, int) else f"{size[0]} x {size[1]} px"
