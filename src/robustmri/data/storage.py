"""Streaming slices into the arrays of a cohort: scale, resize, store, and say what was left out."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError
from robustmri.data import intensity as grey
from robustmri.data.cases import Case, group_of
from robustmri.data.parallel import map_in_order
from robustmri.data.readers.source import LeftOut, RawSlice, Source

IMAGES, MASKS = "images.npy", "masks.npy"
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class _Prepared:
    """A slice as it will be stored; `case` still lacks its row and class."""

    case: Case
    image: npt.NDArray[np.uint16]
    mask: npt.NDArray[np.bool_] | None


def store_slices(
    source: Source, folder: Path, size: int, intensity: str, progress: Progress | None
) -> tuple[list[Case], list[LeftOut]]:
    """Stream the slices into the two arrays, in the order of the source."""
    cases: list[Case] = []
    left_out: list[LeftOut] = []
    seen: dict[str, str] = {}
    total = len(source)
    has_mask = False
    width = (size + 7) // 8
    no_mask = np.zeros((size, width), dtype=np.uint8).tobytes()
    # Plain writes: on a full disk they raise, where a memory map would kill the process.
    with ExitStack() as stack:
        images, masks = (stack.enter_context(open(folder / name, "wb")) for name in (IMAGES, MASKS))
        for array in (images, masks):
            array.write(npy_header("<u2", (0,)))
        for done, item in enumerate(_prepared(source, size, intensity), start=1):
            if isinstance(item, _Prepared) and item.case.case_id in seen:
                item = LeftOut(
                    item.case.source,
                    f"case id {item.case.case_id!r} was already read from "
                    f"{seen[item.case.case_id]}",
                )
            if isinstance(item, LeftOut):
                left_out.append(item)
            else:
                seen[item.case.case_id] = item.case.source
                images.write(item.image.tobytes())
                masks.write(
                    no_mask if item.mask is None else np.packbits(item.mask, axis=1).tobytes()
                )
                has_mask = has_mask or item.mask is not None
                cases.append(replace(item.case, index=len(cases)))
            if progress:
                progress(done, max(done, total))
        for array, kind, last in ((images, "<u2", size), (masks, "|u1", width)):
            array.seek(0)
            array.write(npy_header(kind, (len(cases), size, last)))
    if not has_mask:
        (folder / MASKS).unlink()
    return cases, left_out


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Head of a .npy file, always 128 bytes, so that it can be filled in when the number of slices
    is known.
    """
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.ljust(117).encode() + b"\n"


def _prepared(source: Source, size: int, intensity: str) -> Iterator[_Prepared | LeftOut]:
    def one(item: RawSlice | LeftOut) -> _Prepared | LeftOut:
        if isinstance(item, LeftOut):
            return item
        try:
            return _prepare(item, size, intensity, source.patient_ids)
        except DataError as error:
            return LeftOut(item.source, str(error))

    return map_in_order(one, source.read())


def _prepare(item: RawSlice, size: int, intensity: str, patient_ids: bool) -> _Prepared:
    if not item.label:
        raise DataError("no label")
    if patient_ids and not item.patient_id:
        raise DataError("no patient id")
    image = grey.to_uint16(grey.resize(grey.scale(item.image, intensity), size))
    mask = None
    if item.mask is not None:
        if item.mask.shape != item.image.shape:
            raise DataError(
                f"the lesion mask has shape {item.mask.shape}, the image {item.image.shape}"
            )
        mask = grey.resize(item.mask, size) >= 0.5
    patient = item.patient_id or ""
    case = Case(
        index=-1,
        case_id=item.case_id,
        label=item.label,
        class_index=-1,
        patient_id=patient,
        group=group_of(patient),
        source=item.source,
        sha256=item.sha256,
        height=item.image.shape[0],
        width=item.image.shape[1],
        plane=item.plane,
        fold=item.fold,
        lesion_box=None if mask is None else _box(mask),
    )
    return _Prepared(case, image, mask)


def _box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
