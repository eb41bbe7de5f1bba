from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from robustmri.core.errors import ResultError
from robustmri.report import Published, write_page
from robustmri.report.html import GENERATOR
from robustmri.report.wording import percent
from robustmri.results.outcomes import load_outcomes
from robustmri.results.patients import PatientFigures, PatientShare
from robustmri.results.schema import (
    Check,
    RegionResult,
    Result,
    Sensitivity,
    load_result,
    save_result,
)

VOID = {"meta", "link", "img", "br", "input", "hr"}
POSTER = [
    Published(
        what="clean accuracy", attack="none", stage="before", accuracy=0.9986, source="a poster"
    ),
    Published(what="under PGD", attack="pgd", stage="after", accuracy=0.9614, source="a poster"),
]


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, text, and elements closed in the
    wrong order.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.misplaced: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.misplaced.append(tag)

    def handle_data(self, data):
        if "style" not in self.open[-1:]:
            self.text += data

    def having(self, name):
        return [attrs for _, attrs in self.elements if name in (attrs.get("class") or "").split()]


def read(folders, tmp_path, **settings):
    return write_page(folders, tmp_path / "report.html", **settings).read_text(encoding="utf-8")


def change(folder, **fields):
    save_result(msgspec.structs.replace(load_result(folder), **fields), folder)


def words(page):
    return " ".join(page.text.replace("\N{NO-BREAK SPACE}", " ").split())


def test_one_file_that_asks_for_nothing_else(pair, tmp_path):
    text = read(pair, tmp_path, published=POSTER)
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in {"script", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "data", "srcset", "action", "poster", "xlink:href"):
            address = attributes.get(name) or "data:"
            assert address.startswith(("data:", "#")) or (
                tag == "a" and address.startswith("https://doi.org/")
            )
        assert not [name for name in attributes if name.startswith("on")]
    assert "@import" not in text
    assert "url(" not in text
    policy = [attributes for _, attributes in page.elements if attributes.get("http-equiv")]
    assert "default-src 'none'" in policy[0]["content"]


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("synthetic", [True, False])
def test_page_is_well_formed(build, tmp_path, images, synthetic):
    folders = [
        build(name, repaired=name == "after", synthetic=synthetic, normalised=True)
        for name in ("one", "after")
    ]
    page = Page(read(folders, tmp_path, images=images, published=POSTER))
    assert page.open == []
    assert page.misplaced == []
    identifiers = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(identifiers) == len(set(identifiers))


def test_tells_the_story_in_numbers_of_the_result_file(pair, tmp_path):
    page = Page(read(pair, tmp_path, published=POSTER))
    told = words(page)
    for folder in pair:
        for number in load_result(folder).results:
            assert f"{100 * number.accuracy:.1f} %" in told
    assert "99.86 %" in told
    assert "96.14 %" in told
    assert "Published figures: a poster." in told
    assert "of the standard classifier's right answers wrong, on 408 test slices" in told
    assert re.search(r"; after repair \d+\.\d %\.", told)
    for sentence in load_result(pair[0]).threat:
        assert sentence in told


def test_shows_the_poster_picture_for_each_class(pair, tmp_path):
    page = Page(read(pair, tmp_path))
    pictures = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(pictures) == 3 * len(load_result(pair[0]).examples)
    assert all(
        attributes["src"].startswith("data:image/png;base64,") and attributes["alt"]
        for attributes in pictures
    )
    assert len(page.having("outline")) == 2 * len(load_result(pair[0]).examples)
    told = words(page)
    for example in load_result(pair[0]).examples:
        assert example.case_id in told
        assert f"{100 * example.clean_confidence:.1f} %" in told
    assert "After repair, attacked anew" in told


def test_same_results_give_the_same_bytes(pair, tmp_path, monkeypatch):
    first = write_page(pair, tmp_path / "a.html", published=POSTER).read_bytes()
    monkeypatch.chdir(tmp_path)
    second = write_page(
        [folder.name for folder in pair], "elsewhere/b.html", published=POSTER
    ).read_bytes()
    assert first == second


