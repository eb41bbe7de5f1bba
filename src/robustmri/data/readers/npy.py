"""Arrays that numpy wrote: sizes are checked before anything is read, and nothing is unpickled."""

from __future__ import annotations

import io
import math
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.limits import check_pixels
from robustmri.data.readers.source import Array

HEADER_LIMIT = 10_000


class Header(NamedTuple):
    """What an array says of itself before its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    columns_first: bool


def read_header(stream: BinaryIO) -> Header:
    """Head of a .npy file; the stream stands at the first value afterwards.

    Raises:
        DataError: not such a file, or an array of Python objects, which would run code.
    """
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            found = np.lib.format.read_array_header_1_0(stream, max_header_size=HEADER_LIMIT)
        elif version == (2, 0):
            found = np.lib.format.read_array_header_2_0(stream, max_header_size=HEADER_LIMIT)
        else:
            raise DataError(f"an array file of version {version}, expected 1.0 or 2.0")
    except DataError:
        raise
    except Exception as error:  # A head that is no head can raise anything.
        raise DataError(
            f"not an array that numpy wrote ({' '.join(str(error).split())})"
        ) from error
    shape, columns_first, dtype = found
    if dtype.hasobject:
        raise DataError("an array of Python objects, which could run code: save it as numbers")
    if dtype.kind not in "buifU" or (dtype.kind != "U" and dtype.itemsize > 16):
        raise DataError(f"an array of {dtype}, expected numbers")
    return Header(tuple(int(length) for length in shape), dtype, bool(columns_first))


def decode_npy(content: bytes) -> Array:
    """The image of a .npy file: grey, shape (h, w), or colours, shape (h, w, 3).

    Raises:
        DataError: not an image, or not all of it.
    """
    stream = io.BytesIO(content)
    header = read_header(stream)
    check_image(header)
    values = math.prod(header.shape)
    size = values * header.dtype.itemsize
    if len(content) - stream.tell() != size:
        raise DataError(
            f"{len(content) - stream.tell()} bytes of values where its shape {header.shape} needs "
            f"{size}"
        )
    flat = np.frombuffer(content, header.dtype, values, stream.tell())
    order: Literal["F", "C"] = "F" if header.columns_first else "C"
    return without_equal_planes(flat.reshape(header.shape, order=order))


def check_image(header: Header) -> None:
    """Refuse what is no image of numbers, or one that is too large.

    Raises:
        DataError: its shape or kind.
    """
    shape = header.shape
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    if header.dtype.kind == "U" or not is_image:
        raise DataError(
            f"an array of shape {shape} and kind {header.dtype}, expected one grey image (height, "
            "width), or (height, width, 3) in colour"
        )
    check_pixels(shape[0], shape[1])


def without_equal_planes(image: Array) -> Array:
    """Grey values of an image of one channel, or of three that are the same; colours as they are.

    >>> without_equal_planes(np.ones((2, 2, 3))).shape
    (2, 2)
    """
    if image.ndim == 3 and (image.shape[2] == 1 or (image == image[:, :, :1]).all()):
        return image[:, :, 0]
    return image
