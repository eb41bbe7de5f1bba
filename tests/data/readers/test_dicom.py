"""Files are written by pydicom, and read back to the pixel."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from formats import AXIAL, write_dicom
from robustmri.core.errors import DataError, SettingsError
from robustmri.data.derived import write_derived
from robustmri.data.intensity import scale
from robustmri.data.one_scan import read_scan
from robustmri.data.prepare import write_cohort
from robustmri.data.readers.dicom import DicomFiles
from robustmri.data.readers.dicom_pixels import size_of_stream
from robustmri.data.readers.source import LeftOut, RawSlice
from robustmri.data.sources import open_source
from robustmri.verbs.prepare import prepare

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

CORONAL = [1, 0, 0, 0, 0, -1]
SAGITTAL = [0, 1, 0, 0, 0, -1]


def grey(seed: int, frames: int = 0) -> np.ndarray:
    shape = (frames, 12, 10) if frames else (12, 10)
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.uint16)


def read(root: Path, **options: str) -> tuple[list[RawSlice], dict[str, str]]:
    source = open_source(root, **options)
    assert isinstance(source, DicomFiles)
    items = list(source.read())
    left = {item.source: item.reason for item in items if isinstance(item, LeftOut)}
    return [item for item in items if isinstance(item, RawSlice)], left


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless],
    ids=lambda uid: uid.name,
)
def test_pixels_are_those_of_the_scanner_in_its_units(tmp_path: Path, syntax: UID) -> None:
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    uid = write_dicom(tmp_path / "glioma" / "IM001", grey(1), syntax, **tags)
    ((item,), left) = read(tmp_path)
    np.testing.assert_array_equal(item.image, grey(1) * 2.0 - 1000)
    assert (item.case_id, item.patient_id, item.label, item.plane) == (uid, "P1", "glioma", "axial")
    assert (item.source, left) == ("glioma/IM001", {})
    assert "Jane" not in repr(item)


INVERTED = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}


def table(*values: int) -> Dataset:
    """A modality's table of 8 bits, from 0 on."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values), 0, 8])
    item.add_new("LUTData", "US", list(values))
    item.ModalityLUTType = "US"
    return item


def padded() -> np.ndarray:
    image = grey(1).astype(np.int16)
    image[0] = -2000
    return image


@pytest.mark.parametrize(
    ("pixels", "tags", "options", "expected", "said"),
    [
        (
            grey(1),
            {"PhotometricInterpretation": "MONOCHROME1"},
            {},
            65535 - grey(1).astype(int),
            "MONOCHROME1",
        ),
        (grey(1), INVERTED, {}, 4095 - grey(1).astype(int), "MONOCHROME1"),
        (
            grey(1),
            {**INVERTED, "RescaleSlope": 2, "RescaleIntercept": -1000},
            {},
            2.0 * (4095 - grey(1).astype(int)) - 1000,
            "MONOCHROME1",
        ),
        (padded() // 2, INVERTED, {}, -1 - (padded() // 2).astype(int), "MONOCHROME1"),
        (
            (grey(1) % 4).astype(np.uint8),
            {
                "PhotometricInterpretation": "MONOCHROME1",
                "ModalityLUTSequence": [table(9, 7, 8, 3)],
            },
            {},
            255 - np.array([9, 7, 8, 3])[grey(1) % 4],
            "MONOCHROME1",
        ),
        (
            padded(),
            {"PixelPaddingValue": -2000},
            {},
            np.maximum(padded(), padded()[1:].min()),
            "",
        ),
        (
            grey(1),
            {"WindowCenter": [1000, 1], "WindowWidth": [501, 1]},
            {"window": "file"},
            np.clip(grey(1), 749.5, 1249.5),
            "",
        ),
        (grey(1), {"WindowCenter": 1000, "WindowWidth": 501}, {}, grey(1), ""),
        (grey(1), {}, {"window": "file"}, grey(1), "has no window"),
        (
            np.full((12, 10, 3), (200, 100, 0), np.uint8),
            {},
            {},
            np.full((12, 10, 3), (200, 100, 0), np.uint8),
            "",
        ),
        (grey(1), {"BurnedInAnnotation": "YES"}, {}, grey(1), "may name a person"),
    ],
    ids=[
        "monochrome1",
        "of 12 bits",
        "with a slope",
        "with a sign",
        "by a table",
        "padding",
        "window",
        "no window",
        "window missing",
        "colour",
        "burnt in",
    ],
)
def test_what_the_header_says_of_the_pixels(
    tmp_path: Path,
    pixels: np.ndarray,
    tags: dict[str, Any],
    options: dict[str, str],
    expected: np.ndarray,
    said: str,
) -> None:
    write_dicom(tmp_path / "a" / "1.dcm", pixels, **tags)
    ((item,), _) = read(tmp_path, **options)
    np.testing.assert_array_equal(item.image, expected)
    assert any(said in note for note in item.notes) == bool(said)


def test_padding_may_be_written_without_its_sign(tmp_path: Path) -> None:
    path = tmp_path / "a" / "1.dcm"
    write_dicom(path, padded())
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 63536)
    dataset.save_as(path)
    ((item,), _) = read(tmp_path)
    np.testing.assert_array_equal(item.image, np.maximum(padded(), padded()[1:].min()))


