"""A cohort that was prepared before, as a source, damaged or made up."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustmri.core.errors import DataError, SettingsError
from robustmri.data.cases import read_cases, write_cases
from robustmri.data.cohort import Cohort, fingerprint_of
from robustmri.data.prepare import write_cohort
from robustmri.data.readers.source import LeftOut
from robustmri.data.sources import open_source
from scans import SliceList, slices_of


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "cohort"
    return write_cohort(SliceList(slices_of()), folder, size=32).root


@pytest.fixture
def cohort(sound: Path, tmp_path: Path) -> Cohort:
    return Cohort.open(shutil.copytree(sound, tmp_path / "cohort"))


def rewrite(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the head, and let it vouch for the files as they are."""
    head = json.loads((root / "cohort.json").read_text())
    change(head)
    for name, facts in head["files"].items() if isinstance(head.get("files"), dict) else ():
        if (root / name).is_file():
            facts["bytes"] = (root / name).stat().st_size
    with contextlib.suppress(AttributeError, KeyError, TypeError):
        head["fingerprint"] = fingerprint_of(head, read_cases(root / "cases.parquet"))
    (root / "cohort.json").write_text(json.dumps(head))


HEADS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no classes": lambda head: head.pop("classes"),
    "classes are a number": lambda head: head.update(classes=3),
    "fewer classes": lambda head: head.update(classes=head["classes"][:1]),
    "other classes": lambda head: head.update(classes=head["classes"][::-1]),
    "no files": lambda head: head.update(files={}),
    "files are a list": lambda head: head.update(files=["images.npy"]),
    "no pixels": lambda head: head["files"].pop("images.npy"),
    "a size in words": lambda head: head.update(size="large"),
    "no left out": lambda head: head.pop("left_out"),
    "left out in words": lambda head: head.update(left_out=["1.png"]),
}


@pytest.mark.parametrize("change", HEADS.values(), ids=HEADS)
def test_a_head_that_makes_no_sense_is_refused(
    cohort: Cohort, change: Callable[[dict[str, Any]], object]
) -> None:
    rewrite(cohort.root, change)
    with pytest.raises(DataError, match=r"cohort\.json is damaged|no longer agree"):
        Cohort.open(cohort.root)


@pytest.mark.parametrize("text", ["[]", "3", "{}", "", "[" * 100_000, "\0"])
def test_a_head_that_is_none_is_refused(cohort: Cohort, text: str) -> None:
    (cohort.root / "cohort.json").write_text(text)
    with pytest.raises(DataError):
        Cohort.open(cohort.root)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((3, 32, 32), np.uint16),
        np.zeros((60, 32, 32), np.float32),
        np.zeros(()),
        np.array([{"a": 1}], dtype=object),
    ],
    ids=["fewer", "floats", "a number", "objects"],
)
@pytest.mark.parametrize("name", ["images.npy", "masks.npy"])
def test_arrays_of_another_shape_are_refused(cohort: Cohort, name: str, values: Any) -> None:
    np.save(cohort.root / name, values)
    rewrite(cohort.root, lambda head: None)
    with pytest.raises(DataError, match=rf"{name} (is damaged|holds|was changed)"):
        list(open_source(cohort.root).read())


def test_an_archive_of_arrays_is_no_array(cohort: Cohort) -> None:
    images = np.array(cohort.images)
    with open(cohort.root / "images.npy", "wb") as stream:
        np.savez(stream, images=images)
    rewrite(cohort.root, lambda head: None)
    with pytest.raises(DataError, match=r"images\.npy (is damaged|was changed)"):
        list(open_source(cohort.root).read())


@pytest.mark.parametrize("header", [b"(", b"\\", b"{'descr': 3}", b"\0", b" 1\n2"])
def test_a_header_that_python_cannot_read(cohort: Cohort, header: bytes) -> None:
    path = cohort.root / "images.npy"
    path.write_bytes(path.read_bytes()[:10] + header.ljust(118) + path.read_bytes()[128:])
    with pytest.raises(DataError, match=r"images\.npy (is damaged|was changed)"):
        list(open_source(cohort.root).read())


@pytest.mark.parametrize(
    ("column", "value"), [("index", 10**6), ("class_index", -1), ("class_index", 7)]
)
def test_rows_that_point_elsewhere_are_refused(cohort: Cohort, column: str, value: int) -> None:
    path = cohort.root / "cases.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0][column] = value
    pq.write_table(pa.Table.from_pylist(rows), path)
    rewrite(cohort.root, lambda head: None)
    with pytest.raises(DataError, match=r"no longer agree|is damaged"):
        Cohort.open(cohort.root)


def test_a_table_of_something_else_is_refused(cohort: Cohort) -> None:
    path = cohort.root / "cases.parquet"
    pq.write_table(pa.table({"index": ["a"]}), path)
    with pytest.raises(DataError, match="is not a table of cases"):
        read_cases(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["cohort.json", "images.npy", "masks.npy", "cases.parquet"])
def test_pipes_are_not_waited_for(cohort: Cohort, name: str) -> None:
    (cohort.root / name).unlink()
    os.mkfifo(cohort.root / name)
    with pytest.raises(DataError):
        list(open_source(cohort.root).read())


def test_what_was_told_and_left_out_is_carried_over(tmp_path: Path) -> None:
    left = LeftOut("9.png", "cannot be read")
    source = SliceList([*slices_of(), left])
    first = write_cohort(source, tmp_path / "first", size=32, notes=["the label is a guess"])
    again = write_cohort(open_source(first.root), tmp_path / "again", size=16)
    assert "the label is a guess" in again.notes
    assert (again.notes, again.left_out) == (first.notes, (left,))


def test_a_cohort_that_is_prepared_again_keeps_its_grey_values(tmp_path: Path) -> None:
    first = write_cohort(
        SliceList(slices_of(size=48)), tmp_path / "1", size=32, intensity="percentile", pad=False
    )
    again = write_cohort(open_source(first.root), tmp_path / "2", size=32)
    np.testing.assert_array_equal(again.images, first.images)
    assert (again.intensity, again.pad) == ("percentile", False)
    assert {(case.height, case.width) for case in again.cases} == {(48, 48)}
    smaller = write_cohort(
        open_source(first.root), tmp_path / "3", size=16, intensity="percentile", pad=False
    )
    halves = np.asarray(first.images, float).reshape(len(first), 16, 2, 16, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(smaller.images, halves, atol=0.51)  # Rounded to whole numbers.
    with pytest.raises(SettingsError, match=r"mapped by 'percentile'.*got intensity 'minmax'"):
        write_cohort(open_source(first.root), tmp_path / "4", size=16, intensity="minmax")


def test_a_padded_cohort_is_not_stretched_later(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"were padded with black.*got --stretch"):
        write_cohort(open_source(cohort.root), tmp_path / "again", size="16x32", pad=False)


def test_cases_are_read_as_they_were_written(cohort: Cohort, tmp_path: Path) -> None:
    write_cases(tmp_path / "cases.parquet", cohort.cases)
    assert read_cases(tmp_path / "cases.parquet") == cohort.cases
