"""The gate: what passes, what fails, and what it leaves for those who read test results."""

from __future__ import annotations

import shutil
from xml.etree import ElementTree

import msgspec
import pytest
from typer.testing import CliRunner

import robustmri
from robustmri.app.cli import app
from robustmri.core.errors import ResultError, SettingsError
from robustmri.evaluation.criteria import find_number, judge
from robustmri.results.acceptance import parse_minimum, read_acceptance
from robustmri.results.gate import Gate
from robustmri.results.headline import main_budget
from robustmri.results.schema import Check, load_result, save_result

CRITERIA = """
intended_use = "Second reader of T1 slices."
version = "1.2"
decided_by = "Board, 3 May"
[min]
worst_case = 0.5
"clean.low" = "60 %"
"""


def run(*words):
    return CliRunner().invoke(app, ["check", *map(str, words)])


def change(folder, target, **fields):
    copy = shutil.copytree(folder, target)
    save_result(msgspec.structs.replace(load_result(copy), **fields), copy)
    return copy


@pytest.mark.parametrize(
    ("name", "minima", "status"),
    [
        ("after", [], 0),
        ("after", ["worst_case=0.5", "clean=0.8", "pgd@0.02=50 %"], 0),
        ("after", ["worst_case=0.99"], 3),
        ("before", ["worst_case=0.5"], 3),
        ("before", ["fgsm@0.04=0.01"], 0),
        ("after", ["patients.worst_case=0.5", "worst_case.low=0.3"], 0),
        ("after", ["worst_case.low=0.7"], 3),
    ],
)
def test_minima(folders, name, minima, status):
    said = run(folders[name], *(word for one in minima for word in ("--min", one)))
    assert said.exit_code == status, said.output
    assert said.output.count("criterion: ") == len(minima)
    assert ("passed" in said.output.splitlines()[-1]) == (status == 0)


def test_a_failed_check_of_its_own_fails_the_gate(folders, tmp_path):
    failed = Check(name="gradients are there", status="fail", detail="No. Case 'P101/slice_001'.")
    checks = [*load_result(folders["after"]).checks, failed]
    copy = change(folders["after"], tmp_path / "copy", checks=checks)
    gate = robustmri.check(copy, minimum={"worst_case": 0.5})
    assert not gate.passed
    (found,) = [one for one in gate.findings if one.status == "fail"]
    assert (found.kind, found.name) == ("check", "gradients are there")
    assert "P101" not in str(gate), "what is written may be read by others"


@pytest.mark.parametrize(
    ("baseline", "result", "margin", "passed", "told"),
    [
        ("before", "after", 0.2, True, "ruled out"),
        ("after", "before", 0.02, False, "a drop beyond the margin."),
        ("after", "before", 0.95, True, "margin 95 points"),
        ("after", "other", 0.0, True, ""),
        ("after", "after", 0.02, True, "none ruled out"),
    ],
)
def test_a_baseline(folders, baseline, result, margin, passed, told):
    gate = robustmri.check(folders[result], baseline=folders[baseline], margin=margin)
    drops = [one for one in gate.findings if one.kind == "baseline"]
    assert [one.name for one in drops[:2]] == ["What is compared", "No attack"]
    assert drops[2].name.startswith("Worst case, eps 0.04")
    assert gate.passed == passed
    assert told in drops[2].detail
    assert gate.baseline_sha256 == load_result(folders[baseline]).model.checkpoint_sha256


def test_what_is_written_for_others(folders, tmp_path):
    criteria = tmp_path / "criteria.toml"
    criteria.write_text(CRITERIA, encoding="utf-8")
    told = ("--junit", tmp_path / "junit.xml", "--json", tmp_path / "gate.json")
    said = run(folders["after"], "--criteria", criteria, "--min", "worst_case=0.99", *told)
    assert said.exit_code == 3
    gate = msgspec.json.decode((tmp_path / "gate.json").read_bytes(), type=Gate)
    assert "created" in gate.provenance
    assert "command" not in gate.provenance, "it has names of folders, as they were typed"
    assert not gate.passed
    assert gate.decided_by == "Board, 3 May"
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    cases = root.findall("testsuite/testcase")
    assert len(cases) == int(root.get("tests")) == len(gate.findings)
    assert len(root.findall(".//failure")) == int(root.get("failures")) == 1
    assert cases[0].get("classname") == "robustmri.criterion"
    assert "must be at least 99.0 %" in cases[0].find("failure").get("message")


