"""Whole evaluations of a small network, through the verb."""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from robustmri.attacks import standard
from robustmri.core.errors import DataError, SettingsError
from robustmri.data.cohort import Cohort
from robustmri.data.regions import REGIONS, find_region
from robustmri.data.split import Split
from robustmri.evaluation.evaluate import ShardRunner, members_of, run_attacks
from robustmri.evaluation.exact import logits_of
from robustmri.evaluation.plan import evaluated_slices
from robustmri.evaluation.sanity import check_finite
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.evaluation.summary import with_worst_case
from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.results.outcomes import columns_of
from robustmri.results.schema import load_result
from robustmri.verbs.evaluate import evaluate
from tiny import PLACES, alike, column, read_outcomes, rows_of, tiny_network

SMALL = {
    "attacks": ("noise", "fgsm", "pgd", "cw", "cw-l2"),
    "eps": ("0.04", "0.2@normalised", "0"),
    "curve": ("0.02", "0.1"),
    "minimal_limit": 6,
    "batch_size": 10,
    "precision": "fp32",
    "options": {"pgd": {"steps": 8, "restarts": 2}, "cw-l2": {"steps": 10, "searches": 3}},
}
QUICK = {
    "attacks": ("fgsm", "pgd"),
    "batch_size": 5,
    "precision": "fp32",
    "options": {"pgd": {"steps": 3}},
}


@pytest.fixture(scope="module")
def cohort(tiny_cohort):
    return Cohort.open(tiny_cohort)


@pytest.fixture(scope="module")
def split(tiny_cohort):
    return Split.load(tiny_cohort)


@pytest.fixture(scope="module")
def done(tiny_run, tiny_cohort, tmp_path_factory, use_tiny_networks):
    """One evaluation with a bit of everything: its folder, its result, its outcomes."""
    folder = tmp_path_factory.mktemp("done") / "result"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        result = evaluate(tiny_run, tiny_cohort, folder, **SMALL)
    return folder, result, read_outcomes(folder)


@pytest.fixture
def outcomes_of(tiny_run, tiny_cohort, tmp_path, tiny_networks):
    """Name of a result folder and settings to its outcomes."""

    def run(name="result", **settings):
        evaluate(tiny_run, tiny_cohort, tmp_path / name, **{**QUICK, **settings})
        return pq.read_table(tmp_path / name / "outcomes.parquet")

    return run


