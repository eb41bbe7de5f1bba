"""Two cohorts, one network and one attack: which is fooled by less."""

from __future__ import annotations

import json
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

import robustmri
from formats import write_cifar
from robustmri.core.errors import DataError, SettingsError
from robustmri.evaluation.contrast import Median
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.recipes import Recipe
from robustmri.training.settings import TrainSettings
from robustmri.verbs import contrast as module

RECIPE = Recipe(
    about="Seconds on a toy.",
    train=TrainSettings(
        epochs=3, batch_size=32, precision="fp32", augment="none", warmup_epochs=0.0
    ),
    evaluate=EvaluateSettings(
        attacks=("fmn",),
        eps=("0.04",),
        limit=12,
        examples_per_class=0,
        options={"fmn": {"steps": 25}},
    ),
)

pytestmark = pytest.mark.usefixtures("tiny_networks")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """CIFAR-10's files of two classes that a glance tells apart: bright above, or bright below."""
    folder, rng = tmp_path_factory.mktemp("natural"), np.random.default_rng(0)
    labels = [3 * (number % 2) for number in range(80)]
    pixels = rng.integers(0, 100, (80, 32, 32, 3))
    for image, label in zip(pixels, labels, strict=True):
        image[:16] += 150 * (label == 0)
        image[16:] += 150 * (label != 0)
    write_cifar(folder / "cifar-10-batches-bin" / "data_batch_1.bin", pixels.astype("u1"), labels)
    return robustmri.prepare(folder, folder / "cohort", size=32, channels=1, split="slice").root


def test_the_same_network_on_scans_and_on_photographs(tiny_cohort, photographs, tmp_path):
    table = robustmri.contrast(tiny_cohort, photographs, tmp_path / "out", RECIPE)
    assert [row[1].split()[1] for row in table.rows] == ["patients", "inferred"]
    assert [row[2] for row in table.rows] == ["3", "2"]
    found = json.loads((tmp_path / "out" / "contrast.json").read_text())
    scans, natural = found["cohorts"]
    assert 0 < scans["eps"]["low"] <= scans["eps"]["value"] < natural["eps"]["value"]
    assert found["ratio"]["high"] < 1
    assert "cannot be told from" in table.notes[0], "few patients are no proof"
    assert table.notes[0] in (tmp_path / "out" / "table.md").read_text()
    result = robustmri.load_result(tmp_path / "out" / "first" / "result")
    assert scans["eps"]["value"] in [number.median_distance for number in result.results]


@pytest.mark.parametrize(
    ("ratio", "groups", "said"),
    [
        ((0.5, 0.3, 0.9), 10, "scans is easier to fool: its median is 0.5 [0.3 to 0.9] times"),
        ((1.5, 1.1, 1.9), 10, "scans is harder to fool"),
        ((0.5, 0.3, 1.1), 10, "Whether scans is easier to fool cannot be told: its median"),
        ((1.5, 0.8, None), 10, "cannot be told: its median is 1.5 [0.8 to infinite]"),
        ((0.5, 0.3, 0.9), 9, "cannot be told from 9 patients"),
        ((None, None, None), 10, "Give the search more steps"),
    ],
)
def test_the_verdict_says_no_more_than_the_interval(ratio, groups, said):
    eases = [SimpleNamespace(name="scans", groups=groups), SimpleNamespace(name="b", groups=99)]
    assert said in module._verdict(eases, Median(*ratio))


def test_what_is_not_alike_is_refused_before_anything_runs(tiny_cohort, photographs, tmp_path):
    other = robustmri.prepare(
        photographs.parent / "cifar-10-batches-bin", tmp_path / "large", size=40, split="slice"
    )
    for one, second, said in (
        (tiny_cohort, tiny_cohort, "give two that differ"),
        (tiny_cohort, other.root, "has a size of 32, .* of 40"),
    ):
        with pytest.raises(DataError, match=said):
            robustmri.contrast(one, second, tmp_path / "out", RECIPE)
    assert not (tmp_path / "out").exists()
    plain = msgspec.structs.replace(
        RECIPE, evaluate=msgspec.structs.replace(RECIPE.evaluate, attacks=("pgd",), options={})
    )
    with pytest.raises(SettingsError, match=r"smallest change in linf.*fmn"):
        robustmri.contrast(tiny_cohort, photographs, tmp_path / "out", plain)
    assert not (tmp_path / "out").exists()
