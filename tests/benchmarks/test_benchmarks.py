"""The race, its page, and every task once on almost nothing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import device, timing
from benchmarks.__main__ import main
from benchmarks.contenders import OURS, ours_curve, ours_pgd, ours_pgd_to_the_end
from benchmarks.gradient_step import REFERENCE, variants
from benchmarks.inputs import LIBRARIES
from benchmarks.memory import STATUS, peak_mib
from benchmarks.report import HEADINGS, add_task, open_results, page_of
from benchmarks.setting import QUICK, Setting
from benchmarks.tasks import RADII, TASKS, judge_budget, judge_distance, standing
from benchmarks.timing import Entry, Finish, race, ratio, ratios_of
from robustmri.core.errors import DataError
from robustmri.models.backbones import build_classifier
from robustmri.models.classifier import Classifier, ClassifierSpec
from tiny import CLASSES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clock(monkeypatch):
    """Time passes only where an entry says so."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now.seconds)
    return now


def lasting(clock, order, name, seconds, **others):
    def run():
        order.append(name)
        clock.seconds += seconds
        return name

    return Entry(name, lambda warm_up: run, **others)


def test_contenders_take_turns_in_rotating_order(clock):
    order = []
    entries = [
        lasting(clock, order, name, seconds)
        for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 3.0))
    ]
    finishes = race(entries, rounds=3)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert finishes["b"].seconds == {0: 2.0, 1: 2.0, 2: 2.0}
    assert ratios_of(finishes, [("c", "a"), ("b", "a")]) == [
        {"seconds_of": "c", "by_those_of": "a", "median": 3.0, "lowest": 3.0, "highest": 3.0},
        {"seconds_of": "b", "by_those_of": "a", "median": 2.0, "lowest": 2.0, "highest": 2.0},
    ]


def test_preparation_is_not_timed(clock):
    def prepare(warm_up):
        clock.seconds += 100.0
        return lambda: None

    assert race([Entry("a", prepare)], rounds=1)["a"].seconds == {0: 0.0}


def test_a_slow_contender_may_run_fewer_rounds(clock):
    order = []
    finishes = race(
        [lasting(clock, order, "a", 1.0), lasting(clock, order, "b", 5.0, rounds=1)], rounds=3
    )
    assert finishes["b"].seconds == {0: 5.0}
    assert ratio(finishes["b"], finishes["a"]) == (5.0, 5.0, 5.0)


def test_ratios_are_taken_within_a_round():
    """A slow round hits both, and leaves their ratio as it was."""
    assert ratio(Finish({0: 4.0, 1: 40.0}), Finish({0: 1.0, 1: 10.0, 2: 3.0})) == (4.0, 4.0, 4.0)
    assert ratio(Finish(), Finish({0: 1.0})) is None


def test_the_error_of_a_peer_is_a_result_and_ours_is_not():
    def broken():
        raise IndexError("index -4 is out of bounds")

    finishes = race([Entry("peer", lambda warm_up: broken, may_fail=True)], rounds=2)
    assert finishes["peer"].failed == "IndexError: index -4 is out of bounds"
    with pytest.raises(IndexError):
        race([Entry("ours", lambda warm_up: broken)], rounds=2)


@pytest.fixture
def setting(trained, blobs):
    classifier = Classifier(
        trained, ClassifierSpec(backbone="custom", classes=CLASSES, size=12, mean=0.0, std=1.0)
    )
    return Setting(classifier, blobs[0][:40], blobs[1][:40], eps=0.1, batch=16)


def test_ours_leave_nothing_standing_that_stays_to_the_end(setting):
    quick, slow = (
        standing(setting.own(), run(setting.own())[0], setting.eps)
        for run in (ours_pgd, ours_pgd_to_the_end)
    )
    assert (quick == slow).float().mean() > 0.95  # bf16 may see a step otherwise.
    assert 0.05 < quick.float().mean() < 0.95


def test_one_search_gives_the_curve_of_a_loop(setting):
    radii = (0.02, 0.05, 0.1, 0.2)
    points = ours_curve(replace(setting.own(), radii=radii))
    looped = [ours_pgd(setting.own().at(radius))[0] for radius in radii]
    for at, alone, radius in zip(points, looped, radii, strict=True):
        held, expected = standing(setting, at, radius), standing(setting, alone, radius)
        assert held.sum() <= expected.sum() + 1


def test_points_outside_the_ball_count_for_nothing(setting):
    far = (1 - setting.images).clamp(0, 1)
    clean = standing(setting, setting.images, 0.0)
    facts = judge_budget(setting, {OURS: [setting.images], "cheat": [far]})
    assert (
        facts["cheat"]["accuracy"]
        == facts[OURS]["accuracy"]
        == pytest.approx(clean.float().mean().item(), abs=1e-4)
    )
    within = judge_distance(setting, {OURS: [setting.images], "cheat": [far]})
    assert within["cheat"]["accuracy"] < within["cheat"]["accuracy_within_eps"]
    assert within["cheat"]["mean_l2"] is None  # Nobody but the cheat fools anything.


