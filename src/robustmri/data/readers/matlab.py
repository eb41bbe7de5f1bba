"""Numbers in MATLAB files, and nothing else: no other file, whatever a link or a dataset points
to, and no more memory than a slice needs, whatever a size claims.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.limits import max_bytes
from robustmri.data.readers.matlab5 import MATLAB5, check_size, expand, read_matlab5
from robustmri.data.readers.source import Array

HDF5 = b"\x89HDF\r\n\x1a\n"  # At 0, 512, 1024 or 2048, behind a block of MATLAB's own.
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3  # Filters of HDF5 that MATLAB uses.
MOST_EXPANSION = 1032  # Of a stream of zlib.


@dataclass(frozen=True)
class Field:
    """Values of a variable, rows first, and the class that MATLAB says they have ("" if none)."""

    values: Array
    matlab_class: str


def is_hdf5(content: bytes) -> bool:
    """Whether a file is of MATLAB v7.3, which is HDF5."""
    return any(content.startswith(HDF5, start) for start in (0, 512, 1024, 2048))


def has_variable(content: bytes, name: str) -> bool:
    """Whether a v7.3 file has a variable of that name."""
    with _open(content) as file:
        return bool(file.id.links.exists(name.encode()))


def read_struct(content: bytes, variable: str, names: Iterable[str]) -> dict[str, Field]:
    """Fields of a struct of numbers and text in a v7.3 file, those of `names` that it has.

    Raises:
        DataError: no such struct; a field that lies elsewhere, is none of numbers, or is too large.
    """
    import h5py

    with _open(content) as file:
        if not file.id.links.exists(variable.encode()):
            raise DataError(f"it has no struct {variable!r}")
        _check_link(file.id, variable)
        group = h5py.h5g.open(file.id, variable.encode())
        there = _check_links(group)
        return {name: _read_dataset(group, name) for name in names if name in there}


def read_numbers(content: bytes, preferred: str) -> Array:
    """Numbers of one variable of a file of MATLAB 5 or v7.3: of the preferred name, or else the
    first.

    Raises:
        DataError: no variable with numbers, or a size beyond the limits.
    """
    if not is_hdf5(content):
        return read_matlab5(content, preferred)
    import h5py

    with _open(content) as file:
        names = _check_links(file.id)
        for name in [preferred] if preferred in names else names:
            if h5py.h5o.get_info(file.id, name.encode()).type == h5py.h5o.TYPE_DATASET:
                return _read_dataset(file.id, name).values
    raise DataError("it has no numbers in it")


def _open(content: bytes) -> Any:
    import h5py

    if content.startswith(MATLAB5):
        raise DataError(
            "it is a MATLAB 5 file: save it again in MATLAB, by save(..., '-v7.3'), to have it read"
        )
    if not is_hdf5(content):
        raise DataError("cannot be read: it is not a MATLAB v7.3 file")
    try:
        return h5py.File(h5py.h5f.open_file_image(content))
    except (ValueError, OSError, RuntimeError) as error:
        raise DataError("cannot be read: it is a MATLAB v7.3 file that is damaged") from error


def _check_link(group: Any, name: str) -> None:
    import h5py

    if group.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise DataError(f"{name!r} is a link, and may lead to another file: it is not followed")


def _check_links(group: Any) -> list[str]:
    """Names in a group, none of which is a link to elsewhere."""
    found: list[bytes] = []
    group.links.iterate(found.append)
    names = [name.decode(errors="backslashreplace") for name in found]
    for name in names:
        _check_link(group, name)
    return names


def _read_dataset(group: Any, name: str) -> Field:
    """A dataset that lies in its file, its links already checked.

    The order matters: to ask a virtual dataset for its size opens the files that it is made of.
    """
    import h5py

    try:
        found = h5py.h5d.open(group, name.encode())
    except (KeyError, ValueError) as error:
        raise DataError(f"{name!r} is not an array") from error
    how = found.get_create_plist()
    inside = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
    if how.get_layout() not in inside or how.get_external_count():
        raise DataError(f"the data of {name!r} lie in another file, which is not opened")
    dtype = found.dtype
    if dtype.kind not in "buif":
        raise DataError(f"{name!r} holds {_in_words(dtype)}, not numbers")
    if "MATLAB_empty" in (attributes := h5py.Dataset(found).attrs):
        return Field(np.zeros((0, 0)), "")  # MATLAB stores an empty array as its shape.
    check_size(name, math.prod(found.shape), dtype.itemsize)
    if how.get_layout() == h5py.h5d.CHUNKED:
        _check_chunks(found, how, name)
    return Field(np.asarray(h5py.Dataset(found)[()]).T, _class_of(attributes))


def _in_words(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "O":
        return "references or texts of any length"
    return "complex numbers" if dtype.kind == "c" or dtype.names else f"values of type {dtype}"


def _check_chunks(found: Any, how: Any, name: str) -> None:
    """Refuse pieces that would grow beyond all limits when they are expanded."""
    check_size(name, math.prod(how.get_chunk()), found.dtype.itemsize)
    filters = [how.get_filter(number)[0] for number in range(how.get_nfilters())]
    if filters not in _CHAINS:
        raise DataError(f"{name!r} is compressed in a way that MATLAB does not use")
    if DEFLATE not in filters or found.get_storage_size() * MOST_EXPANSION <= max_bytes():
        return
    for number in range(found.get_num_chunks()):
        piece = found.get_chunk_info(number)
        if piece.size * MOST_EXPANSION > max_bytes():
            expand(found.read_direct_chunk(piece.chunk_offset)[1], name)


_CHAINS = [
    [*shuffle, *deflate, *check]
    for shuffle in ([], [SHUFFLE])
    for deflate in ([], [DEFLATE])
    for check in ([], [FLETCHER32])
]


def _class_of(attributes: Any) -> str:
    if "MATLAB_class" not in attributes:
        return ""
    attribute = attributes.get_id("MATLAB_class")
    if attribute.dtype.kind != "S" or attribute.shape != () or attribute.dtype.itemsize > 64:
        return ""
    return bytes(attributes["MATLAB_class"]).decode("ascii", "replace")