def test_without_images_nothing_leads_to_a_patient(pair, tmp_path):
    identifiers = set().union(*(load_outcomes(folder).identifiers for folder in pair))
    training_patient, patient = "TRAIN0042", "P103"
    for folder in pair:
        result = load_result(folder)
        telling = Check(
            name="patient overlap",
            status="warn",
            detail=f"patient '{training_patient}' is near {patient}; {patient}/slice_003 too.",
            case_ids=["P777/slice_1"],
        )
        split = msgspec.structs.replace(
            result.split, leakage=[telling], note=f"Left out: {patient}."
        )
        change(folder, checks=[*result.checks, telling], title=f"Study with {patient}", split=split)
    open_copy = read(pair, tmp_path)
    assert "data:image/png" in open_copy
    for name in (patient, "P777/slice_1", training_patient, "dr-weiss", "/data/"):
        assert name in open_copy
    closed_copy = read(pair, tmp_path, images=False)
    assert "data:image" not in closed_copy
    assert "<path" not in closed_copy
    for name in identifiers | {training_patient, "P777", "dr-weiss", "/home", "/data/"}:
        assert name not in closed_copy, name
    told = words(Page(closed_copy))
    assert "no scan, no patient id and no case id" in told
    assert "--out" not in told, "a command holds whatever a person typed"
    assert "[withheld]" in told


def test_without_images_only_the_title_of_today_is_kept(pair, tmp_path):
    assert "Brain tumour type" not in read(pair, tmp_path, images=False)
    assert "For the board" in read(pair, tmp_path, images=False, title="For the board")


def test_nothing_unique_to_a_patient_is_in_any_byte(pair, tmp_path):
    """Marks are planted wherever a person's words can stand; the page holds none of them."""
    marks = [f"Mueller{k:03d}" for k in range(12)]
    for folder in pair:
        one = load_result(folder)
        change(
            folder,
            title=marks[0],
            cohort=msgspec.structs.replace(one.cohort, name=f"ward 3/{marks[1]}"),
            model=msgspec.structs.replace(
                one.model,
                weights=f"{marks[2]}.pth (sha256 0123456789abcdef)",
                training={"weights": f"/home/{marks[3]}/w.pth", "logger": f"csv:{marks[4]}"},
            ),
            settings={
                "evaluate": {
                    "examples": [marks[5]],
                    "options": {"pgd": {"note": f"of {marks[6]}"}},
                }
            },
            provenance={
                "command": f"evaluate --set evaluate.examples={marks[7]} --out=/{marks[8]}/x",
                "host": marks[9],
                "checkpoint": {"command": marks[10], "parent": marks[11]},
            },
        )
    page = tmp_path / "report.html"
    read(pair, tmp_path, images=False)
    for mark in marks:
        assert mark.encode() not in page.read_bytes(), mark
    assert b"0123456789abcdef" in page.read_bytes(), "which weights they were can still be told"


def test_no_images_keeps_every_number(pair, tmp_path):
    page = words(Page(read(pair, tmp_path, images=False)))
    for folder in pair:
        for number in load_result(folder).results:
            assert f"{100 * number.accuracy:.1f} %" in page


