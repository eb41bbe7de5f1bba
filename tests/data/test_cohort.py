from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from robustmri.core.errors import DataError, RobustMRIError, SettingsError
from robustmri.data.cases import group_of, read_cases
from robustmri.data.cohort import Cohort
from robustmri.data.intensity import resize, scale
from robustmri.data.prepare import write_cohort
from robustmri.data.readers.source import LeftOut, RawSlice
from robustmri.data.split import Split, make_split
from scans import SliceList, draw, slices_of


def one(**changes: object) -> RawSlice:
    first = slices_of(1, 1)[0]
    assert isinstance(first, RawSlice)
    return replace(first, **changes)


def test_a_cohort_holds_what_the_source_gave(cohort: Cohort) -> None:
    items = slices_of()
    assert cohort.classes == ("meningioma", "glioma", "pituitary")
    assert cohort.images.shape == (len(items), 32, 32)
    assert cohort.images.dtype == np.uint16
    assert isinstance(cohort.images, np.memmap)
    for case, item in zip(cohort.cases, items, strict=True):
        assert isinstance(item, RawSlice)
        assert (case.case_id, case.label, case.patient_id) == (
            item.case_id,
            item.label,
            item.patient_id,
        )
        assert (case.height, case.width, case.plane, case.sha256) == (64, 64, "axial", item.sha256)
        assert cohort.classes[case.class_index] == case.label
        expected = resize(scale(item.image), 32)
        np.testing.assert_allclose(cohort.images[case.index] / 65535, expected, atol=0.5001 / 65535)
    assert cohort.n_patients == 12
    assert cohort.synthetic
    assert not cohort.left_out


def test_masks_are_resized_with_the_images(cohort: Cohort) -> None:
    masks = cohort.masks([1, 0])
    assert masks is not None
    assert masks.shape == (2, 32, 32)
    assert masks[1].sum() == 10 * 5  # 20 x 10 pixels at half the size
    assert cohort.cases[0].lesion_box == (10, 5, 15, 15)
    assert cohort.cases[1].lesion_box == (10, 5, 16, 15)


@pytest.mark.parametrize(("columns", "right"), [(5, 1), (6, 2), (7, 2), (9, 2)])
def test_a_pixel_half_covered_by_the_lesion_belongs_to_it(
    tmp_path: Path, columns: int, right: int
) -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[:, :columns] = True
    items = [one(case_id="a", mask=mask), one(case_id="b", label="glioma")]
    cohort = write_cohort(SliceList(items), tmp_path / "cohort", size=16)
    assert cohort.cases[0].lesion_box == (0, 0, right, 16)


@pytest.mark.parametrize("size", [8, 15, 33])
def test_masks_of_any_width(tmp_path: Path, size: int) -> None:
    mask = np.zeros((size, size), dtype=bool)
    mask[:, -1] = True
    items = [
        one(case_id="a", image=draw(1, 0, size), mask=mask),
        one(case_id="b", label="glioma", mask=None),
    ]
    cohort = write_cohort(SliceList(items), tmp_path / "cohort", size=size)
    masks = cohort.masks([0, 1])
    assert masks is not None
    np.testing.assert_array_equal(masks[0], mask)
    assert not masks[1].any()
    assert cohort.cases[1].lesion_box is None


def test_an_outline_between_the_pixels_has_no_box(tmp_path: Path) -> None:
    """A lesion of one pixel in sixteen is gone from a cohort of a quarter of the size."""
    mask = np.zeros((64, 64), dtype=bool)
    mask[0, 0] = True
    items = [one(case_id="a", mask=mask), one(case_id="b", label="glioma")]
    cohort = write_cohort(SliceList(items), tmp_path / "cohort", size=16)
    assert cohort.cases[0].lesion_box is None


def test_without_lesions_there_is_no_mask_array(tmp_path: Path) -> None:
    items = [one(case_id="a", mask=None), one(case_id="b", label="glioma", mask=None)]
    cohort = write_cohort(SliceList(items), tmp_path / "cohort", size=16)
    assert cohort.masks([0]) is None
    assert not (cohort.root / "masks.npy").exists()


def test_opened_again_it_is_the_same(cohort: Cohort) -> None:
    again = Cohort.open(cohort.root)
    assert again == cohort
    again.verify()