def test_distances_are_compared_where_everyone_fooled(setting):
    far, further = (setting.images + (1 - 2 * setting.images) * part for part in (0.9, 1.0))
    facts = judge_distance(setting, {OURS: [far], "further": [further]})
    assert facts[OURS]["images_of_mean_l2"] == facts["further"]["images_of_mean_l2"] > 0
    assert facts[OURS]["mean_l2"] == pytest.approx(0.9 * facts["further"]["mean_l2"], rel=1e-3)


def test_every_variant_of_a_step_has_the_same_gradient():
    classifier = build_classifier("resnet18", CLASSES, 32).eval()
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1])
    made = variants(classifier, images, labels)
    expected = made[REFERENCE](images).flatten()
    for name, gradient in made.items():
        cosine = torch.nn.functional.cosine_similarity(gradient(images).flatten(), expected, dim=0)
        assert cosine > 0.9, name  # bf16 keeps 8 bits, and untrained batch-norms let them add up.


def test_inputs_are_all_given_or_none(capsys):
    for words in (["one", "two"], ["one", "two", "three"], []):
        with pytest.raises(SystemExit):
            main(words)
    assert "--quick alone" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="ru_maxrss is all there is")
def test_the_peak_is_not_that_of_the_process_that_started_it():
    ballast = bytearray(400 << 20)
    code = """
import numpy
from benchmarks.memory import peak_mib
print(peak_mib())
held = numpy.ones(25 << 20)
print(peak_mib())"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    before, after = map(float, ran.stdout.split())
    assert after - before == pytest.approx(200, abs=20)
    assert peak_mib() > len(ballast) / 2**20


def test_results_of_another_machine_are_not_joined(tmp_path):
    facts = {"eps": 0.04}
    results = open_results(tmp_path, facts)
    row = {"contender": OURS, "median_seconds": 1.5, "seconds": [1.0, 2.0], "accuracy": [0.5, 0.25]}
    record = {
        "title": "T",
        "setting": facts,
        "rows": [row],
        "ratios": [],
        "missing": ["foolbox"],
        "failed": {"x": "E"},
    }
    add_task(tmp_path, results, "first", record)
    assert open_results(tmp_path, facts)["tasks"]["first"]["title"] == "T"
    page = page_of(results)
    assert "| robustmri | 1.5 | 1.00 - 2.00 | 0.5, 0.25 |" in page
    assert "Not installed: foolbox." in page
    assert "x did not run: `E`" in page
    with pytest.raises(DataError, match="inputs differ"):
        open_results(tmp_path, {"eps": 0.1})


@pytest.mark.parametrize("peers", [False, pytest.param(True, marks=pytest.mark.peer)])
def test_every_task_runs(peers, tmp_path, monkeypatch):
    """On inputs of its own: random networks, a phantom cohort; with the peers that import."""
    find = importlib.util.find_spec
    if not peers:
        monkeypatch.setattr(
            "importlib.util.find_spec", lambda name: None if name in LIBRARIES else find(name)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(["--quick", "--out", str(tmp_path / "out")])
    results = json.loads((tmp_path / "out" / "benchmarks.json").read_text())
    assert list(results["tasks"]) == list(TASKS)
    page = (tmp_path / "out" / "benchmarks.md").read_text()
    assert "numbers mean nothing" in page
    for text in (page, json.dumps(results)):
        assert str(tmp_path) not in text
    for record in results["tasks"].values():
        assert record["rows"]
        assert {key for row in record["rows"] for key in row} <= {*HEADINGS, "seconds"}
        ours = record["rows"][0]
        assert ours["contender"].endswith(OURS) or "parameters too" in ours["contender"]
    curve = results["tasks"]["curve"]["rows"][0]["accuracy"]
    assert len(curve) == len(RADII)
    assert curve == sorted(curve, reverse=True)
    assert results["inputs"]["quick"]
    assert QUICK.queries < 10


@pytest.mark.slow
def test_every_way_on_a_device_runs(tmp_path):
    """Here on the CPU, on a network of 32 px; a way that fails is a row, so none may."""
    small = ["--network", "resnet18-half", "--size", "32", "--batch", "2", "--device", "cpu"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        device.main(["--out", str(tmp_path), "--minutes", "1", *small])
    record = json.loads((tmp_path / "device.json").read_text())
    assert [row for row in record["rows"] if "failed" in row] == []
    assert record["left_out"] == []
    assert {row["task"] for row in record["rows"]} == {
        "gradient step",
        "PGD-7 training step",
        "PGD-20",
        "suite, 20 steps",
    }
    assert all(row["seconds"] > 0 for row in record["rows"])
    page = (tmp_path / "device.md").read_text()
    assert "| PGD-20 | ours |" in page
    device.main(["--out", str(tmp_path), "--minutes", "0", *small])
    record = json.loads((tmp_path / "device.json").read_text())
    assert record["rows"] == []
    assert "suite, 20 steps: ours" in record["left_out"]