def test_everything_is_escaped(build, tmp_path):
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
    classes = (f"glioma {evil}", "a & b", "c'\"d")
    folders = [
        build("one", classes=classes, name=evil, title=evil),
        build("two", classes=classes, repaired=True),
    ]
    for folder in folders:
        result = load_result(folder)
        noisy = Check(name=evil, status="fail", detail=evil, case_ids=[evil])
        change(
            folder,
            checks=[noisy],
            threat=[evil],
            settings={evil: {evil: [evil]}},
            provenance={**result.provenance, evil: evil},
            attacks=[
                msgspec.structs.replace(
                    result.attacks[0],
                    attack=evil,
                    title=evil,
                    paper=evil,
                    doi=evil,
                    members={evil: evil},
                    settings={evil: evil},
                )
            ],
            split=msgspec.structs.replace(result.split, note=evil, kind="slice"),
        )
    figures = [Published(what=evil, attack="none", stage="after", accuracy=0.5, source=evil)]
    page = Page(read(folders, tmp_path, published=figures))
    assert "script" not in {tag for tag, _ in page.elements}
    assert not [1 for _, attributes in page.elements if {"onerror"} & set(attributes)]
    assert "x" not in {attributes.get("src") for _, attributes in page.elements}
    assert page.misplaced == []
    assert page.text.count("<script>alert(1)</script>") > 10


def test_one_folder_speaks_of_one_classifier(build, tmp_path):
    page = Page(read([build("only")], tmp_path))
    told = words(page)
    assert "of this classifier's right answers wrong" in told
    assert "Lost to the attack" in told
    for word in ("After", "repair", "Change, points"):
        assert word not in told


def test_unbroken_classifier_is_not_said_to_be_broken(build, tmp_path):
    folder = build("firm")
    firm = [
        msgspec.structs.replace(number, accuracy=1.0, ci_high=1.0)
        for number in load_result(folder).results
    ]
    change(folder, results=firm)
    path = folder / "outcomes.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("prediction")
    pq.write_table(table.set_column(place, "prediction", table["label"]), path)
    told = words(Page(read([folder], tmp_path)))
    assert (
        "grey levels per pixel turned none of this classifier's right answers wrong, on 408 test "
        "slices of 36 patients." in told
    )


def test_of_colour_no_grey_level_is_told(build, tmp_path):
    folder = build("colour")
    cohort = msgspec.structs.replace(load_result(folder).cohort, channels=3)
    change(folder, cohort=cohort, examples=[], threat=[])
    told = words(Page(read([folder], tmp_path)))
    assert "of 255 levels of each colour per pixel is enough" in told
    assert "grey level" not in told


def test_headline_counts_only_what_the_change_did(build, tmp_path):
    """Two slices of five are wrong whatever is done to them: that is no work of an attacker's."""
    folder = build("half")
    path = folder / "outcomes.parquet"
    rows = pq.read_table(path).to_pylist()
    cases = {case: n for n, case in enumerate(dict.fromkeys(row["case_id"] for row in rows))}
    for row in rows:
        n, other = cases[row["case_id"]], {"glioma": "meningioma"}.get(row["label"], "glioma")
        fell = row["attack"] != "none" and n % 10 == 2
        row["prediction"] = other if n % 5 < 2 or fell else row["label"]
    pq.write_table(pa.Table.from_pylist(rows), path)
    told = words(Page(read([folder], tmp_path)))
    of = sum(n % 5 >= 2 for n in cases.values())
    turned = sum(n % 10 == 2 for n in cases.values())
    assert f"to turn {percent(turned / of)} of this classifier's right answers wrong" in told


def test_three_folders_go_by_their_names(build, tmp_path):
    folders = [
        build("a"),
        build("b", repaired=True, name="one-step"),
        build("c", repaired=True, name="ten-step"),
    ]
    told = words(Page(read(folders, tmp_path)))
    assert "one-step" in told
    assert re.search(r"; of ten-step's \d+\.\d %\.", told)
    assert "Before" not in told


def test_what_only_one_attack_broke_has_a_column_where_it_was_counted(pair, tmp_path):
    assert "Broke alone" not in words(Page(read(pair, tmp_path)))
    for folder, count in zip(pair, (3, 0), strict=True):
        numbers = [
            msgspec.structs.replace(number, only=count)
            if (number.attack, number.unit) == ("pgd", "slice")
            else number
            for number in load_result(folder).results
        ]
        change(folder, results=numbers)
    page = Page(read(pair, tmp_path))
    assert "Broke alone" in words(page)
    assert "3 / 0" in words(page)
    assert page.misplaced == []
    (one,) = {
        attributes["colspan"]
        for _, attributes in page.elements
        if attributes.get("scope") == "colgroup"
    }
    assert one == "6"
    assert load_result(pair[0]).results[0].only is None


