"""What is told of a cohort as a whole, and when one is refused for the names of its classes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robustmri.core.errors import DataError, RobustMRIError, SettingsError
from robustmri.data import limits, parallel
from robustmri.data.cohort import Cohort
from robustmri.data.parallel import map_in_order
from robustmri.data.prepare import write_cohort
from robustmri.data.readers.source import RawSlice
from robustmri.data.sources import open_source
from scans import SliceList, draw, slices_of


def one(name: str, label: str = "glioma", patient: str = "P1", image: int = 1) -> RawSlice:
    grey = draw(image, 0)
    return RawSlice(
        case_id=name,
        label=label,
        patient_id=patient,
        image=grey,
        mask=None,
        source=f"{name}.png",
        sha256=hashlib.sha256(grey.tobytes()).hexdigest(),
    )


def prepare(folder: Path, *slices: RawSlice) -> Cohort:
    other = one("other", "meningioma", "P2", image=2)
    return write_cohort(SliceList([*slices, other]), folder / "cohort", size=16)


@pytest.mark.parametrize(
    ("second", "note"),
    [
        (
            one("b", "meningioma"),
            "1 slice has the same bytes as another file, under another label: b.png as a.png.",
        ),
        (
            one("b", patient="P3"),
            "1 slice has the same bytes as another file, under another patient id: b.png as a.png.",
        ),
        (one("b"), "1 slice has the same bytes as another file of its class: b.png as a.png."),
        (replace(one("b"), image=draw(3, 0)), None),  # Another slice of the same file.
        (one("b", image=3), None),
    ],
    ids=["two labels", "two patients", "a copy", "one file, two slices", "another"],
)
def test_the_same_bytes_are_told(tmp_path: Path, second: RawSlice, note: str | None) -> None:
    cohort = prepare(tmp_path, one("a"), second)
    assert cohort.notes[1:] == (() if note is None else (note,))
    assert Cohort.open(cohort.root).notes == cohort.notes


def test_what_readers_say_is_counted_and_said_once(tmp_path: Path) -> None:
    slices = [replace(one(f"{n}", image=n + 3), notes=("has a gamma",)) for n in range(5)]
    cohort = prepare(tmp_path, *slices)
    assert cohort.notes[1:] == (
        "5 slices, each of which has a gamma: 0.png, 1.png, 2.png and 2 more.",
    )


def test_cohorts_without_notes_open(tmp_path: Path) -> None:
    cohort = prepare(tmp_path, one("a"))
    head = json.loads((cohort.root / "cohort.json").read_text())
    del head["notes"]
    (cohort.root / "cohort.json").write_text(json.dumps(head))
    assert Cohort.open(cohort.root).notes == ()


@pytest.mark.parametrize(
    "twin",
    ["Glioma", "glioma ", "GLIOMA", "\uff47lioma"],  # The last one is of full width.
)
def test_classes_that_differ_by_spelling_only_are_refused(tmp_path: Path, twin: str) -> None:
    with pytest.raises(DataError, match="differ by capitals, spaces or the way"):
        prepare(tmp_path, one("a"), one("b", twin, image=3))
    assert not list(tmp_path.iterdir())


def test_an_accent_in_its_letter_or_behind_it_makes_no_second_class_and_no_second_patient(
    tmp_path: Path,
) -> None:
    names = [one("a", "gliom\u00e9", "Ren\u00e9"), one("b", "gliome\u0301", "Rene\u0301", image=3)]
    cohort = prepare(tmp_path, *names)
    assert set(cohort.classes) == {"gliom\u00e9", "meningioma"}
    assert {case.patient_id for case in cohort.cases} == {"Ren\u00e9", "P2"}


@pytest.mark.parametrize("text", ["nan", "NaN", "None", "NA", "", " ", "null"])
@pytest.mark.parametrize("what", ["label", "patient_id"])
def test_words_for_nothing_are_no_label_and_no_patient(
    tmp_path: Path, what: str, text: str
) -> None:
    cohort = prepare(tmp_path, one("a"), replace(one("b", image=3), **{what: text}))
    (left,) = cohort.left_out
    assert left.source == "b.png"
    assert left.reason.startswith("no label" if what == "label" else "no patient id")


@pytest.mark.parametrize("text", ["\ud800", "a\nb", "\x1b[2J"])
@pytest.mark.parametrize("what", ["label", "patient_id", "case_id"])
def test_text_that_cannot_be_stored_or_printed_is_left_out(
    tmp_path: Path, what: str, text: str
) -> None:
    cohort = prepare(tmp_path, one("a"), replace(one("b", image=3), **{what: text}))
    (left,) = cohort.left_out
    assert "cannot be printed" in left.reason
    assert left.reason.isprintable()


def test_sizes_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="8 to 8192 pixels, got 1000000"):
        write_cohort(SliceList(slices_of()), tmp_path / "cohort", size=1_000_000)
    thin = replace(one("b"), image=np.broadcast_to(np.arange(65_000), (1, 65_000)))
    (left,) = prepare(tmp_path, one("a"), thin).left_out
    assert "65000 x 1 pixels, 4225000000 once it is padded" in left.reason


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("slices=10000000000000", "of each patient, are 163840000000000000 pixels"),
        ("size=1000000", "slices of 1000000 x 1000000 pixels"),
        ("patients=10000000000000", "at most 1000000 slices in all"),
    ],
)
def test_a_phantom_of_impossible_size_is_refused(settings: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        open_source(f"phantom:{settings}")


def test_a_lack_of_memory_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("robustmri.data.storage.grey.resize", full)
    with pytest.raises(RobustMRIError, match=r"a\.png could not be read: out of memory"):
        prepare(tmp_path, one("a"))
    assert not list(tmp_path.iterdir())


def test_few_heavy_things_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MOST_BYTES", 10)
    taken: list[int] = []

    def items() -> object:
        for number in range(20):
            taken.append(number)
            yield number

    answers = map_in_order(lambda number: number, items(), threads=2, weigh=lambda _: 8)
    assert next(answers) == 0
    assert len(taken) <= 2
    assert list(answers) == list(range(1, 20))


def test_large_slices_are_scaled_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LARGE", 64 * 64 - 1)
    seen = []
    check = limits.check_pixels

    def look(*size: int) -> None:
        seen.append(limits._one_at_a_time.locked())
        check(*size)

    monkeypatch.setattr("robustmri.data.storage.check_pixels", look)
    prepare(tmp_path, one("a"))
    assert seen == [True, True]
