"""Damaged files by the thousand, `make fuzz`: each costs its own slice and nothing else.

`ROBUSTMRI_FUZZ_EXAMPLES` says how many of each kind; every run draws new ones.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bounded import bounded
from formats import write_cifar, write_dicom, write_excel, write_nifti
from robustmri.core.errors import DataError
from robustmri.data import limits
from robustmri.data.prepare import write_cohort
from robustmri.data.readers.decode import FORMATS
from robustmri.data.sources import open_source
from robustmri.data.storage import Form, Stored, store_slices
from scans import OUTLINE, SliceList, draw, slices_of, write_csv_layout, write_mat

EXAMPLES = int(os.environ.get("ROBUSTMRI_FUZZ_EXAMPLES", "2500"))
PIXELS = 1 << 20


def image(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for name in ("sound", "damaged"):
            path = folder / "glioma" / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(draw(1, 0, 24)).save(path, kind)
        return path

    return make


def tiff(compression: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = image("TIFF")(folder)
        deep = Image.fromarray(draw(1, 0, 24).astype(np.uint16) * 257)
        deep.save(path, "TIFF", compression=compression, save_all=True, append_images=[deep])
        return path

    return make


def mat(folder: Path) -> Path:
    for number in (1, 2):
        write_mat(folder / f"{number}.mat", draw(number, 0, 24), OUTLINE)
    return folder / "1.mat"


def packed_mat(folder: Path) -> Path:
    """Its arrays in compressed pieces, as MATLAB writes them."""
    path = mat(folder)
    with h5py.File(path, "r+") as file:
        values = file["cjdata/image"][()]
        del file["cjdata/image"]
        file["cjdata"].create_dataset("image", data=values, chunks=(8, 8), compression="gzip")
    return path


def archive(folder: Path) -> Path:
    mat(folder)
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        for number in (3, 4):
            opened.write(folder / "1.mat", f"sub/{number}.mat")
    return folder / "a.zip"


def folds(compressed: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        mat(folder)
        content = {"cvind": np.array([[1.0], [5.0]])}
        scipy.io.savemat(folder / "cvind.mat", content, do_compression=compressed)
        return folder / "cvind.mat"

    return make


def hdf5_folds(folder: Path) -> Path:
    mat(folder)
    with h5py.File(folder / "cvind.mat", "w") as file:
        file["cvind"] = np.array([[1.0, 5.0]])
    return folder / "cvind.mat"


def cohort(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_cohort(SliceList(slices_of(3, 1)), folder / "cohort", size=16)
        for path in (folder / "cohort").iterdir():
            path.rename(folder / path.name)
        (folder / "cohort").rmdir()
        return folder / name

    return make


def table(folder: Path) -> Path:
    write_csv_layout(folder, count=3)
    return folder / "slices.csv"


def dicom(syntax: str, *, frames: int = 0) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for number in (1, 2):
            deep = draw(number, 0, 24).astype(np.uint16) * 257
            deep = np.stack([deep] * frames) if frames else deep
            write_dicom(folder / "glioma" / f"{number}.dcm", deep, syntax, RescaleSlope=2)
        return folder / "glioma" / "1.dcm"

    return make


def jpeg_dicom(folder: Path) -> Path:
    for number in (1, 2):
        slice_, stream = draw(number, 0, 24), io.BytesIO()
        Image.fromarray(slice_).save(stream, "JPEG")
        path = folder / "glioma" / f"{number}.dcm"
        write_dicom(path, slice_, "1.2.840.10008.1.2.4.50", stream.getvalue())
    return folder / "glioma" / "1.dcm"


def participants(folder: Path) -> Path:
    """Volumes named by their patients, and a table of these, as in BIDS."""
    for number in (1, 2, 3):
        voxels = np.stack([draw(number, k, 24) for k in range(3)], axis=2)
        write_nifti(folder / f"sub-0{number}" / "anat" / f"sub-0{number}_T1w.nii", voxels)
    path = folder / "participants.tsv"
    path.write_text("participant_id\tdiagnosis\nsub-01\ta\nsub-02\tb\nsub-03\ta\n")
    return path


def nifti(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for number in (1, 2):
            voxels = np.stack([draw(number, k, 24) for k in range(3)], axis=2)
            write_nifti(folder / "glioma" / f"{number}.{suffix}", voxels)
        return folder / "glioma" / f"1.{suffix}"

    return make


def npy(folder: Path) -> Path:
    (folder / "glioma").mkdir()
    for number in (1, 2):
        np.save(folder / "glioma" / f"{number}.npy", draw(number, 0, 24))
    return folder / "glioma" / "1.npy"


def npz(folder: Path) -> Path:
    images = np.stack([draw(number, 0, 24) for number in range(4)])
    np.savez_compressed(folder / "a.npz", train_images=images, train_labels=np.arange(4))
    return folder / "a.npz"


def other_table(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        rows = write_csv_layout(folder, count=3)
        (folder / "slices.csv").unlink()
        path = folder / f"slices.{suffix}"
        if suffix == "xlsx":
            return write_excel(path, [list(rows[0]), *(list(row.values()) for row in rows)])
        if suffix == "tsv":
            lines = [rows[0], *(row.values() for row in rows)]
            path.write_text("\n".join("\t".join(map(str, line)) for line in lines))
            return path
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path

    return make


def cifar(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    return write_cifar(folder / "data_batch_1.bin", pixels, [0, 1, 2])


KINDS: dict[str, Callable[[Path], Path]] = {
    **{kind: image(kind) for kind in FORMATS},
    "TIFF, LZW": tiff("tiff_lzw"),
    "TIFF, Deflate": tiff("tiff_deflate"),
    "TIFF, plain": tiff("raw"),
    "mat": mat,
    "mat, compressed": packed_mat,
    "zip": archive,
    "cvind, MATLAB 5": folds(False),
    "cvind, MATLAB 5, compressed": folds(True),
    "cvind, v7.3": hdf5_folds,
    "cohort.json": cohort("cohort.json"),
    "cases.parquet": cohort("cases.parquet"),
    "images.npy": cohort("images.npy"),
    "masks.npy": cohort("masks.npy"),
    "csv": table,
    "xlsx": other_table("xlsx"),
    "tsv": other_table("tsv"),
    "participants.tsv": participants,
    "parquet": other_table("parquet"),
    "dicom": dicom("1.2.840.10008.1.2.1"),
    "dicom, RLE": dicom("1.2.840.10008.1.2.5"),
    "dicom, deflated": dicom("1.2.840.10008.1.2.1.99"),
    "dicom, JPEG": jpeg_dicom,
    "dicom, frames": dicom("1.2.840.10008.1.2.1", frames=3),
    "nii": nifti("nii"),
    "nii.gz": nifti("nii.gz"),
    "npy": npy,
    "npz": npz,
    "cifar": cifar,
}
# A file that is the whole source may be refused as a whole.
ALONE = (
    *("cohort.json", "cases.parquet", "images.npy", "masks.npy"),
    *("csv", "tsv", "participants.tsv", "xlsx", "parquet", "npz", "cifar"),
)
LOST = {"zip": 2, "dicom, frames": 3}
"""Slices in a file."""
ODD = [0, 1, 2, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]

edits = st.lists(
    st.tuples(
        # Most of what matters stands at the beginning, or at the end.
        st.one_of(st.integers(0, 300), st.integers(-300, -1), st.integers(0, 1 << 16)),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.builds(
                lambda value, kind: struct.pack(
                    kind, value & (2 ** (8 * struct.calcsize(kind)) - 1)
                ),
                st.sampled_from(ODD),
                st.sampled_from(["B", "<H", ">H", "<I", ">I", "<Q", ">Q"]),
            ),
        ),
        st.sampled_from(["over", "over", "over", "insert", "delete", "cut", "again"]),
    ),
    min_size=1,
    max_size=6,
)


def damage(content: bytes, changes: list[tuple[int, bytes, str]], mend: bool) -> bytes:
    whole = bytearray(content)
    for place, new, how in changes:
        at = place % max(1, len(whole))
        if how == "over":
            whole[at : at + len(new)] = new
        elif how == "insert":
            whole[at:at] = new
        elif how == "delete":
            del whole[at : at + len(new)]
        elif how == "cut":
            del whole[at:]
        else:
            whole[at:at] = whole[at // 2 : at]
    return mend_png(bytes(whole)) if mend else bytes(whole)


def mend_png(content: bytes) -> bytes:
    """Its checksums anew, or nothing behind them would be looked at."""
    whole, at = bytearray(content), 8
    while content.startswith(b"\x89PNG") and at + 12 <= len(whole):
        (size,) = struct.unpack_from(">I", whole, at)
        end = at + 8 + size
        if end + 4 > len(whole):
            break
        whole[end : end + 4] = struct.pack(">I", zlib.crc32(bytes(whole[at + 4 : end])))
        at = end + 4
    return bytes(whole)


def store(scans: Path, out: Path) -> Stored:
    """What becomes of the scans."""
    source = open_source(scans)
    return store_slices(source, source.read(), out, Form(16, 1, "minmax"), None)


@pytest.mark.parametrize("kind", ["PNG", "csv", "dicom"])
def test_what_is_not_damaged_is_stored(kind: str, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    KINDS[kind](scans)
    assert len(store(scans, tmp_path).cases) >= 2


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_costs_its_own_slice_only(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limits.MAX_PIXELS, str(PIXELS))
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    out.mkdir()
    path = KINDS[kind](scans)
    content = path.read_bytes()
    alone = kind in ALONE
    whole = len(store(scans, out).cases)

    @settings(
        max_examples=EXAMPLES,
        derandomize=False,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(edits, st.booleans())
    def check(changes: list[tuple[int, bytes, str]], mend: bool) -> None:
        path.write_bytes(damage(content, changes, mend))
        try:
            with bounded(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Decoders warn of what they mend by themselves.
                stored = store(scans, out)
        except DataError:
            assert alone
            return
        assert alone or len(stored.cases) >= whole - LOST.get(kind, 1)
        assert all(left.source and left.reason for left in stored.left_out)

    check()
    assert {entry.name for entry in tmp_path.iterdir()} == {"scans", "out"}


def test_the_damage_reaches_what_lies_behind_checksums() -> None:
    stream = io.BytesIO()
    Image.fromarray(draw(1, 0, 24)).save(stream, "PNG")
    content = stream.getvalue()
    assert mend_png(content) == content
    changed = damage(content, [(16, b"\0\0\0\x20", "over")], mend=True)
    with Image.open(io.BytesIO(changed)) as image:
        assert image.size == (32, 24)
