"""A task of ten classes that is there wherever scikit-learn is: its digits, and a network hardened
on them.
"""

from __future__ import annotations

import functools

import torch
from torch.nn import functional

from robustmri.attacks import PGD
from robustmri.core.arrays import Images, Labels
from robustmri.models.backbones import build_classifier
from robustmri.models.classifier import Classifier
from robustmri.threat.threat_model import ThreatModel

SIZE = 32
EPS = 0.15
HELD_OUT = 360


def load_digits() -> tuple[Images, Labels]:
    """All 1797, 8 px wide, enlarged to `SIZE`, in an order drawn once; the first `HELD_OUT` are the
    test set.
    """
    from sklearn.datasets import load_digits as load

    pixels, classes = load(return_X_y=True)
    images = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 16
    images = functional.interpolate(images, size=SIZE, mode="bilinear").clamp(0, 1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order], torch.from_numpy(classes).long()[order]


@functools.cache
def hardened_on_digits(*, epochs: int, limit: int = 0, seed: int = 0) -> Classifier:
    """ResNet-18, trained once on two-step attacks at `EPS`; about a minute on two cores.

    Args:
        epochs: over the training images.
        limit: so many of them; 0: all.
        seed: of weights, order and attacks.
    """
    images, labels = load_digits()
    images, labels = images[HELD_OUT:][: limit or None], labels[HELD_OUT:][: limit or None]
    classifier = build_classifier(
        "resnet18", [str(digit) for digit in range(10)], SIZE, seed=seed
    ).train()
    generator, threat = torch.Generator().manual_seed(seed), ThreatModel(eps=EPS)
    attack = PGD(steps=2, step_size=0.75)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=2e-3)
    batches = -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=2e-3, total_steps=max(2, epochs * batches)
    )
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(64):
            points = attack(classifier, images[rows], labels[rows], threat, generator=generator)
            optimiser.zero_grad()
            functional.cross_entropy(classifier(points), labels[rows]).backward()
            optimiser.step()
            schedule.step()
    optimiser.zero_grad()
    return classifier.eval()
