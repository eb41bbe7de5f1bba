"""Searches that no result has stored: what is asked for, and what the case then shows."""

from __future__ import annotations

import json
import shutil

import pytest

from robustmri.core.errors import DataError, SettingsError
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.training.settings import TrainSettings
from robustmri.verbs.estimate import estimate_evaluation, estimate_training
from robustmri.verbs.evaluate import evaluate
from robustmri.web.folder import Folder, NotThereError, id_of
from robustmri.web.search import make_search
from robustmri.web.views.case import case
from robustmri.web.views.overview import overview
from robustmri.web.views.result import facts

FAST = {"options": {"pgd": {"steps": 3}}, "precision": "fp32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_cohort, tiny_run, use_tiny_networks):
    """A cohort, a run, its result, and searches of one case and of one patient."""
    root = tmp_path_factory.mktemp("search") / "folder"
    shutil.copytree(tiny_cohort, root / "cohort")
    shutil.copytree(tiny_run, root / "run")
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        ask = (root / "run", root / "cohort")
        whole = evaluate(*ask, root / "whole", attacks=("fgsm",), eps=("0.02",), **FAST)
        name, patient = whole.examples[0].case_id, whole.examples[0].patient_id
        radii = {"eps": ("0.04",), "curve": ("0.01", "0.02")}
        evaluate(*ask, root / "search-0001", attacks=("pgd",), cases=(name,), **radii, **FAST)
        evaluate(*ask, root / "search-0002", attacks=("bim",), patients=(patient,), **FAST)
    return Folder(root)


@pytest.fixture
def asked(folder):
    """The id of the whole result, and of the case and patient that were searched."""
    (found,) = (one for one in folder.look().of("result") if one.name == "whole")
    example = folder.result(found.id).examples[0]
    known = facts(folder, found.id)
    (patient,) = (one["id"] for one in known.patients.values() if one["name"] == example.patient_id)
    return found.id, id_of("case", example.case_id), patient


def test_a_case_shows_what_its_searches_found(folder, asked):
    id, case_id, _ = asked
    shown = case(folder, id, case_id, {})
    titles = list(dict.fromkeys(one.title for one in shown["answers"]))
    assert titles == ["No attack", "FGSM", "Worst case", "PGD (search-0001)", "BIM (search-0002)"]
    searched = [one for one in shown["answers"] if "search-0001" in one.title]
    assert [one.eps for one in searched] == [0.01, 0.02, 0.04]
    assert all(one.on_curve for one in searched)
    other = next(one for one in facts(folder, id).numbers if one != case_id)
    assert "PGD (search-0001)" not in {one.title for one in case(folder, id, other, {})["answers"]}


def test_searches_are_no_results_of_the_test_set(folder):
    chosen = {one["name"]: one["chosen"] for one in overview(folder)["results"]}
    assert chosen == {"whole": False, "search-0001": True, "search-0002": True}
    result = json.loads((folder.root / "search-0001" / "robustness.json").read_text())
    assert result["split"]["n_slices"] == 1
    assert {"the whole set": "warn"}.items() <= {
        one["name"]: one["status"] for one in result["checks"]
    }.items()


def test_a_search_becomes_an_evaluation(folder, asked):
    id, case_id, patient = asked
    answers = {"attack": "pgd", "norm": "linf", "radii": "2/255,4/255,8/255", "region": "lesion"}
    words, out, title = make_search(
        folder, {"result": id, "case": case_id, "answers": answers}, taken=["search-0007"]
    )
    root, example = folder.root, folder.result(id).examples[0]
    assert words[3:] == [
        "evaluate",
        str(root / "run"),
        str(root / "cohort"),
        f"--out={root / 'search-0008'}",
        "--norm=linf",
        "--region=lesion",
        "--attacks=pgd",
        "--eps=8/255",
        "--curve=2/255,4/255",
        "--set=evaluate.curve_attack=pgd",
        f"--case={example.case_id}",
        f"--set=evaluate.examples={example.case_id}",
    ]
    assert (out, title) == ("search-0008", "Search: pgd on one case")
    one = make_search(folder, {"result": id, "patient": patient, "answers": answers})
    assert one[0][-1] == f"--patient={example.patient_id}"
    assert one[2] == "Search: pgd on one patient"
    assert make_search(folder, {"result": id, "answers": answers})[2].endswith("whole test set")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"answers": 1}, "expected a result"),
        ({"answers": {"attack": "os:system", "radii": "1"}}, "Attack"),
        ({"answers": {"attack": "pgd", "radii": "--trust x"}}, "expected names or numbers"),
        ({"answers": {"attack": "pgd", "radii": ""}}, "Radii eps"),
        ({"answers": {"attack": "pgd", "radii": ","}}, "Radii eps"),
        ({"answers": {"attack": "pgd", "radii": "1", "trust": "1"}}, "no setting 'trust'"),
        ({"answers": {"attack": "pgd", "radii": "1", "target": "nobody"}}, "Target"),
        ({"answers": {"attack": "pgd", "radii": "1"}, "case": "../x"}, "no case"),
        ({"answers": {"attack": "pgd", "radii": "1"}, "patient": "P1"}, "no patient"),
    ],
)
def test_a_search_that_cannot_be_asked_for(body, said, folder, asked):
    with pytest.raises((SettingsError, NotThereError), match=said):
        make_search(folder, {"result": asked[0], **body})


@pytest.mark.parametrize("gone", ["run", "cohort"])
def test_a_search_needs_classifier_and_cohort(gone, folder, tmp_path):
    for name in {"run", "cohort", "whole"} - {gone}:
        shutil.copytree(folder.root / name, tmp_path / name)
    rest = Folder(tmp_path)
    (found,) = rest.look().of("result")
    answers = {"attack": "pgd", "radii": "0.04"}
    with pytest.raises(DataError, match="is not in the folder"):
        make_search(rest, {"result": found.id, "answers": answers})


def test_only_slices_of_the_set_are_named(folder, tmp_path, tiny_networks):
    ask = (folder.root / "run", folder.root / "cohort", tmp_path / "out")
    with pytest.raises(DataError, match="the test set has no case 'nobody'"):
        evaluate(*ask, cases=("nobody",))
    with pytest.raises(DataError, match="the test set has no patient 'nobody'"):
        evaluate(*ask, patients=("nobody",))
    assert not (tmp_path / "out").exists()


def test_the_cost_is_known_before_the_start(folder, tmp_path, tiny_networks):
    run, cohort = folder.root / "run", folder.root / "cohort"
    quick = {"batch_size": 16, "precision": "fp32"}
    before = sorted(folder.root.rglob("*"))
    said = estimate_training(cohort, TrainSettings(epochs=3, **quick))
    assert said.startswith("about ")
    attacked = TrainSettings(objective="adversarial", attack_steps=2, epochs=400_000, **quick)
    longer = estimate_training(cohort, attacked, checkpoint=run)
    assert longer.split()[2] == "h", longer
    at_most = estimate_evaluation(run, cohort, EvaluateSettings(attacks=("fgsm",)))
    assert at_most.startswith("at most ")
    assert sorted(folder.root.rglob("*")) == before
