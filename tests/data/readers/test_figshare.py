from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from robustmri.core.errors import DataError
from robustmri.data.cohort import Cohort
from robustmri.data.prepare import write_cohort
from robustmri.data.readers.figshare import FigshareRelease
from robustmri.data.readers.source import LeftOut, RawSlice
from robustmri.data.sources import open_source
from scans import OUTLINE, SHARED, draw, write_csv_layout, write_mat, write_release


def pack(release: Path, out: Path, parts: int = 2) -> Path:
    """The .mat files of a folder in zips, as they are published."""
    out.mkdir()
    files = sorted(release.glob("*.mat"))
    for part in range(parts):
        with zipfile.ZipFile(out / f"part{part}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files[part::parts]:
                archive.write(file, f"sub/{file.name}")
    return out


def facts(cohort: Cohort) -> list[tuple[object, ...]]:
    return [
        (
            case.case_id,
            case.label,
            case.patient_id,
            case.group,
            case.height,
            case.width,
            case.lesion_box,
        )
        for case in cohort.cases
    ]


def assert_same(one: Cohort, other: Cohort) -> None:
    everything = range(len(one))
    masks, others = one.masks(everything), other.masks(everything)
    assert masks is not None
    assert others is not None
    assert masks.any(axis=(1, 2)).all()
    assert facts(one) == facts(other)
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(masks, others)


def test_folder_zips_and_csv_give_the_same_cases(tmp_path: Path) -> None:
    rows = write_csv_layout(tmp_path / "csv", count=12)
    write_release(tmp_path / "csv", tmp_path / "mat", rows)
    pack(tmp_path / "mat", tmp_path / "zips")
    table, folder, zips = (
        write_cohort(open_source(tmp_path / kind), tmp_path / f"cohort-{kind}", size=24)
        for kind in ("csv", "mat", "zips")
    )
    assert [case.case_id for case in folder.cases] == [str(number) for number in range(1, 13)]
    assert zips.cases[1].source == "part0.zip/sub/2.mat"
    assert_same(table, folder)
    assert_same(table, zips)
    assert [case.sha256 for case in folder.cases] == [case.sha256 for case in zips.cases]


@pytest.mark.skipif(not SHARED.exists(), reason="the real slices are not here")
def test_real_slices_in_both_layouts(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("to_mat", SHARED / "to_mat.py")
    assert spec is not None
    assert spec.loader is not None
    to_mat = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(to_mat)
    lines = (SHARED / "slices.csv").read_text().splitlines()
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "slices.csv").write_text("\n".join([lines[0], *lines[1::75]]) + "\n")
    (tmp_path / "csv" / "images").mkdir()
    (tmp_path / "mat").mkdir()
    for line in lines[1::75]:
        row = dict(zip(lines[0].split(","), line.split(","), strict=True))
        name = f"{row['slice_id']}.jpg"
        (tmp_path / "csv" / "images" / name).symlink_to(SHARED / "images" / name)
        to_mat.write(tmp_path / "mat" / f"{row['slice_id']}.mat", row)
    table, release = (
        write_cohort(open_source(tmp_path / kind), tmp_path / f"cohort-{kind}", size=96)
        for kind in ("csv", "mat")
    )
    assert len(table) == 36
    assert_same(table, release)


def test_twelve_bits_and_padding_of_ids(tmp_path: Path) -> None:
    grey = (np.arange(64 * 48).reshape(64, 48) % 4096).astype(np.int16)
    write_mat(tmp_path / "7.mat", grey, OUTLINE, patient="MR040240B\0", label=2.0)
    (item,) = open_source(tmp_path).read()
    assert isinstance(item, RawSlice)
    assert (item.case_id, item.patient_id, item.label, item.fold) == (
        "7",
        "MR040240B",
        "glioma",
        None,
    )
    np.testing.assert_array_equal(item.image, grey)
    assert item.image.dtype == np.int16


@pytest.mark.parametrize("rows_first", [True, False])
def test_a_missing_mask_is_drawn_in_the_order_that_fits_the_others(
    tmp_path: Path, rows_first: bool
) -> None:
    grey = draw(1, 0)
    for number in (1, 2, 3):
        write_mat(
            tmp_path / f"{number}.mat", grey, OUTLINE, mask=number != 1, rows_first=rows_first
        )
    write_mat(tmp_path / "4.mat", grey, OUTLINE, mask=False, rows_first=rows_first)
    without, reference, _, again = open_source(tmp_path).read()
    assert isinstance(without, RawSlice)
    assert isinstance(reference, RawSlice)
    assert isinstance(again, RawSlice)
    np.testing.assert_array_equal(without.mask, reference.mask)
    np.testing.assert_array_equal(again.mask, reference.mask)


def test_without_any_mask_rows_come_first_as_the_release_says(tmp_path: Path) -> None:
    write_mat(tmp_path / "1.mat", draw(1, 0), OUTLINE, mask=False)
    write_mat(tmp_path / "2.mat", draw(1, 0), OUTLINE)
    expected = list(open_source(tmp_path).read())[1]
    (tmp_path / "2.mat").unlink()
    (item,) = open_source(tmp_path).read()
    assert isinstance(item, RawSlice)
    assert isinstance(expected, RawSlice)
    np.testing.assert_array_equal(item.mask, expected.mask)


def write_folds(path: Path, version: str) -> None:
    folds = np.array([[3.0], [1.0], [5.0]])
    if version == "v5":
        scipy.io.savemat(path, {"cvind": folds})
        return
    with h5py.File(path, "w", userblock_size=512) as file:
        file["cvind"] = folds.T


@pytest.mark.parametrize("version", ["v5", "v7.3"])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_authors_folds(tmp_path: Path, version: str, zipped: bool) -> None:
    release = tmp_path / "release"
    release.mkdir()
    for number in (1, 2, 3):
        write_mat(release / f"{number}.mat", draw(number, 0), OUTLINE)
    write_folds(release / "cvind.mat", version)
    source = open_source(pack(release, tmp_path / "zips") if zipped else release)
    assert len(source) == 3
    assert [item.fold for item in source.read() if isinstance(item, RawSlice)] == [3, 1, 5]


def test_a_file_of_folds_without_folds_is_left_out(tmp_path: Path) -> None:
    write_mat(tmp_path / "1.mat", draw(1, 0), OUTLINE)
    scipy.io.savemat(tmp_path / "cvind.mat", {})
    items = list(open_source(tmp_path).read())
    (left,) = (item for item in items if isinstance(item, LeftOut))
    assert (left.source, "no numbers" in left.reason) == ("cvind.mat", True)
    (item,) = (item for item in items if isinstance(item, RawSlice))
    assert item.fold is None


def test_one_zip_finds_the_folds_beside_it(tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.mkdir()
    write_mat(release / "2.mat", draw(2, 0), OUTLINE)
    zips = pack(release, tmp_path / "zips", parts=1)
    write_folds(zips / "cvind.mat", "v5")
    (item,) = open_source(zips / "part0.zip").read()
    assert isinstance(item, RawSlice)
    assert (item.fold, item.source) == (1, "part0.zip/sub/2.mat")


def test_bad_files_are_left_out_by_name_and_the_rest_goes_on(tmp_path: Path) -> None:
    grey = draw(1, 0)
    write_mat(tmp_path / "1.mat", grey, OUTLINE)
    whole = (tmp_path / "1.mat").read_bytes()
    for cut in (100, 600, 2000, len(whole) - 50):
        (tmp_path / f"1000{cut}.mat").write_bytes(whole[:cut])
    (tmp_path / "3.mat").write_bytes(b"")
    write_mat(tmp_path / "4.mat", grey, OUTLINE, label=4.0)
    write_mat(tmp_path / "5.mat", grey, OUTLINE, label=float("nan"))
    write_mat(tmp_path / "6.mat", grey, OUTLINE, patient="\0")
    write_mat(tmp_path / "7.mat", grey, OUTLINE, leave=("label",))
    write_mat(tmp_path / "8.mat", grey, OUTLINE, leave=("PID",))
    with h5py.File(tmp_path / "9.mat", "w") as file:
        file["other"] = 1
    write_mat(tmp_path / "10.mat", grey, OUTLINE[:2], mask=False)
    write_mat(tmp_path / "11.mat", grey, OUTLINE)
    with h5py.File(tmp_path / "11.mat", "r+") as file:
        del file["cjdata/label"]
        file["cjdata/label"] = np.ones((2, 2))
    (tmp_path / "cvind.mat").write_bytes(b"MATLAB 5.0")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and then nothing")
    items = list(open_source(tmp_path).read())
    assert [item.case_id for item in items if isinstance(item, RawSlice)] == ["1"]
    left = {item.source: item.reason for item in items if isinstance(item, LeftOut)}
    assert len(left) == len(items) - 1 == 15
    assert "not an outline of three or more points" in left["10.mat"]
    assert "label is an array of shape (2, 2), expected one number" in left["11.mat"]
    assert "not a zip" in left["broken.zip"]
    assert "folds are unknown" in left["cvind.mat"]
    assert "label is 4, expected 1, 2 or 3" in left["4.mat"]
    assert "label is nan" in left["5.mat"]
    assert "no patient id" in left["6.mat"]
    assert "no label in 'cjdata'" in left["7.mat"]
    assert "no PID in 'cjdata'" in left["8.mat"]
    assert "no struct 'cjdata'" in left["9.mat"]
    assert all(
        "cannot be read" in left[f"1000{cut}.mat"] for cut in (100, 600, 2000, len(whole) - 50)
    )


def test_a_slice_both_unpacked_and_zipped_is_read_once(tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.mkdir()
    for number in (1, 2):
        write_mat(release / f"{number}.mat", draw(number, 0), OUTLINE)
    zips = pack(release, tmp_path / "zips", parts=1)
    (zips / "1.mat").write_bytes((release / "1.mat").read_bytes())
    source = open_source(zips)
    assert isinstance(source, FigshareRelease)
    assert [item.source for item in source.read()] == ["1.mat", "part0.zip/sub/2.mat"]


def test_zips_in_a_zip(tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.mkdir()
    write_mat(release / "1.mat", draw(1, 0), OUTLINE)
    zips = pack(release, tmp_path / "zips", parts=1)
    with zipfile.ZipFile(tmp_path / "1512427.zip", "w") as archive:
        archive.write(zips / "part0.zip", "part0.zip")
    with pytest.raises(DataError, match="Unpack it once"):
        open_source(tmp_path / "1512427.zip")