@pytest.fixture(scope="module")
def whole(tiny_run, tiny_cohort, tmp_path_factory, use_tiny_networks):
    """One that nobody stopped: its folder. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("whole") / "result"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        evaluate(tiny_run, tiny_cohort, folder, **QUICK)
    return folder


def test_every_test_slice_meets_every_attack(done, split):
    _, _, outcomes = done
    for attack in ("noise", "fgsm", "pgd", "cw"):
        for eps, units in ((0.04, "image"), (0.2, "normalised"), (0.0, "image")):
            assert column(rows_of(outcomes, attack, eps, units), "index") == sorted(split.test)
    for eps in (0.02, 0.1):
        assert column(rows_of(outcomes, "pgd", eps), "index") == sorted(split.test)
    assert len(rows_of(outcomes, "cw-l2")) == 6
    assert len(outcomes) == (1 + 4 * 3 + 2) * 24 + 6 + 5 * 24


def test_robust_accuracy_at_eps_zero_is_clean_accuracy(done):
    """Identity 3."""
    _, result, outcomes = done
    clean = rows_of(outcomes, "none")
    for attack in ("noise", "fgsm", "pgd", "cw", "worst"):
        rows = rows_of(outcomes, attack, 0.0)
        assert column(rows, "prediction") == column(clean, "prediction")
        assert set(column(rows, "distance_linf")) == {0}
        shares = [
            number.accuracy
            for number in result.results
            if number.unit == "slice" and number.attack == "none"
        ]
        assert shares == [1 - np.mean(column(rows, "fooled"))]


def test_worst_is_no_better_than_any_attack(done):
    _, result, outcomes = done
    share = {
        (r.attack, r.eps, r.eps_units): r.accuracy for r in result.results if r.unit == "slice"
    }
    for (_, eps, units), accuracy in share.items():
        if eps is not None:
            assert share["worst", eps, units] <= min(accuracy, share["none", None, "image"])
    each = [
        column(rows_of(outcomes, attack, 0.04), "fooled")
        for attack in ("fgsm", "pgd", "cw", "noise")
    ]
    together = [any(of_one_image) for of_one_image in zip(*each, strict=True)]
    assert column(rows_of(outcomes, "worst", 0.04), "fooled") == together
    assert 0 < np.mean(together) < 1, "where everything or nothing is fooled this shows little"


def test_both_readings_of_eps_stand_side_by_side(done):
    _, result, outcomes = done
    image, normalised = rows_of(outcomes, "pgd", 0.04), rows_of(outcomes, "pgd", 0.2, "normalised")
    assert set(column(image, "eps_image")) == {0.04}
    assert set(column(normalised, "eps_image")) == {0.2 * 0.226}
    assert max(column(normalised, "distance_linf")) == pytest.approx(0.2 * 0.226, abs=1e-6)
    assert max(column(image, "distance_linf")) == pytest.approx(0.04, abs=1e-6)
    assert {(r.eps, r.eps_units, r.eps_image) for r in result.results if r.attack == "pgd"} >= {
        (0.04, "image", 0.04),
        (0.2, "normalised", 0.2 * 0.226),
    }
    assert any("10.2 of 255 grey levels" in sentence for sentence in result.threat)


def test_rows_say_what_happened(done, cohort):
    _, _, outcomes = done
    for row in outcomes:
        assert row["verified"]
        case = cohort.cases[row["index"]]
        assert (row["case_id"], row["patient_id"], row["group"]) == (
            case.case_id,
            case.patient_id,
            case.group,
        )
        assert row["label"] == case.label
        assert row["fooled"] == (row["prediction"] != row["label"])
        assert row["label_confidence"] <= row["confidence"] + 1e-6
        assert row["distance_linf"] <= row["eps_image"] + 1e-6
    minimal = rows_of(outcomes, "cw-l2")
    assert {(row["eps"], row["eps_image"], row["norm"]) for row in minimal} == {
        (np.inf, np.inf, "l2")
    }
    found = [row for row in minimal if row["fooled"] and row["clean_prediction"] == row["label"]]
    assert found
    assert all(0 < row["distance_l2"] < 3 for row in found)


def test_misclassified_images_count_as_fooled_where_they_stand(done):
    _, _, outcomes = done
    wrong = [row for row in outcomes if row["clean_prediction"] != row["label"]]
    assert wrong
    assert {(row["fooled"], row["distance_linf"], row["distance_l2"]) for row in wrong} == {
        (True, 0.0, 0.0)
    }


def test_costs_are_told(done):
    _, result, _ = done
    told = {(run.attack, run.eps): run for run in result.attacks}
    assert len(told) == len(result.attacks) == 4 * 3 + 1 + 1
    assert told["pgd", "0.02, 0.1"].slices == told["pgd", "0.04"].slices
    assert told["fgsm", "0.04"].gradients_per_image <= 1
    assert told["pgd", "0.04"].settings["restarts"] == 2
    assert told["pgd", "0.04"].gradients_per_image <= 16
    assert told["noise", "0.04"].gradients_per_image == 0
    assert told["cw-l2", None].slices == 6


def test_progress_says_what_was_broken_so_far(outcomes_of):
    told = []
    outcomes = outcomes_of(progress=lambda *said: told.append(said), batch_size=16).to_pylist()
    assert [(task, done, total) for task, done, total, _ in told] == [
        ("evaluation", k + 1, 6) for k in range(6)
    ]
    for attack, note in (("fgsm", told[3][3]), ("pgd", told[5][3])):
        rows = rows_of(outcomes, attack)
        each = np.mean(column(rows, "gradients"))
        broken = sum(column(rows, "fooled"))
        said = f"{attack}-0.04-image: 24 images, {broken} broken, {each:.1f} gradients each"
        assert note == said
    assert told[4][3].startswith("pgd-0.04-image: 16 images, ")


def test_the_result_file_is_the_result(done):
    folder, result, _ = done
    assert load_result(folder) == result
    assert result.model.name == "Standard training"
    assert result.split.n_slices == 24
    assert result.cohort.n_patients == 27
    assert not (folder / ".shards").exists()
    assert sorted(path.name for path in folder.iterdir()) == [
        "examples.npz",
        "nearest_neighbour.parquet",
        "outcomes.parquet",
        "robustness.json",
        "settings.json",
    ]


def test_a_finished_evaluation_is_left_alone(done, tiny_run, tiny_cohort, tiny_networks):
    folder, result, _ = done
    before = (folder / "robustness.json").stat().st_mtime_ns
    (folder / ".shards").mkdir()  # Of one that was killed when all was written.
    assert evaluate(tiny_run, tiny_cohort, folder, **SMALL) == result
    assert not (folder / ".shards").exists()
    assert (folder / "robustness.json").stat().st_mtime_ns == before


class Killed(BaseException):
    pass


@pytest.mark.parametrize("shard", [1, 7, 15], ids=["the first", "one in the middle", "the last"])
def test_killed_after_a_shard_the_rerun_gives_the_same(outcomes_of, whole, tmp_path, shard):

    def stop(task, done, total, note=""):
        assert total == 15
        if done == shard:
            raise Killed

    with pytest.raises(Killed):
        outcomes_of("cut", progress=stop)
    assert not (tmp_path / "cut" / "robustness.json").exists()
    (kept,) = (tmp_path / "cut" / ".shards").iterdir()
    stored = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert len(stored) == shard
    seen, told = [], []

    def watch(task, done, total, note=""):
        told.append(done)
        seen.extend(
            name for name, time in stored.items() if (kept / name).stat().st_mtime_ns != time
        )

    assert alike(outcomes_of("cut", progress=watch), pq.read_table(whole / "outcomes.parquet"))
    assert not seen, "a finished shard was done again"
    # What was found is told at once, or it would count as work of this hour.
    assert told == [shard] * shard + list(range(shard + 1, 16))


def test_a_killed_summary_is_done_again(outcomes_of, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            "robustmri.evaluation.summary.summarise", lambda *a, **k: (_ for _ in ()).throw(Killed)
        )
        with pytest.raises(Killed):
            outcomes_of("cut")
    assert alike(outcomes_of("cut"), pq.read_table(whole / "outcomes.parquet"))
    assert load_result(tmp_path / "cut").results == load_result(whole).results


def test_the_shards_of_other_settings_are_not_taken(outcomes_of, tmp_path):
    """Even if someone puts them there."""
    whole = outcomes_of("whole", seed=1)

    def stop(task, done, total, note=""):
        if done == 12:
            raise Killed

    with pytest.raises(Killed):
        outcomes_of("cut", progress=stop)
    shutil.copytree(tmp_path / "cut" / ".shards", tmp_path / "other" / ".shards")
    (tmp_path / "other" / "settings.json").write_bytes(
        (tmp_path / "whole" / "settings.json").read_bytes()
    )
    assert alike(outcomes_of("other", seed=1), whole)


def test_the_number_of_threads_changes_nothing_that_counts(outcomes_of, monkeypatch):
    """Two threads round their sums otherwise than one does, in the last digits."""
    monkeypatch.setattr("robustmri.evaluation.probes.Probes.attack_further", lambda self, p: p)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = outcomes_of("one", batch_size=12, limit=12)
        torch.set_num_threads(2)
        two = outcomes_of("two", batch_size=12, limit=12)
    finally:
        torch.set_num_threads(threads)
    exact = ["case_id", "attack", "eps", "prediction", "fooled", "verified"]
    assert alike(one.select(exact), two.select(exact))
    np.testing.assert_allclose(one["confidence"], two["confidence"], atol=1e-3)


def test_an_image_does_not_depend_on_its_batch(outcomes_of):
    """The random starts do, since a shard has its own generator; FGSM has none."""
    small, large = (outcomes_of(str(size), attacks=("fgsm",), batch_size=size) for size in (3, 24))
    assert small["prediction"].equals(large["prediction"])
    np.testing.assert_allclose(small["distance_l2"], large["distance_l2"], atol=1e-5)


def test_the_seed_is_of_the_attacks(outcomes_of):
    one, same, other = (
        outcomes_of(name, seed=seed, attacks=("pgd",), limit=10)
        for name, seed in (("1", 0), ("2", 0), ("3", 1))
    )
    assert alike(one, same)
    assert not alike(one, other)


def test_a_limit_is_spread_over_the_test_set(split, cohort):
    test = sorted(split.test)

    def attacked(limit):
        return evaluated_slices(split, EvaluateSettings(limit=limit), cohort)

    assert attacked(0) == attacked(99) == test
    few = attacked(6)
    assert len(set(few)) == 6
    assert {few[0], few[-1]} == {test[0], test[-1]}
    gaps = np.diff([test.index(row) for row in few])
    assert gaps.max() - gaps.min() <= 1
    assert len({cohort.cases[row].group for row in few}) == 6, "as many patients as there can be"
    for limit in range(1, 24):
        assert len(set(attacked(limit))) == limit


def test_validation_slices_can_be_attacked_in_place_of_the_test(split, outcomes_of):
    outcomes = outcomes_of(evaluated_set="validation", attacks=("fgsm",))
    assert set(outcomes["index"].to_pylist()) == set(split.validation)
    assert not set(outcomes["index"].to_pylist()) & set(split.test)


def test_limits_reach_the_outcomes(outcomes_of):
    short = {"cw-l2": {"steps": 10, "searches": 2}}
    limits = {"limit": 9, "minimal_limit": 3}
    outcomes = outcomes_of(**limits, attacks=("fgsm", "cw-l2"), options=short).to_pylist()
    assert Counter(column(outcomes, "attack")) == {"none": 9, "fgsm": 9, "worst": 9, "cw-l2": 3}
    assert set(column(rows_of(outcomes, "cw-l2"), "index")) < set(
        column(rows_of(outcomes, "none"), "index")
    )


def test_a_target_is_aimed_at_by_the_slices_of_other_classes(outcomes_of, tmp_path, split):
    outcomes = outcomes_of(target="glioma", attacks=("pgd",), eps=("0.1",)).to_pylist()
    clean, pgd = rows_of(outcomes, "none"), rows_of(outcomes, "pgd")
    assert len(clean) == 24
    assert set(column(clean, "target")) == {""}
    assert all(row["fooled"] == (row["prediction"] != row["label"]) for row in clean)
    assert set(column(pgd, "target")) == {"glioma"}
    assert set(column(pgd, "label")) == {"meningioma", "pituitary"}, (
        "a slice of the target class is there already"
    )
    assert all(row["fooled"] == (row["prediction"] == "glioma") for row in pgd)
    fooled = np.mean(column(pgd, "fooled"))
    assert 0 < fooled < 1
    result = load_result(tmp_path / "result")
    share = next(r.accuracy for r in result.results if r.attack == "pgd" and r.unit == "slice")
    assert share == pytest.approx(1 - fooled)
    assert "to make it say 'glioma'" in " ".join(result.threat)
    assert not {example.label for example in result.examples} & {"glioma"}
    # Its PGD has few steps, and is told so.
    failed = {check.name for check in result.checks if check.status == "fail"}
    assert failed <= {"twice the steps break no more"}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"target": "gliona"}, SettingsError, "Did you mean 'glioma'"),
        ({"examples": ("nobody",)}, DataError, "no case 'nobody'"),
        ({"target": "meningioma", "limit": 1}, DataError, "no slice of another class"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_anything_is_written(
    outcomes_of, tmp_path, settings, error, message
):
    with pytest.raises(error, match=message):
        outcomes_of(**settings)
    assert not Path(tmp_path / "result").exists()


@pytest.mark.parametrize("region", ["brain", "lesion", "outside-lesion"])
def test_an_attack_stays_in_its_region(outcomes_of, tmp_path, cohort, region):
    settings = {
        "region": region,
        "eps": ("0.3",),
        "attacks": ("fgsm", "noise"),
        "examples_per_class": 4,
    }
    rows = rows_of(outcomes_of(**settings).to_pylist(), "fgsm")
    result = load_result(tmp_path / "result")
    assert all(row["verified"] for row in rows)
    assert any(row["fooled"] for row in rows)
    assert REGIONS[region] in " ".join(result.threat)
    assert result.settings["evaluate"]["region"] == region
    with np.load(tmp_path / "result" / "examples.npz") as file:
        arrays = dict(file)
    index = {case.case_id: case.index for case in cohort.cases}
    where = find_region(cohort, [index[example.case_id] for example in result.examples], region)
    changed = np.abs(arrays["attacked"] - arrays["clean"] / 65535) > 1e-4
    assert not changed[~where].any()
    assert not arrays["sign"][~where].any()
    assert changed[where].mean() > 0.5


def test_a_region_that_slices_lack_is_refused(outcomes_of, tmp_path, cohort, monkeypatch):
    bare = tuple(
        replace(case, lesion_box=None) if case.index % 2 else case for case in cohort.cases
    )
    monkeypatch.setattr(
        "robustmri.verbs.evaluate.Cohort.open", lambda root: replace(cohort, cases=bare)
    )
    with pytest.raises(
        DataError, match=r"'lesion' needs the outline of every lesion; 12 of 24 slices have none"
    ):
        outcomes_of(region="lesion")
    assert not (tmp_path / "result").exists()


def test_l2_is_measured_in_l2(outcomes_of, tmp_path):
    pgd = rows_of(outcomes_of(norm="l2", eps=("0.8",)).to_pylist(), "pgd")
    assert 0.7 < max(column(pgd, "distance_l2")) <= 0.8 + 1e-6
    assert max(column(pgd, "distance_linf")) > 0.8 / 32
    assert "Euclidean" in load_result(tmp_path / "result").threat[0]


@pytest.mark.parametrize(
    "limits", [{"max_gradients": 2}, {"max_forwards": 3}, {"max_seconds": 1e-6}], ids=str
)
def test_a_budget_that_was_spent_is_told(outcomes_of, tmp_path, limits):
    outcomes = outcomes_of(attacks=("pgd",), eps=("0.01",), **limits).to_pylist()
    cut = [row for row in rows_of(outcomes, "pgd") if row["cut_short"]]
    assert cut
    assert not any(row["fooled"] for row in cut)
    assert max(column(outcomes, "gradients")) <= 2
    result = load_result(tmp_path / "result")
    (check,) = [check for check in result.checks if check.name == "no attack ended by its budget"]
    assert check.status == "warn"
    assert f"pgd linf 0.01: {len(cut)} of 24 images" in check.detail
    assert "Budget of the attacker: at most " in " ".join(result.threat)


class Cramped(torch.nn.Module):
    """Has no memory for more than five images at once."""

    def __init__(self, network, tried):
        super().__init__()
        self.network, self.tried = network, tried

    def __deepcopy__(self, memo):
        return Cramped(copy.deepcopy(self.network), self.tried)

    def forward(self, images):
        self.tried.append(len(images))
        if len(images) > 5:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return self.network(images)


def test_where_memory_runs_out_the_result_is_the_same(cohort, split, tmp_path):
    settings = EvaluateSettings(
        attacks=("pgd",), eps=("0.1",), precision="fp32", options={"pgd": {"steps": 3}}
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = tiny_network("", 3, 32).eval()
    spec, tried = ClassifierSpec(backbone="custom", classes=cohort.classes, size=32), []
    whole, cramped = (
        run_attacks(
            Classifier(made, spec),
            cohort,
            split,
            settings,
            tmp_path / name,
            identity="",
            device=torch.device("cpu"),
        ).outcomes
        for name, made in (("whole", network), ("cramped", Cramped(network, tried)))
    )
    assert {24, 12, 6, 3} <= set(tried)
    exact = ["case_id", "attack", "prediction", "fooled", "verified"]
    assert alike(cramped.select(exact), whole.select(exact))
    # The random starts are the same; sums over another number of images are rounded otherwise.
    np.testing.assert_allclose(cramped["distance_l2"], whole["distance_l2"], atol=1e-4)
    assert len(set(cramped["distance_l2"].to_pylist())) > 3
    assert sum(cramped["gradients"].to_pylist()) == pytest.approx(
        sum(whole["gradients"].to_pylist())
    )


class Broken(torch.nn.Module):
    """Answers with minus infinity where the first pixel is bright: the softmax of that is still
    made of numbers.
    """

    def forward(self, images):
        spots = [
            images[:, 0, row - 4 : row + 5, column - 4 : column + 5].mean((1, 2))
            for row, column in PLACES
        ]
        logits = torch.stack(spots, 1)
        return logits.where(images[:, :, 0, 0] < 0.2, -torch.inf)


def test_logits_that_are_not_finite_are_found_before_and_under_attack(cohort, split, tmp_path):
    classifier = Classifier(
        Broken(), ClassifierSpec(backbone="custom", classes=cohort.classes, size=32, mean=0, std=1)
    )
    settings = EvaluateSettings(attacks=("noise",), eps=("1",), precision="fp32", limit=12)
    done = run_attacks(
        classifier, cohort, split, settings, tmp_path, identity="", device=torch.device("cpu")
    )
    outcomes = columns_of(with_worst_case(done.outcomes))
    check = check_finite(outcomes)
    assert check.status == "fail"
    broken = np.isnan(outcomes["confidence"]) & (outcomes["attack"] == "noise")
    assert 0 < broken.sum() < 12
    assert not outcomes["fooled"][broken].any()
    assert set(outcomes["prediction"][broken]) == {cohort.classes[0]}
    assert f"0 untouched and {broken.sum()} attacked" in check.detail


def test_a_suite_says_who_broke_what(outcomes_of, tmp_path):
    settings = {
        "attacks": ("standard", "fgsm"),
        "eps": ("0.04",),
        "curve": ("0.08",),
        "curve_attack": "standard",
    }
    options = {"standard": {"steps": 4, "queries": 10}}
    outcomes = outcomes_of(**settings, options=options, batch_size=10).to_pylist()
    suite = rows_of(outcomes, "standard", 0.04)
    broken = [row["fooled"] and row["clean_prediction"] == row["label"] for row in suite]
    assert [bool(row["broken_by"]) for row in suite] == broken
    assert 0 < sum(broken) < 24
    elsewhere = [row for row in outcomes if (row["attack"], row["eps"]) != ("standard", 0.04)]
    assert {row["broken_by"] for row in elsewhere} == {""}
    result = load_result(tmp_path / "result")
    (told,) = [number for number in result.results if number.broken_by]
    assert (told.attack, told.eps, told.unit) == ("standard", 0.04, "slice")
    assert list(told.broken_by) == list(standard().members)
    assert told.broken_by == {
        name: column(suite, "broken_by").count(name) for name in told.broken_by
    }
    assert sum(told.broken_by.values()) == sum(broken)


def test_members_that_do_not_know_the_norm_are_not_named(planned):
    pgd, suite = planned(attacks=("pgd", "standard"), norm="l1").attacks
    assert members_of(pgd) == {}
    named = members_of(suite)
    assert list(named) == [name for name in standard().members if "square" not in name]
    assert named["apgd-ce"] == "APGD-CE"


def test_a_curve_is_one_search_and_agrees_with_the_attack_at_each_radius(outcomes_of):
    radii = ("0", "0.02", "0.05", "0.1@normalised", "0.2")
    quick = {"batch_size": 5, "precision": "fp32", "options": {"pgd": {"steps": 10}}}
    whole = outcomes_of("curve", attacks=("fgsm",), eps=("0.01",), curve=radii, **quick).to_pylist()
    each = outcomes_of("each", attacks=("pgd",), eps=radii, **quick).to_pylist()
    spent = {"curve": 0.0, "each": 0.0}
    for text in radii:
        value, units = (
            float(text.removesuffix("@normalised")),
            "normalised" if "@" in text else "image",
        )
        found, alone = rows_of(whole, "pgd", value, units), rows_of(each, "pgd", value, units)
        assert column(found, "index") == column(alone, "index")
        assert column(found, "eps_image") == column(alone, "eps_image")
        assert all(column(found, "verified"))
        # Another radius, other steps.
        assert abs(sum(column(found, "fooled")) - sum(column(alone, "fooled"))) <= 1
        limit = found[0]["eps_image"] + 1e-6
        for row in found:
            assert row["distance_linf"] <= limit
            assert row["fooled"] == (row["prediction"] != row["label"])
            assert row["fooled"] or row["distance_linf"] == 0  # What held is shown as it was.
        spent["curve"] += sum(column(found, "gradients"))
        spent["each"] += sum(column(alone, "gradients"))
    assert spent["curve"] < spent["each"]


def test_untouched_slices_are_asked_about_once(outcomes_of, monkeypatch):
    """Every trial begins with the answers to them; nothing that is measured depends on it."""
    settings = {"eps": ("0.02", "0.04"), "limit": 12, "batch_size": 8}
    asked = []

    def counted(classifier, images):
        asked.append(len(images))
        return logits_of(classifier, images)

    monkeypatch.setattr("robustmri.evaluation.evaluate.logits_of", counted)
    once = outcomes_of("once", **settings)
    assert asked == [8, 4]
    asked.clear()
    monkeypatch.setattr(
        ShardRunner, "clean", lambda self, rows, images: counted(self.classifier, images)
    )
    again = outcomes_of("again", **settings)
    assert asked == 5 * [8, 4]
    assert alike(once, again)
