"""The leakage doctor: each fault is planted in a sound cohort, and must be found."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from colours import write_pictures
from robustmri.app.cli import app
from robustmri.app.inspection import LEAKAGE
from robustmri.core.errors import DataError, ResultError
from robustmri.data.cohort import Cohort
from robustmri.data.inspection.oddities import find_marks
from robustmri.data.inspection.planes import guess_plane
from robustmri.data.inspection.slices import Slices
from robustmri.data.inspection.twins import TURNS, find_twins
from robustmri.data.intensity import to_grey
from robustmri.data.prepare import write_cohort
from robustmri.data.readers.dicom import BURNT_IN
from robustmri.data.split import SETS, make_split
from robustmri.verbs.inspect import inspect
from robustmri.verbs.prepare import prepare
from scans import LABELS, SliceList, draw, slices_of

SIZE = 32


def where(case):
    """Patients 0 to 11 are trained on, 12 to 14 validated, the others tested."""
    number = int(case.case_id.split("-")[0])
    return SETS[(number >= 12) + (number >= 15)]


def split_by(choose):
    def split(cohort):
        rows = {
            name: tuple(case.index for case in cohort.cases if choose(case) == name)
            for name in SETS
        }
        return replace(make_split(cohort, "none"), kind="patient", **rows)

    return split


def write(path, items, choose=where, **options):
    return write_cohort(
        SliceList(items), path, size=SIZE, split=split_by(choose) if choose else None, **options
    ).root


@pytest.fixture(scope="module")
def items():
    """Thirty heads of two to four slices: an outline with a pattern of the patient's in it."""
    return [replace(item, image=draw_head(item.case_id)) for item in slices_of(30, 2)]


