"""Numbers in files of MATLAB 5, and nothing else.

scipy reads these files too, and is killed by some that are damaged.

Reference: The MathWorks, MAT-File Format, level 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.limits import how_to_raise, max_bytes, max_pixels
from robustmri.data.readers.source import Array

MATLAB5 = b"MATLAB 5.0 MAT-file"
HEAD = 128
MATRIX, COMPRESSED = 14, 15
NUMERIC = range(6, 16)  # Classes of arrays: double, single, and whole numbers of 8 to 64 bits.
COMPLEX = 0x800
# Types of values, as numpy names them.
KINDS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}


def read_matlab5(content: bytes, preferred: str) -> Array:
    """Numbers of one variable: of the preferred name, or else the first.

    Raises:
        DataError: not such a file, no variable with numbers, or a size beyond the limits.
    """
    if not content.startswith(MATLAB5) or len(content) < HEAD:
        raise DataError("cannot be read: it is neither a MATLAB 5 nor a MATLAB v7.3 file")
    order = ">" if content[126:128] == b"MI" else "<"
    found: dict[str, Array] = {}
    for kind, body in _elements(content[HEAD:], order):
        inside = _elements(expand(body, "a variable"), order) if kind == COMPRESSED else None
        for inner, matrix in inside or [(kind, body)]:
            if inner == MATRIX:
                found |= _read_matrix(matrix, order)
        if preferred in found:
            return found[preferred]
    if not found:
        raise DataError("it has no numbers in it")
    return next(iter(found.values()))


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each part."""
    start = 0
    while start + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, start)
        if kind >> 16:  # A small one lies in its own tag.
            kind, size, begin, step = kind & 0xFFFF, kind >> 16, start + 4, 8
        else:
            begin = start + 8
            # Only what is compressed is not filled up to eight bytes.
            step = 8 + (size if kind == COMPRESSED else -(-size // 8) * 8)
        body = content[begin : begin + size]
        if len(body) < size:
            raise DataError("cannot be read: it is a MATLAB 5 file that is cut off or damaged")
        yield kind, body
        start += step


def _read_matrix(content: bytes, order: str) -> dict[str, Array]:
    """Name and values of a variable; nothing for one that is not of real numbers."""
    parts = [part for part, _ in zip(_elements(content, order), range(4), strict=False)]
    if len(parts) < 4 or len(parts[0][1]) != 8 or len(parts[1][1]) % 4:
        return {}
    flags = struct.unpack(f"{order}II", parts[0][1])[0]
    shape = struct.unpack(f"{order}{len(parts[1][1]) // 4}i", parts[1][1])
    kind, values = parts[3]
    if flags & 0xFF not in NUMERIC or flags & COMPLEX or kind not in KINDS:
        return {}
    name = parts[2][1].decode("ascii", "backslashreplace")
    dtype = np.dtype(order + KINDS[kind])
    if min(shape, default=-1) < 0 or math.prod(shape) * dtype.itemsize != len(values):
        raise DataError(f"cannot be read: the size of {name!r} is not that of its values")
    check_size(name, math.prod(shape), dtype.itemsize)
    return {name: np.frombuffer(values, dtype).reshape(shape, order="F")}


def check_size(name: str, count: int, itemsize: int) -> None:
    """Refuse an array by the number of values that it claims.

    Raises:
        DataError: more than a slice may have.
    """
    if count > max_pixels() or count * itemsize > max_bytes():
        raise DataError(
            f"{name!r} claims {count} values; {how_to_raise(max_pixels(), 'pixels a slice')}"
        )


def expand(packed: bytes, name: str) -> bytes:
    """A stream of zlib, expanded no further than a slice may be large.

    Raises:
        DataError: damaged, or larger.
    """
    try:
        content = zlib.decompressobj().decompress(packed, max_bytes() + 1)
    except zlib.error as error:
        raise DataError(f"cannot be read: {name!r} is damaged ({error})") from error
    if len(content) > max_bytes():
        raise DataError(
            f"{name!r} expands to more than the limit: {how_to_raise(max_bytes(), 'bytes')}"
        )
    return content
