"""Streaming slices into the arrays of a cohort: scale, resize, store, and say what was left out."""

from __future__ import annotations

import hashlib
import struct
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError
from robustmri.core.sizes import Size, sides
from robustmri.data import intensity as grey
from robustmri.data.cases import Case, group_of
from robustmri.data.limits import check_pixels, large_ones_alone
from robustmri.data.parallel import map_in_order
from robustmri.data.readers.source import (
    LeftOut,
    RawSlice,
    Source,
    is_missing,
    readable_name,
    stop_on,
    weigh,
)
from robustmri.data.register import Register

IMAGES, MASKS = "images.npy", "masks.npy"
MADE_GREY = "has colours, which become grey"
MADE_COLOUR = "is grey, and is repeated in three channels"
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Form:
    """What every slice of a cohort becomes.

    Attributes:
        size: of the stored slices.
        channels: 1 (grey) or 3 (colour).
        intensity: rule that maps values to [0, 1], a key of `robustmri.data.intensity.RULES`.
        pad: whether slices of another aspect ratio are padded; else they are stretched.
        scaled: whether the slices that come were mapped by the rule before, to 16 bits.
    """

    size: Size
    channels: int
    intensity: str
    pad: bool = True
    scaled: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a stored slice: (h, w), or (h, w, 3) in colour."""
        return (*sides(self.size), 3) if self.channels == 3 else sides(self.size)

    def apply(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """A slice as it came, in [0, 1] and of this form."""
        wanted = grey.to_channels(image, self.channels)
        rule = "full" if self.scaled else self.intensity
        return grey.resize(grey.scale(wanted, rule), self.size, pad=self.pad)


@dataclass(frozen=True)
class _Prepared:
    """A slice as it will be stored; `case` still lacks its row and class, `pixels` is the hash of
    the slice as it came.
    """

    case: Case
    image: npt.NDArray[np.uint16]
    mask: npt.NDArray[np.bool_] | None
    pixels: str
    notes: tuple[str, ...]


@dataclass
class Stored:
    """What was stored, what was not, and what is to be told of the whole.

    Attributes:
        cases: in the order of the arrays; their class is not known yet.
        left_out: files that did not become a case.
        notes: sentences.
    """

    cases: list[Case]
    left_out: list[LeftOut]
    notes: list[str]


def store_slices(
    source: Source,
    items: Iterable[RawSlice | LeftOut],
    folder: Path,
    form: Form,
    progress: Progress | None,
) -> Stored:
    """Stream the slices of a source into the two arrays, in their order.

    Args:
        source: of the slices.
        items: what it has read.
        folder: of the arrays.
        form: that they get.
        progress: called with (files done, files in all).

    Raises:
        DataError: two labels that differ by case or spelling only.
        RobustMRIError: the system failed at a file.
    """
    stored = Stored([], [], [])
    register = Register()
    total = len(source)
    has_mask = False
    rows, columns = sides(form.size)
    packed = (rows, (columns + 7) // 8)
    no_mask = np.zeros(packed, dtype=np.uint8).tobytes()
    # Plain writes: on a full disk they raise, where a memory map would kill the process.
    with ExitStack() as stack:
        images, masks = (stack.enter_context(open(folder / name, "wb")) for name in (IMAGES, MASKS))
        for array in (images, masks):
            array.write(npy_header("<u2", (0,)))
        for done, item in enumerate(_prepared(source, items, form), start=1):
            if isinstance(item, _Prepared):
                item = register.admit(item.case, item.pixels, item.notes) or item
            if isinstance(item, LeftOut):
                left = LeftOut(readable_name(item.source), readable_name(item.reason))
                stored.left_out.append(left)
            else:
                images.write(item.image.tobytes())
                masks.write(
                    no_mask if item.mask is None else np.packbits(item.mask, axis=1).tobytes()
                )
                has_mask = has_mask or item.mask is not None
                stored.cases.append(replace(item.case, index=len(stored.cases)))
            if progress:
                progress(done, max(done, total))
        for array, kind, shape in ((images, "<u2", form.shape), (masks, "|u1", packed)):
            array.seek(0)
            array.write(npy_header(kind, (len(stored.cases), *shape)))
    if not has_mask:
        (folder / MASKS).unlink()
    stored.notes = register.notes()
    return stored


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Head of a .npy file, always 128 bytes, so that it can be filled in when the number of slices
    is known.
    """
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.ljust(117).encode() + b"\n"


def _prepared(
    source: Source, items: Iterable[RawSlice | LeftOut], form: Form
) -> Iterator[_Prepared | LeftOut]:
    def one(item: RawSlice | LeftOut) -> _Prepared | LeftOut:
        if isinstance(item, LeftOut):
            return item
        try:
            with large_ones_alone(item.image.size):
                return _prepare(item, form, source.patient_ids)
        except DataError as error:
            return LeftOut(item.source, str(error))
        except MemoryError as error:
            raise stop_on(error, item.source) from error

    return map_in_order(one, items, weigh=weigh)


def _prepare(item: RawSlice, form: Form, patient_ids: bool) -> _Prepared:
    _require(item.label, "label")
    if patient_ids:
        _require(item.patient_id, "patient id")
    for text in (item.case_id, item.label, item.patient_id or "", item.source):
        if text != readable_name(text):
            raise DataError(f"{readable_name(text)!r} has characters that cannot be printed")
    if item.image.ndim >= 2:
        check_pixels(*item.image.shape[:2])
    image = np.ascontiguousarray(grey.to_uint16(form.apply(item.image)))
    mask = None
    if item.mask is not None:
        if item.mask.shape != item.image.shape[:2]:
            raise DataError(
                f"the lesion mask has shape {item.mask.shape}, the image {item.image.shape[:2]}"
            )
        mask = grey.resize(item.mask, form.size, pad=form.pad) >= 0.5
    notes = item.notes
    if grey.is_colour(item.image) != (form.channels == 3):
        notes = (*notes, MADE_GREY if form.channels == 1 else MADE_COLOUR)
    # A letter and its accent may be written as one: a class or a patient is not two for that.
    case_id, label, patient = (
        unicodedata.normalize("NFC", text or "")
        for text in (item.case_id, item.label, item.patient_id)
    )
    height, width = item.before or item.image.shape[:2]
    case = Case(
        index=-1,
        case_id=case_id,
        label=label,
        class_index=-1,
        patient_id=patient,
        group=group_of(patient),
        source=item.source,
        sha256=item.sha256,
        height=height,
        width=width,
        plane=item.plane,
        fold=item.fold,
        lesion_box=None if mask is None else _box(mask),
    )
    pixels = hashlib.sha256(np.ascontiguousarray(item.image).data).hexdigest()
    return _Prepared(case, image, mask, pixels, notes)


def _require(text: str | None, what: str) -> None:
    if is_missing(text):
        raise DataError(f"no {what}" + (f" ({text!r} means that there is none)" if text else ""))


def _box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