def test_slices_are_sorted_by_place_and_named_by_their_plane(tmp_path: Path) -> None:
    for name, height, plane in (("b", 9, AXIAL), ("a", 3, AXIAL), ("c", -4, AXIAL)):
        write_dicom(
            tmp_path / "g" / f"{name}.dcm",
            grey(height + 9),
            ImagePositionPatient=[0, 0, height],
            ImageOrientationPatient=plane,
        )
    for number, plane in ((1, CORONAL), (2, SAGITTAL), (3, None)):
        write_dicom(
            tmp_path / "g" / f"z{number}.dcm",
            grey(number),
            SeriesInstanceUID=f"1.9.{number}",
            ImageOrientationPatient=plane,
        )
    slices, _ = read(tmp_path)
    assert [item.source for item in slices] == [
        *("g/c.dcm", "g/a.dcm", "g/b.dcm", "g/z1.dcm", "g/z2.dcm", "g/z3.dcm"),
    ]
    assert [item.plane for item in slices[2:]] == ["axial", "coronal", "sagittal", ""]
    chosen, _ = read(tmp_path, slices="2:3")
    assert [item.source for item in chosen] == ["g/a.dcm", "g/b.dcm"]
    short = "none of the 1 slices of its series is among: slices 2 to 3"
    assert read(tmp_path, slices="2:3")[1] == {f"g/z{number}.dcm": short for number in (1, 2, 3)}
    with pytest.raises(SettingsError, match="bring no masks"):
        open_source(tmp_path, slices="mask")
    with pytest.raises(SettingsError, match="expected mask, middle, all, A:B"):
        open_source(tmp_path, slices="3:1")
    with pytest.raises(SettingsError, match="expected 'file'"):
        open_source(tmp_path, window="brain")


def enhanced(frames: int) -> dict[str, Any]:
    """Functional groups: frame k lies at height -k and has slope k + 1."""
    own = []
    for place in range(frames):
        group, position, values = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, -place]
        values.RescaleSlope, values.RescaleIntercept = place + 1, 5
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [values]
        own.append(group)
    shared, orientation = Dataset(), Dataset()
    orientation.ImageOrientationPatient = AXIAL
    shared.PlaneOrientationSequence = [orientation]
    return {
        "PerFrameFunctionalGroupsSequence": own,
        "SharedFunctionalGroupsSequence": [shared],
        "ImageOrientationPatient": None,
        "ImagePositionPatient": None,
    }


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=["plain", "rle"])
def test_each_frame_of_an_enhanced_file_is_a_slice_with_its_own_scale(
    tmp_path: Path, syntax: UID
) -> None:
    uid = write_dicom(tmp_path / "g" / "many.dcm", grey(1, 3), syntax, **enhanced(3))
    slices, _ = read(tmp_path)
    assert [item.case_id for item in slices] == [f"{uid}/3", f"{uid}/2", f"{uid}/1"]
    for item, place in zip(slices, (2, 1, 0), strict=True):
        np.testing.assert_array_equal(item.image, grey(1, 3)[place] * (place + 1.0) + 5)
        assert item.plane == "axial"
    content = (tmp_path / "g" / "many.dcm").read_bytes()
    assert {item.sha256 for item in slices} == {hashlib.sha256(content).hexdigest()}


