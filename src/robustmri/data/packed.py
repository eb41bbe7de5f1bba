"""A cohort in one small file, to be carried where there is no network, and the same cohort unpacked
from it.

Values are brought to 8 bit; if that is not small enough, to every second or third or ... grey
level, so that no pixel is off by more than a stated number of the 255 levels. The pixels differ
from those of the cohort that was packed, so the packed one is a cohort of its own, with a
fingerprint of its own; cases and split are the same.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError
from robustmri.core.files import (
    atomic_file,
    atomic_folder,
    decode_json,
    read_json,
    system_error,
    write_json,
)
from robustmri.core.sizes import sides
from robustmri.core.zips import SAME_TIME, deflate, open_zip
from robustmri.data.cohort import CASES, HEAD, SPLIT, Cohort, CohortHead, fingerprint_of
from robustmri.data.parallel import map_in_order
from robustmri.data.split import Split
from robustmri.data.storage import IMAGES, MASKS, npy_header

FINEST = 255
LARGEST_ERROR = 8
"""Grey levels of 255; beyond it slices look like posters."""
MOST_BYTES = 64 << 30
"""Of a cohort once it is unpacked: 690 000 slices of 224 px."""


@dataclass(frozen=True)
class Packed:
    """What packing did.

    Attributes:
        bytes: of the file.
        grey_error: no pixel is off by more of the 255 grey levels, beside the rounding to 8 bit.
        mean_error: by how much it is off on average, rounding included, in the same units.
    """

    bytes: int
    grey_error: int
    mean_error: float

    @property
    def sentence(self) -> str:
        """For the packed cohort's notes.

        >>> print(Packed(bytes=1, grey_error=0, mean_error=0.25).sentence)
        Packed at 8 bit without further loss: pixels are off by 0.25 of 255 grey levels on average,
        at most by 0.5.
        """
        loss = (
            f"every {_step(self.grey_error)} grey levels as one"
            if self.grey_error
            else "without further loss"
        )
        return (
            f"Packed at 8 bit {loss}: pixels are off by {self.mean_error:.2f} of 255 grey levels "
            f"on average, at most by {self.grey_error + 0.5:g}."
        )


class _Loss(msgspec.Struct, frozen=True):
    grey_error: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_ERROR)]


class _PackedHead(CohortHead, frozen=True, kw_only=True):
    """The cohort's, and what was lost."""

    packed: _Loss


def pack_cohort(cohort: Cohort, file: str | Path, *, grey_error: int = 0) -> Packed:
    """Write a cohort, with its split, into one zip of PNG slices.

    Args:
        cohort: what to pack.
        file: where to.
        grey_error: by how many of the 255 grey levels a pixel may be off; 0: 8 bit, lossless.

    Raises:
        DataError: an error that no slice should have.
    """
    if not 0 <= grey_error <= LARGEST_ERROR:
        raise DataError(
            f"grey_error must be 0 to {LARGEST_ERROR} of 255 grey levels, got {grey_error}."
        )
    digest = sha256(npy_header("<u2", cohort.images.shape))
    off = 0.0
    with atomic_file(file) as partial:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as bag:
            rows = range(len(cohort))
            for row, (png, restored, error) in enumerate(
                map_in_order(lambda row: _reduce(cohort.images[row], grey_error), rows)
            ):
                bag.writestr(zipfile.ZipInfo(_member(row), SAME_TIME), png)
                digest.update(restored.tobytes())
                off += error / len(cohort)
            packed = Packed(bytes=0, grey_error=grey_error, mean_error=round(off, 3))
            head = _new_head(cohort, digest.hexdigest(), packed)
            split = replace(Split.load(cohort.root), cohort_fingerprint=head["fingerprint"])
            stored = asdict(split) | {"fingerprint": split.fingerprint}
            for name, content in (
                (HEAD, json.dumps(head)),
                (SPLIT, json.dumps(stored)),
                (CASES, (cohort.root / CASES).read_bytes()),
            ):
                deflate(bag, name, content)
            if MASKS in head["files"]:
                deflate(bag, MASKS, (cohort.root / MASKS).read_bytes())
        size = partial.stat().st_size
    return replace(packed, bytes=size)


