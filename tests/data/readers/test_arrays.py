"""Arrays are written by numpy, and read back to the value."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from robustmri.core.errors import DataError, SettingsError
from robustmri.data.readers.arrays import ArrayFile, ArrayFolders
from robustmri.data.readers.source import LeftOut, RawSlice
from robustmri.data.sources import open_source
from robustmri.verbs.prepare import prepare
from scans import draw


def images(count: int, *, colours: bool = False) -> np.ndarray:
    shape = (count, 9, 9, 3) if colours else (count, 9, 9)
    return np.random.default_rng(count).integers(0, 256, shape).astype(np.uint8)


def medmnist(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """The keys of MedMNIST: labels are columns of numbers."""
    sets = {"train": 6, "val": 2, "test": 3}
    arrays = {f"{name}_images": images(count) for name, count in sets.items()}
    arrays |= {f"{name}_labels": np.arange(count)[:, None] % 2 for name, count in sets.items()}
    return arrays | changes


def split_items(source: object) -> tuple[list[RawSlice], dict[str, str]]:
    items = list(source.read())  # type: ignore[attr-defined]
    left = {item.source: item.reason for item in items if isinstance(item, LeftOut)}
    return [item for item in items if isinstance(item, RawSlice)], left


def test_the_sets_of_medmnist_become_one_cohort_and_that_is_said(tmp_path: Path) -> None:
    np.savez_compressed(
        tmp_path / "bloodmnist.npz", **medmnist(train_images=images(6, colours=True))
    )
    source = open_source(tmp_path / "bloodmnist.npz")
    assert isinstance(source, ArrayFile)
    slices, left = split_items(source)
    assert (len(slices), left, source.patient_ids) == (11, {}, False)
    assert [item.case_id for item in slices[5:8]] == ["train_5", "val_0", "val_1"]
    assert [item.label for item in slices[:3]] == ["0", "1", "0"]
    np.testing.assert_array_equal(slices[1].image, images(6, colours=True)[1])
    np.testing.assert_array_equal(slices[7].image, images(2)[1])
    assert source.notes == (
        "labels are as the file numbers or names them: 0, 1",
        "the sets of the file (train, val, test) are not kept: robustmri makes its own split, for "
        "nobody says whose images they are",
    )
    (tmp_path / "notes.txt").write_text("hello")
    _, left = split_items(open_source(tmp_path))
    assert left == {"notes.txt": "not read: bloodmnist.npz is the source"}


def test_patients_and_names_of_classes_may_be_in_the_file(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "own.npz",
        images=images(4),
        labels=np.array(["glioma", "none", "normal", "glioma"]),
        patients=np.array([1.0, 2.0, 3.0, np.nan]),
    )
    slices, left = split_items(open_source(tmp_path))
    assert [(item.label, item.patient_id) for item in slices] == [("glioma", "1"), ("normal", "3")]
    assert left == {"own.npz/images/1": "no label", "own.npz/images/3": "no patient"}


def write_npz(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(f"{name}.npy", content)


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code of the file was run')",))


def claiming(shape: tuple[int, ...]) -> bytes:
    """A head that claims a shape, and few values."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue() + bytes(100)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"images": saved(np.array([Bomb()]))}, "Python objects"),
        ({"images": claiming((10**9, 9, 9))}, "at most 2000000"),
        ({"images": claiming((3_000_000, 1, 1))}, "at most 2000000"),
        ({"images": claiming((2, 100_000, 100_000))}, "the limit is"),
        ({"images": claiming((3, 9, 9))}, "needs 243 bytes"),
        ({"images": saved(np.zeros((3, 9, 9, 9)))}, "volumes are read from NIfTI"),
        ({"images": saved(np.asfortranarray(images(3)))}, "columns first"),
        ({"images": saved(images(3).astype(complex))}, "expected numbers"),
        ({"images": b"text"}, "not an array that numpy wrote"),
        ({"labels": saved(np.zeros((3, 14)))}, "one for each of 3 images"),
        ({"labels": saved(np.zeros(2))}, "one for each of 3 images"),
    ],
)
def test_what_a_file_claims_is_checked_before_it_is_read(
    tmp_path: Path, members: dict[str, bytes], said: str
) -> None:
    sound = {"images": saved(images(3)), "labels": saved(np.arange(3))}
    write_npz(tmp_path / "a.npz", **(sound | members))
    slices, left = split_items(open_source(tmp_path / "a.npz"))
    assert not slices
    assert said in left["a.npz/images.npy"]