def test_a_suite_says_which_of_its_attacks_broke_how_many(pair, tmp_path):
    assert "broken by" not in words(Page(read(pair, tmp_path)))
    for folder, counts in zip(
        pair, ({"apgd": 120, "apgd-ce": 3, "square": 0}, {"apgd": 7}), strict=True
    ):
        numbers = [
            msgspec.structs.replace(
                number, attack="standard", broken_by=counts if number.unit == "slice" else {}
            )
            if number.attack == "cw" and number.eps == 0.04
            else number
            for number in load_result(folder).results
        ]
        change(folder, results=numbers)
    told = words(Page(read(pair, tmp_path)))
    assert (
        "Standard suite, eps 0.04 (10.2/255), Before: broken by APGD 120, APGD-CE 3, Square 0. "
        "Standard suite, eps 0.04 (10.2/255), After: broken by APGD 7. Each attack of a suite met "
        "only"
    ) in told


def test_two_results_of_one_name_are_told_apart(build, tmp_path):
    told = words(Page(read([build("a", name="net"), build("b", name="net")], tmp_path)))
    assert "net (1)" in told
    assert "net (2)" in told


@pytest.mark.parametrize("where", ["before", "after", "leakage"])
def test_failed_check_takes_the_headline_away(pair, tmp_path, where):
    folder = pair[1] if where == "after" else pair[0]
    result = load_result(folder)
    failed = Check(
        name="gradients are there", status="fail", detail="41.0 % of the gradients are zero."
    )
    if where == "leakage":
        change(folder, split=msgspec.structs.replace(result.split, leakage=[failed]))
    else:
        change(folder, checks=[*result.checks, failed])
    page = Page(read(pair, tmp_path))
    told = words(page)
    assert "No headline: a check failed." in told
    assert told.count("41.0 % of the gradients are zero.") == 2
    assert "is enough to" not in told
    assert page.having("card") == []
    assert page.having("results"), "the measured numbers stay, as evidence"


def test_headline_stays_with_a_warning(pair, tmp_path):
    page = Page(read(pair, tmp_path))
    assert "warn" in [attributes["class"].split()[-1] for attributes in page.having("chip")]
    assert len(page.having("card")) == 4


def test_phantom_says_so_wherever_it_shows(build, tmp_path):
    page = Page(read([build("phantom", synthetic=True)], tmp_path))
    told = words(page)
    assert told.count("Synthetic phantom") >= 3
    assert "phantom patients" in told
    assert page.having("synthetic")
    real = Page(read([build("real")], tmp_path))
    assert "phantom" not in words(real)


def test_slice_split_and_inferred_groups_are_named(build, tmp_path):
    sliced = words(Page(read([build("slice", split="slice")], tmp_path)))
    assert "Split by slice. Slices of one patient are on both sides" in sliced
    inferred = words(Page(read([build("inferred", groups="inferred")], tmp_path)))
    assert "No patient ids." in inferred
    assert "inferred groups" in inferred


def test_a_region_stands_in_the_verdict_and_must_be_the_same_on_both_sides(pair, tmp_path):
    for folder, region in zip(pair, ("lesion", "image"), strict=True):
        change(folder, settings={"evaluate": {"region": region}})
    told = words(Page(read(pair, tmp_path)))
    assert "of 255 grey levels per pixel inside the lesion is enough" in told
    assert "The attacks or their settings differ" in told


def test_different_attack_settings_are_a_warning(pair, tmp_path):
    assert "Names and settings agree." in words(Page(read(pair, tmp_path)))
    attacks = load_result(pair[1]).attacks
    change(
        pair[1], attacks=[msgspec.structs.replace(attacks[0], settings={"steps": 3}), *attacks[1:]]
    )
    assert "The attacks or their settings differ" in words(Page(read(pair, tmp_path)))


