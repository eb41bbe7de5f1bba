"""What two processes do together, as torchrun would start them; a test does the same alone and
compares.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.training.batches import Examples
from robustmri.training.loop import fit
from robustmri.training.settings import TrainSettings
from robustmri.verbs.evaluate import evaluate
from tiny import CLASSES, SIZE, draw_slice, tiny_network

ATTACKED: dict[str, Any] = {"eps": "0.03", "attack_steps": 2, "guard_steps": 2}
TRAININGS: dict[str, dict[str, Any]] = {
    "standard": {},
    # 39 images and three, which two processes in two parts cannot share evenly.
    "adversarial": {
        "objective": "adversarial",
        "batch_size": 39,
        "accumulate": 2,
        "weight_perturbation": "awp",
    },
    "trades": {"objective": "trades", "ema_decay": 0.9},
    "free": {"objective": "free", "replays": 2},
    "batch-norm": {"objective": "adversarial", "average": "swa"},
}
"""All but the last without batch-norm: on a CPU each process normalises its own images."""
ATTACKS: dict[str, Any] = {
    "attacks": ("fgsm", "pgd", "square"),
    "eps": ("0.02", "0.04"),
    "batch_size": 5,
    "precision": "fp32",
    "options": {"pgd": {"steps": 3}, "square": {"queries": 20}},
}


def learn() -> Examples:
    """42 slices: batches of 15, 15 and 12, which two processes cannot halve."""
    cases = [
        (kind, patient, number) for kind in range(3) for patient in range(7) for number in range(2)
    ]
    images = torch.stack([torch.from_numpy(draw_slice(*case)).float() / 255 for case in cases])[
        :, None
    ]
    return Examples(images, torch.tensor([kind for kind, _, _ in cases]))


def fresh(name: str) -> Classifier:
    """Where a training starts from."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = tiny_network("custom", 3, SIZE)
    if name != "batch-norm":
        network[1] = nn.Identity()
    return Classifier(network, ClassifierSpec(backbone="custom", classes=CLASSES, size=SIZE))


def train(name: str, folder: Path) -> nn.Module:
    """One of the trainings."""
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 15,
        "warmup_epochs": 1.0,
        "learning_rate": 0.02,
        "precision": "fp32",
    }
    if name != "standard":
        settings |= ATTACKED
    (folder / name).mkdir(parents=True, exist_ok=True)
    return fit(
        fresh(name),
        learn(),
        learn(),
        TrainSettings(**{**settings, **TRAININGS[name]}),
        folder / name,
    )[0]


def main(folder: Path, checkpoint: Path, cohort: Path) -> None:
    """Everything once, in this process as in the other one."""
    from robustmri.core import processes

    for name in TRAININGS:
        kept = train(name, folder)
        torch.save(kept.state_dict(), folder / f"{name}-{processes.rank()}.pt")
    print(processes.rank(), processes.size())
    evaluate(checkpoint, cohort, folder / "result", **ATTACKS)


if __name__ == "__main__":
    import robustmri.models.checkpoint

    vars(robustmri.models.checkpoint)["build_network"] = tiny_network
    main(*map(Path, sys.argv[1:]))
