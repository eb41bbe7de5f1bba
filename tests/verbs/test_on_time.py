"""The whole story within a time."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from robustmri.core.errors import SettingsError
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.models.checkpoint import read_checkpoint
from robustmri.recipes import PrepareSettings, Recipe, Variant
from robustmri.results.schema import load_result
from robustmri.training.settings import TrainSettings
from robustmri.verbs import on_time
from robustmri.verbs.ablate import ablate
from robustmri.verbs.cross_validate import cross_validate
from robustmri.verbs.on_time import Stopwatch, fit_training
from robustmri.verbs.prepare import prepare
from robustmri.verbs.reproduce import _differences, _divided_alike, protocol

FAST = {"batch_size": 32, "precision": "fp32", "augment": "none", "warmup_epochs": 0.0}
RECIPE = Recipe(
    about="Seconds on a toy.",
    prepare=PrepareSettings(size=32),
    train=TrainSettings(epochs=3, **FAST),
    harden=TrainSettings(objective="adversarial", attack_steps=2, epochs=100_000, **FAST),
    evaluate=EvaluateSettings(
        attacks=("fgsm", "pgd"), curve=("2/255",), options={"pgd": {"steps": 5}}
    ),
)
pytestmark = pytest.mark.usefixtures("tiny_networks")


def tell(source, out, minutes):
    return protocol(source, out, RECIPE, title="On time", images=False, minutes=minutes)


def test_what_is_not_measured_has_no_time(tiny_scans, tmp_path):
    more = msgspec.structs.replace(RECIPE.evaluate, regions=("outside-lesion",), saliency=2)
    recipe = msgspec.structs.replace(RECIPE, evaluate=more)
    with pytest.raises(SettingsError, match="the time of regions, saliency is not measured"):
        protocol(tiny_scans, tmp_path, recipe, title="On time", images=False, minutes=5)


@pytest.mark.slow
def test_a_story_ends_in_time_with_a_table(tiny_scans, tmp_path):
    tell(tiny_scans, tmp_path / "warm-up", 0.01)  # What is imported once only.
    began = time.monotonic()
    table = tell(tiny_scans, tmp_path / "story", 0.2)
    assert time.monotonic() - began < 12 + 12, "as long again for a busy machine"
    assert len(table.rows) >= 4
    before, after = (load_result(tmp_path / "story" / name) for name in ("before", "after"))
    assert before.cohort.fingerprint == after.cohort.fingerprint
    trained = json.loads((tmp_path / "story/hardened/checkpoint/classifier.json").read_text())
    assert 1 <= trained["training"]["epochs"] < 100_000
    assert trained["training"]["minutes"] > 0


def test_a_story_goes_on_with_the_times_it_was_given(tiny_scans, tmp_path):
    tell(tiny_scans, tmp_path, 0.05)
    written = (tmp_path / "time.json").read_bytes()
    # A second call has less to do and more time: what was fitted stays.
    tell(tiny_scans, tmp_path, 0.05)
    assert (tmp_path / "time.json").read_bytes() == written


def test_a_prepared_cohort_is_used_where_it_is(tiny_scans, tmp_path):
    cohort = prepare(tiny_scans, tmp_path / "cohort", size=32)
    tell(cohort.root, tmp_path / "story", 0.01)
    assert not (tmp_path / "story" / "cohort").exists()
    # One that the recipe does not ask for is a source like any other.
    other = prepare(tiny_scans, tmp_path / "other", size=48)
    tell(other.root, tmp_path / "again", 0.01)
    assert (tmp_path / "again" / "cohort").is_dir()


@pytest.mark.slow
def test_folds_on_time_are_run_alike(tiny_scans, tmp_path):
    """The first is fitted into its time; the others take its epochs, so they can be pooled."""
    with pytest.raises(SettingsError, match="Run it first"):
        cross_validate(tiny_scans, tmp_path, RECIPE, folds=[2], minutes=0.1)
    table = cross_validate(tiny_scans, tmp_path, RECIPE, minutes=0.1, images=False)
    assert table is not None
    trained = [
        read_checkpoint(tmp_path / f"fold-{fold}" / "hardened").training for fold in range(1, 6)
    ]
    assert len({one["epochs"] for one in trained}) == 1
    assert trained[0]["epochs"] < 100_000
    slices = {load_result(tmp_path / f"fold-{fold}" / "after").split.n_slices for fold in (2, 3)}
    assert all(count <= 24 for count in slices)


def test_variants_on_time_cost_the_same(tiny_cohort, tmp_path):
    variants = {name: Variant(about=name) for name in ("base", "again")}
    recipe = msgspec.structs.replace(RECIPE, variants=variants, seeds=(0,))
    assert ablate(tiny_cohort, tmp_path / "study", recipe, minutes=0.1) is not None
    given = [
        read_checkpoint(tmp_path / "study" / run / "seed-0").training["minutes"]
        for run in ("standard", "base", "again")
    ]
    assert given[0] == given[1] == given[2] > 0


def test_hardening_gets_what_is_left_beside_the_evaluation(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(on_time.time, "monotonic", lambda: now[0])
    (tmp_path / "time.json").write_text(
        json.dumps({"limit": 1, "of_slices": 1, "max_seconds": 0.0, "evaluation_minutes": 2.0})
    )
    watch = Stopwatch(10.0)
    now[0] = 60.0
    train = fit_training(tmp_path, RECIPE, watch, "train").train.minutes
    assert train == pytest.approx(on_time.TRAIN * (9.6 - 1 - 2 - 1), abs=0.01)
    now[0] = 240.0
    harden = fit_training(tmp_path, RECIPE, watch, "harden").harden
    assert harden.minutes == pytest.approx(9.6 - 4 - 2, abs=0.01)
    assert msgspec.structs.replace(harden, minutes=0.0) == RECIPE.harden


@pytest.mark.parametrize(("starts", "trainings"), [(("standard", "scratch"), 3), (("scratch",), 1)])
def test_a_standard_run_that_nobody_begins_with_takes_no_time(starts, trainings, tmp_path):
    (tmp_path / "time.json").write_text(
        json.dumps({"limit": 1, "of_slices": 1, "max_seconds": 0.0, "evaluation_minutes": 1.0})
    )
    variants = {one: Variant(about=one, start=one) for one in starts}
    recipe = msgspec.structs.replace(RECIPE, variants=variants, seeds=(0,))
    each = on_time.share_equally(tmp_path, tmp_path, recipe, 20.0).harden.minutes
    assert each == pytest.approx((20 * (1 - on_time.LAST) - len(starts)) / trainings, abs=0.01)


def test_a_cohort_that_was_divided_otherwise_is_not_taken_as_it_is(tiny_scans, tmp_path):
    """Its split does not say by which shares; nothing else differs."""
    wanted = RECIPE.prepare
    for name, fractions in (("alike", wanted.fractions), ("other", (0.4, 0.3, 0.3))):
        prepare(
            tiny_scans,
            tmp_path / name,
            settings=msgspec.structs.replace(wanted, fractions=fractions),
        )
    assert not _differences(tmp_path / "other", wanted)
    assert _divided_alike(tmp_path / "alike", wanted)
    assert not _divided_alike(tmp_path / "other", wanted)
