"""Grey values: the one place where a slice of any depth becomes numbers in [0, 1], and where it is
resized.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError, SettingsError, did_you_mean

Array = npt.NDArray[Any]
RULES = {
    "minmax": "each slice: its darkest pixel is 0, its brightest 1",
    "percentile": (
        "each slice: its 0.5th percentile is 0, its 99.5th is 1, values beyond are clipped"
    ),
}


def scale(image: Array, rule: str = "minmax") -> npt.NDArray[np.float32]:
    """Grey values of one slice mapped to [0, 1].

    Args:
        image: 2-D array of native depth (8, 12, 16 bit or floating point).
        rule: a key of `RULES`.

    Raises:
        DataError: not a 2-D image of real numbers, NaN or infinite pixels, or no contrast.

    >>> scale(np.array([[100, 4195]], dtype=np.int16))
    array([[0., 1.]], dtype=float32)
    """
    check_rule(rule)
    if image.ndim != 2 or image.size == 0:
        raise DataError(f"expected a 2-D grey image, got shape {image.shape}")
    if image.dtype.kind not in "buif":
        raise DataError(f"expected grey values that are real numbers, got {image.dtype}")
    if image.dtype.kind == "f":
        bad = int(image.size - np.isfinite(image).sum())
        if bad:
            raise DataError(f"{bad} of {image.size} pixels are NaN or infinite")
    low: Any = image.min()
    high: Any = image.max()
    if low == high:
        raise DataError(f"constant image: every pixel is {low}")
    if not np.isfinite(float(high) - float(low)):
        raise DataError(f"grey values from {low} to {high} are too far apart for floating point")
    # float32 holds 16-bit integers exactly; anything deeper needs float64 until it is scaled.
    exact: Array = image.astype(np.float32 if image.dtype.itemsize <= 2 else np.float64)
    if rule == "percentile":
        low, high = np.percentile(exact, (0.5, 99.5)).astype(exact.dtype)
        if low == high:
            raise DataError(
                f"no contrast: 99 % of the pixels are {low}; the rule 'minmax' would keep this "
                "slice"
            )
        exact = np.clip(exact, low, high)
    dark, bright = exact.dtype.type(low), exact.dtype.type(high)
    if not dark < bright:
        raise DataError(f"grey values from {low} to {high} cannot be told apart in floating point")
    scaled: npt.NDArray[np.float32] = ((exact - dark) / (bright - dark)).astype(np.float32)
    return scaled


def check_rule(rule: str) -> None:
    """Raise `SettingsError` for a rule that does not exist."""
    if rule not in RULES:
        raise SettingsError(f"intensity {rule!r} is not a rule. {did_you_mean(rule, RULES)}")


def resize(image: Array, size: int) -> npt.NDArray[np.float32]:
    """Area average (exact box filter) of an image, first padded with background (0) to a centred
    square.

    Args:
        image: 2-D array; a mask gives the covered share of each new pixel (at least 0.5 counts as
            inside).
        size: height and width of the result in pixels.

    >>> resize(np.array([[0.0, 1.0], [1.0, 1.0]]), 1)
    array([[0.75]], dtype=float32)
    """
    height, width = image.shape
    side = max(height, width)
    square = np.asarray(image, dtype=np.float32)
    if height != width:
        top, left = (side - height) // 2, (side - width) // 2
        square = np.pad(square, ((top, side - height - top), (left, side - width - left)))
    return square if side == size else _average_rows(_average_rows(square, size).T, size).T


def _average_rows(image: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    rows, weights = _overlaps(image.shape[0], size)
    average: npt.NDArray[np.float32] = image[rows[0]] * weights[0]
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        average += image[row] * weight
    return average


@lru_cache(maxsize=32)
def _overlaps(before: int, after: int) -> tuple[Array, Array]:
    """For each new pixel the old ones under it, (k, after), and the share of each, (k, after,
    1).
    """
    edges = np.arange(after + 1) * before / after
    first = np.floor(edges[:-1]).astype(int)
    rows = first + np.arange(int(np.ceil(before / after)) + 1)[:, None]
    share = np.minimum(rows + 1, edges[1:]) - np.maximum(rows, edges[:-1])
    weights = np.clip(share, 0.0, None) * after / before
    return np.minimum(rows, before - 1), weights[:, :, None].astype(np.float32)


def to_uint16(image: Array) -> npt.NDArray[np.uint16]:
    """Grey values in [0, 1] as 0..65535, rounded to the nearest; one step is 1/257 of an 8-bit grey
    level.
    """
    return np.rint(np.asarray(image, dtype=np.float64) * 65535).astype(np.uint16)