@pytest.mark.parametrize("classes", [("tumour", "none"), tuple("abcdefghijkl")])
def test_any_number_of_classes(build, tmp_path, classes):
    page = Page(read([build("k", classes=classes, patients=30)], tmp_path))
    assert f"guessing among {len(classes)}" in words(page)
    assert len(page.having("hit")) == 2 * len(classes)


def test_clean_only_and_targeted_and_without_pictures(build, tmp_path):
    folder = build("plain", attacks=(), images=False)
    told = words(Page(read([folder], tmp_path)))
    assert "No attack was run on these" in told
    assert "shows case ids" in told
    target = build("targeted")
    result = load_result(target)
    results = [
        number if number.attack == "none" else msgspec.structs.replace(number, target="glioma")
        for number in result.results
    ]
    change(target, results=results, confusions=result.confusions[:1])
    table = pq.read_table(target / "outcomes.parquet")
    aimed = ["" if attack == "none" else "glioma" for attack in table["attack"].to_pylist()]
    table = table.set_column(table.column_names.index("target"), "target", [aimed])
    pq.write_table(table, target / "outcomes.parquet")
    told = words(Page(read([target], tmp_path)))
    assert "this classifier's answers that were not glioma into glioma" in told
    assert "Not made to say glioma" in told
    who = told[told.index("Who is affected") : told.index("Worst patients")]
    assert "not called glioma" in who
    assert "in no slice called glioma" in who
    assert "right" not in who
    assert "Lost to the attack" not in told


def test_slices_that_met_no_attack_do_not_count_as_fallen(build, tmp_path):
    """Those of the target's own class do not."""
    folder = build("targeted")
    table = pq.read_table(folder / "outcomes.parquet")
    met = pc.or_(pc.equal(table["attack"], "none"), pc.not_equal(table["label"], "glioma"))
    pq.write_table(table.filter(met), folder / "outcomes.parquet")
    told = words(Page(read([folder], tmp_path)))
    who = told[told.index("Who is affected") : told.index("Worst patients")]
    assert "glioma" not in who
    assert "pituitary" in who


NEAREST = Sensitivity(
    norm="l2",
    n=401,
    n_patients=36,
    never=0,
    quantiles={"0.5": 0.41},
    ci_low=0.3,
    ci_high=0.5,
    patients={"0.5": 0.2},
    nearest={},
    ssim=0.99,
    psnr=40.0,
    grey_levels=3.0,
)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([NEAREST], "A change of at most 0.41 in l2 size is enough to turn half of this"),
        (
            [msgspec.structs.replace(NEAREST, quantiles={"0.5": None})],
            "No change that was found turns half of this classifier's right answers, on the 401",
        ),
        ([], "No attack within a fixed eps was run on these 408 test slices"),
    ],
)
def test_with_nearest_images_alone_the_headline_is_their_size(build, tmp_path, found, said):
    folder = build("one")
    result, table = load_result(folder), pq.read_table(folder / "outcomes.parquet")
    change(
        folder,
        results=[number for number in result.results if number.attack in ("none", "cw-l2")],
        attacks=result.attacks[:1],
        sensitivity=found,
    )
    pq.write_table(
        table.filter(pc.is_in(table["attack"], pa.array(["none", "cw-l2"]))),
        folder / "outcomes.parquet",
    )
    told = words(Page(read([folder], tmp_path)))
    assert said in told
    assert "Who is affected" not in told


def test_l2_radius_is_a_size(build, tmp_path):
    folder = build("l2")
    result = load_result(folder)
    change(
        folder,
        results=[
            msgspec.structs.replace(number, norm="l2" if number.norm else "")
            for number in result.results
        ],
    )
    table = pq.read_table(folder / "outcomes.parquet")
    norms = ["l2" if norm else "" for norm in table["norm"].to_pylist()]
    table = table.set_column(table.column_names.index("norm"), "norm", [norms])
    pq.write_table(table, folder / "outcomes.parquet")
    assert "A change of at most 0.04 in l2 size" in words(Page(read([folder], tmp_path)))