def test_a_changed_frame_keeps_its_place_and_its_scale(tmp_path: Path) -> None:
    write_dicom(tmp_path / "many.dcm", grey(1, 3), **enhanced(3))
    scan = read_scan(tmp_path / "many.dcm")
    change = np.zeros((12, 10), np.float32)
    new = tmp_path / "new" / "g" / "one.dcm"
    new.parent.mkdir(parents=True)
    write_derived(new, scan, change, scale(scan.image), pad=False)
    ((item,), _) = read(tmp_path / "new")
    np.testing.assert_array_equal(item.image, grey(1, 3)[0] + 5.0)
    dataset = pydicom.dcmread(new)
    (frame,) = dataset.PerFrameFunctionalGroupsSequence
    assert frame.PlanePositionSequence[0].ImagePositionPatient == [0, 0, 0]
    assert (item.plane, dataset.NumberOfFrames) == ("axial", 1)


def test_jpeg_2000_is_read_by_pillow(tmp_path: Path) -> None:
    stream = io.BytesIO()
    pixels = (grey(1) // 16).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG2000", no_jp2=True)
    write_dicom(tmp_path / "g" / "1.dcm", pixels, JPEG2000Lossless, stream.getvalue())
    write_dicom(tmp_path / "g" / "2.dcm", pixels[:10], JPEG2000Lossless, stream.getvalue())
    ((item,), left) = read(tmp_path)
    np.testing.assert_array_equal(item.image, pixels)
    assert "10 rows and 10 columns, the compressed picture 12 and 10" in left["g/2.dcm"]


def wrong_files(folder: Path) -> dict[str, str]:
    """Files that are no slice, and what is said of each."""
    write_dicom(folder / "ls.dcm", grey(1), JPEGLSLossless)
    write_dicom(folder / "ht.dcm", grey(1), HTJ2KLossless)
    write_dicom(folder / "nobody.dcm", grey(1), PatientID="")
    write_dicom(folder / "nan.dcm", grey(1), PatientID="None")
    write_dicom(folder / "seg.dcm", grey(1), Modality="SEG")
    write_dicom(folder / "scout.dcm", grey(1), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_dicom(folder / "report.dcm", grey(1), Rows=None)
    write_dicom(folder / "huge.dcm", grey(1), Rows=60000, Columns=60000)
    write_dicom(folder / "short.dcm", grey(1), Rows=500, Columns=500)
    write_dicom(folder / "frames.dcm", grey(1), NumberOfFrames=10**9)
    write_dicom(folder / "deflated.dcm", grey(1), DeflatedExplicitVRLittleEndian)
    (folder / "text.dcm").write_text("hello" * 100)
    (folder / "cut.dcm").write_bytes((folder / "seg.dcm").read_bytes()[:140])
    (folder / "notes.txt").write_text("hello")
    return {
        "ls.dcm": "pip install pyjpegls",
        "ht.dcm": "pip install pylibjpeg pylibjpeg-openjpeg",
        "nobody.dcm": "PatientID is empty",
        "nan.dcm": "PatientID is empty",
        "seg.dcm": "a segmentation object",
        "scout.dcm": "a localiser",
        "report.dcm": "holds no picture",
        "huge.dcm": "claims 60000 x 60000 pixels",
        "short.dcm": "cannot be read",
        "frames.dcm": "claims 1000000000 frames",
        "deflated.dcm": "deflated",
        "text.dcm": "the mark DICM is missing",
        "cut.dcm": "",
        "notes.txt": "the mark DICM is missing",
    }


def test_wrong_files_are_left_out_by_name_and_the_rest_goes_on(tmp_path: Path) -> None:
    write_dicom(tmp_path / "g" / "good.dcm", grey(1))
    expected = wrong_files(tmp_path / "g")
    slices, left = read(tmp_path)
    assert [item.source for item in slices] == ["g/good.dcm"]
    for name, words in expected.items():
        reason = left.pop(f"g/{name}")
        assert words in reason
        assert "\n" not in reason
    assert not left


def table(path: Path, *rows: tuple[str, ...]) -> Path:
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("filename", lambda uid: "a/1.dcm"),
        ("filename", lambda uid: "1"),
        ("SOPInstanceUID", lambda uid: uid),
        ("SeriesInstanceUID", lambda uid: "1.2.3.4"),
        ("patient", lambda uid: "P1"),
    ],
    ids=["path", "stem", "image uid", "series uid", "patient"],
)
def test_the_label_comes_from_a_table(
    tmp_path: Path, header: str, key: Callable[[str], str]
) -> None:
    uid = write_dicom(tmp_path / "a" / "1.dcm", grey(1))
    table(tmp_path / "t.csv", (header, "diagnosis"), (key(uid), "glioma"))
    source = open_source(tmp_path)
    ((item,), left) = read(tmp_path)
    assert (item.label, item.patient_id, left) == ("glioma", "P1", {})
    assert "label is 'diagnosis' (guessed)" in source.notes[0]


