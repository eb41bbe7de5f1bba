from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from robustmri.core.errors import ResultError
from robustmri.results.schema import (
    SCHEMA_VERSION,
    AttackRun,
    Check,
    CohortFacts,
    Confusion,
    Example,
    ModelFacts,
    NormFacts,
    Result,
    RobustnessReport,
    SplitFacts,
    load_result,
    save_result,
)


@pytest.fixture
def result():
    clean = Result(
        attack="none",
        norm="",
        eps=None,
        eps_units="image",
        eps_image=None,
        unit="slice",
        n=12,
        accuracy=0.75,
        ci_low=0.5,
        ci_high=0.9,
        interval="cluster bootstrap over 4 patients",
    )
    return RobustnessReport(
        title="standard training",
        model=ModelFacts(
            name="standard training",
            backbone="resnet18",
            objective="standard",
            weights="none",
            checkpoint_sha256="0" * 64,
            training={"epochs": 2},
        ),
        cohort=CohortFacts(
            name="phantom",
            synthetic=True,
            classes=["glioma", "pituitary"],
            size=64,
            intensity="minmax",
            groups="patient",
            fingerprint="f" * 16,
            n_cases=40,
            n_patients=10,
            left_out=0,
        ),
        split=SplitFacts(
            kind="patient",
            seed=0,
            fold=None,
            note="No patient is in two sets.",
            fingerprint="e" * 16,
            evaluated_set="test",
            n_slices=12,
            n_patients=4,
            leakage=[Check(name="patients", status="pass", detail="")],
        ),
        threat=["l-infinity, eps 0.04"],
        norms={"linf": NormFacts(title="l-infinity", meaning="largest", per_pixel=True)},
        attacks=[
            AttackRun(
                attack="pgd",
                title="PGD",
                paper="Madry et al. 2018",
                minimal=False,
                iterative=True,
                knowledge="gradients",
                eps="0.04",
                settings={"steps": 20},
                slices=12,
                gradients_per_image=7.5,
                forwards_per_image=8.5,
            )
        ],
        results=[clean],
        checks=[],
        confusions=[
            Confusion(attack="none", norm="", eps=None, eps_units="image", counts=[[5, 1], [2, 4]])
        ],
        examples=[
            Example(
                case_id="c",
                patient_id="p",
                label="glioma",
                clean_prediction="glioma",
                clean_confidence=0.9,
                attack="pgd",
                norm="linf",
                eps=0.04,
                eps_units="image",
                prediction="pituitary",
                confidence=0.99,
                distance_linf=0.04,
                position=0,
            )
        ],
        settings={},
        provenance={},
    )


def test_a_result_comes_back(result, tmp_path):
    assert save_result(result, tmp_path / "out") == tmp_path / "out" / "robustness.json"
    assert load_result(tmp_path / "out") == result


def test_the_file_is_readable_json(result, tmp_path):
    content = json.loads(save_result(result, tmp_path).read_text())
    assert content["schema_version"] == SCHEMA_VERSION
    assert content["results"][0]["accuracy"] == 0.75


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(ResultError, match="robustmri evaluate"):
        load_result(tmp_path)


def test_another_schema_version_is_refused(result, tmp_path):
    save_result(msgspec.structs.replace(result, schema_version=99), tmp_path)
    with pytest.raises(ResultError, match="schema version 99, this release reads"):
        load_result(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"schema_version": 2}', b'{"schema_version": 2, "title"']
)
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "robustness.json").write_bytes(content)
    with pytest.raises(ResultError, match=r"robustness.json is damaged"):
        load_result(tmp_path)


def test_an_accuracy_that_is_not_a_number_is_refused(result, tmp_path):
    broken = msgspec.structs.replace(result.results[0], accuracy=float("nan"))
    path = save_result(msgspec.structs.replace(result, results=[broken]), tmp_path)
    text = path.read_text()
    assert '"accuracy": null' in text
    for said in ("null", "NaN", "nan"):
        path.write_text(text.replace('"accuracy": null', f'"accuracy": {said}'))
        with pytest.raises(ResultError, match=r"robustness\.json is damaged"):
            load_result(tmp_path)


def test_a_norm_that_the_file_does_not_explain_is_refused(result, tmp_path):
    foreign = msgspec.structs.replace(result.results[0], norm="l7")
    save_result(msgspec.structs.replace(result, results=[foreign]), tmp_path)
    with pytest.raises(ResultError, match=r"does not say what \['l7'\] is"):
        load_result(tmp_path)


COMMITTED = sorted((Path(__file__).resolve().parents[2] / "results").rglob("robustness.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.parent.name)
def test_a_result_that_is_published_names_nobody(path):
    """What stands in the repository holds no slice and no patient, in no field."""
    published = load_result(path.parent)
    assert published.examples == []
    assert published.settings["evaluate"]["examples"] == []
    assert all(not check.case_ids for check in (*published.checks, *published.split.leakage))
    assert not {"case_id", "patient_id"} & set(re.findall(r'"(\w+)":', path.read_text()))


@pytest.mark.parametrize(
    "settings",
    [{"evaluate": None}, {"evaluate": {"seed": None}}, {"evaluate": {"curve": ["8/255", 8]}}],
)
def test_settings_of_another_type_are_refused(settings, result, tmp_path):
    path = save_result(msgspec.structs.replace(result, settings=settings), tmp_path)
    with pytest.raises(ResultError, match=rf"^{re.escape(str(path))}: settings.evaluate is dam"):
        load_result(tmp_path)


def test_settings_that_are_not_there_are_the_usual_ones(result, tmp_path):
    save_result(msgspec.structs.replace(result, settings={}), tmp_path)
    assert load_result(tmp_path).asked.region == "image"
