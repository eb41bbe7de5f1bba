"""From the bytes of an image file to grey values, from an outline to a mask."""

from __future__ import annotations

import io

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.readers.source import Array

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")


def decode_image(content: bytes) -> Array:
    """Grey values of an image file, of its own depth: 8-bit, 16-bit and floating point stay what
    they are.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
            return np.asarray(image if deep else image.convert("L"))
    except UnidentifiedImageError as error:  # Its own words name a buffer in memory.
        raise DataError(f"not an image: {len(content)} bytes of no known format") from error


def rasterise(outline: Array, shape: tuple[int, int]) -> Array:
    """Mask of a polygon, its border included.

    Args:
        outline: corners, shape (n, 2), x before y, in pixels.
        shape: height and width of the mask.
    """
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (shape[1], shape[0]), 0)
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in outline], fill=1)
    return np.asarray(canvas).astype(bool)