@pytest.mark.parametrize("header", ["filename", "SOPInstanceUID", "SeriesInstanceUID"])
def test_rows_that_contradict_each_other_decide_nothing(tmp_path: Path, header: str) -> None:
    uid = write_dicom(tmp_path / "a" / "1.dcm", grey(1))
    key = {"filename": "a/1.dcm", "SOPInstanceUID": uid}.get(header, "1.2.3.4")
    table(tmp_path / "t.csv", (header, "label"), (key, "glioma"), (key, "normal"), (key, "glioma"))
    slices, left = read(tmp_path)
    assert not slices
    assert left.pop("a/1.dcm") == "t.csv says two things of it, in two rows"
    assert "the image file is missing" not in left.values()


def test_a_table_may_say_the_fold_and_a_plane_that_the_header_does_not(tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", grey(1))
    write_dicom(tmp_path / "2.dcm", grey(2), ImageOrientationPatient=None)
    table(
        tmp_path / "t.csv",
        ("file", "label", "fold", "plane", "mask"),
        *(("1.dcm", "a", "3", "sagittal", "m.png"), ("2.dcm", "a", "4", "coronal", "m.png")),
    )
    slices, left = read(tmp_path)
    assert [(item.fold, item.plane) for item in slices] == [(3, "axial"), (4, "coronal")]
    assert not left
    assert "not used: mask" in open_source(tmp_path).notes[0]
    with pytest.raises(SettingsError, match=r"for DICOM files the mask is not read from a table"):
        open_source(tmp_path, columns="mask=mask")


def test_a_patient_of_several_folds_has_none(tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", grey(1))
    table(tmp_path / "t.csv", ("patient", "label", "fold"), ("P1", "a", "1"), ("P1", "a", "2"))
    slices, left = read(tmp_path)
    assert not slices
    assert left["t.csv: patient 'P1'"] == "the table gives it several folds (1, 2)"


def test_a_table_may_name_the_patients_and_that_is_told(tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", grey(1), PatientID="")
    write_dicom(tmp_path / "2.dcm", grey(2), PatientID="ANON")
    write_dicom(tmp_path / "3.dcm", grey(2))
    table(
        tmp_path / "t.csv",
        ("file", "label", "subject"),
        *(("1.dcm", "a", "A"), ("2.dcm", "b", "B"), ("9.dcm", "b", "B")),
    )
    slices, left = read(tmp_path)
    assert [(item.label, item.patient_id) for item in slices] == [("a", "A"), ("b", "B")]
    assert "another PatientID" in slices[1].notes[0]
    assert left == {
        "3.dcm": "no label: t.csv does not speak of it",
        "t.csv: slice '9.dcm'": "the image file is missing",
    }


def test_no_patient_gets_two_ids_of_a_table_and_a_header(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write_dicom(tmp_path / "a" / f"{number}.dcm", grey(number), PatientID="P1")
    table(tmp_path / "t.csv", ("file", "patient"), ("a/1.dcm", "MR1"), ("a/2.dcm", ""))
    slices, left = read(tmp_path)
    assert [item.patient_id for item in slices] == ["MR1"]
    assert left.keys() == {"a/2.dcm", "a/3.dcm"}
    assert all(reason.startswith("no patient in t.csv") for reason in left.values())
    slices, left = read(tmp_path, columns="patient=(0010,0020)")
    assert ({item.patient_id for item in slices}, len(slices), left) == ({"P1"}, 3, {})
    assert not any(item.notes for item in slices)


@pytest.mark.parametrize("tag", ["(0010,4000)", "PatientComments"])
def test_the_label_may_be_a_tag(tmp_path: Path, tag: str) -> None:
    write_dicom(tmp_path / "a" / "1.dcm", grey(1), PatientComments="meningioma")
    write_dicom(tmp_path / "a" / "2.dcm", grey(1))
    ((item,), left) = read(tmp_path, columns=f"label={tag}")
    assert item.label == "meningioma"
    assert left == {"a/2.dcm": f"no label: its header has no {tag}"}


def test_prepare_reads_a_tree_and_keeps_no_name(tmp_path: Path) -> None:
    for person in range(8):
        for height in range(3):
            write_dicom(
                tmp_path / "scans" / ("glioma", "normal")[person % 2] / f"s{person}" / str(height),
                grey(10 * person + height),
                PatientID=f"P{person}",
                SeriesInstanceUID=f"1.2.{person + 1}",
                ImagePositionPatient=[0, 0, height],
                BurnedInAnnotation="YES",
            )
    (tmp_path / "scans" / "other.csv").write_text("what,ever\n1,2\n")
    cohort = prepare(tmp_path / "scans", tmp_path / "cohort", size=16)
    assert (len(cohort), cohort.n_patients, cohort.groups) == (24, 8, "patient")
    assert cohort.classes == ("glioma", "normal")
    said = " ".join(cohort.notes)
    assert "first folder above each file" in said
    assert "other.csv is a table that is not used" in said
    for file in cohort.root.iterdir():
        assert b"Doe" not in file.read_bytes()


def test_without_pydicom_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom(tmp_path / "a" / "1.dcm", grey(1))
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(DataError, match=r"pip install 'robustmri\[formats\]'"):
        open_source(tmp_path)


def test_one_class_is_refused(tmp_path: Path) -> None:
    write_dicom(tmp_path / "scans" / "a" / "1.dcm", grey(1))
    with pytest.raises(DataError, match="one class only"):
        write_cohort(open_source(tmp_path / "scans"), tmp_path / "cohort", size=16)


@pytest.mark.parametrize(
    "stream",
    [
        b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x0b\x08\x00\x0c\x00\x0a\x01\x01\x11\x00",
        b"\xff\xd8\xff\xf7\x00\x0b\x10\x00\x0c\x00\x0a\x01\x01\x11\x00",
        b"\xff\x4f\xff\x51\x00\x29\x00\x00\x00\x00\x00\x0e\x00\x00\x00\x0f"
        b"\x00\x00\x00\x04\x00\x00\x00\x03",
    ],
    ids=["jpeg", "jpeg-ls", "jpeg 2000"],
)
def test_a_stream_says_its_size_before_it_is_decoded(stream: bytes) -> None:
    assert size_of_stream(stream) == (12, 10)
    with pytest.raises(DataError, match="does not say its size"):
        size_of_stream(stream[:6])
