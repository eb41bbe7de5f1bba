"""Pictures in colour, not square, go from PNG folders to a report by the command line."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from colours import CLASSES, HEIGHT, WIDTH, draw_lesion, write_pictures
from robustmri.data.cohort import Cohort
from robustmri.models.checkpoint import save_checkpoint
from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.results.schema import load_result
from tiny import tiny_network

QUICK = ("--attacks", "fgsm,pgd", "--eps", "8/255", "--curve", "", "--limit", 4)
QUICK += ("--set", "evaluate.options.pgd.steps=2", "--set", "evaluate.options.pgd.restarts=1")
SHORT = ("--epochs", 5, "--set", "train.learning_rate=0.01", "--set", "train.weights=none")
SHORT += ("--set", "train.augment=none", "--set", "train.batch_size=8")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("colour") / "pictures")


@pytest.fixture
def go(robustmri):
    """Runs a command that must succeed; what it printed."""

    def one(*words):
        status, said, errors = robustmri(*words)
        assert status == 0, errors
        return said

    return one


def images_of(page):
    """The pictures of a report, as arrays."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB")) for one in found
    ]


def is_coloured(image):
    return bool((np.ptp(image.astype(int), axis=2) > 30).mean() > 0.1)


def test_from_folders_to_a_report_in_colour(go, pictures, tiny_networks, tmp_path):
    said = go("prepare", pictures, "--out", tmp_path / "cohort", "--size", "32x48")
    assert "channels: 3, a guess: 16 of the first 16 slices are in colour" in said
    cohort = Cohort.open(tmp_path / "cohort")
    assert (cohort.shape, cohort.intensity, cohort.pad) == ((3, 32, 48), "full", True)
    assert cohort.images.shape == (len(cohort), 32, 48, 3)
    go("train", tmp_path / "cohort", "--out", tmp_path / "run", *SHORT)
    head = json.loads((tmp_path / "run" / "checkpoint" / "classifier.json").read_bytes())
    assert (head["spec"]["size"], head["spec"]["channels"]) == ([32, 48], 3)
    go("evaluate", tmp_path / "run", tmp_path / "cohort", "--out", tmp_path / "result", *QUICK)
    result = load_result(tmp_path / "result")
    assert (result.cohort.size, result.cohort.channels) == ((32, 48), 3)
    clean = next(one for one in result.results if one.attack == "none" and one.unit == "slice")
    assert clean.accuracy > 0.9  # By hue alone.
    go("report", tmp_path / "result", "--out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "aspect-ratio: 48 / 32" in page
    assert "each channel brighter up, darker down" in page
    shown = images_of(page)
    assert len(shown) >= 6
    assert {image.shape for image in shown} == {(32, 48, 3)}
    assert all(is_coloured(image) for image in shown)
    one, mask, out = (tmp_path / name for name in ("one.png", "mask.png", "case"))
    Image.fromarray(draw_lesion(0, 90, 0)).save(one)
    outline = np.zeros((HEIGHT, WIDTH), np.uint8)
    outline[12:24, 20:40] = 255
    Image.fromarray(outline).save(mask)
    go("case", one, tmp_path / "run", "--out", out, "--mask", mask)
    told = json.loads((out / "case.json").read_bytes())
    assert (told["intensity"], told["source"]["notes"]) == ("full", [])
    assert 0 < told["case"]["share_in_lesion"] < 1
    attacked = np.asarray(Image.open(out / "attacked.png").convert("RGB"))
    assert attacked.shape == (32, 48, 3)
    assert is_coloured(attacked)
    assert is_coloured(np.asarray(Image.open(out / "picture.png"))[16:200, 16:400])


def untrained(folder, **facts):
    """A checkpoint of a network that has learnt nothing."""
    spec = ClassifierSpec(backbone="resnet18", classes=CLASSES, **facts)
    save_checkpoint(Classifier(tiny_network("", 2, spec.size, spec.channels), spec), folder)
    return folder


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--size", "0x5"), "size must have sides of 8 to 4096 pixels, got '0x5'"),
        (("--size", "32x"), "a number of pixels such as 224, or HEIGHTxWIDTH"),
        (("--size", "huge"), "a number of pixels such as 224, or HEIGHTxWIDTH"),
        (("--channels", 2), "channels must be 1 (grey) or 3 (colour), got 2"),
        (("--intensity", "percentile"), "clips each channel by itself, which changes hues"),
    ],
)
def test_a_wrong_value_is_one_sentence(run, pictures, tmp_path, words, says):
    status, said = run("prepare", pictures, "--out", tmp_path / "cohort", *words)
    assert status == 2
    assert says in " ".join(said.split())
    assert said.count("\n") <= 1
    assert not (tmp_path / "cohort").exists()


def test_what_was_made_for_another_kind_of_slice_is_refused(
    run, go, pictures, tiny_networks, tmp_path
):
    cohort = tmp_path / "cohort"
    go("prepare", pictures, "--out", cohort, "--size", "32x48", "--stretch")
    for facts, more, says in (
        ({"size": 32, "channels": 3}, (), "images of 32 px; the cohort has 32 x 48 px"),
        ({"size": (48, 32), "channels": 3}, (), "--out COHORT --size 48x32"),
        ({"size": (32, 48)}, (), "made for grey images of one channel; the cohort is in colour"),
        (
            {"size": (32, 48), "channels": 3},
            ("--region", "brain"),
            "the region 'brain' is a bright head on black",
        ),
    ):
        checkpoint = untrained(tmp_path / "checkpoint", **facts)
        status, said = run("evaluate", checkpoint, cohort, "--out", tmp_path / "x", *QUICK, *more)
        assert status == 1
        assert says in " ".join(said.split())