def test_missing_number_is_a_dash_not_a_zero(pair, tmp_path):
    result = load_result(pair[1])
    change(pair[1], results=[number for number in result.results if number.attack != "bim"])
    page = Page(read(pair, tmp_path))
    assert "\N{EN DASH}" in page.text


def test_without_a_clean_accuracy_the_verdict_says_nothing_of_it(pair, tmp_path):
    """A file that was written by hand, or by half."""
    assert "On slices left as they were" in words(Page(read(pair, tmp_path)))
    assert "What repair brings and costs" in words(Page(read(pair, tmp_path)))
    for folder in pair:
        result = load_result(folder)
        change(folder, results=[number for number in result.results if number.attack != "none"])
    told = words(Page(read(pair, tmp_path)))
    assert "On slices left as they were" not in told
    assert "What repair brings and costs" not in told


def test_a_picture_of_an_attack_that_was_not_run_again_stands_alone(pair, tmp_path):
    examples = load_result(pair[0]).examples
    both = read(pair, tmp_path)
    table = pq.read_table(pair[1] / "outcomes.parquet")
    shown = {example.attack for example in examples}
    kept = [name not in shown for name in table.column("attack").to_pylist()]
    pq.write_table(table.filter(kept), pair[1] / "outcomes.parquet")
    alone = read(pair, tmp_path)
    assert alone.count("<figure") == both.count("<figure") > 0
    assert len(alone) < len(both)


def test_patient_unit_is_shown(pair, tmp_path):
    number = next(
        number
        for number in load_result(pair[1]).results
        if number.unit == "patient" and number.attack == "pgd"
    )
    assert isinstance(number, Result)
    assert f"patients {100 * number.accuracy:.1f} %" in words(Page(read(pair, tmp_path)))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nothing", "at least one result folder"),
        ("no folder", "no robustness.json"),
        ("no outcomes", "no outcomes.parquet"),
        ("bad outcomes", "damaged"),
        ("no column", "lacks the columns confidence"),
        ("bad examples", "damaged"),
        ("other cohort", "different cohorts"),
        ("other split", "different splits"),
        ("other classes", "different classes"),
        ("other set", "different parts of the split"),
        ("other slices", "different slices"),
        ("few examples", "should hold"),
        ("no clean slices", "no row for the clean slices"),
        ("out is a folder", "is a folder"),
        ("out is a result", "no report of robustmri"),
    ],
)
def test_bad_input_is_named_and_leaves_the_old_report(build, pair, tmp_path, fault, message):
    before, after = pair
    out = tmp_path / "report.html"
    old = f"{GENERATOR.decode()} the old one"
    out.write_text(old)
    folders = [before, after]
    result = load_result(after)
    replace = msgspec.structs.replace
    if fault == "nothing":
        folders = []
    elif fault == "no folder":
        folders = [tmp_path / "none"]
    elif fault == "no outcomes":
        (after / "outcomes.parquet").unlink()
    elif fault == "bad outcomes":
        (after / "outcomes.parquet").write_bytes(b"PAR1 but not really PAR1")
    elif fault == "no column":
        table = pq.read_table(after / "outcomes.parquet").drop_columns(["confidence"])
        pq.write_table(table, after / "outcomes.parquet")
    elif fault == "bad examples":
        (before / "examples.npz").write_bytes((before / "examples.npz").read_bytes()[:500])
    elif fault == "other cohort":
        change(after, cohort=replace(result.cohort, fingerprint="another"))
    elif fault == "other split":
        change(after, split=replace(result.split, fingerprint="another"))
    elif fault == "other classes":
        change(after, cohort=replace(result.cohort, classes=["glioma", "meningioma", "pituitary"]))
    elif fault == "other set":
        change(after, split=replace(result.split, evaluated_set="validation"))
    elif fault == "other slices":
        folders = [before, build("fewer", repaired=True, patients=20)]
    elif fault == "no clean slices":
        table = pq.read_table(after / "outcomes.parquet")
        kept = [name != "none" for name in table.column("attack").to_pylist()]
        pq.write_table(table.filter(kept), after / "outcomes.parquet")
    elif fault == "few examples":
        examples = load_result(before).examples
        change(before, examples=[*examples, replace(examples[0], position=99)])
    elif fault == "out is a result":
        out, old = after / "robustness.json", (after / "robustness.json").read_text()
    else:
        out = tmp_path
    with pytest.raises(ResultError, match=message):
        write_page(folders, out)
    assert (tmp_path / "report.html" if out.is_dir() else out).read_text() == old
    assert not list(tmp_path.glob(".*partial"))


