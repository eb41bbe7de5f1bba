"""Tables as programs write them, and what is said of them."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from formats import write_excel
from robustmri.core.errors import DataError, SettingsError
from robustmri.data.readers import tables
from robustmri.data.readers.columns import find_columns, parse_columns
from robustmri.data.readers.image_table import ImagesWithTable
from robustmri.data.readers.source import LeftOut, RawSlice
from robustmri.data.readers.tables import Table, read_table
from robustmri.data.sources import open_source
from robustmri.verbs.prepare import prepare
from scans import draw

HEADER = ("slice_id", "label", "patient_id")
ROWS = (("1", "gliom\u00e9", "P1"), ("2", "a, b; c", "P2"), ("3", "", "001"))


def cells(table: Table) -> list[tuple[str, ...]]:
    return list(table.rows(table.columns))


def text(divider: str) -> str:
    lines = [HEADER, *ROWS]
    quoted = [[f'"{cell}"' if set(cell) & set(",;\t") else cell for cell in row] for row in lines]
    return "".join(divider.join(row) + "\r\n" for row in quoted)


@pytest.mark.parametrize("divider", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", ""),
        ("utf-8-sig", "UTF-8 with a byte-order mark"),
        ("utf-16", "UTF-16 with a byte-order mark"),
        ("latin-1", "Windows-1252 (it is not UTF-8"),
    ],
)
def test_dividers_and_encodings_are_found_and_said(
    tmp_path: Path, divider: str, encoding: str, said: str
) -> None:
    (tmp_path / "t.csv").write_bytes(text(divider).encode(encoding))
    table = read_table(tmp_path / "t.csv")
    assert table.columns == HEADER
    assert cells(table) == list(ROWS)
    assert tables.DIVIDERS[divider] in table.how
    assert said in table.how


def parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_cells_of_excel_are_what_a_person_sees(tmp_path: Path) -> None:
    day = datetime.datetime(2020, 2, 3)
    path = write_excel(
        tmp_path / "t.xlsx",
        [["id", "label", "when"], [1, "a", day], [], [2.0, None, 2.5], [3, "b", day, "extra"]],
        [["other"]],
    )
    table = read_table(path)
    assert table.columns == ("id", "label", "when")
    assert cells(table) == [("1", "a", "2020-02-03 00:00:00"), ("2", "", "2.5")]
    assert table.left_out == (LeftOut("t.xlsx: row 5", "it has 4 cells and the header 3"),)
    assert table.how == "the sheet 'Sheet' of 2"


def test_whole_numbers_of_parquet_have_no_point(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "t.parquet",
        id=[1, 2, 3],
        patient=pa.array([7.0, None, 8.0]),
        label=pa.array(["a", None, "b"]).dictionary_encode(),
        score=[0.5, float("nan"), 1.0],
        image=[{"bytes": b"1"}] * 3,
    )
    table = read_table(path)
    assert cells(table) == [
        *(("1", "7", "a", "0.5"), ("2", "", "", "nan"), ("3", "8", "b", "1")),
    ]
    assert table.how == "without image: neither texts nor numbers"


@pytest.mark.parametrize("row", ["1,glioma, grade II,P1", "1,glioma"])
def test_a_row_that_does_not_fit_its_header_is_left_out_by_number(tmp_path: Path, row: str) -> None:
    (tmp_path / "t.csv").write_text(
        f'slice_id,label,patient_id\n2,a,"two\nlines"\n\n{row}\n3,b,P3\n'
    )
    table = read_table(tmp_path / "t.csv")
    assert cells(table) == [("2", "a", "two\nlines"), ("3", "b", "P3")]
    ((left),) = table.left_out
    assert left.source == "t.csv: row 3"
    assert f"it has {row.count(',') + 1} cells and the header 3" in left.reason


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        with packed.open("xl/workbook.xml", "w") as member:
            for _ in range(5):
                member.write(bytes(10**6))


def no_table(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("readme", "hello")


def not_utf8(path: Path) -> None:
    parquet(path, a=["secret"])
    path.write_bytes(path.read_bytes().replace(b"secret", b"secr\x80t"))


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("t.csv", lambda path: path.write_bytes(b""), "it has no header"),
        ("t.csv", lambda path: path.write_bytes(b"\n\n"), "it has no header"),
        ("t.csv", lambda path: path.write_bytes(b"a,b\0,c\n1,2,3\n"), "zero bytes"),
        ("t.csv", lambda path: path.write_text("a," * 20_000), "has 20001 columns"),
        ("t.xlsx", zip_bomb, "unpacks to 5000000 bytes"),
        ("t.xlsx", no_table, "not an Excel workbook"),
        ("t.xlsx", lambda path: path.write_text("a,b"), "not an Excel workbook"),
        ("t.parquet", lambda path: path.write_text("a,b"), "not a Parquet file"),
        ("t.parquet", not_utf8, "Invalid UTF8"),
        ("t.parquet", lambda path: parquet(path, a=["x" * 70_000]), "a cell has 70000 bytes"),
        (
            "t.parquet",
            lambda path: parquet(path, a=pa.array(["x" * 60_000] * 100).dictionary_encode()),
            "its cells need more than",
        ),
    ],
)
def test_what_is_no_table_or_too_large_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    make: Callable[[Path], object],
    said: str,
) -> None:
    pytest.importorskip("openpyxl")
    monkeypatch.setattr(tables, "TABLE_LIMIT", 2**22)
    make(tmp_path / name)
    with pytest.raises(DataError, match=f"{name} cannot be read as a table: .*{said}"):
        read_table(tmp_path / name)


def test_without_openpyxl_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_excel(tmp_path / "t.xlsx", [["a"], [1]])
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(DataError, match=r"pip install 'robustmri\[formats\]'"):
        read_table(path)


def test_what_columns_may_be_said_to_be() -> None:
    for wrong, said in {
        "imge=a": "Did you mean 'image'",
        "image": "expected each role once as ROLE=COLUMN",
        "label=a,label=b": "expected each role once",
    }.items():
        with pytest.raises(SettingsError, match=said):
            parse_columns(wrong)
    with pytest.raises(DataError, match=r"'diagnosis' and 'class' could each be the label. Say wh"):
        find_columns(["file", "diagnosis", "class"], {}, "t.csv")
    with pytest.raises(DataError, match=r"no column 'dignosis' for label\. Did you mean"):
        find_columns(["file", "diagnosis"], {"label": "dignosis"}, "t.csv")
    own = find_columns(["file", "diagnosis", "class"], {"label": "class"}, "t.csv")
    assert own == {"image": "file", "label": "class"}


def write_images(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(number // 2, number % 2)).save(folder / name)


def read(path: Path, **options: str) -> tuple[list[RawSlice], dict[str, str], tuple[str, ...]]:
    source = open_source(path, **options)
    assert isinstance(source, ImagesWithTable)
    items = list(source.read())
    left = {item.source: item.reason for item in items if isinstance(item, LeftOut)}
    return [item for item in items if isinstance(item, RawSlice)], left, source.notes


@pytest.mark.parametrize(
    "cell",
    [
        *("1", "1.png", "deep/1", "deep/1.png", "./deep/1.png", "deep\\1.png"),
        *("a/1", "a/1.png", "/home/me/scans/1.png", "C:\\scans\\1.png"),
    ],
)
def test_an_id_is_a_path_a_name_or_a_stem(tmp_path: Path, cell: str) -> None:
    folder = "deep/a" if cell.startswith("a/") else "deep"
    write_images(tmp_path, [f"{folder}/1.png", f"{folder}/2.png"])
    (tmp_path / "t.csv").write_text(f"file,dx,subject\n{cell},a,P1\n")
    ((item,), left, notes) = read(tmp_path)
    assert (item.case_id, item.label, item.patient_id) == (cell, "a", "P1")
    assert left == {f"{folder}/2.png": "not listed in t.csv: label and patient are unknown"}
    assert notes == (
        "t.csv: read as comma-separated; image is 'file' (guessed), label is 'dx' (guessed), "
        "patient is 'subject' (guessed)",
    )


def test_a_table_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    write_images(tmp_path, ["secret.png", "scans/1.png"])
    (tmp_path / "scans" / "t.csv").write_text(
        f"file,label,patient\n../secret.png,a,P\n{tmp_path}/secret.png,a,P\n1,a,P\n"
    )
    slices, left, _ = read(tmp_path / "scans")
    assert [item.case_id for item in slices] == ["1"]
    assert list(left.values()) == ["the image file is missing"] * 2


def test_a_path_takes_no_file_of_another_folder(tmp_path: Path) -> None:
    """There the same name may be another patient's."""
    write_images(tmp_path, ["images/p01/1.png", "images/p02/900.png"])
    write_images(tmp_path, ["masks/p01/1.png", "masks/p05/77.png"])
    (tmp_path / "slices.csv").write_text(
        "slice_id,label,patient_id,mask\n"
        "images/p01/1.png,a,P1,masks/p03/77.png\nimages/p01/900.png,a,P1,\np01/900,a,P1,\n"
    )
    slices, left, _ = read(tmp_path)
    assert not slices
    assert left["images/p01/1.png"] == "the mask 'masks/p03/77.png' is missing"
    for cell in ("images/p01/900.png", "p01/900"):
        assert left[f"slices.csv: slice {cell!r}"] == "the image file is missing"
    assert "not listed" in left["images/p02/900.png"]