def unpack_cohort(file: str | Path, out: str | Path) -> Cohort:
    """Make a cohort folder from such a file; every hash is compared.

    Raises:
        DataError: not such a file, or a damaged one, or `out` is taken.
    """
    try:
        with open_zip(file, most_bytes=MOST_BYTES) as bag, atomic_folder(out) as folder:
            facts: _PackedHead = decode_json(bag.read(HEAD), _PackedHead, f"{HEAD} in {file}")
            head, grey_error = json.loads(bag.read(HEAD)), facts.packed.grey_error
            shape = _refuse_large(file, facts)
            for name in (CASES, *([MASKS] if MASKS in head["files"] else [])):
                (folder / name).write_bytes(bag.read(name))
            write_json(folder / HEAD, head)
            write_json(folder / SPLIT, json.loads(bag.read(SPLIT)))
            with open(folder / IMAGES, "wb") as stream:
                stream.write(npy_header("<u2", shape))
                for restored in _restored(bag, shape, grey_error):
                    stream.write(restored.tobytes())
            Cohort.open(folder).verify()
    except (
        KeyError,
        TypeError,
        ValueError,
        RecursionError,
        zlib.error,
        OSError,
        MemoryError,
    ) as error:
        raise system_error(error, file) or DataError(
            f"{file} is not a packed cohort, or is damaged ({error}). Pack it again: robustmri "
            "bundle."
        ) from error
    return Cohort.open(out)


def _reduce(
    image: npt.NDArray[np.uint16], grey_error: int
) -> tuple[bytes, npt.NDArray[np.uint16], float]:
    """A slice as PNG, as it will be restored, and its mean error in grey levels."""
    from PIL import Image

    grey = np.round(image / 257).astype(np.uint16)
    levels = ((grey + grey_error) // _step(grey_error)).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(levels).save(content, "PNG", compress_level=9)
    restored = _restore(levels, grey_error)
    return content.getvalue(), restored, float(np.abs(restored / 257 - image / 257).mean())


def _refuse_large(file: str | Path, head: CohortHead) -> tuple[int, ...]:
    """Shape of the images that the head claims."""
    height, width = sides(head.size)
    if min(height, width) < 1:
        raise ValueError(f"slices of {height} x {width} px")
    bytes_ = 2 * head.n_cases * height * width * head.channels
    if bytes_ > MOST_BYTES:
        raise DataError(
            f"{file} would take {bytes_} bytes once it is unpacked, expected at most {MOST_BYTES}."
        )
    return head.n_cases, height, width, *((3,) * (head.channels == 3))


def _restored(
    bag: zipfile.ZipFile, shape: tuple[int, ...], grey_error: int
) -> Iterator[npt.NDArray[np.uint16]]:
    from PIL import Image

    mode = "RGB" if len(shape) == 4 else "L"

    def one(row: int) -> npt.NDArray[np.uint16]:
        try:
            opened = Image.open(io.BytesIO(bag.read(_member(row))), formats=["PNG"])
        except Image.DecompressionBombError as error:
            raise ValueError(f"slice {row}: {error}") from error
        with opened as image:
            if image.size != (shape[2], shape[1]) or image.mode != mode:
                raise ValueError(f"slice {row} is {image.mode} of {image.size}")
            return _restore(np.asarray(image), grey_error)

    return map_in_order(one, range(shape[0]))


def _restore(levels: npt.NDArray[np.uint8], grey_error: int) -> npt.NDArray[np.uint16]:
    """As the cohort stores them: 0 to 65535."""
    grey = np.minimum(levels.astype(np.uint16) * _step(grey_error), FINEST)
    return (grey * 257).astype("<u2")


def _step(grey_error: int) -> int:
    """Grey levels that become one; its middle is at most `grey_error` away from each."""
    return 2 * grey_error + 1


def _member(row: int) -> str:
    return f"images/{row:05d}.png"


def _new_head(cohort: Cohort, digest: str, packed: Packed) -> dict[str, Any]:
    """The cohort's, with the pixels' new hash, and what was lost."""
    head: dict[str, Any] = read_json(cohort.root / HEAD)
    head["files"][IMAGES]["sha256"] = digest
    head["notes"] = [*head["notes"], packed.sentence]
    head["packed"] = {
        "of": cohort.fingerprint,
        "grey_error": packed.grey_error,
        "mean_error": packed.mean_error,
    }
    head["fingerprint"] = fingerprint_of(head, cohort.cases)
    return head