def test_the_fingerprint_covers_pixels_and_cases(tmp_path: Path) -> None:
    def print_of(name: str, first: RawSlice, **settings: object) -> str:
        items = [first, one(case_id="b", label="glioma", image=draw(5, 0))]
        return write_cohort(
            SliceList(items), tmp_path / name, **{"size": 16, **settings}
        ).fingerprint

    plain = one()
    base = print_of("base", plain)
    assert print_of("again", plain) == base
    speck = plain.image.copy()
    speck[30:34, 30:34] ^= 1
    others = [
        print_of("pixel", replace(plain, image=speck)),
        print_of("patient", replace(plain, patient_id="someone")),
        print_of("mask", replace(plain, mask=None)),
        print_of("size", plain, size=17),
        print_of("rule", plain, intensity="percentile"),
    ]
    assert len({base, *others}) == 6


def test_other_classes_come_after_the_known_tumours_in_alphabetical_order(tmp_path: Path) -> None:
    labels = ["zebra", "pituitary", "notumor", "meningioma"]
    items = [one(case_id=label, label=label) for label in labels]
    cohort = write_cohort(SliceList(items), tmp_path / "cohort", size=16)
    assert cohort.classes == ("meningioma", "pituitary", "notumor", "zebra")
    assert [case.class_index for case in cohort.cases] == [3, 1, 2, 0]


def test_groups_ignore_one_trailing_letter_after_a_digit() -> None:
    ids = ["MR040240", "MR040240B", "MR040240b", "100360", "abc", "P1BC", "B"]
    assert [group_of(patient) for patient in ids] == ["MR040240"] * 3 + [
        "100360",
        "abc",
        "P1BC",
        "B",
    ]


