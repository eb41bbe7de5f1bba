"""How large a slice may be: a small file can claim sizes that no memory holds."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from robustmri.core.errors import DataError, SettingsError

MAX_PIXELS = "ROBUSTMRI_MAX_PIXELS"
DEFAULT_PIXELS = 8192 * 8192
LARGE = 2048 * 2048
_one_at_a_time = threading.Lock()


def max_pixels() -> int:
    """Pixels that a slice may have once it is padded to a square: 8192 x 8192, or
    $ROBUSTMRI_MAX_PIXELS.

    Raises:
        SettingsError: the variable is not a whole number of at least 1.
    """
    text = os.environ.get(MAX_PIXELS, "").strip()
    if not text:
        return DEFAULT_PIXELS
    if not (text.isascii() and text.isdecimal() and len(text) <= 18 and int(text)):
        raise SettingsError(
            f"{MAX_PIXELS} must be a whole number of pixels of at least 1, got {text!r}."
        )
    return int(text)


def max_bytes() -> int:
    """Bytes that the file of a slice may have: 16 for each pixel that a slice may have."""
    return max(1 << 16, 16 * max_pixels())


def check_pixels(height: int, width: int) -> None:
    """Refuse a size before memory is asked for.

    Args:
        height: of the slice in pixels, as its file claims; likewise `width`.

    Raises:
        DataError: padded to a square, it has more pixels than `max_pixels`.
    """
    side = max(height, width)
    if side * side > max_pixels():
        raise DataError(
            f"it claims {width} x {height} pixels, {side * side} once it is padded to a square; "
            f"{how_to_raise(max_pixels(), 'pixels')}"
        )


def check_bytes(size: int) -> None:
    """Refuse a file, or data in it, by the size in bytes that it claims.

    Raises:
        DataError: more than `max_bytes`.
    """
    if size > max_bytes():
        raise DataError(f"it claims {size} bytes; {how_to_raise(max_bytes(), 'bytes')}")


def how_to_raise(limit: int, unit: str) -> str:
    """End of a sentence about a limit: what it is, and how to read the file all the same."""
    return f"the limit is {limit} {unit}; if that is too low, set {MAX_PIXELS} higher"


@contextmanager
def large_ones_alone(pixels: int) -> Iterator[None]:
    """Let threads work on small slices together, and on large ones one at a time: the memory of one
    is enough.
    """
    if pixels <= LARGE:
        yield
        return
    with _one_at_a_time:
        yield
