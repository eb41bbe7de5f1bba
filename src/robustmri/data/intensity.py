"""Grey values and colours: the one place where a slice of any depth becomes numbers in [0, 1], and
where it is resized.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError, SettingsError, did_you_mean
from robustmri.core.sizes import Size, sides

Array = npt.NDArray[Any]
RULES = {
    "minmax": "each slice: its darkest pixel is 0, its brightest 1",
    "percentile": (
        "each slice: its 0.5th percentile is 0, its 99.5th is 1, values beyond are clipped"
    ),
    "full": (
        "every slice alike: 0 to 255 of 8 bit, 0 to 65535 of 16 bit, or 0 to 1 of floating point"
    ),
}
AUTO = "auto"
"""In place of a rule: that of the cohort's channels."""
USUAL = {1: "minmax", 3: "full"}
"""Channels to rule: an MRI scanner's units are arbitrary, a camera's are not."""
LUMA = (0.299, 0.587, 0.114)
"""ITU-R 601."""


def rule_for(channels: int, rule: str = AUTO) -> str:
    """The rule for slices of so many channels.

    Raises:
        SettingsError: there is no such rule, or it would change hues.

    >>> rule_for(3), rule_for(1, "percentile")
    ('full', 'percentile')
    """
    if rule == AUTO:
        return USUAL[channels]
    check_rule(rule)
    if channels == 3 and rule == "percentile":
        raise SettingsError(
            "intensity 'percentile' clips each channel by itself, which changes hues. For colour "
            "take 'full', or 'minmax' (one window for the three channels)."
        )
    return rule


def scale(image: Array, rule: str = "minmax") -> npt.NDArray[np.float32]:
    """Values of one slice mapped to [0, 1]; three channels by the same line, which keeps hues.

    Args:
        image: array of native depth (8, 12, 16 bit or floating point), shape (h, w), or (h, w, 3)
            in colour.
        rule: a key of `RULES`.

    Raises:
        DataError: not an image of real numbers, NaN or infinite pixels, no contrast, or a kind of
            number that has no full range.
        SettingsError: see `rule_for`.

    >>> scale(np.array([[100, 4195]], dtype=np.int16))
    array([[0., 1.]], dtype=float32)
    """
    rule = rule_for(image.shape[2] if is_colour(image) else 1, rule)
    if (image.ndim != 2 and not is_colour(image)) or image.size == 0:
        raise DataError(
            f"expected a 2-D grey image, or three channels of colour, got shape {image.shape}"
        )
    if image.dtype.kind not in "buif":
        raise DataError(f"expected grey values that are real numbers, got {image.dtype}")
    if image.dtype.kind == "f":
        bad = int(image.size - np.isfinite(image).sum())
        if bad:
            raise DataError(f"{bad} of {image.size} pixels are NaN or infinite")
    low: Any = image.min()
    high: Any = image.max()
    if (image == image[:1, :1]).all():
        raise DataError(f"constant image: every pixel is {image[0, 0]}")
    if rule == "full":
        low, high = _full_range(image, low, high)
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


def _full_range(image: Array, low: Any, high: Any) -> tuple[Any, Any]:
    """Least and largest value of the image's kind of number."""
    kind = image.dtype
    if kind.kind == "b" or kind.newbyteorder("=") in (np.uint8, np.uint16):
        return kind.type(0), kind.type(1 if kind.kind == "b" else np.iinfo(kind).max)
    if kind.kind == "f" and low >= 0 and high <= 1:
        return kind.type(0), kind.type(1)
    raise DataError(
        f"values of {kind} from {low} to {high} have no full range (0 to 255 of 8 bit, 0 to 65535 "
        "of 16 bit, 0 to 1 of floating point); the rule 'minmax' takes their own"
    )


def is_colour(image: Array) -> bool:
    """Whether an array is an image of three channels.

    >>> is_colour(np.zeros((4, 4, 3))), is_colour(np.zeros((4, 4)))
    (True, False)
    """
    return image.ndim == 3 and image.shape[2] == 3


def to_grey(image: Array) -> Array:
    """Brightness of a colour image as Pillow weighs it; a grey image as it is.

    >>> to_grey(np.array([[[255, 0, 0]]], dtype=np.uint8))
    array([[76]], dtype=uint8)
    """
    if not is_colour(image):
        return image
    if image.dtype == np.uint8:  # Pillow's own whole numbers.
        weighed = image.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32)
        return ((weighed + 0x8000) >> 16).astype(np.uint8)
    grey: Array = image.astype(np.float64) @ np.array(LUMA)
    return np.rint(grey).astype(image.dtype) if image.dtype.kind in "ui" else grey


def to_channels(image: Array, channels: int) -> Array:
    """The image with so many channels: colours made grey, or grey repeated; shape (h, w) or (h, w,
    3).
    """
    if channels == 1:
        return to_grey(image)
    return image if is_colour(image) else np.repeat(image[:, :, None], 3, axis=2)


def resize(image: Array, size: Size, *, pad: bool = True) -> npt.NDArray[np.float32]:
    """Area average (exact box filter) of an image, first padded with background (0), which keeps
    its aspect ratio.

    Args:
        image: shape (h, w) or (h, w, 3); a mask gives the covered share of each new pixel (at least
            0.5 counts as inside).
        size: of the result.
        pad: else it is stretched.

    >>> resize(np.array([[0.0, 1.0], [1.0, 1.0]]), 1)
    array([[0.75]], dtype=float32)
    """
    if is_colour(image):
        return np.stack([resize(plane, size, pad=pad) for plane in np.moveaxis(image, 2, 0)], 2)
    height, width = image.shape
    padded = np.asarray(image, dtype=np.float32)
    full = canvas_of((height, width), size) if pad else (height, width)
    if full != (height, width):
        top, left = (full[0] - height) // 2, (full[1] - width) // 2
        padded = np.pad(padded, ((top, full[0] - height - top), (left, full[1] - width - left)))
    rows, columns = sides(size)
    padded = padded if full[0] == rows else _average_rows(padded, rows)
    return padded if full[1] == columns else _average_rows(padded.T, columns).T


def canvas_of(shape: tuple[int, int], size: Size) -> tuple[int, int]:
    """Height and width of the smallest canvas of a size's aspect ratio that holds an image.

    >>> canvas_of((60, 80), 32), canvas_of((60, 80), (32, 64))
    ((80, 80), (60, 120))
    """
    (height, width), (rows, columns) = shape, sides(size)
    if height * columns >= width * rows:
        return height, max(width, round(height * columns / rows))
    return max(height, round(width * rows / columns)), width


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
    """Values in [0, 1] as 0..65535, rounded to the nearest; one step is 1/257 of an 8-bit grey
    level.
    """
    return np.rint(np.asarray(image, dtype=np.float64) * 65535).astype(np.uint16)
