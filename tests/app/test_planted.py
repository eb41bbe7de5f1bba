"""Faults that make a classifier look robust, each planted and evaluated on the command line: the
command ends with its own status, and the page has no headline.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

import faults
from faults import around
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_images, load_labels
from robustmri.data.split import Split
from robustmri.models.checkpoint import load_checkpoint
from robustmri.models.classifier import Classifier
from tiny import draw_slice, write_scans

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_networks")]
QUICK = ("--eps", "0.1", "--set", "evaluate.precision=fp32")
MARK = 3

NETWORKS = {
    "gradient of another image": (
        around(faults.of_a_neighbour),
        "a gradient does not depend on the other images of the batch",
    ),
    "small gradients cut to zero": (
        around(faults.thinned),
        "no part of the gradient is missing",
    ),
    "grey values cast to bytes": (
        around(faults.cast_to_bytes),
        "attacks on another backward pass break no more",
    ),
    "hard votes": (
        around(faults.voting),
        "attacks on another backward pass break no more",
    ),
    "a member without gradient": (
        around(faults.masked_member),
        "the loss rises as its gradient says",
    ),
    "another network while it is climbed": (
        around(faults.otherwise_climbed),
        "a planted weakness is found",
    ),
    "answers by position": (
        around(faults.by_position),
        "an answer does not depend on the other images of the batch",
    ),
    "no answer where it is not sure": (around(faults.abstaining), "every logit a finite number"),
    "float16 that overflows": (around(faults.overflowing), "every logit a finite number"),
    "remembers what it was asked": (faults.Remembering, "an answer leaves nothing behind"),
    "classes in another order": (
        around(lambda network, images: network(images).roll(1, 1)),
        "classes in their order",
    ),
}


@pytest.fixture
def planted(tiny_run, monkeypatch):
    """From now on the run's checkpoint holds a network with a fault."""

    def plant(fault):
        classifier, stored = load_checkpoint(tiny_run)
        network = fault(copy.deepcopy(classifier.network))
        made = Classifier(network, classifier.spec).eval(), stored
        monkeypatch.setattr("robustmri.models.checkpoint.load_checkpoint", lambda path: made)

    return plant


@pytest.fixture(autouse=True)
def drawn_alike():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def caught(robustmri, tmp_path):
    """A run and a cohort are evaluated; the check fails, and the page says so in a headline's
    place.
    """

    def evaluate(run, cohort, name, *words):
        given = words or ("--attacks", "pgd")
        out = tmp_path / "result"
        status, said, errors = robustmri(
            "evaluate", run, cohort, "--out", out, "--strict", *QUICK, *given
        )
        assert status == 3, said + errors
        assert f"fail: {name}: " in said
        page = tmp_path / "report.html"
        assert robustmri("report", out, "--out", page)[0] == 0
        told = page.read_text(encoding="utf-8")
        assert "They should not be quoted until this is resolved" in told
        assert name in told

    return evaluate


@pytest.mark.parametrize(("fault", "name"), NETWORKS.values(), ids=NETWORKS)
def test_a_network(caught, planted, tiny_run, tiny_cohort, fault, name):
    planted(fault)
    caught(tiny_run, tiny_cohort, name)


def test_slices_known_by_heart(caught, planted, tiny_run, tiny_cohort):
    cohort, rows = Cohort.open(tiny_cohort), sorted(Split.load(tiny_cohort).test)
    images, labels = load_images(cohort, rows), load_labels(cohort, rows)
    planted(lambda network: faults.Stored(network, images, labels))
    caught(tiny_run, tiny_cohort, "slices moved by a pixel stand too")


def test_an_attack_that_does_nothing(caught, tiny_run, tiny_cohort, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_nothing.py").write_text(
        "from robustmri.attacks import PGD\n\n\nclass Nothing(PGD):\n"
        "    def search(self, classifier, images, labels, threat, *, generator):\n"
        "        return images.clone()\n"
    )
    words = ("--attacks", "my_nothing:Nothing", "--trust")
    caught(tiny_run, tiny_cohort, "twice the steps break no more", *words)


def test_noise_alone(caught, tiny_run, tiny_cohort):
    caught(tiny_run, tiny_cohort, "twice the steps break no more", "--attacks", "noise")


def test_a_radius_that_no_file_can_hold(robustmri, tiny_run, tiny_cohort, tmp_path):
    words = ("--out", tmp_path / "out", "--attacks", "pgd", "--eps", "0.001")
    status, said, _ = robustmri("evaluate", tiny_run, tiny_cohort, *words)
    assert status == 0
    assert "warn: a radius that a stored slice can hold: " in said


def test_patients_under_two_names(caught, tiny_run, robustmri, tmp_path):
    scans, twins = write_scans(tmp_path / "scans", patients=4), []
    header, *rows = (scans / "slices.csv").read_text().splitlines()
    for row in rows:
        name, label, patient, outline = row.split(",", 3)
        grey = np.asarray(Image.open(scans / "images" / f"{name}.png")).astype(int)
        brighter = Image.fromarray(np.clip(grey + 1, 0, 255).astype(np.uint8))
        brighter.save(scans / "images" / f"{name}-again.png")
        twins.append(f"{name}-again,{label},{patient}again,{outline}")
    (scans / "slices.csv").write_text("\n".join([header, *rows, *twins]) + "\n")
    cohort = tmp_path / "cohort"
    words = ("--out", cohort, "--size", 32, "--split", "none")
    assert robustmri("prepare", scans, *words)[0] == 0
    caught(tiny_run, cohort, "no patient under two names")


def test_a_mark_that_tells_the_class(caught, robustmri, tmp_path):
    scans = write_scans(tmp_path / "scans")
    for kind, label in enumerate(("meningioma", "glioma", "pituitary")):
        for number, path in enumerate(sorted((scans / "images").glob(f"{label}-*.png"))):
            grey = draw_slice(number % 3, number, kind)
            grey[:MARK, 10 * kind : 10 * kind + 8] = 255
            Image.fromarray(grey).save(path)
    cohort, run = tmp_path / "cohort", tmp_path / "run"
    assert robustmri("prepare", scans, "--out", cohort, "--size", 32)[0] == 0
    words = [f"train.{one}" for one in ("batch_size=16", "augment=none", "precision=fp32")]
    options = [word for one in words for word in ("--set", one)]
    assert robustmri("train", cohort, "--out", run, "--epochs", 8, *options)[0] == 0
    caught(run, cohort, "the margin does not tell the class")