def test_a_result_alone_is_taken_as_told(folders, tmp_path):
    path = shutil.copy(folders["after"] / "robustness.json", tmp_path / "robustness.json")
    gate = robustmri.check(path, minimum={"worst_case": 0.5})
    assert gate.passed
    assert [one.status for one in gate.findings if one.name == "Counted again"] == ["warn"]
    with pytest.raises(ResultError, match=r"needs outcomes.parquet"):
        robustmri.check(path, baseline=folders["before"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--min", "worst_case"], "needs NAME=VALUE"),
        (["--min", "worst_case=50"], "Did you mean 50 %?"),
        (["--min", "worst_case=much"], "must be from 0 to 1"),
        (["--min", "a=0.1", "--min", "a=0.2"], "given twice"),
        (["--min", "square=0.5"], "There is: clean, fgsm@0.04, pgd@0.005"),
        (["--min", "pgd@far=0.5"], "names no radius"),
        (["--min", "pgd@0.7=0.5"], "no number 'pgd@0.7'"),
        (["--margin", "2"], "a fraction from 0 to 1"),
        (["--criteria", "nothing.toml"], "is not a file"),
    ],
)
def test_what_cannot_be_judged_is_one_sentence(folders, words, message):
    with pytest.raises((ResultError, SettingsError), match=message.replace("?", r"\?")):
        CliRunner().invoke(app, ["check", str(folders["after"]), *words], catch_exceptions=False)


def test_a_file_that_is_no_result(folders, tmp_path):
    (tmp_path / "report.html").write_text("")
    for path in (tmp_path / "report.html", tmp_path):
        with pytest.raises(ResultError, match=r"no result|no robustness.json"):
            robustmri.check(path)
    with pytest.raises(ResultError, match=r"none in common|another patient or label"):
        robustmri.check(folders["after"], baseline=folders["strangers"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min = 0.5", "must be a table"),
        ("version = 2", "must be a text in quotes"),
        ("[minimum]", "Did you mean 'min'"),
        ("[min]\nclean = true", "must be from 0 to 1"),
        ("[min", "not valid TOML"),
    ],
)
def test_criteria_that_say_something_else(tmp_path, text, message):
    path = tmp_path / "criteria.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=message):
        read_acceptance(path)


def test_criteria_are_read(tmp_path):
    path = tmp_path / "criteria.toml"
    path.write_text(CRITERIA, encoding="utf-8")
    read = read_acceptance(path)
    assert read.minimum == {"worst_case": 0.5, "clean.low": 0.6}
    assert (read.version, read.decided_by) == ("1.2", "Board, 3 May")
    assert parse_minimum(["a@8/255=1", "b=0 %"]) == {"a@8/255": 1.0, "b": 0.0}


def test_one_attack_alone_is_its_own_worst_case(folders):
    result = load_result(folders["after"])
    alone = [one for one in result.results if one.attack in ("none", "fgsm")]
    result = msgspec.structs.replace(result, results=alone)
    assert find_number(result, "worst_case").attack == "fgsm"
    with pytest.raises(ResultError, match="no number"):
        find_number(msgspec.structs.replace(result, results=alone[:2]), "worst_case")


def test_a_radius_is_one_of_the_headline_and_no_severity(folders):
    """Within l2 eps 1 nothing was attacked; a scanner's severity 1 is another thing."""
    result = load_result(folders["after"])
    told = [one for one in result.results if one.unit == "slice"]
    worst = next(one for one in told if (one.attack, one.eps) == ("worst", 0.04))
    scanner = msgspec.structs.replace(worst, norm="corruption", eps=1.0, accuracy=0.96)
    motion = msgspec.structs.replace(scanner, attack="motion")
    result = msgspec.structs.replace(result, results=[*told, scanner, motion])
    with pytest.raises(ResultError, match="no number 'worst_case@1'"):
        find_number(result, "worst_case@1")
    assert find_number(result, "motion@1") == motion
    twice = [*told, motion, msgspec.structs.replace(motion, norm="gamma")]
    with pytest.raises(ResultError, match="several numbers"):
        find_number(msgspec.structs.replace(result, results=twice), "motion@1")


def test_beside_another_result_the_budget_of_both_is_judged(folders, tmp_path):
    """`before` was attacked at 0.04 alone, `after` more often at 0.02."""
    pair = [tmp_path / name for name in ("before", "after")]
    for name, keep in zip(pair, ((0.04,), (0.02, 0.04)), strict=True):
        told = load_result(folders[name.name]).results
        told = [one for one in told if one.eps in (None, *keep)]
        if 0.02 in keep:
            more = [one for one in told if one.attack == "pgd" and one.eps == 0.02]
            told += [msgspec.structs.replace(one, attack="bim") for one in more]
            told = [one for one in told if (one.attack, one.eps) != ("fgsm", 0.04)]
        change(folders[name.name], name, results=told)
    results = [load_result(folder) for folder in pair]
    at = main_budget(results)
    assert at.eps == 0.04
    assert main_budget([results[1]]).eps == 0.02
    judged = [judge(result, {"worst_case": 0.5}, at)[0] for result in results]
    assert {one.budget for one in judged} == {at}