def test_a_path_may_begin_above_or_below_the_folder(tmp_path: Path) -> None:
    deep, flat = tmp_path / "deep", tmp_path / "flat"
    write_images(deep, ["images/p01/1.png", "images/p02/1.png"])
    (deep / "slices.csv").write_text(
        "slice_id,label,patient_id\nset/images/p01/1.png,a,P1\np02/1.png,b,P2\n"
    )
    slices, _, _ = read(deep)
    assert [(one.label, one.source) for one in slices] == [
        ("a", "images/p01/1.png"),
        ("b", "images/p02/1.png"),
    ]
    write_images(flat, ["9.png", "10.png"])
    (flat / "slices.csv").write_text("slice_id,label,patient_id\nflat/9.png,a,P1\n10.png,b,P2\n")
    slices, _, _ = read(flat)
    assert {(one.label, one.source) for one in slices} == {("a", "9.png"), ("b", "10.png")}


def test_a_table_that_contradicts_itself_or_names_two_files_decides_nothing(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png", "2.png", "a/3.png", "b/3.png", "4.png", "5.png"])
    (tmp_path / "t.csv").write_text(
        "file,label,patient\n1,a,P\n1.png,b,P\n2,a,P\n2,a,P\n3,a,P\nNone,a,P\n4,NaN,P\n5,a,N/A\n"
    )
    slices, left, _ = read(tmp_path)
    assert [item.case_id for item in slices] == ["2"]
    for name, words in {
        "1.png": "says two things of it",
        "t.csv: slice '2'": "says the same stands above",
        "t.csv: slice '3'": "means several files: a/3.png, b/3.png",
        "t.csv: row 7": "names no image",
        "4.png": "no label in t.csv",
        "5.png": "no patient_id in t.csv",
        "a/3.png": "not listed",
        "b/3.png": "not listed",
    }.items():
        assert words in left.pop(name)
    assert not left


def test_a_row_is_named_by_its_number_in_the_file(tmp_path: Path) -> None:
    """Also below rows that do not fit the header."""
    write_images(tmp_path, ["1.png", "2.png"])
    rows = ["file,label,patient", "1,a,P", "a,b", "NaN,a,P", "2,b,c,d", "2,a,P", ",a,P"]
    (tmp_path / "t.csv").write_text("\r".join(rows))  # Rows as a Macintosh ended them.
    _, left, _ = read(tmp_path)
    assert list(left) == [f"t.csv: row {number}" for number in (3, 5, 4, 7)]
    assert "quotes" not in left["t.csv: row 3"]
    assert "quotes" in left["t.csv: row 5"]


@pytest.mark.parametrize("ways", [("007", "7"), ("P 7", "p7")])
def test_ids_written_in_several_ways_are_told(tmp_path: Path, ways: tuple[str, str]) -> None:
    write_images(tmp_path, ["1.png", "2.png"])
    (tmp_path / "t.csv").write_text("file,label,patient\n1,a,{}\n2,a,{}\n".format(*ways))
    _, _, notes = read(tmp_path)
    told = ", ".join(map(repr, ways))
    assert f"patients {told} may be one patient written in several ways" in notes[1]


def test_names_are_found_however_a_disk_writes_their_accents(tmp_path: Path) -> None:
    write_images(tmp_path, ["e\u0301/1.png", "\u00e9/2.png", "\u00e93.png"])
    rows = "\u00e9/1.png,a,P\ne\u0301/2.png,a,P\ne\u03013,a,P\n"
    (tmp_path / "t.csv").write_text(f"file,label,patient\n{rows}", encoding="utf-8")
    slices, left, _ = read(tmp_path)
    assert len(slices) == 3
    assert not left


def test_masks_planes_and_folds_of_a_table(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ["1.png", "2.png", "3.png"])
    mask = np.zeros((64, 64), np.uint8)
    mask[5:9, 3:4] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "1.png")
    Image.fromarray(mask * 0).save(tmp_path / "masks" / "2.png")
    (tmp_path / "t.csv").write_text(
        "image,label,patient,mask,view,fold\n1,a,P,1,Sag,3\n2,a,P,2,?,0\n3,a,P,9,,\n"
    )
    slices, left, _ = read(tmp_path)
    assert slices[0].mask is not None
    np.testing.assert_array_equal(slices[0].mask, mask > 0)
    assert (slices[0].plane, slices[0].fold) == ("sagittal", 3)
    assert (slices[1].mask, slices[1].plane, slices[1].fold) == (None, "", None)
    assert left == {"images/3.png": "the mask '9' is missing"}


