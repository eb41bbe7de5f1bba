"""Corruptions and physical threats beside, and in place of, attacks in a norm."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from robustmri.core.errors import RobustMRIError, SettingsError
from robustmri.data.cohort import Cohort
from robustmri.data.corruptions import CORRUPTIONS, corrupt
from robustmri.data.loaders import load_images
from robustmri.evaluation.recount import refuse_contradictions
from robustmri.evaluation.study_checks import check_physics
from robustmri.report.html import write_page
from robustmri.report.scanner import corruption_rows, corruption_table, threat_rows, threat_table
from robustmri.results.headline import main_budget
from robustmri.results.outcomes import Outcomes
from robustmri.results.schema import load_result, save_result
from robustmri.threat.physical_transforms import TRANSFORMS
from robustmri.verbs.evaluate import evaluate
from tiny import column, read_outcomes, rows_of

QUICK = {
    "attacks": ("fgsm", "pgd"),
    "precision": "fp32",
    "limit": 9,
    "options": {"pgd": {"steps": 3}},
}


@pytest.fixture(scope="module")
def beside(tiny_run, tiny_cohort, tmp_path_factory, use_tiny_networks):
    """An evaluation in l-infinity that also measures a corruption and two physical threats."""
    folder = tmp_path_factory.mktemp("beside") / "result"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        evaluate(tiny_run, tiny_cohort, folder, corruptions=("rotation", "gamma", "patch"), **QUICK)
    return folder


@pytest.fixture(scope="module")
def instead(tiny_run, tiny_cohort, tmp_path_factory, use_tiny_networks):
    """An evaluation of a physical threat in place of a norm, at two radii."""
    folder = tmp_path_factory.mktemp("instead") / "result"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        evaluate(tiny_run, tiny_cohort, folder, threat="affine", eps=("4", "12"), **QUICK)
    return folder


def accuracies(folder, unit="slice"):
    return {
        (number.attack, number.norm, number.eps): number.accuracy
        for number in load_result(folder).results
        if number.unit == unit
    }


def test_what_is_measured_beside(beside):
    found = accuracies(beside)
    severities = [1.0, 2.0, 3.0, 4.0, 5.0]
    for name in ("rotation", "gamma", "worst"):
        assert [eps for attack, norm, eps in found if (attack, norm) == (name, "corruption")] == (
            severities
        )
    for eps in severities:
        # Each slice's worst over all corruptions is at most any one's.
        each = [found[name, "corruption", eps] for name in ("rotation", "gamma")]
        assert found["worst", "corruption", eps] <= min(each)
    for kind in ("gamma", "patch"):
        eps = TRANSFORMS[kind].usual
        average, random, worst = (
            found[attack, kind, eps] for attack in ("random-draw", "random-search", "worst")
        )
        assert worst <= random <= average
        assert worst <= found["apgd", kind, eps]
    assert set(found) - {("none", "", None)} == {
        key for key in found if key[1] in ("linf", "corruption", "gamma", "patch")
    }
    outcomes = read_outcomes(beside)
    for row in outcomes:
        assert row["verified"]
        physical = row["norm"] in ("corruption", "gamma", "patch")
        assert np.isinf(row["eps_image"]) == physical
    # A patch covers as many pixels as its side says.
    changed = column(rows_of(outcomes, "apgd", TRANSFORMS["patch"].usual), "distance_l0")
    assert max(changed) <= round(0.1 * 32) ** 2


def test_the_headline_stays_that_of_the_attack(beside):
    result = load_result(beside)
    at = main_budget([result])
    assert (at.norm, at.eps) == ("linf", 0.04)
    named = {check.name: check for check in result.checks}
    assert named["scanner and physical threats in order"].status == "pass"
    assert named["perturbations within eps"].status == "pass"
    # Of checks on attacks only: two attacks and the worst of them.
    assert "of 27 attacked" in named["every attacked image re-verified"].detail
    refuse_contradictions(beside)


def test_the_report_shows_both_tables(beside, tmp_path):
    page = write_page([beside], tmp_path / "page.html").read_text()
    assert "What a scanner does" in page
    for said in ("Rotation", "Worst of all, for each slice", "patch, eps 10 % of the width"):
        assert said in page
    result = load_result(beside)
    rows = corruption_rows([result, result])
    assert [row.name for row in rows][-1] == "Worst of all, for each slice"
    assert all(row.change == 0 for row in rows)
    threats = threat_rows([result])
    assert "linf" not in threats[0].name
    assert threats[0].worst[0].norm == "linf"
    assert [row.name.partition(",")[0] for row in threats[1:]] == ["gamma change", "patch"]
    assert len(corruption_table([result]).rows) == len(rows)
    assert len(threat_table([result, result]).headers) == 1 + 2 * 3 + 1


def test_results_of_before_have_no_such_section(beside, tmp_path):
    """Without the rows, and without the fields that came with them, a result opens and is shown."""
    result = load_result(beside)
    plain = msgspec.to_builtins(result)
    plain["results"] = [one for one in plain["results"] if one["norm"] in ("", "linf")]
    plain["attacks"] = [
        {name: value for name, value in one.items() if name != "norm"}
        for one in plain["attacks"]
        if not one["norm"]
    ]
    plain["norms"] = {
        "linf": {
            name: value
            for name, value in plain["norms"]["linf"].items()
            if name not in ("kind", "unit")
        }
    }
    (tmp_path / "robustness.json").write_text(json.dumps({**plain, "files": {}}))
    (tmp_path / "outcomes.parquet").write_bytes((beside / "outcomes.parquet").read_bytes())
    old = load_result(tmp_path)
    assert corruption_table([old]) is threat_table([old]) is None
    assert save_result(old, tmp_path)
    page = write_page([tmp_path], tmp_path / "page.html", images=False).read_text()
    assert "What a scanner does" not in page


def test_a_physical_threat_in_place_of_a_norm(instead, tmp_path):
    found = accuracies(instead)
    assert {norm for _, norm, _ in found} == {"", "affine"}
    clean = found["none", "", None]
    assert found["worst", "affine", 12.0] <= found["worst", "affine", 4.0] <= clean
    assert found["worst", "affine", 12.0] < clean
    result = load_result(instead)
    assert main_budget([result]).norm == "affine"
    failed = [check.name for check in result.checks if check.status == "fail"]
    assert not failed
    assert any("rotated by at most 12 degrees" in sentence for sentence in result.threat)
    refuse_contradictions(instead)
    page = write_page([instead], tmp_path / "page.html").read_text()
    assert "A change of position, eps 4 degrees and %" in page


def test_a_corruption_depends_on_the_slice_alone(beside, tiny_cohort):
    """So every classifier meets the same one, however many slices and in whatever batches."""
    row = next(
        row
        for row in read_outcomes(beside)
        if (row["attack"], row["norm"], row["eps"]) == ("gamma", "corruption", 5.0)
    )
    image = load_images(Cohort.open(tiny_cohort), [row["index"]])
    alone = corrupt(image, "gamma", 5, seed=0, keys=[row["case_id"]])
    assert row["distance_linf"] == float((alone - image).abs().max())


def test_a_search_that_random_draws_beat_is_noticed(table):
    searched = (
        table(6)
        .add("random-search", 0.3, {0, 1, 2}, norm="gamma")
        .add("apgd", 0.3, {0}, norm="gamma")
    )
    assert check_physics(Outcomes(searched.columns())).status == "warn"
    searched.add("pgd", 0.3, {0, 1, 2}, norm="gamma")
    assert check_physics(Outcomes(searched.columns())).status == "pass"
    searched.add("spsa", 0.3, {0}, norm="gamma", verified={0: False})
    assert check_physics(Outcomes(searched.columns())).status == "fail"
    assert check_physics(Outcomes(table(3).columns())) is None
    # Of the chance of a scanner nothing is searched; where all is drawn, neither.
    drawn = (
        table(6).add("gamma", 5.0, {0, 1}, norm="corruption").add("noise", 5, {0}, norm="affine")
    )
    assert check_physics(Outcomes(drawn.columns())).status == "pass"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"corruptions": ("fog",)}, "no corruption 'fog'"),
        ({"threat": "fog", "eps": ("1",)}, "no physical threat 'fog'"),
        ({"threat": "affine"}, "needs an eps of its own"),
        ({"threat": "affine", "eps": ("60",)}, "Take at most 45"),
        ({"threat": "gamma", "eps": ("0.3@normalised",)}, "no normalised units"),
        ({"threat": "gamma", "eps": ("0.3",), "curve": ("0.1",)}, "Name several eps"),
        ({"threat": "gamma", "eps": ("0.3",), "region": "brain"}, "region has no meaning"),
        ({"threat": "gamma", "eps": ("0.3",), "norm": "l2"}, "norm has no meaning"),
        ({"threat": "gamma", "eps": ("0.3",), "attacks": ("cw-l2",)}, "within eps"),
    ],
)
def test_what_cannot_be_is_refused(settings, said, tiny_run, tiny_cohort, tmp_path, tiny_networks):
    with pytest.raises(RobustMRIError, match=said):
        evaluate(tiny_run, tiny_cohort, tmp_path / "out", **{**QUICK, **settings})
    assert not (tmp_path / "out").exists()


def test_a_classifier_that_only_answers_is_asked(planned):
    plan = planned(corruptions=("gamma",), attacks=("square",), gradients=False)
    names = [trial.facts.name for trial in plan.attacks if trial.physical]
    assert names == ["random-draw", "random-search", "spsa"]


def test_all_is_everything_once(planned):
    plan = planned(corruptions=("all",), threat="gamma", eps=("0.3",), attacks=("pgd",))
    assert {trial.corruption for trial in plan.attacks if trial.corruption} == set(CORRUPTIONS)
    physical = [trial.physical.kind for trial in plan.attacks if trial.physical]
    assert physical.count("gamma") == 1
    assert set(physical) == set(TRANSFORMS)
    names = [trial.name for trial in plan.trials]
    assert len(names) == len(set(names))
    with pytest.raises(SettingsError, match="all of them"):
        planned(corruptions=("all", "gamma"))
