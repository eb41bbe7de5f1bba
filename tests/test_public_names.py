"""What people hand the public names from Python that cannot be meant: a sentence of ours each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn

import robustmri as r

NETWORK = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
IMAGES, LABELS = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
SPEC = partial(r.ClassifierSpec, backbone="custom", classes=("ill", "well"), size=4)
SEEDED = torch.Generator().manual_seed(0)


class Pair(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :2], images


@dataclass(frozen=True)
class Wrong:
    call: object
    says: str


WRONG = {
    "no network": Wrong(lambda: r.Classifier("resnet18", SPEC()), "as a torch.nn.Module"),
    "std 0": Wrong(lambda: r.Classifier(NETWORK, SPEC(std=0.0)), "a std above 0, got 0.0"),
    "mean NaN": Wrong(lambda: r.Classifier(NETWORK, SPEC(mean=float("nan"))), "finite mean"),
    "one class": Wrong(lambda: r.Classifier(NETWORK, SPEC(classes=("a",))), "two classes"),
    "twins": Wrong(lambda: r.Classifier(NETWORK, SPEC(classes=("a", "a"))), "each once"),
    "order": Wrong(lambda: r.Classifier(NETWORK, SPEC(order=(0, 0))), "as their order"),
    "a pair of answers": Wrong(lambda: r.Classifier(Pair(), SPEC())(IMAGES), "returns tuple"),
    "more outputs": Wrong(
        lambda: r.Classifier(NETWORK, SPEC(classes=("a", "b", "c")))(IMAGES), "has 2 outputs"
    ),
    "numpy": Wrong(lambda: r.Classifier(NETWORK, SPEC())(IMAGES.numpy()), "got ndarray"),
    "no classifier": Wrong(lambda: r.save_checkpoint(NETWORK, "x"), "got Sequential"),
    "no function": Wrong(lambda: r.BlackBox(None, SPEC()), "a function of images to answers"),
    "no answer": Wrong(lambda: r.BlackBox(lambda _: None, SPEC())(IMAGES), "with NoneType"),
    "no recipe": Wrong(lambda: r.load_recipe(None), "expected the name of a recipe"),
    "one override": Wrong(lambda: r.load_recipe("demo", "train.epochs=3"), "a list of overrides"),
    "a recipe's name": Wrong(lambda: r.cross_validate("x", "y", "demo"), "Read it: load_recipe"),
    "none to ablate": Wrong(lambda: r.ablate("x", "y", None), "Read it: load_recipe"),
    "none to contrast": Wrong(lambda: r.contrast("x", "y", "z", "demo"), "Read it: load_recipe"),
    "settings": Wrong(lambda: r.train("x", "y", settings={"epochs": 1}), "by name, such as"),
    "a word for names": Wrong(lambda: r.import_model("x", "y", classes="ab"), "got the text 'ab'"),
    "one folder": Wrong(lambda: r.write_report("nowhere", "x.html"), "nowhere holds no robustness"),
    "one result": Wrong(lambda: r.pool("nowhere", "x", title="x"), "nowhere holds no robustness"),
    "one cohort": Wrong(lambda: r.inspect("nowhere"), "nowhere is not a cohort"),
    "minutes": Wrong(lambda: r.bundle("x", "y", minutes=float("nan")), "minutes must be a finite"),
    "no minutes": Wrong(lambda: r.bundle("x", "y", minutes=0), "above 0, got 0"),
    "less than nothing": Wrong(lambda: r.bundle("x", "y", max_mib=-1), "at least 0, got -1"),
    "grace": Wrong(lambda: r.run_bundle("x", "y", grace=float("inf")), "grace must be a finite"),
    "no threat": Wrong(
        lambda: r.learn_universal(NETWORK, IMAGES, LABELS, 0.1, generator=SEEDED), "ThreatModel"
    ),
    "another size": Wrong(
        lambda: r.add_universal(torch.zeros(1, 1, 2, 2), IMAGES, r.ThreatModel()),
        "got (1, 1, 2, 2)",
    ),
    "a change of NaN": Wrong(
        lambda: r.add_universal(IMAGES[:1] * torch.nan, IMAGES, r.ThreatModel()), "finite numbers"
    ),
    "no corruption": Wrong(lambda: r.corrupt(IMAGES, None, 1), "no corruption None"),
    "an array": Wrong(lambda: r.corrupt(IMAGES.numpy(), "gamma", 1), "ndarray of shape"),
    "a flag": Wrong(lambda: r.corrupt(IMAGES, "gamma", True), "severity must be"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_meant_is_said(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(r.RobustMRIError) as told:
        WRONG[what].call()
    assert WRONG[what].says in str(told.value)
    assert list(tmp_path.iterdir()) == []
