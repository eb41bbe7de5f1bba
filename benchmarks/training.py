"""Seconds of PGD adversarial training, each library's own way: the same images, radius, inner steps
and batch.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.contenders import OURS
from benchmarks.inputs import Inputs, is_there
from benchmarks.setting import QUICK
from benchmarks.timing import Entry, race, ratios_of, row_of
from robustmri.core.arrays import Images, Labels
from robustmri.models.backbones import build_classifier
from robustmri.models.classifier import Classifier
from robustmri.training.batches import Examples
from robustmri.training.loop import fit
from robustmri.training.settings import TrainSettings

STEPS, STEP_SIZE = 7, 0.25
Train = Callable[[Classifier, Images, Labels, float, int], Any]


def ours(
    classifier: Classifier, images: Images, labels: Labels, eps: float, batch: int, **others: Any
) -> None:
    """`harden` itself, with its validation on a single image."""
    settings = TrainSettings(
        objective="adversarial",
        attack_steps=STEPS,
        attack_step_size=STEP_SIZE,
        eps=str(eps),
        epochs=1,
        batch_size=batch,
        learning_rate=0.01,
        warmup_epochs=0,
        augment="none",
        guard_slices=1,
        **others,
    )
    with tempfile.TemporaryDirectory() as run:
        fit(
            classifier,
            Examples(images, labels),
            Examples(images[:1], labels[:1]),
            settings,
            Path(run),
        )


def ours_in_fp32(
    classifier: Classifier, images: Images, labels: Labels, eps: float, batch: int
) -> None:
    """Without bfloat16."""
    ours(classifier, images, labels, eps, batch, precision="fp32")


def torchattacks_loop(
    classifier: Classifier, images: Images, labels: Labels, eps: float, batch: int
) -> None:
    """The plain loop around torchattacks' PGD."""
    import torchattacks

    optimiser = torch.optim.SGD(classifier.parameters(), lr=0.01, momentum=0.9)
    attack = torchattacks.PGD(classifier.train(), eps=eps, alpha=STEP_SIZE * eps, steps=STEPS)
    for x, y in zip(images.split(batch), labels.split(batch), strict=True):
        attacked = attack(x, y)
        optimiser.zero_grad()
        nn.functional.cross_entropy(classifier(attacked), y).backward()
        optimiser.step()


def art_trainer(
    classifier: Classifier, images: Images, labels: Labels, eps: float, batch: int
) -> None:
    """ART's `AdversarialTrainerMadryPGD`."""
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        classifier,
        nn.CrossEntropyLoss(),
        tuple(images.shape[1:]),
        len(classifier.classes),
        optimizer=torch.optim.SGD(classifier.parameters(), lr=0.01, momentum=0.9),
        clip_values=(0, 1),
    )
    trainer = AdversarialTrainerMadryPGD(
        wrapped,
        nb_epochs=1,
        batch_size=batch,
        eps=eps,
        eps_step=STEP_SIZE * eps,
        max_iter=STEPS,
        num_random_init=1,
    )
    trainer.attack.set_params(batch_size=batch)  # It gives its own attack 32 at a time.
    trainer.fit(images.numpy(), nn.functional.one_hot(labels, len(classifier.classes)).numpy())


WAYS: tuple[tuple[str, Train, str], ...] = (
    (OURS, ours, ""),
    (f"{OURS}, float32", ours_in_fp32, ""),
    ("torchattacks in a plain loop", torchattacks_loop, "torchattacks"),
    ("ART", art_trainer, "art"),
)


def training_steps(inputs: Inputs) -> dict[str, Any]:
    """The record of the task: one epoch over a few batches of noise, from random weights."""
    backbone, size, batch, batches = inputs.work.training
    images = torch.rand(batch * batches, 1, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(len(images)) % 3
    classifier = build_classifier(backbone, ("meningioma", "glioma", "pituitary"), size)

    def prepare(train: Train, warm_up: bool) -> Callable[[], Any]:
        few, own = (batch if warm_up else len(images)), copy.deepcopy(classifier)
        return lambda: train(own, images[:few], labels[:few], inputs.eps, batch)

    present = [way for way in WAYS if is_there(way[2])]
    entries = [
        Entry(name, lambda warm_up, train=train: prepare(train, warm_up), may_fail=bool(library))  # type: ignore[misc]
        for name, train, library in present
    ]
    finishes = race(entries, rounds=inputs.rounds, warm_up=inputs.work != QUICK, say=inputs.say)
    rows = []
    for name, _, _ in present:
        row = row_of(name, finishes[name])
        rows.append(
            row
            | {
                "images_per_second": row["seconds"]
                and round(len(images) / row["median_seconds"], 1)
            }
        )
    return {
        "title": f"PGD-{STEPS} adversarial training, one epoch",
        "setting": {
            "backbone": backbone,
            "size": size,
            "batch": batch,
            "images": len(images),
            "eps": inputs.eps,
        },
        "rows": rows,
        "ratios": ratios_of(finishes, [(name, OURS) for name, _, _ in present if name != OURS]),
        "failed": {name: finish.failed for name, finish in finishes.items() if finish.failed},
        "missing": [name for name, _, library in WAYS if not is_there(library)],
    }