def test_other_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match=r"text\.npz is not a \.npz file"):
        split_items(open_source(tmp_path / "text.npz"))
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(DataError, match=r"holds weights\.npy; expected images and labels"):
        split_items(open_source(tmp_path / "other.npz"))
    with pytest.raises(DataError, match="several arrays of images"):
        open_source(tmp_path)
    np.savez(tmp_path / "more.npz", weights=np.zeros(3), images=images(1), labels=np.ones(1))
    assert split_items(open_source(tmp_path / "more.npz"))[1] == {
        "more.npz/weights.npy": "not read: no images, or no labels"
    }


def test_a_damaged_file_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=images(3), labels=np.arange(3))
    content = bytearray(path.read_bytes())
    place = content.index(images(3)[2].tobytes())
    content[place : place + 5] = bytes(5)
    path.write_bytes(content)
    slices, left = split_items(open_source(path))
    assert not slices
    assert "CRC-32" in left["a.npz/images.npy"]


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=True)


def test_one_array_a_slice_in_class_folders(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.npy", draw(1, 0).astype(np.float32))
    save(tmp_path / "b" / "1.npy", np.asfortranarray(draw(2, 0)))
    save(tmp_path / "b" / "2.npy", np.stack([draw(2, 0)] * 3, axis=2))
    save(tmp_path / "b" / "3.npy", np.zeros((4, 4, 4)))
    save(tmp_path / "b" / "4.npy", np.array([Bomb()]))
    (tmp_path / "b" / "5.npy").write_bytes(saved(draw(1, 1))[:500])
    (tmp_path / "b" / "6.npy").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "b" / "read.me").write_text("hello")
    save(tmp_path / "7.npy", draw(1, 0))
    source = open_source(tmp_path)
    assert isinstance(source, ArrayFolders)
    slices, left = split_items(source)
    assert [(item.case_id, item.label) for item in slices] == [
        *(("a/1.npy", "a"), ("b/1.npy", "b"), ("b/2.npy", "b")),
    ]
    np.testing.assert_array_equal(slices[0].image, draw(1, 0))
    for item in slices[1:]:
        np.testing.assert_array_equal(item.image, draw(2, 0))
    for name, words in {
        "b/3.npy": "expected one grey image",
        "b/4.npy": "Python objects",
        "b/5.npy": "bytes of values where its shape",
        "b/6.npy": "not an array that numpy wrote",
        "b/read.me": "not a .npy file",
        "7.npy": "no class folder",
    }.items():
        assert words in left.pop(name)
    assert not left


@pytest.mark.parametrize("layout", ["between", "pattern", "table"])
def test_prepare_reads_arrays_with_their_patients(tmp_path: Path, layout: str) -> None:
    rows = ["file,label,patient"]
    for person in range(8):
        for number in range(2):
            label = ("glioma", "normal")[person % 2]
            inner = (
                f"{label}/p{person}/{number}"
                if layout == "between"
                else f"{label}/p{person}_{number}"
            )
            save(tmp_path / "scans" / f"{inner}.npy", draw(person, number))
            rows.append(f"{inner}.npy,{label},p{person}")
    if layout == "table":
        (tmp_path / "scans" / "t.csv").write_text("\n".join(rows))
    options = {"patient_pattern": r"/(p\d+)_"} if layout == "pattern" else {}
    cohort = prepare(tmp_path / "scans", tmp_path / "cohort", size=16, **options)
    assert (len(cohort), cohort.groups, cohort.n_patients) == (16, "patient", 8)
    assert {case.patient_id for case in cohort.cases} == {f"p{person}" for person in range(8)}


def test_a_pattern_must_be_one(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.npy", draw(1, 0))
    with pytest.raises(SettingsError, match="not a regular expression"):
        open_source(tmp_path, patient_pattern="(")
    with pytest.raises(SettingsError, match="has no group"):
        open_source(tmp_path, patient_pattern="P1")
