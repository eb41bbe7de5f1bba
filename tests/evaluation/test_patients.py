"""Endpoints by patient, strata, mistakes and what they cost, against counts by hand."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from robustmri.core.errors import ResultError, SettingsError
from robustmri.evaluation.costs import read_costs
from robustmri.evaluation.intervals import share_interval
from robustmri.evaluation.metrics import worst_case
from robustmri.evaluation.patients import summarise_patients
from robustmri.results.outcomes import Outcomes
from robustmri.results.patients import ENDPOINTS, Cost
from robustmri.results.schema import load_result
from robustmri.verbs.evaluate import evaluate
from robustmri.verbs.report import write_report

CLASSES = ("meningioma", "glioma", "pituitary")


def with_worst(made, **given):
    """The table, columns given as {image: value}, and its worst rows below it."""
    columns = made.columns()
    for name, of in given.items():
        values = [of[image] for image in columns["index"]]
        columns[name] = np.empty(len(values), dtype=object)
        columns[name][:] = values
    worst = worst_case(Outcomes(columns))
    return Outcomes({name: np.concatenate([columns[name], worst[name]]) for name in columns})


def shares(figures, attack="worst"):
    return {one.endpoint: one for one in figures.shares if one.attack == attack}


def test_one_flipped_slice_is_enough_and_half_of_them_is_a_tie(table):
    """Of two slices patient 0 loses both, 1 one; 2 was wrong in one before; 3 keeps both."""
    made = table(8, clean_wrong=[4]).add("pgd", 0.04, [0, 1, 2, 4])
    figures = summarise_patients(with_worst(made), CLASSES)
    every, majority = shares(figures)["every slice"], shares(figures)["majority"]
    assert (every.n, every.accuracy, every.of, every.turned) == (4, 0.25, 3, 2)
    assert (majority.accuracy, majority.of, majority.turned) == (0.25, 3, 2)
    assert shares(figures, "none")["every slice"].accuracy == 0.75
    assert (figures.attack, figures.norm, figures.eps) == ("worst", "linf", 0.04)
    assert "mean probability" not in shares(figures)


def test_what_a_scanner_does_is_no_headline(table):
    made = table(8).add("pgd", 0.04, [0, 1])
    for name in ("motion", "spikes", "ghosting"):
        made = made.add(name, 1.0, [2, 3, 4], norm="corruption")
    for name in ("apgd", "random-draw"):
        made = made.add(name, 0.3, [5], norm="gamma")
    figures = summarise_patients(with_worst(made), CLASSES)
    assert (figures.attack, figures.norm, figures.eps) == ("worst", "linf", 0.04)
    assert shares(figures)["every slice"].turned == 1


def test_a_majority_outvotes_one_flipped_slice(table):
    threes = {image: f"P{image // 3}" for image in range(9)}
    outcomes = with_worst(table(9).add("pgd", 0.04, [0, 3, 4]), group=threes)
    found = shares(summarise_patients(outcomes, CLASSES))
    assert (found["every slice"].turned, found["majority"].turned) == (2, 1)


@pytest.mark.parametrize(
    ("sure", "right"), [(0.9, True), (0.55, False), (np.nan, False)], ids=["sure", "unsure", "NaN"]
)
def test_a_sure_slice_outweighs_an_unsure_one(sure, right, table):
    """Both slices of a patient are a meningioma; one is taken for a glioma with 0.6."""
    outcomes = with_worst(
        table(2).add("pgd", 0.04, [1]),
        label={0: "meningioma", 1: "meningioma"},
        probabilities={0: [sure, 1 - sure, 0.0], 1: [0.4, 0.6, 0.0]},
    )
    found = shares(summarise_patients(outcomes, CLASSES))["mean probability"]
    assert (found.n, found.accuracy == 1) == (1, right)


def test_each_group_has_an_interval_of_a_level_that_holds_for_all(table):
    outcomes = with_worst(
        table(60).add("pgd", 0.04, range(0, 60, 3)),
        plane={image: ("axial", "coronal")[image % 2] for image in range(60)},
        lesion_area={image: (0.01, 0.02, 0.03)[image % 3] for image in range(60)},
    )
    figures = summarise_patients(outcomes, CLASSES)
    assert [(one.by, one.n_slices) for one in figures.strata] == [
        *[("class", 20)] * 3,
        *[("plane", 30)] * 2,
        *[("lesion size", 20)] * 3,
    ]
    assert figures.level == pytest.approx(1 - 0.05 / 8)
    sizes = [one.name.partition(" (")[0] for one in figures.strata][5:]
    assert sizes == ["small", "middle", "large"]
    assert (figures.strata[5].clean, figures.strata[5].accuracy) == (1, 0)
    worst = (outcomes["attack"] == "worst") & (outcomes["plane"] == "axial")
    right = outcomes["prediction"][worst] == outcomes["label"][worst]
    expected = share_interval(right, outcomes["group"][worst], level=figures.level)
    axial = figures.strata[3]
    assert (axial.ci_low, axial.ci_high, axial.interval) == expected


def test_unknown_planes_and_lesions_make_no_groups(table):
    outcomes = with_worst(
        table(6).add("pgd", 0.04, [0]),
        plane=dict.fromkeys(range(6), ""),
        lesion_area=dict.fromkeys(range(6), np.nan),
    )
    assert {one.by for one in summarise_patients(outcomes, CLASSES).strata} == {"class"}


def test_mistakes_are_counted_with_their_patients_and_costs(table, tmp_path):
    """Of class i % 3, image i is taken for the next one; images 0 and 3 are of patients 0 and 1."""
    outcomes = with_worst(table(12, clean_wrong=[0]).add("pgd", 0.04, [0, 3, 4]))
    priced = read_costs(write_costs(tmp_path / "costs.csv"), CLASSES)
    figures = summarise_patients(outcomes, CLASSES, costs=priced)
    first, second = figures.mistakes
    assert (first.truth, first.answer, first.clean, first.attacked, first.patients) == (
        "meningioma",
        "glioma",
        1,
        2,
        2,
    )
    assert (second.truth, second.clean, second.attacked) == ("glioma", 0, 1)
    clean, attacked = figures.mean_costs
    assert (clean.mean, attacked.mean) == (pytest.approx(10 / 12), pytest.approx(21 / 12))
    assert attacked.ci_low < attacked.mean < attacked.ci_high
    assert figures.costs[0].consequence == "surgery waits"
    assert summarise_patients(outcomes, CLASSES).mean_costs == []


ROWS = (
    "meningioma,glioma,10,surgery waits",
    "meningioma,pituitary,2,",
    "glioma,meningioma,5,",
    "glioma,pituitary,1,",
    "pituitary,meningioma,0,",
    "pituitary,glioma,0.5,",
)


COST_COLUMNS = "truth,answer,cost,consequence"


def write_costs(path, rows=ROWS, head=COST_COLUMNS):
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("rows", "head", "said"),
    [
        (ROWS[1:], COST_COLUMNS, "'meningioma' taken for 'glioma' costs"),
        ((*ROWS, ROWS[0]), COST_COLUMNS, "line 8.*a cost already"),
        (("Meningioma,glioma,1",), "truth,answer,cost", "'Meningioma' is no class"),
        (("meningioma,glioma,-1",), "truth,answer,cost", "at least 0, got '-1'"),
        (("meningioma,glioma,inf",), "truth,answer,cost", "at least 0, got 'inf'"),
        (("meningioma,glioma",), "truth,answer,cost", "at least 0, got ''"),
        (("meningioma,glioma,1,000,x",), COST_COLUMNS, "line 2 has more cells than the 4 col"),
        (ROWS, "truth,answer,cost,Cost", "two columns 'cost'"),
        (ROWS, "truth,answer,price", "no column 'cost'"),
        ((), "", "got nothing"),
    ],
)
def test_a_table_of_costs_that_is_none_is_refused(rows, head, said, tmp_path):
    with pytest.raises(SettingsError, match=said):
        read_costs(write_costs(tmp_path / "costs.csv", rows, head), CLASSES)


def test_a_file_of_costs_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="not a file"):
        read_costs(tmp_path / "none.csv", CLASSES)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not a CSV"):
        read_costs(tmp_path / "bytes.csv", CLASSES)


def test_without_attacks_only_the_untouched_slices_are_told(table):
    figures = summarise_patients(Outcomes(table(6).columns()), CLASSES)
    assert {one.attack for one in figures.shares} == {"none"}
    assert figures.strata == []
    assert figures.attack == ""


def test_a_target_is_the_attackers_goal_for_patients_too(table):
    """Wrongly named otherwise than the attacker wants, a patient is not lost."""
    made = table(4).add("pgd", 0.04, [0], target="pituitary", prediction={2: "glioma", 3: "glioma"})
    found = shares(summarise_patients(with_worst(made), CLASSES))["every slice"]
    assert (found.target, found.n, found.turned) == ("pituitary", 2, 1)


def test_slices_of_the_target_class_are_no_part_of_what_it_costs(table):
    """They are not attacked, and one of them is wrong untouched; all others are turned."""
    priced = [
        Cost(truth=truth, answer=answer, cost=6.0)
        for truth, answer in itertools.permutations(CLASSES, 2)
    ]
    made = table(12, clean_wrong=[2])
    plain = made.columns()
    target = str(plain["label"][2])
    aimed = plain["index"][plain["label"] != target].tolist()
    columns = made.add("pgd", 0.04, aimed, target=target).columns()
    met = (columns["attack"] == "none") | (columns["label"] != target)
    worst = worst_case(Outcomes({name: column[met] for name, column in columns.items()}))
    whole = Outcomes(
        {name: np.concatenate([column[met], worst[name]]) for name, column in columns.items()}
    )
    figures = summarise_patients(whole, CLASSES, costs=priced)
    found = shares(figures)["every slice"]
    assert found.turned == found.of == found.n > 0
    assert target not in {one.truth for one in figures.mistakes}
    assert [one.mean for one in figures.mean_costs] == [0.0, 6.0]
    assert {(one.clean, one.accuracy) for one in figures.strata} == {(1.0, 0.0)}


@pytest.fixture(scope="module")
def evaluated(tiny_run, tiny_cohort, use_tiny_networks, tmp_path_factory):
    """A result with costs."""
    folder = tmp_path_factory.mktemp("patients")
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        evaluate(
            tiny_run,
            tiny_cohort,
            folder / "out",
            attacks=("fgsm", "noise"),
            eps=("0.1",),
            precision="fp32",
            costs=write_costs(folder / "costs.csv"),
        )
    return folder / "out"


def test_an_evaluation_tells_of_patients_and_its_page_shows_it(evaluated, tmp_path):
    figures = load_result(evaluated).patients
    assert list(shares(figures)) == list(shares(figures, "none")) == list(ENDPOINTS)
    assert {"class", "lesion size"} <= {one.by for one in figures.strata}
    assert [one.attack for one in figures.mean_costs] == ["none", "worst"]
    for images in (True, False):
        page = write_report([evaluated], tmp_path / f"{images}.html", images=images).read_text()
        assert "What it means for patients" in page
        assert "Mean cost of a slice" in page
        assert ("surgery waits" in page) == images
        # Of the three and more that were tested.
        assert "Too few patients for a claim." in page
        assert " slices of only " in page


def test_figures_by_patient_are_counted_again_before_they_are_shown(evaluated, tmp_path):
    again = Path(shutil.copytree(evaluated, tmp_path / "again"))
    path = again / "robustness.json"
    told = json.loads(path.read_text())
    told["patients"]["shares"][0]["turned"] += 1
    path.write_text(json.dumps(told))
    with pytest.raises(ResultError, match="figures by patient differ"):
        write_report([again], tmp_path / "page.html")


def test_a_result_of_before_has_none_and_still_opens(evaluated, tmp_path):
    again = Path(shutil.copytree(evaluated, tmp_path / "again"))
    path = again / "robustness.json"
    told = json.loads(path.read_text())
    del told["patients"]
    path.write_text(json.dumps(told))
    page = write_report([again], tmp_path / "page.html").read_text()
    assert "What it means for" not in page


def test_intervals_of_an_earlier_version_are_told_as_such(evaluated, tmp_path):
    again = Path(shutil.copytree(evaluated, tmp_path / "again"))
    path = again / "robustness.json"
    told = json.loads(path.read_text())
    told["results"][0]["interval"] = "cluster bootstrap over 9 patients, 2000 draws"
    path.write_text(json.dumps(told))
    with pytest.raises(ResultError, match="intervals of an earlier version"):
        write_report([again], tmp_path / "page.html")