def draw_head(case_id):
    patient, number = map(int, case_id.split("-"))
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    inside = np.hypot(x / 0.65, y / 0.8) < 1
    return np.where(inside, 5 + draw(patient, 6 * number) * 0.95, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def sound(items, tmp_path_factory):
    return write(tmp_path_factory.mktemp("sound") / "sound", items)


def statuses(found):
    return {one.name: one.status for one in found.findings}


def change(items, number, **fields):
    """One slice of a patient, 0 the first, with other fields."""
    return [replace(item, **fields) if item.case_id == f"{number}-0" else item for item in items]


def of(items, number):
    return next(item for item in items if item.case_id == f"{number}-0")


def of_patient(items, number, **fields):
    return [
        replace(item, **fields) if item.case_id.startswith(f"{number}-") else item for item in items
    ]


def slightly(image):
    """As if it had been stored again, with losses."""
    return np.asarray(Image.fromarray(image).resize((48, 48)).resize((64, 64)))


def write_text(image):
    picture = Image.fromarray(np.pad(image[16:-16, 16:-16], 16))
    pen = ImageDraw.Draw(picture)
    for x in (2, 8, 14):
        pen.rectangle((x, 56, x + 1, 59), fill=255)
    return np.asarray(picture)


def saturate(image):
    return np.where(image > np.quantile(image, 0.9), 255, image).astype(np.uint8)


def nearly_black(image):
    black = np.zeros_like(image)
    black[30:32, 30:32] = 200
    return black


PLANTED = {
    "a patient in two sets": (
        lambda items: of_patient(items, 20, patient_id="P001"),
        "patients in one set only",
        "fail",
    ),
    "the same id with a letter more, unseen by the split": (
        lambda items: of_patient(
            of_patient(items, 20, patient_id="MR4711"), 1, patient_id="xMR4711"
        ),
        "one id for each person",
        "warn",
    ),
    "the same id without its zero": (
        lambda items: of_patient(items, 20, patient_id="p-01"),
        "one id for each person",
        "warn",
    ),
    "one file in two sets": (
        lambda items: change(items, 20, sha256=of(items, 1).sha256),
        "source files in one set only",
        "fail",
    ),
    "one volume in two sets, its slices hashed one by one as before": (
        lambda items: change(change(items, 1, source="v.nii"), 20, source="v.nii"),
        "source files in one set only",
        "fail",
    ),
    "one picture in two sets": (
        lambda items: change(items, 20, image=of(items, 1).image),
        "copies in one set only",
        "fail",
    ),
    "a picture stored again in another set": (
        lambda items: change(items, 20, image=slightly(of(items, 1).image)),
        "near-duplicates in one set only",
        "fail",
    ),
    "a mirrored picture in another set": (
        lambda items: change(items, 20, image=of(items, 1).image[:, ::-1]),
        "near-duplicates in one set only",
        "fail",
    ),
    "one picture under two ids": (
        lambda items: change(items, 2, image=of(items, 1).image),
        "one slice, one patient",
        "fail",
    ),
    "one picture twice in a set": (
        lambda items: change(items, 4, image=of(items, 1).image),
        "no copies within a set",
        "warn",
    ),
    "one picture under two classes": (
        lambda items: change(items, 2, image=of(items, 1).image),
        "one slice, one class",
        "fail",
    ),
    "a class without test slices": (
        lambda items: [
            replace(item, label=LABELS[0]) if int(item.case_id.split("-")[0]) >= 15 else item
            for item in items
        ],
        "classes in balance",
        "warn",
    ),
    "a plane for each class": (
        lambda items: [
            replace(
                item,
                plane=dict(zip(LABELS, ("axial", "coronal", "sagittal"), strict=True))[item.label],
            )
            for item in items
        ],
        "the plane does not tell the class",
        "warn",
    ),
    "an empty slice": (
        lambda items: change(items, 3, image=nearly_black(of(items, 3).image)),
        "odd slices",
        "warn",
    ),
    "a saturated slice": (
        lambda items: change(items, 3, image=saturate(of(items, 3).image)),
        "odd slices",
        "warn",
    ),
    "a slice of another size": (
        lambda items: change(items, 3, image=of(items, 3).image[4:], mask=None),
        "odd slices",
        "warn",
    ),
    "a slice of other grey values": (
        lambda items: change(items, 3, image=(255 - of(items, 3).image // 16)),
        "odd slices",
        "warn",
    ),
    "a text in a corner": (
        lambda items: change(items, 3, image=write_text(of(items, 3).image)),
        "marks burnt in",
        "warn",
    ),
    "a DICOM file that says so": (
        lambda items: change(items, 3, notes=(BURNT_IN,)),
        "marks burnt in",
        "warn",
    ),
}


def test_a_sound_cohort_is_not_suspected(sound):
    found = inspect([sound])
    assert {name: status for name, status in statuses(found).items() if status != "pass"} == {}
    assert found.leaks == []
    assert {finding for _, finding, _ in PLANTED.values()} <= set(statuses(found))


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault, items, tmp_path):
    plant, name, status = PLANTED[fault]
    found = inspect([write(tmp_path / "cohort", plant(items))])
    assert statuses(found)[name] == status
    assert bool(found.leaks) == ("fail" in statuses(found).values())


def test_a_split_by_slice_is_leakage(sound, items, tmp_path):
    alternating = lambda case: SETS[case.index % 3]  # noqa: E731
    found = inspect([write(tmp_path / "cohort", items, alternating)])
    assert statuses(found)["patients in one set only"] == "fail"
    gap = found.gaps[0]
    assert gap.slice_wise > gap.patient_wise
    assert gap.low <= gap.slice_wise - gap.patient_wise <= gap.high
    assert "a slice-wise split would flatter by" in gap.sentence
    assert gap == inspect([sound]).gaps[0]  # Of the slices alone, however they are split.


@pytest.mark.parametrize(
    ("plant", "name", "status"),
    [
        (lambda items: items, "patients in one cohort only", "warn"),
        (
            lambda items: [replace(item, patient_id=f"X{item.patient_id}") for item in items],
            "copies in one set and cohort only",
            "fail",
        ),
        (
            lambda items: [
                replace(item, patient_id=f"p{int(item.patient_id[1:])}", image=item.image.T)
                for item in items
            ],
            "one id for each person",
            "warn",
        ),
    ],
    ids=["same ids", "same slices", "alike ids"],
)
def test_cohorts_in_common_are_found(plant, name, status, sound, items, tmp_path):
    other = write(tmp_path / "other", plant(items), None)
    found = inspect([sound, other])
    assert statuses(found)[name] == status
    assert found.leaks


def test_an_id_that_tells_is_no_coincidence(items, tmp_path):
    """Short ones, 1, 2, 3, are given everywhere."""
    cohorts = []
    for number, pictures in enumerate((items[:30], items[30:])):
        named = [replace(item, patient_id="MR047110") for item in pictures[:2]]
        cohorts.append(write(tmp_path / str(number), [*named, *pictures[2:]], None))
    assert statuses(inspect(cohorts))["patients in one cohort only"] == "fail"


def test_patients_without_ids_are_not_judged_by_them(items, tmp_path):
    source = SliceList([replace(item, patient_id=None) for item in items])
    source.patient_ids = False
    cohort = write_cohort(source, tmp_path / "cohort", size=SIZE, split=split_by(where))
    found = statuses(inspect([cohort.root]))
    assert found["patients in one set only"] in ("warn", "fail")
    assert found["one id for each person"] == found["one slice, one patient"] == "pass"


def test_many_pairs_of_one_kind_hide_none_of_another(items, tmp_path, monkeypatch):
    copies = items
    for number in (2, 3, 4):
        copies = change(copies, number, image=of(items, 1).image)
    root = write(tmp_path / "cohort", change(copies, 20, image=of(items, 13).image))
    everything = inspect([root])
    monkeypatch.setattr("robustmri.data.inspection.twins.MOST_PAIRS", 2)
    monkeypatch.setattr("robustmri.data.inspection.twins.BLOCK", 4)
    found = inspect([root])
    assert len(found.twins) < len(everything.twins)
    assert statuses(found) == statuses(everything)
    assert statuses(found)["copies in one set only"] == "fail"
    told = {one.name: one.detail for one in found.findings}
    assert told["no copies within a set"].startswith("at least ")


@pytest.mark.parametrize("kind", TURNS)
def test_a_turned_copy_is_told_as_what_it_is(kind, items, tmp_path):
    turned = TURNS[kind](of(items, 1).image[None])[0]
    root = write(tmp_path / "cohort", change(items, 20, image=turned))
    slices = Slices.of([Cohort.open(root)])
    turns = [pair for pair in find_twins(slices) if pair.kind in TURNS]
    # Turned by a quarter, the second lies on the first; the other way round it is three quarters.
    other = {"turned by 90 degrees": "turned by 270 degrees"}
    other |= {later: first for first, later in other.items()}
    assert [pair.kind for pair in turns] == [other.get(kind, kind)]
    assert turns[0].correlation == pytest.approx(1, abs=1e-4)


def test_flat_slices_are_not_each_others_copies(items, tmp_path):
    dark = change(items, 1, image=nearly_black(of(items, 1).image))
    dark = change(dark, 20, image=np.roll(nearly_black(of(items, 1).image), 20, axis=0))
    assert statuses(inspect([write(tmp_path / "cohort", dark)]))["copies in one set only"] == "pass"
    assert not inspect([write(tmp_path / "again", dark)]).leaks


def ellipse(height, width, *, nose=0, neck=0):
    picture = Image.new("L", (96, 96))
    pen = ImageDraw.Draw(picture)
    box = (48 - width // 2, 44 - height // 2, 48 + width // 2, 44 + height // 2)
    pen.ellipse(box, fill=200)
    if neck:
        pen.rectangle((48 - neck // 2, 44, 48 + neck // 2, 95), fill=180)
    if nose:
        pen.rectangle((2, 50, 48, 60), fill=255)
        pen.rectangle((20, 60, 60, 95), fill=90)
        pen.ellipse((70, 20, 84, 50), fill=20)
    return np.asarray(picture).astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("image", "plane"),
    [
        (ellipse(76, 62), "axial"),
        (ellipse(70, 60, neck=50), "coronal"),
        (ellipse(70, 76, nose=1), "sagittal"),
        (np.zeros((96, 96), np.uint16), ""),
    ],
)
def test_a_plane_is_guessed_from_the_outline(image, plane):
    assert guess_plane(image) == plane


def test_marks_are_told_by_their_corner():
    head = ellipse(60, 50)
    assert find_marks(head) == ""
    for corner, (y, x) in {"top left": (3, 3), "bottom right": (86, 76)}.items():
        marked = head.copy()
        for shift in (0, 5, 10):
            marked[y : y + 5, x + shift : x + shift + 3] = 65535
        assert find_marks(marked) == corner
        wide = np.hstack([marked, np.zeros((96, 96), np.uint16)])  # Right is far from its marks.
        assert find_marks(wide) == corner.replace("bottom right", "")
    marked[:, :] = head  # Two spots are no text.
    marked[3:8, 3:6] = marked[3:8, 8:11] = 65535
    assert find_marks(marked) == ""


def run(*words):
    return CliRunner().invoke(app, ["inspect", *map(str, words)])


def test_the_command_says_it_and_ends_with_a_status_of_its_own(sound, items, tmp_path):
    leaking = write(tmp_path / "leaking", change(items, 20, image=of(items, 1).image))
    page, data = tmp_path / "inspection.html", tmp_path / "inspection.json"
    assert run(sound, "--strict").exit_code == 0
    assert run(leaking).exit_code == 0
    said = run(leaking, "--strict", "--report", page, "--json", data)
    assert said.exit_code == LEAKAGE
    assert "fail  copies in one set only" in said.output
    assert "Leakage among" in said.output
    text = page.read_text()
    assert text.count('<img src="data:image/png') == 2
    assert ">20-0<br>P020" in text
    assert "every pixel the same" in text
    plain = json.loads(data.read_text())
    assert plain["leakage"]
    (pair,) = [pair for pair in plain["pairs"] if pair["leak"]]
    assert (pair["first"]["case_id"], pair["second"]["set"]) == ("1-0", "test")


def test_a_page_that_leaves_the_hospital_names_nobody(items, tmp_path):
    planted = of_patient(change(items, 20, image=of(items, 1).image), 21, patient_id="p-02")
    planted = change(planted, 3, image=write_text(of(items, 3).image), notes=(BURNT_IN,))
    root = write(tmp_path / "dr-weiss", planted)
    page, data = tmp_path / "page.html", tmp_path / "data.json"
    assert run(root, "--no-images", "--report", page, "--json", data).exit_code == 0
    said = page.read_text() + data.read_text()
    assert "data:image/png" not in said
    named = {item.case_id for item in items} | {"P001", "P020", "p-02", "dr-weiss", "3-0.png"}
    assert [name for name in named if f'"{name}"' in said or f">{name}<" in said] == []
    assert "dr-weiss" not in said
    assert "3-0.png" not in said
    assert "p-02" not in said


def test_slices_in_colour_are_looked_at_by_their_brightness(tmp_path):
    cohort = prepare(write_pictures(tmp_path / "pictures"), tmp_path / "colours", size=SIZE)
    page = tmp_path / "inspection.html"
    said = run(cohort.root, "--report", page)
    assert (cohort.channels, said.exit_code) == (3, 0), said.output
    brightness = [guess_plane(to_grey(image)) for image in cohort.images]
    assert inspect([cohort.root]).planes.tolist() == brightness
    assert "the plane does not tell the class" in page.read_text()


@pytest.mark.parametrize("twice", [True, False])
def test_what_is_no_cohort_is_refused(twice, sound, tmp_path):
    with pytest.raises(DataError, match="named twice" if twice else "not a cohort"):
        inspect([sound, sound] if twice else [tmp_path])
    with pytest.raises(DataError, match="at least one"):
        inspect([])


def test_another_page_is_not_replaced(sound, tmp_path):
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(ResultError, match="no report of robustmri"):
        inspect([sound], report=tmp_path / "page.html")
