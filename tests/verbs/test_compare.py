"""`compare` and `report` of two results, from folders to pages."""

from __future__ import annotations

import shutil

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import robustmri
from robustmri.app.cli import app
from robustmri.core.errors import ResultError, SettingsError
from robustmri.evaluation.summary import with_worst_case
from robustmri.results.comparison import Comparison
from robustmri.results.outcomes import read_table
from robustmri.results.schema import load_result, save_result

NAMES = ("ResNet-50", "DenseNet")


def words(path):
    from robustmri.report.html import GENERATOR

    text = path.read_bytes()
    assert GENERATOR in text
    return " ".join(text.decode().replace("\N{NO-BREAK SPACE}", " ").split())


def test_two_models_go_by_their_names_and_one_is_the_more_robust(folders, tmp_path):
    out = robustmri.write_report(
        [folders["before"], folders["other"]], tmp_path / "a.html", names=NAMES
    )
    told = words(out)
    assert "DenseNet is more robust than ResNet-50: under a change of at most 10.2 of 255" in told
    assert "a difference of" in told
    assert "DenseNet against ResNet-50" in told
    for word in ("Before", "repair"):
        assert word not in told
    unnamed = words(robustmri.write_report([folders["before"], folders["other"]], out))
    assert "densenet121 is more robust than resnet18" in unnamed


def test_a_repair_stays_before_and_after_whatever_the_order(folders, tmp_path):
    there, back = (
        robustmri.write_report([folders[name] for name in order], tmp_path / f"{order[0]}.html")
        for order in (("before", "after"), ("after", "before"))
    )
    assert "Under attack repair is worth +" in words(there)
    assert there.read_bytes() == back.read_bytes()


def test_two_that_do_not_differ_cannot_be_told_apart(folders, tmp_path):
    same = [folders["before"], folders["before"]]
    told = words(robustmri.write_report(same, tmp_path / "a.html", names=NAMES))
    assert "ResNet-50 and DenseNet cannot be told apart" in told


def test_the_command_writes_a_page_and_the_same_as_json(folders, tmp_path):
    out = tmp_path / "compare.html"
    line = ["compare", str(folders["before"]), str(folders["other"]), "--out", str(out)]
    said = CliRunner().invoke(app, [*line, "--names", "ResNet-50,DenseNet"])
    assert said.exit_code == 0, said.output
    assert "Worst case" in said.output
    made = msgspec.json.decode(out.with_suffix(".json").read_bytes(), type=Comparison)
    worst, clean = made.headline, made.clean
    results = [load_result(folders[name]) for name in ("before", "other")]
    for number, attack in ((worst, "worst"), (clean, "none")):
        shown = [
            next(
                one.accuracy
                for one in result.results
                if (one.attack, one.unit) == (attack, "slice") and one.eps in (None, 0.04)
            )
            for result in results
        ]
        assert [number.first, number.second] == pytest.approx(shown)
        assert number.low <= number.difference <= number.high
    told = words(out)
    assert made.patients
    assert all(turn.patient_id in told for turn in made.patients[:40])


def test_a_copy_that_leaves_names_no_patient(folders, tmp_path):
    out = tmp_path / "compare.html"
    robustmri.compare(folders["before"], folders["other"], out, images=False)
    for path in (out, out.with_suffix(".json")):
        text = path.read_text(encoding="utf-8")
        assert "P10" not in text
        assert "weiss" not in text
    assert "command" not in out.with_suffix(".json").read_text(encoding="utf-8")


def test_without_images_no_file_names_a_classifier(folders, tmp_path):
    pair = []
    for name in ("before", "other"):
        pair.append(shutil.copytree(folders[name], tmp_path / name))
        result = load_result(pair[-1])
        model = msgspec.structs.replace(
            result.model, backbone="imported-onnx", source=f"{name}-st-marys.onnx"
        )
        save_result(msgspec.structs.replace(result, model=model), pair[-1])
    out = tmp_path / "page.html"
    robustmri.compare(*pair, out)
    assert "other-st-marys.onnx" in words(out)
    robustmri.compare(*pair, out, images=False)
    robustmri.write_report(pair, tmp_path / "report.html", images=False)
    for path in (out, out.with_suffix(".json"), tmp_path / "report.html"):
        assert "st-marys" not in path.read_text(encoding="utf-8")


def test_a_comparison_replaces_only_a_comparison(folders, tmp_path):
    result = shutil.copytree(folders["after"], tmp_path / "after")
    before = (result / "robustness.json").read_bytes()
    with pytest.raises(ResultError, match=r"robustness\.json is there, and no comparison"):
        robustmri.compare(folders["before"], result, result / "robustness.html")
    assert (result / "robustness.json").read_bytes() == before
    assert not (result / "robustness.html").exists()
    for _ in range(2):
        robustmri.compare(folders["before"], result, result / "compared.html")


def test_what_cannot_be_paired_or_named_is_one_sentence(folders, tmp_path):
    pair, out = [folders["before"], folders["after"]], tmp_path / "a.html"
    with pytest.raises(SettingsError, match="needs 2 different names"):
        robustmri.compare(*pair, out, names=["one"])
    with pytest.raises(ResultError, match="JSON beside the page"):
        robustmri.compare(*pair, tmp_path / "a.json")
    with pytest.raises(ResultError, match="have another patient or label"):
        robustmri.write_report([folders["before"], folders["strangers"]], out)
    assert not list(tmp_path.iterdir())


def test_a_number_that_was_changed_is_noticed(folders, tmp_path):
    copy = shutil.copytree(folders["after"], tmp_path / "after")
    result = load_result(copy)
    first = msgspec.structs.replace(result.results[0], accuracy=0.99)
    save_result(msgspec.structs.replace(result, results=[first, *result.results[1:]]), copy)
    with pytest.raises(ResultError, match="contradicts outcomes"):
        robustmri.compare(folders["before"], copy, tmp_path / "a.html")


def test_a_headline_is_of_the_attacks_that_both_met(folders, settle, tmp_path):
    """Of the repaired one PGD is not known, which broke the other: its own worst case flatters."""
    less = shutil.copytree(folders["after"], tmp_path / "less")
    table = read_table(less)
    known = pc.invert(pc.is_in(table["attack"], pa.array(["pgd", "worst"])))
    pq.write_table(with_worst_case(table.filter(known)), less / "outcomes.parquet")
    settle(less)
    told = words(robustmri.write_report([folders["before"], less], tmp_path / "page.html"))
    assert "by the attacks that both met, the standard classifier stays right on" in told
    assert "by what both met" in told
