"""What every contender of a task is given: the same network, images, radius and steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from robustmri.core.arrays import Images, Labels, Logits
from robustmri.models.classifier import Classifier


@dataclass(frozen=True)
class Work:
    """How much is done.

    Args:
        pgd_steps: of PGD.
        cw_steps: Adam steps of CW.
        cw_searches: values of its constant that are tried, where a library tries several.
        suite_steps: steps of each gradient attack of AutoAttack, as in its paper, and of our suite.
        queries: of Square.
        digits: images that the ten-class network is trained on; 0: all that are there.
        digits_epochs: epochs of its training.
        networks: backbone, image size and batch of the tasks that time a single gradient step.
        gradient_steps: of them.
        training: backbone, image size, batch and number of batches of the task that times training.
        profiles: backbone, image size and batch of the steps that are taken apart.
    """

    pgd_steps: int = 20
    cw_steps: int = 50
    cw_searches: int = 5
    suite_steps: int = 100
    queries: int = 5000
    digits: int = 0
    digits_epochs: int = 6
    networks: tuple[tuple[str, int, int], ...] = (("resnet50", 224, 16), ("resnet18", 96, 64))
    gradient_steps: int = 3
    training: tuple[str, int, int, int] = ("resnet18", 96, 64, 8)
    profiles: tuple[tuple[str, int, int], ...] = (
        ("resnet18-half", 64, 64),
        ("resnet18-half", 96, 64),
        ("resnet18-half", 224, 16),
        ("resnet50", 224, 8),
    )


FULL = Work()
QUICK = Work(
    pgd_steps=2,
    cw_steps=2,
    cw_searches=2,
    suite_steps=2,
    queries=5,
    digits=64,
    digits_epochs=1,
    networks=(("resnet18-half", 32, 2),),
    gradient_steps=1,
    training=("resnet18-half", 32, 2, 1),
    profiles=(("resnet18-half", 32, 2),),
)
"""Enough to see that everything runs, and to warm up; its numbers mean nothing."""


@dataclass(frozen=True)
class Setting:
    """One task, as all its contenders get it.

    Args:
        classifier: what is attacked, in evaluation mode, its parameters as a user has them:
            requiring gradients.
        images: originals, on the CPU.
        labels: true classes.
        eps: radius, linf, in image units.
        step_size: of PGD, as a fraction of eps.
        batch: images attacked together, by everyone.
        radii: of a curve, ascending, in image units.
        clean: logits of the original at the images, float32: whoever asks for robust accuracy has
            had the clean one.
        seed: of ours; the peers draw from the global generators, which are seeded before each run.
        work: everything else that costs time.
    """

    classifier: Classifier
    images: Images
    labels: Labels
    eps: float
    step_size: float = 0.125
    batch: int = 64
    radii: tuple[float, ...] = ()
    clean: Logits | None = None
    seed: int = 0
    work: Work = field(default=FULL)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.classifier.classes)

    @property
    def steps(self) -> int:
        """Of PGD."""
        return self.work.pgd_steps

    @property
    def step(self) -> float:
        """Length of a step of PGD in image units, as the peers ask for it."""
        return self.step_size * self.eps

    def at(self, eps: float) -> Setting:
        """The same at another radius."""
        return replace(self, eps=eps)

    def batches(self) -> Iterator[tuple[Images, Labels]]:
        """Images and labels, `batch` at a time."""
        return zip(self.images.split(self.batch), self.labels.split(self.batch), strict=True)

    def own(self) -> Setting:
        """With a network that nobody else has touched: some libraries change its flags."""
        return replace(self, classifier=copy.deepcopy(self.classifier))

    def warm_up(self) -> Setting:
        """A few images and little work: whatever happens once only, such as imports, happens
        there.
        """
        clean = None if self.clean is None else self.clean[:4]
        return replace(
            self, images=self.images[:4], labels=self.labels[:4], clean=clean, work=QUICK
        )