def test_bad_slices_are_left_out_and_listed(tmp_path: Path) -> None:
    items: list[RawSlice | LeftOut] = [
        LeftOut("gone.mat", "cannot be read: truncated"),
        one(case_id="nan", source="nan.mat", image=np.full((8, 8), np.nan)),
        one(case_id="flat", source="flat.mat", image=np.zeros((8, 8))),
        one(case_id="nobody", source="nobody.mat", patient_id=None),
        one(case_id="nameless", source="nameless.mat", label=""),
        one(case_id="odd", source="odd.mat", mask=np.ones((3, 3), dtype=bool)),
        one(case_id="twice", source="first.mat"),
        one(case_id="twice", source="second.mat"),
        one(case_id="other", label="glioma"),
    ]
    cohort = write_cohort(SliceList(items), tmp_path / "cohort", size=16)
    assert [case.case_id for case in cohort.cases] == ["twice", "other"]
    reasons = {left.source: left.reason for left in cohort.left_out}
    expected = {
        "gone.mat": "truncated",
        "nan.mat": "64 of 64 pixels are NaN",
        "flat.mat": "constant image",
        "nobody.mat": "no patient id",
        "nameless.mat": "no label",
        "odd.mat": r"the lesion mask has shape \(3, 3\)",
        "second.mat": "already read from first.mat",
    }
    assert list(reasons) == list(expected)
    for name, words in expected.items():
        assert words.replace("\\", "") in reasons[name]
    assert (
        json.loads((cohort.root / "cohort.json").read_text())["left_out"][0]["source"] == "gone.mat"
    )


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "not one slice could be read"),
        ([LeftOut("1.mat", "cannot be read: x")], "Left out: 1, first 1.mat: cannot be read: x"),
        ([one(case_id="a"), one(case_id="b")], r"one class only \(meningioma\)"),
    ],
)
def test_a_source_without_a_cohort_in_it_leaves_nothing(
    tmp_path: Path, items: list[RawSlice], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        write_cohort(SliceList(list(items)), tmp_path / "cohort", size=16)
    assert not list(tmp_path.iterdir())


class Interrupted(SliceList):
    def read(self) -> Iterator[RawSlice | LeftOut]:
        yield from self.items[:20]
        raise KeyboardInterrupt


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_cohort(Interrupted(slices_of()), tmp_path / "cohort", size=16)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("robustmri.data.storage.npy_header", full)
    with pytest.raises(RobustMRIError, match=r"disk .* is full"):
        write_cohort(SliceList(slices_of()), tmp_path / "cohort", size=16)
    assert not list(tmp_path.iterdir())


def test_a_split_that_fails_leaves_no_cohort(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fewer than the 3 sets"):
        write_cohort(
            SliceList(slices_of(patients=6)), tmp_path / "cohort", size=16, split=make_split
        )
    assert not list(tmp_path.iterdir())


def test_slices_of_nobody_that_look_alike_are_one_patient_and_that_is_said(tmp_path: Path) -> None:
    source = SliceList(slices_of(patients=2, each=3))
    source.patient_ids = False
    with pytest.raises(DataError, match=r"inferred patients, fewer than .* --patient-pattern\."):
        write_cohort(source, tmp_path / "cohort", size=16, split=make_split)


def test_a_split_is_stored_with_the_cohort(tmp_path: Path) -> None:
    cohort = write_cohort(SliceList(slices_of()), tmp_path / "cohort", size=16, split=make_split)
    Split.load(cohort.root).check(cohort)


def test_an_existing_folder_is_not_overwritten(cohort: Cohort) -> None:
    with pytest.raises(DataError, match="exists already"):
        write_cohort(SliceList(slices_of()), cohort.root, size=16)
    cohort.verify()


def test_settings_are_checked_first(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="size must have sides of 8"):
        write_cohort(SliceList([]), tmp_path / "cohort", size=4)
    with pytest.raises(SettingsError, match="intensity 'zscore' is not a rule"):
        write_cohort(SliceList([]), tmp_path / "cohort", intensity="zscore")


def test_progress_ends_at_the_number_of_files(tmp_path: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    items = slices_of()
    write_cohort(
        SliceList(items), tmp_path / "cohort", size=16, progress=lambda *call: calls.append(call)
    )
    assert [done for done, _ in calls] == list(range(1, len(items) + 1))
    assert {total for _, total in calls} == {len(items)}


def change(path: Path, *, at: int = 1000) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def test_not_a_cohort(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"is not a cohort: it has no cohort\.json\. Make one: robustmri prepare"
    ):
        Cohort.open(tmp_path)
    (tmp_path / "robustness.json").write_text("{}")
    with pytest.raises(DataError, match="is a result, not a cohort"):
        Cohort.open(tmp_path)


@pytest.mark.parametrize("name", ["images.npy", "masks.npy", "cases.parquet"])
def test_missing_and_truncated_files_are_named(cohort: Cohort, name: str) -> None:
    path = cohort.root / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{name} has .* bytes, expected"):
        Cohort.open(cohort.root)
    path.unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        Cohort.open(cohort.root)


def test_changed_cases_are_found_at_once_and_changed_pixels_by_verify(cohort: Cohort) -> None:
    head = cohort.root / "cohort.json"
    text = head.read_text()
    head.write_text(text.replace('"size": 32', '"size": 31'))
    with pytest.raises(DataError, match="was changed after it was written"):
        Cohort.open(cohort.root)
    head.write_text(text.replace('"schema_version": 1', '"schema_version": 3'))
    with pytest.raises(DataError, match="schema version 3, expected 1 or 2"):
        Cohort.open(cohort.root)
    head.write_text(text)
    change(cohort.root / "images.npy")
    with pytest.raises(DataError, match=r"images\.npy was changed"):
        Cohort.open(cohort.root).verify()


def test_a_damaged_table_of_cases_is_named(cohort: Cohort) -> None:
    path = cohort.root / "cases.parquet"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(DataError, match=r"cases\.parquet is damaged"):
        Cohort.open(cohort.root)


def test_a_table_of_something_else_is_named(cohort: Cohort) -> None:
    path = cohort.root / "cases.parquet"
    table = pq.read_table(path)
    for other in (table.drop_columns(["lesion_box"]), table.drop_columns(["label"])):
        pq.write_table(other, path)
        with pytest.raises(DataError, match=r"cases\.parquet is not a table of cases"):
            read_cases(path)


def test_a_table_of_more_cases_than_the_head_says_is_not_read_on(cohort, monkeypatch):
    path = cohort.root / "cases.parquet"
    assert len(read_cases(path, len(cohort))) == len(cohort)
    with pytest.raises(DataError, match=f"more than {len(cohort) - 1} slices"):
        read_cases(path, len(cohort) - 1)
    monkeypatch.setattr("robustmri.data.cases.MOST_BYTES", 100)
    with pytest.raises(DataError, match="more than"):
        read_cases(path)