def test_a_table_may_know_the_patients_of_class_folders(tmp_path: Path) -> None:
    write_images(tmp_path, ["a/1.png", "b/2.png"])
    (tmp_path / "t.csv").write_text("file,patient\n1,P1\n2,P2\n")
    slices, _, _ = read(tmp_path)
    assert [(item.label, item.patient_id) for item in slices] == [("a", "P1"), ("b", "P2")]


@pytest.mark.parametrize("kind", ["csv", "tsv", "xlsx", "parquet"])
def test_prepare_reads_a_table_of_each_kind(tmp_path: Path, kind: str) -> None:
    names = [f"{number}.png" for number in range(16)]
    write_images(tmp_path / "scans", names)
    rows = [[name, "ab"[k // 2 % 2], f"P{k // 2}", k] for k, name in enumerate(names)]
    header = ["filename", "class", "who", "age"]
    path = tmp_path / "scans" / f"list.{kind}"
    if kind == "xlsx":
        write_excel(path, [header, *rows])
    elif kind == "parquet":
        parquet(path, **{name: [row[k] for row in rows] for k, name in enumerate(header)})
    else:
        divider = "\t" if kind == "tsv" else ";"
        path.write_text("".join(divider.join(map(str, row)) + "\n" for row in [header, *rows]))
    with pytest.raises(DataError, match="no column patient_id"):
        prepare(path, tmp_path / "cohort", size=16)
    cohort = prepare(tmp_path / "scans", tmp_path / "cohort", size=16, columns="patient=who")
    assert (len(cohort), cohort.n_patients, cohort.groups) == (16, 8, "patient")
    assert "image is 'filename' (guessed), label is 'class' (guessed)" in cohort.notes[0]
    assert "patient is 'who'; not used: age" in cohort.notes[0]
    unknown = prepare(path, tmp_path / "unknown", size=16, columns="patient=")
    assert unknown.groups == "inferred"


def test_a_table_that_is_not_used_is_told_with_the_reason(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    write_images(scans, [f"{'ab'[k // 2 % 2]}/{k}.png" for k in range(16)])
    (scans / "metadata.csv").write_text("what,ever\n1,2\n")
    (scans / "two.csv").write_text("file,diagnosis,class\n1,2,3\n")
    (scans / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    cohort = prepare(scans, tmp_path / "cohort", size=16)
    said = " ".join(cohort.notes)
    assert "metadata.csv is a table that is not used" in said
    assert "'diagnosis' and 'class' could each be the label" in said
    assert "old.xls is a table of a kind that is not read" in said
    (tmp_path / "none").mkdir()
    (scans / "two.csv").rename(tmp_path / "none" / "two.csv")
    with pytest.raises(DataError, match=r"holds no scans .* could each be the label\. Say which"):
        open_source(tmp_path / "none")
    (tmp_path / "none" / "two.csv").rename(tmp_path / "none" / "slices.csv")
    with pytest.raises(DataError, match=r"^slices\.csv: 'diagnosis' and 'class'"):
        open_source(tmp_path / "none")


def test_a_table_of_labels_with_patients_in_the_names(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ["a/p1_1.png", "b/p2_1.png", "b/odd.png"])
    (tmp_path / "t.csv").write_text("file,label\np1_1,x\np2_1,y\nodd,y\n")
    slices, left, _ = read(tmp_path, patient_pattern=r"(p\d)_")
    assert [(item.label, item.patient_id) for item in slices] == [("x", "p1"), ("y", "p2")]
    assert left == {"images/b/odd.png": "no patient: the pattern finds none in its path"}
    (tmp_path / "t.csv").write_text("file,patient\np1_1,1\np2_1,2\nodd,2\n")
    assert [item.label for item in read(tmp_path)[0]] == ["a", "b", "b"]


def test_an_option_that_means_nothing_for_the_source_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, ["a/1.png", "b/2.png"])
    with pytest.raises(SettingsError, match="no use for the setting 'slices'; it knows: patient_p"):
        open_source(tmp_path, slices="all")
    with pytest.raises(SettingsError, match="the phantom has no use for the setting 'columns'"):
        open_source("phantom", columns="label=a")


def test_a_large_table_keeps_places_only(tmp_path: Path) -> None:
    """A row costs an entry of a dictionary, whatever stands in it, and none is an object of its
    own.
    """
    write_images(tmp_path, ["7.png"])
    rows = "".join(f"{k},class {k % 1000},P{k // 7}\n" for k in range(5000))
    (tmp_path / "t.csv").write_text("file,label,patient\n" + rows)
    source = open_source(tmp_path / "t.csv")
    assert isinstance(source, ImagesWithTable)
    items = list(source.read())
    assert [item.case_id for item in items if isinstance(item, RawSlice)] == ["7"]
    assert len(items) == 1 + 1000 + 1
    assert items[-1] == LeftOut("t.csv", "the image file is missing for 3999 more rows")
    assert {type(place) for place in source._lookup.by_id.values()} == {int}