def test_whole_report_without_torch(pair, tmp_path):
    code = f"""
import sys
from robustmri.report import write_page
write_page({[str(folder) for folder in pair]!r}, {str(tmp_path / "report.html")!r})
heavy = {{"torch", "monai", "lightning", "lightning_fabric", "kornia", "sklearn", "scipy"}}
heavy |= {{"matplotlib"}}
print(sorted(heavy & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
    assert (tmp_path / "report.html").stat().st_size > 50_000


def confined(attack="pgd", turned=0.5):
    return RegionResult(
        region="lesion",
        meaning="the lesion",
        attack=attack,
        norm="linf",
        eps=0.04,
        eps_units="image",
        eps_image=0.04,
        n=10,
        n_patients=5,
        turned=turned,
        ci_low=0.1,
        ci_high=0.9,
        interval="by patient",
        patients_turned=0.5,
        area=0.02,
        lesion_energy=1.0,
        lesion_area=0.02,
    )


def test_regions_of_another_attack_do_not_stand_under_the_first_ones_name(pair, tmp_path):
    change(pair[0], regions=[confined(turned=0.5)])
    change(pair[1], regions=[confined(turned=0.25)])
    alike = Page(read(pair, tmp_path)).text
    assert "25.0" in alike
    change(pair[1], regions=[confined("fgsm", turned=0.25)])
    other = Page(read(pair, tmp_path)).text
    assert other.count("25.0") < alike.count("25.0")
    assert "50.0" in other
    assert "was confined under another attack or radius" in other


@pytest.mark.parametrize(
    "changed", [{"max_gradients": 1}, {"norm": "l2"}, {"target": "glioma"}, {"region": "lesion"}]
)
def test_another_attacker_is_another_attack(changed, pair, tmp_path):
    assert "Names and settings agree." in read(pair, tmp_path)
    settings = load_result(pair[1]).settings
    change(pair[1], settings=settings | {"evaluate": settings.get("evaluate", {}) | changed})
    assert "Names and settings agree." not in read(pair, tmp_path)


def test_figures_by_patient_stand_under_the_classifier_that_they_are_of(pair, tmp_path):
    """Also where the first result is of a release that had none."""
    share = PatientShare(
        endpoint="every slice",
        attack="none",
        norm="",
        eps=None,
        eps_units="image",
        target="",
        n=36,
        accuracy=0.5,
        ci_low=0.4,
        ci_high=0.6,
        interval="by patient",
        of=18,
        turned=0,
    )
    told = {
        "attack": "",
        "norm": "",
        "eps": None,
        "eps_units": "image",
        "target": "",
        "level": 0.95,
    }
    change(pair[1], patients=PatientFigures(shares=[share], strata=[], mistakes=[], **told))
    text = read(pair, tmp_path)
    section = text[text.index('id="patients"') :]
    section = section[: section.index("</section>")]
    names = Page(section).having("stage")
    assert [one["class"] for one in names] == ["stage s1"]
