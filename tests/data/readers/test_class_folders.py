from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest
import scipy.io
from PIL import Image

from robustmri.core.errors import DataError
from robustmri.data.prepare import write_cohort
from robustmri.data.readers.class_folders import ClassFolders
from robustmri.data.readers.decode import IMAGE_SUFFIXES
from robustmri.data.readers.figshare import FigshareRelease
from robustmri.data.readers.source import LeftOut, RawSlice
from robustmri.data.sources import open_source
from robustmri.data.split import make_split
from scans import OUTLINE, draw, write_mat


def save(path: Path, patient: int, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(patient, number)).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Eight persons a class, two copies of a slice each: one in Training, one in Testing."""
    for patient in range(16):
        label = ("notumor", "glioma")[patient % 2]
        save(tmp_path / "scans" / "Training" / label / f"Tr_{patient}.jpg", patient)
        save(tmp_path / "scans" / "Testing" / label / f"Te_{patient}.png", patient)
    return tmp_path / "scans"


def test_both_parts_are_read_and_named(folders: Path) -> None:
    save(folders / "loose.jpg", 1)
    (folders / "Training" / "glioma" / "bad.jpg").write_bytes(b"\xff\xd8 nothing")
    source = open_source(folders)
    assert isinstance(source, ClassFolders)
    assert not source.patient_ids
    items = list(source.read())
    slices = [item for item in items if isinstance(item, RawSlice)]
    assert len({item.case_id for item in slices}) == len(slices) == 32
    assert {item.label for item in slices} == {"notumor", "glioma"}
    assert all(item.patient_id is None for item in slices)
    left = {item.source: item.reason for item in items if isinstance(item, LeftOut)}
    assert set(left) == {"loose.jpg", "Training/glioma/bad.jpg"}
    assert "no class folder" in left["loose.jpg"]


def test_a_file_is_no_folder_of_classes(tmp_path: Path) -> None:
    (tmp_path / "scans.txt").write_text("not scans")
    assert ClassFolders.look(tmp_path / "scans.txt") is None
    assert ClassFolders.look(tmp_path) is None


def test_groups_are_inferred_and_called_inferred(folders: Path, tmp_path: Path) -> None:
    cohort = write_cohort(open_source(folders), tmp_path / "cohort", size=32)
    assert cohort.groups == "inferred"
    by_person: dict[str, set[str]] = {}
    for case in cohort.cases:
        assert case.patient_id == case.group
        assert case.group.startswith("inferred-")
        by_person.setdefault(case.case_id.split("_")[1].split(".")[0], set()).add(case.group)
    assert [len(groups) for groups in by_person.values()] == [1] * 16
    assert cohort.n_patients == 16
    head = json.loads((cohort.root / "cohort.json").read_text())
    assert head["groups"] == "inferred"
    assert "inferred from near-duplicate" in head["notes"][0]
    assert "inferred" in make_split(cohort).note
    assert "inferred groups of slices in the test set" in make_split(cohort, "slice").note


def test_plain_class_folders_and_a_folder_without_any(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", 1)
    save(tmp_path / "b" / "1.png", 2)
    assert [item.label for item in open_source(tmp_path).read() if isinstance(item, RawSlice)] == [
        "a",
        "b",
    ]
    save(tmp_path / "other" / "1.png", 1)
    with pytest.raises(DataError, match="no scans that robustmri can read"):
        open_source(tmp_path / "other")
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "nowhere")


@pytest.mark.parametrize("layout", ["between", "pattern"])
def test_patients_are_the_folders_between_or_what_a_pattern_finds(
    tmp_path: Path, layout: str
) -> None:
    for person in range(8):
        inner = f"p{person}/1" if layout == "between" else f"p{person}_1"
        save(tmp_path / "train" / ("a", "b")[person % 2] / f"{inner}.png", person)
    if layout == "pattern":
        save(tmp_path / "train" / "a" / "odd.png", 9)
    options = {"patient_pattern": r"(?P<patient>p\d)_"} if layout == "pattern" else {}
    source = open_source(tmp_path, **options)
    assert isinstance(source, ClassFolders)
    assert source.patient_ids
    items = list(source.read())
    slices = [item for item in items if isinstance(item, RawSlice)]
    assert {(item.label, item.patient_id) for item in slices} == {
        (("a", "b")[person % 2], f"p{person}") for person in range(8)
    }
    left = [item for item in items if isinstance(item, LeftOut)]
    assert [item.reason for item in left] == (
        ["no patient: the pattern finds none in its path"] if layout == "pattern" else []
    )
    assert any("(a guess)" in note for note in source.notes) == (layout == "between")


def test_classes_in_parts_are_not_taken_for_patients(tmp_path: Path) -> None:
    for part in ("first", "second"):
        for label in ("a", "b"):
            save(tmp_path / part / label / "1.png", 1)
    with pytest.raises(DataError, match="if they are the classes, give a folder that holds them"):
        open_source(tmp_path)


def test_patients_that_are_numbered_anew_in_each_class_are_not_merged(tmp_path: Path) -> None:
    for label, people in (("glioma", 4), ("men", 3)):
        for person in range(1, people + 1):
            save(tmp_path / label / str(person) / "1.png", person)
    with pytest.raises(DataError, match="numbered anew in each class") as caught:
        assert not open_source(tmp_path).patient_ids
    same, anew = re.findall(r"'(.*?)'", str(caught.value))
    for pattern, people in ((same, 4), (anew, 7)):
        items = list(open_source(tmp_path, patient_pattern=pattern).read())
        assert len({item.patient_id for item in items if isinstance(item, RawSlice)}) == people


def test_nothing_is_passed_over_silently(folders: Path) -> None:
    save(folders / "Training" / "pituitary" / "deep" / "1.png", 1)
    (folders / "Training" / "pituitary" / "1.dcm").write_bytes(b"DICM")
    (folders / "Training" / "meningioma").mkdir()
    (folders / "Testing" / "linked").symlink_to(folders / "Testing" / "glioma")
    save(folders / "Testing" / ".ipynb_checkpoints" / "Te_1-checkpoint.png", 1)
    save(folders / "Testing" / "nan" / "1.png", 3)
    (folders / "readme.txt").write_text("read me")
    items = list(open_source(folders).read())
    assert {item.label for item in items if isinstance(item, RawSlice)} == {"notumor", "glioma"}
    left = {item.source: item.reason for item in items if isinstance(item, LeftOut)}
    for name, words in {
        "Training/pituitary/deep/1.png": "lies in no class folder",
        "Training/pituitary/1.dcm": "not an image by its name",
        "Training/meningioma/": "an empty folder",
        "Testing/linked/": "a link to a folder, which is not followed",
        "Testing/.ipynb_checkpoints/": "a hidden folder",
        "Testing/nan/1.png": "the folder 'nan' names no class",
        "readme.txt": "not an image by its name",
    }.items():
        assert words in left.pop(name)
    assert not left


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".jp2", ".JPG", ".Tiff"])
def test_every_image_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    assert suffix.lower() in IMAGE_SUFFIXES
    save(tmp_path / "a" / f"1{suffix}", 1)
    (item,) = open_source(tmp_path).read()
    assert isinstance(item, RawSlice)


@pytest.mark.parametrize(("one", "other"), [("1.jpg", "1.png"), ("1.JPG", "1.jpg")])
def test_a_slice_and_its_mask_or_one_slice_twice(folders: Path, one: str, other: str) -> None:
    for number, name in enumerate((one, other)):
        save(folders / "Testing" / "glioma" / name, number)
    if len(list((folders / "Testing" / "glioma").glob("1.*"))) < 2:
        pytest.skip("the file system does not tell capitals apart")
    left = {i.source: i.reason for i in open_source(folders).read() if isinstance(i, LeftOut)}
    assert left == {
        f"Testing/glioma/{name}": f"{rival} has the same name: a slice and its mask, or one slice "
        "twice?"
        for name, rival in ((one, other), (other, one))
    }


def test_an_accent_is_a_letter_however_it_is_written(tmp_path: Path) -> None:
    composed, taken_apart = (unicodedata.normalize(form, "gliom\u00e9") for form in ("NFC", "NFD"))
    save(tmp_path / "Training" / composed / "1.png", 1)
    save(tmp_path / "Testing" / taken_apart / "1.png", 2)
    assert {item.label for item in open_source(tmp_path).read()} == {composed}


def test_a_stray_mat_or_zip_does_not_make_a_release(folders: Path) -> None:
    scipy.io.savemat(folders / "annotations.mat", {"a": 1.0})
    (folders / "archive.zip").write_bytes(b"PK\3\4" + bytes(99))
    source = open_source(folders)
    assert isinstance(source, ClassFolders)
    items = list(source.read())
    assert sum(isinstance(item, RawSlice) for item in items) == 32
    left = {item.source for item in items if isinstance(item, LeftOut)}
    assert left == {"annotations.mat", "archive.zip"}


def test_a_release_beside_pictures_is_one(folders: Path) -> None:
    (folders / "0.mat").write_bytes(b"damaged")
    write_mat(folders / "1.mat", draw(1, 0), OUTLINE)
    source = open_source(folders)
    assert isinstance(source, FigshareRelease)
    items = list(source.read())
    assert [item.case_id for item in items if isinstance(item, RawSlice)] == ["1"]
    assert len(items) == len(source) == 2 + 32
