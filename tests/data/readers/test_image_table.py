from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustmri.core.errors import DataError
from robustmri.data.prepare import write_cohort
from robustmri.data.readers.image_table import ImagesWithTable
from robustmri.data.readers.source import LeftOut, RawSlice
from robustmri.data.sources import open_source
from scans import SHARED, draw, write_csv_layout, write_rows


def test_slices_come_as_the_table_lists_them(tmp_path: Path) -> None:
    write_csv_layout(tmp_path / "scans")
    source = open_source(tmp_path / "scans")
    assert isinstance(source, ImagesWithTable)
    assert (source.name, len(source), source.patient_ids) == (
        "scans (images with a table)",
        6,
        True,
    )
    slices = [item for item in source.read() if isinstance(item, RawSlice)]
    assert [item.case_id for item in slices] == ["1", "2", "3", "4", "5", "6"]
    assert slices[2].label == "glioma"
    assert slices[2].patient_id == "MR001"
    assert slices[2].source == "images/3.jpg"
    assert slices[2].image.dtype == np.uint8
    assert slices[2].mask is not None
    assert slices[2].mask[20, 30]
    assert not slices[2].mask[20, 10]


@pytest.mark.parametrize(
    ("mode", "dtype"), [("I;16", np.uint16), ("RGB", np.uint8), ("F", np.float32)]
)
def test_depth_is_kept(tmp_path: Path, mode: str, dtype: type) -> None:
    rows = write_csv_layout(tmp_path, count=1)
    (tmp_path / "images" / "1.jpg").unlink()
    deep = draw(0, 0).astype(np.uint16) * 257
    image = Image.fromarray(deep) if mode == "I;16" else Image.fromarray(draw(0, 0)).convert(mode)
    image.save(tmp_path / "images" / "1.tif")
    (item,) = open_source(tmp_path / "slices.csv").read()
    assert isinstance(item, RawSlice)
    assert item.image.dtype == dtype
    assert item.image.max() == (deep.max() if mode == "I;16" else draw(0, 0).max())
    assert rows[0]["slice_id"] == item.case_id


def test_bad_rows_and_files_are_left_out_by_name_and_the_rest_goes_on(tmp_path: Path) -> None:
    rows = write_csv_layout(tmp_path, count=9)
    rows[0]["label"] = ""
    rows[1]["patient_id"] = " "
    rows[2]["tumor_border_xy"] = "1 2 3"
    rows[3]["tumor_border_xy"] = "1 2 x y 5 6"
    images = tmp_path / "images"
    (images / "5.jpg").unlink()
    (images / "6.jpg").write_bytes((images / "6.jpg").read_bytes()[:300])
    (images / "7.jpg").write_bytes(b"not an image")
    Image.fromarray(draw(0, 0)).save(images / "99.jpg")
    write_rows(tmp_path / "slices.csv", rows)
    items = list(open_source(tmp_path).read())
    left = {item.source: item.reason for item in items if isinstance(item, LeftOut)}
    assert [item.case_id for item in items if isinstance(item, RawSlice)] == ["8", "9"]
    for name, word in {
        "images/1.jpg": "no label",
        "images/2.jpg": "no patient_id",
        "images/3.jpg": "three or more pairs",
        "images/4.jpg": "not a list of numbers",
        "slices.csv: slice '5'": "missing",
        "images/6.jpg": "truncated",
        "images/7.jpg": "not an image: 12 bytes",
        "images/99.jpg": "not listed",
    }.items():
        assert word in left.pop(name).lower()
    assert not left


def test_a_table_without_patients_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    rows = write_csv_layout(tmp_path)
    write_rows(
        tmp_path / "slices.csv",
        [{"slice_id": row["slice_id"], "label": row["label"]} for row in rows],
    )
    with pytest.raises(DataError, match="has no column patient_id"):
        list(open_source(tmp_path).read())


def test_no_patient_gets_two_ids_of_a_column_and_a_pattern(tmp_path: Path) -> None:
    rows = write_csv_layout(tmp_path, count=2)
    rows[1]["patient_id"] = ""
    write_rows(tmp_path / "slices.csv", rows)
    items = list(open_source(tmp_path, patient_pattern="images/([0-9])").read())
    assert [item.patient_id for item in items if isinstance(item, RawSlice)] == ["MR000"]
    (left,) = (item for item in items if isinstance(item, LeftOut))
    assert left.source == "images/2.jpg"
    assert "whose patients are taken, and not those of the pattern" in left.reason


def test_a_row_may_have_no_outline_and_an_old_encoding_is_told(tmp_path: Path) -> None:
    rows = write_csv_layout(tmp_path, count=2)
    rows[0]["tumor_border_xy"] = ""
    write_rows(tmp_path / "slices.csv", rows)
    without, outlined = open_source(tmp_path).read()
    assert isinstance(without, RawSlice)
    assert isinstance(outlined, RawSlice)
    assert without.mask is None
    assert outlined.mask is not None
    table = (tmp_path / "slices.csv").read_bytes()
    (tmp_path / "slices.csv").write_bytes(table.replace(b"MR000", b"M\xfcller"))
    source = open_source(tmp_path)
    assert next(iter(source.read())).patient_id == "M\u00fcller"
    assert isinstance(source, ImagesWithTable)
    assert "in Windows-1252 (it is not UTF-8" in source.notes[0]


def test_other_names_of_the_table(tmp_path: Path) -> None:
    write_csv_layout(tmp_path)
    (tmp_path / "slices.csv").rename(tmp_path / "cases.csv")
    (tmp_path / "notes.csv").write_text("who,what\n")
    assert len(open_source(tmp_path)) == 6
    (tmp_path / "copy.csv").write_text((tmp_path / "cases.csv").read_text())
    with pytest.raises(DataError, match=r"several tables of slices \(cases.csv, copy.csv\)"):
        open_source(tmp_path)
    assert len(open_source(tmp_path / "copy.csv")) == 6


@pytest.mark.skipif(not SHARED.exists(), reason="the real slices are not here")
def test_real_slices(tmp_path: Path) -> None:
    source = open_source(SHARED)
    assert isinstance(source, ImagesWithTable)
    rows = (SHARED / "slices.csv").read_text().splitlines()
    (tmp_path / "slices.csv").write_text("\n".join([rows[0], *rows[1::100]]) + "\n")
    (tmp_path / "images").symlink_to(SHARED / "images")
    cohort = write_cohort(open_source(tmp_path), tmp_path / "cohort", size=48)
    assert cohort.classes == ("meningioma", "glioma", "pituitary")
    assert len(cohort) == len(rows[1::100])
    assert all(case.height == case.width == 512 and case.lesion_box for case in cohort.cases)
