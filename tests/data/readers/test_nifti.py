"""Volumes are written by nibabel, and read back to the voxel."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from formats import RAS, write_nifti
from robustmri.core.errors import DataError, SettingsError
from robustmri.data.cohort import Cohort
from robustmri.data.leakage import check_leakage
from robustmri.data.readers.nifti import NiftiVolumes
from robustmri.data.readers.source import LeftOut, RawSlice
from robustmri.data.seen import check_seen, note_seen
from robustmri.data.sources import open_source
from robustmri.data.split import Split
from robustmri.verbs.inspect import inspect
from robustmri.verbs.prepare import prepare

nibabel = pytest.importorskip("nibabel")


def voxels(seed: int, shape: tuple[int, ...] = (7, 9, 6)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)


def lesion(*places: int, shape: tuple[int, ...] = (7, 9, 6)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[2:4, 3:5, list(places)] = 4
    return mask


def read(root: Path, **options: str) -> tuple[list[RawSlice], dict[str, str]]:
    source = open_source(root, **options)
    assert isinstance(source, NiftiVolumes)
    items = list(source.read())
    left = {item.source: item.reason for item in items if isinstance(item, LeftOut)}
    return [item for item in items if isinstance(item, RawSlice)], left


def table(path: Path, *rows: tuple[str, ...], divider: str = ",") -> None:
    with open(path, "w", newline="") as stream:
        csv.writer(stream, delimiter=divider).writerows(rows)


@pytest.mark.parametrize("second", [False, True], ids=["nifti-1", "nifti-2"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_axial_slices_as_radiologists_look_at_them(
    tmp_path: Path, suffix: str, second: bool
) -> None:
    write_nifti(tmp_path / "glioma" / f"v{suffix}", voxels(1), second=second)
    slices, left = read(tmp_path, slices="all")
    assert [item.case_id for item in slices] == [f"glioma/v{suffix}/{k}" for k in range(1, 7)]
    for place, item in enumerate(slices):
        # The front on top, and the patient's right on the left.
        np.testing.assert_array_equal(item.image, voxels(1)[::-1, ::-1, place].T)
        assert (item.plane, item.label, item.patient_id) == ("axial", "glioma", None)
    assert len({item.sha256 for item in slices}) == 1
    assert not left


def oriented(
    codes: str, values: np.ndarray | None = None, affine: np.ndarray = RAS
) -> tuple[np.ndarray, np.ndarray]:
    """The same volume, stored with its axes in another order and direction."""
    values = voxels(1) if values is None else values
    from nibabel.orientations import axcodes2ornt, ornt_transform

    image = nibabel.Nifti1Image(values, affine)
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    return np.asanyarray(turned.dataobj), turned.affine


@pytest.mark.parametrize("codes", ["LPS", "RPI", "PIR", "SAL"])
def test_however_a_volume_is_stored_its_slices_are_the_same(tmp_path: Path, codes: str) -> None:
    write_nifti(tmp_path / "a" / "v.nii", *oriented(codes))
    slices, _ = read(tmp_path, slices="2:3")
    assert len(slices) == 2
    np.testing.assert_array_equal(slices[0].image, voxels(1)[::-1, ::-1, 1].T)


def test_a_mask_fits_its_volume_however_both_are_stored(tmp_path: Path) -> None:
    spacing = np.diag([5.0, 1, 1, 1])
    for name, values, codes in (("v", voxels(1), "PIR"), ("v_seg", lesion(4), "LAS")):
        write_nifti(tmp_path / "a" / f"{name}.nii", *oriented(codes, values, spacing))
    slices, left = read(tmp_path)
    assert not left
    assert [int(item.case_id.rpartition("/")[2]) - 1 for item in slices] == [2, 3]
    for item, place in zip(slices, (2, 3), strict=True):
        assert item.plane == "sagittal"
        np.testing.assert_array_equal(item.image, voxels(1)[place, ::-1, ::-1].T)
        np.testing.assert_array_equal(item.mask, lesion(4)[place, ::-1, ::-1].T > 0)


@pytest.mark.parametrize(
    ("spacing", "plane", "expected"),
    [
        ((1, 1, 5), "axial", voxels(1)[::-1, ::-1, 0].T),
        ((1, 5, 1), "coronal", voxels(1)[::-1, 0, ::-1].T),
        ((5, 1, 1), "sagittal", voxels(1)[0, ::-1, ::-1].T),
        ((1, 1.2, 1), "axial", voxels(1)[::-1, ::-1, 0].T),
    ],
)
def test_slices_are_those_that_were_acquired(
    tmp_path: Path, spacing: tuple[float, ...], plane: str, expected: np.ndarray
) -> None:
    write_nifti(tmp_path / "a" / "v.nii", voxels(1), np.diag([*spacing, 1.0]))
    slices, _ = read(tmp_path, slices="1:1")
    np.testing.assert_array_equal(slices[0].image, expected)
    assert slices[0].plane == plane
    assert any("not square" in note for note in slices[0].notes) == (spacing == (1, 1.2, 1))


def test_values_are_scaled_as_the_header_says(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(voxels(1), RAS)
    image.header.set_slope_inter(0.5, -100)
    (tmp_path / "a").mkdir()
    nibabel.save(image, tmp_path / "a" / "v.nii")
    stored = nibabel.load(tmp_path / "a" / "v.nii").get_fdata()
    slices, _ = read(tmp_path, slices="1:1")
    np.testing.assert_allclose(slices[0].image, stored[::-1, ::-1, 0].T, atol=1e-4)


@pytest.mark.parametrize(
    ("option", "places"),
    [("", [2, 4]), ("mask", [2, 4]), ("middle", [2, 3]), ("every:3", [0, 3]), ("5:9", [4, 5])],
)
@pytest.mark.parametrize("mask", ["v_seg", "v_t1_mask", "v-t1_seg"])
def test_slices_with_lesion_are_chosen_by_default(
    tmp_path: Path, option: str, places: list[int], mask: str
) -> None:
    write_nifti(tmp_path / "a" / "v_t1.nii.gz", voxels(1))
    write_nifti(tmp_path / "a" / f"{mask}.nii.gz", lesion(2, 4))
    slices, left = read(tmp_path, slices=option)
    if mask == "v-t1_seg":
        assert left == {"a/v-t1_seg.nii.gz": "a mask without its volume"}
        return
    assert [int(item.case_id.rpartition("/")[2]) - 1 for item in slices] == places
    for item, place in zip(slices, places, strict=True):
        assert (item.mask is not None) == (place in (2, 4))
        if item.mask is not None:
            np.testing.assert_array_equal(item.mask, lesion(2, 4)[::-1, ::-1, place].T > 0)


def test_a_volume_without_mask_gives_its_middle_third_and_that_is_said(tmp_path: Path) -> None:
    write_nifti(tmp_path / "sick" / "sub-01_T1w.nii.gz", voxels(1))
    write_nifti(tmp_path / "sick" / "sub-01_T1w_mask.nii.gz", lesion(0))
    write_nifti(tmp_path / "well" / "sub-02_T1w.nii.gz", voxels(2))
    source = open_source(tmp_path)
    items = [item for item in source.read() if isinstance(item, RawSlice)]
    assert [item.case_id.rpartition("/")[2] for item in items] == ["1", "3", "4"]
    assert [item.patient_id for item in items] == ["sub-01", "sub-02", "sub-02"]
    said = " ".join(source.notes)
    for words in ("which is a guess", "the middle third of the slices of the others", "3 axial"):
        assert words.replace("3 axial", "2 axial") in said


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        ([("file", "diagnosis", "patient"), ("x/a.nii", "g", "1"), ("b", "m", "2")], "gm"),
        ([("participant_id", "group", "dx"), ("sub-01", "1", "g"), ("02", "2", "m")], "gm"),
    ],
    ids=["by file", "by patient"],
)
def test_labels_come_from_a_table(tmp_path: Path, rows: list[tuple[str, ...]], labels: str) -> None:
    names = ("a", "b") if rows[0][0] == "file" else ("sub-01_T1w", "sub-02_T1w")
    for number, name in enumerate(names):
        write_nifti(tmp_path / "x" / f"{name}.nii", voxels(number))
    table(tmp_path / "participants.tsv", *rows, divider="\t")
    slices, left = read(tmp_path, slices="3:3")
    assert "".join(item.label for item in slices) == labels
    assert [item.patient_id[-1] for item in slices if item.patient_id] == ["1", "2"]
    assert not left


def test_a_pattern_may_find_the_patient(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a" / "P7_t1.nii", voxels(1))
    write_nifti(tmp_path / "a" / "odd.nii", voxels(1))
    slices, left = read(tmp_path, slices="1:1", patient_pattern="(P[0-9])_")
    assert [item.patient_id for item in slices] == ["P7"]
    assert left == {"a/odd.nii": "no patient: neither a table nor its path names one"}


def test_a_table_may_name_the_masks(tmp_path: Path) -> None:
    write_nifti(tmp_path / "scans" / "a.nii", voxels(1))
    write_nifti(tmp_path / "scans" / "b.nii", voxels(2))
    write_nifti(tmp_path / "outlines" / "one.nii", lesion(5))
    table(
        tmp_path / "t.csv",
        ("image", "label", "patient", "mask"),
        *(("scans/a.nii", "g", "1", "outlines/one.nii"), ("scans/b.nii", "g", "1", "p2/one.nii")),
    )
    ((item,), left) = read(tmp_path)
    assert item.case_id == "scans/a.nii/6"
    assert left == {"scans/b.nii": "the mask 'p2/one.nii' is missing"}


@pytest.mark.parametrize("role", ["plane", "outline"])
def test_what_no_table_tells_of_a_volume_is_refused(tmp_path: Path, role: str) -> None:
    write_nifti(tmp_path / "a.nii", voxels(1))
    table(tmp_path / "t.csv", ("image", "label", "patient", role), ("a.nii", "g", "1", "coronal"))
    assert f"not used: {role}" in open_source(tmp_path).notes[0]
    with pytest.raises(SettingsError, match=f"the {role} is not read from a table"):
        open_source(tmp_path, columns=f"{role}={role}")


def wrong_files(folder: Path) -> dict[str, str]:
    """Files that give no slice, and what is said of each."""
    good = write_nifti(folder / "good.nii", voxels(1)).read_bytes()
    (folder / "text.nii").write_text("hello" * 100)
    (folder / "text.nii.gz").write_text("hello" * 100)
    (folder / "cut.nii").write_bytes(good[:500])
    (folder / "cut.nii.gz").write_bytes(gzip.compress(good)[:300])
    huge = bytearray(good)
    huge[40:48] = np.array([3, 30000, 30000, 30000], "<i2").tobytes()
    (folder / "huge.nii.gz").write_bytes(gzip.compress(bytes(huge)))
    far = bytearray(good)
    far[108:112] = np.array(1e9, "<f4").tobytes()
    (folder / "far.nii.gz").write_bytes(gzip.compress(bytes(far)))
    write_nifti(folder / "flat.nii", voxels(1)[:, :, 0])
    nowhere = bytearray(good)
    nowhere[254:256], nowhere[280:328] = np.array(1, "<i2").tobytes(), bytes(48)
    (folder / "nowhere.nii").write_bytes(nowhere)
    write_nifti(folder / "grid.nii", voxels(1))
    write_nifti(folder / "grid_seg.nii", lesion(1), np.diag([2.0, 2, 2, 1]))
    write_nifti(folder / "empty.nii", voxels(1))
    write_nifti(folder / "empty_seg.nii", lesion())
    colours = np.zeros((7, 9, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    write_nifti(folder / "colours.nii", colours)
    (folder / "notes.txt").write_text("hello")
    return {
        "text.nii": "not a NIfTI file",
        "text.nii.gz": "cannot be unpacked",
        "cut.nii": "cut short",
        "cut.nii.gz": "cannot be unpacked",
        "huge.nii.gz": "the limit is",
        "far.nii.gz": "cut short",
        "flat.nii": "expected a volume",
        "nowhere.nii": "singular affine",
        "grid.nii": "has another grid",
        "empty.nii": "is empty; --slices",
        "colours.nii": "expected grey values",
        "notes.txt": "not a NIfTI file by its name",
    }


def test_a_volume_that_does_not_say_how_it_lies_has_no_plane(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a" / "1.nii", voxels(1), None)
    slices, _ = read(tmp_path, slices="1:1")
    assert [item.plane for item in slices] == [""]
    assert "may be turned or mirrored" in slices[0].notes[0]


def test_wrong_files_are_left_out_by_name_and_the_rest_goes_on(tmp_path: Path) -> None:
    expected = wrong_files(tmp_path / "a")
    slices, left = read(tmp_path)
    assert [item.source for item in slices] == ["a/good.nii"] * 2
    for name, words in expected.items():
        reason = left.pop(f"a/{name}")
        assert words in reason
        assert "\n" not in reason
    assert not left


def test_several_volumes_in_a_file_are_told(tmp_path: Path) -> None:
    many = np.stack([voxels(1), voxels(2)], axis=3)
    write_nifti(tmp_path / "a" / "v.nii", many)
    slices, _ = read(tmp_path, slices="1:1")
    np.testing.assert_array_equal(slices[0].image, voxels(1)[::-1, ::-1, 0].T)
    assert slices[0].notes == ("holds 2 volumes, of which the first is read",)


def test_prepare_keeps_the_slices_of_a_volume_together(tmp_path: Path) -> None:
    for number in range(12):
        name = f"scan{number}.nii.gz"
        write_nifti(tmp_path / "scans" / ("glioma", "well")[number % 2] / name, voxels(number))
    cohort = prepare(tmp_path / "scans", tmp_path / "cohort", size=16, slices="all")
    assert (len(cohort), cohort.groups, cohort.n_patients) == (72, "inferred", 12)
    split = Split.load(cohort.root)
    sets = [{cohort.cases[k].source for k in part} for part in (split.train, split.test)]
    assert not sets[0] & sets[1]
    assert any("slices of one file stay together" in note for note in cohort.notes)
    with pytest.raises(SettingsError, match="expected mask, middle, all"):
        open_source(tmp_path / "scans", slices="some")


def test_slices_of_one_volume_know_each_other(tmp_path: Path) -> None:
    """In two cohorts, in two sets of one, and to a classifier that was trained on some of them."""
    for number in range(12):
        name = f"sub-{number:02d}.nii.gz"
        write_nifti(tmp_path / "scans" / ("glioma", "well")[number % 2] / name, voxels(number))
    parts = {"first": "1:3", "second": "4:6", "sliced": "all"}
    first, second, sliced = (
        prepare(
            tmp_path / "scans",
            tmp_path / name,
            size=16,
            slices=slices,
            split="slice" if name == "sliced" else "none",
        )
        for name, slices in parts.items()
    )
    assert statuses([first, second])["source files in one set and cohort only"] == "fail"
    assert statuses([sliced])["source files in one set only"] == "fail"
    leaks = {one.name: one for one in check_leakage(sliced, Split.load(sliced.root))}
    assert len(leaks["copies in one set only"].case_ids) == len(sliced)
    seen = note_seen(first, range(len(first)))
    assert check_seen(seen, second, range(len(second))).status == "fail"
    assert not any("the same bytes" in note for note in sliced.notes)


def statuses(cohorts: list[Cohort]) -> dict[str, str]:
    found = inspect([cohort.root for cohort in cohorts]).findings
    return {one.name: one.status for one in found}


def test_without_nibabel_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nifti(tmp_path / "scans" / "a" / "v.nii", voxels(1))
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(DataError, match=r"pip install 'robustmri\[formats\]'"):
        prepare(tmp_path / "scans", tmp_path / "cohort")
