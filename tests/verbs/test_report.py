"""What people decided, who fares worst, and the model card, through `report`."""

from __future__ import annotations

import json
import re
import shutil

import msgspec
import pytest

import robustmri
from robustmri.core.errors import ResultError
from robustmri.results.outcomes import load_outcomes
from robustmri.results.schema import Check, load_result, save_result

CRITERIA = """
intended_use = "Second reader; tried on P100."
version = "2.3"
decided_by = "Board <b>one</b>"
[min]
clean = 0.5
worst_case = 0.99
"""


def words(path):
    text = path.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    return " ".join(re.sub(r"<[^>]+>", " ", text.partition("</style>")[2]).split())


@pytest.fixture
def criteria(tmp_path):
    path = tmp_path / "criteria.toml"
    path.write_text(CRITERIA, encoding="utf-8")
    return path


def test_none_given_is_said(folders, tmp_path):
    told = words(robustmri.write_report([folders["after"]], tmp_path / "a.html"))
    assert "Acceptance criteria none given" in told
    assert "Intended use not given" in told
    assert "It claims no conformity with any of them" in told
    assert "No minima were given." in told


def test_criteria_are_held_against_each_result(folders, tmp_path, criteria):
    pair = [folders["before"], folders["after"]]
    told = words(robustmri.write_report(pair, tmp_path / "a.html", criteria=criteria))
    assert "2, decided by Board &lt;b&gt;one&lt;/b&gt;" in told
    assert "Acceptance 1 of 2 minima met." in told
    assert re.search(r"Worst case, eps 0.04 \(10.2/255\) 99.0 % missed 0.0 % missed \d", told)
    given = {"criteria": criteria, "minimum": {"worst_case": 0.5, "patients.clean": 0.1}}
    told = words(robustmri.write_report(pair, tmp_path / "a.html", **given))
    assert re.search(r"Worst case, eps 0.04 \(10.2/255\) 50.0 % missed 0.0 % met \d", told)
    assert "No attack, by patient 10.0 %" in told
    with pytest.raises(ResultError, match="no number 'square'"):
        robustmri.write_report(pair, tmp_path / "b.html", minimum={"square": 0.1})


def test_the_worst_patients_are_named_only_where_names_may_be_seen(folders, tmp_path, criteria):
    pair = [folders["before"], folders["after"]]
    shown = robustmri.write_report(pair, tmp_path / "a.html", criteria=criteria)
    outcomes = load_outcomes(folders["before"])
    patients = sorted(set(outcomes["patient_id"]))
    section = words(shown).partition("Worst patients")[2].partition(" After ")[0]
    assert sum(patient in section for patient in patients) == 10
    hidden = robustmri.write_report(pair, shown, criteria=criteria, images=False)
    told = words(hidden)
    assert "Not listed in this copy, which names nobody." in told
    assert "Second reader; tried on [withheld]." in told
    assert not [patient for patient in patients if patient in told]


def test_a_card_that_leaves_names_nobody(folders, tmp_path, criteria):
    card = tmp_path / "README.md"
    robustmri.write_report(
        [folders["before"], folders["after"]], tmp_path / "a.html", criteria=criteria, card=card
    )
    text = card.read_text(encoding="utf-8")
    start, front, body = text.split("---\n", 2)
    assert start == ""
    told = {
        key: json.loads(value)
        for key, _, value in (line.partition(": ") for line in front.splitlines())
    }
    assert told["pipeline_tag"] == "image-classification"
    (index,) = told["model-index"]
    clean, worst = index["results"][0]["metrics"]
    result = load_result(folders["after"])
    assert clean["value"] == round(result.results[0].accuracy, 4)
    assert worst["name"] == "Accuracy, worst case, eps 0.04 (10.2/255)"
    heads = re.findall(r"^#+ (.+)$", body, re.MULTILINE)
    assert heads[:3] == ["resnet18", "Model details", "Uses"]
    assert "Second reader; tried on [withheld]." in body
    assert "measured " in body
    for word in ("P10", "weiss", "t1ce", "Brain tumour"):
        assert word not in text


def test_a_card_of_a_failed_check_holds_no_figure_for_machines(folders, tmp_path):
    copy = shutil.copytree(folders["after"], tmp_path / "copy")
    result = load_result(copy)
    failed = Check(name="gradients are there", status="fail", detail="None.")
    save_result(msgspec.structs.replace(result, checks=[*result.checks, failed]), copy)
    card = tmp_path / "README.md"
    robustmri.write_report([copy], tmp_path / "a.html", card=card)
    text = card.read_text(encoding="utf-8")
    assert "model-index" not in text
    assert "No headline, for failed checks: 1." in text
    assert "is enough to turn" not in text
