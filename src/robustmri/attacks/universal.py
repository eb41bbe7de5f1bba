"""One perturbation for all images: learnt on some, it fools others that it has never seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from robustmri.attacks.engine import (
    LossName,
    by_backpropagation,
    checked,
    exhausted,
    frozen,
    loss_against,
)
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor
from robustmri.attacks.step_rules import steepest_step
from robustmri.attacks.streams import advance, open_streams, uniforms
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import ThreatModelError
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class Universal(CheckedAttack):
    """The same change for every image of the batch, by steepest steps on the clipped losses of
    small batches.

    So an image's result depends on the others: this is the one attack whose batch is not its images
    one by one. To learn on the training patients and attack the test patients, use
    `learn_universal`.

    Args:
        epochs: times that every image is used.
        batch_size: images for each step.
        step_size: length of a step as a fraction of eps.
        clip: loss beyond which an image counts no more, in nats, so that a few cannot dominate.
        loss: "cross_entropy" or "margin".

    Reference: Shafahi et al. 2020, Algorithm 2; the question is that of Moosavi-Dezfooli et al.
    2017.
    """

    facts = Facts(
        "universal",
        "Universal",
        "Shafahi et al. 2020",
        doi="10.48550/arXiv.1811.11304",
        norms=("linf", "l2"),
    )

    epochs: int = 10
    batch_size: int = 32
    step_size: float = 0.125
    clip: float = 9.0
    loss: LossName = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1 or self.batch_size < 1 or self.step_size <= 0:
            raise ThreatModelError(
                "epochs and batch_size must be at least 1 and step_size positive, got "
                f"{self.epochs}, {self.batch_size} and {self.step_size}."
            )

    def search(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> Images:
        """See `Attack`."""
        learnt = learn_universal(
            classifier, images, labels, threat, attack=self, generator=generator
        )
        return add_universal(learnt, images, threat)


def learn_universal(
    classifier: Predictor,
    images: Images,
    labels: Labels,
    threat: ThreatModel,
    *,
    generator: torch.Generator,
    attack: Universal | None = None,
) -> Images:
    """The change that makes the classifier get as many of these images wrong as can be, of shape
    (1, channels, ...).

    Args:
        classifier: images in [0, 1] to logits.
        images: to learn on, shape (n, channels, ...).
        labels: true classes, shape (n,).
        threat: the change stays in the largest of its balls; what each image then gets, in its own
            set.
        generator: each image takes one number from it, for its place in the order.
        attack: settings; the defaults if None.
    """
    attack = attack or Universal()
    threat = attack.check(images, labels, attack._threat(threat, None))
    images, predict = images.detach(), checked(classifier, labels, threat)
    towards = loss_against(attack.loss, labels, threat)
    eps = torch.as_tensor(threat.eps)
    ball = replace(threat, eps=float(eps.max()) if eps.numel() else 0.0, mask=None)
    change, streams = (
        torch.zeros_like(images[:1]),
        open_streams(generator, len(images), images.device),
    )
    if not len(images):
        return images.new_zeros((1, *images.shape[1:]))
    with frozen(classifier):
        for _ in range(attack.epochs):
            streams = advance(streams)
            for rows in uniforms(streams, 1)[:, 0].argsort().split(attack.batch_size):
                if exhausted(classifier):
                    return change
                here = threat.at(rows)
                _, _, gradient = by_backpropagation(
                    predict,
                    add_universal(change, images[rows], here),
                    rows,
                    lambda points, logits, rows: towards(points, logits, rows).clamp(
                        max=attack.clip
                    ),
                    {},
                )
                whole = here.allow(gradient).sum(0, keepdim=True)
                change = ball.measure.project(
                    change + steepest_step(attack.step_size, whole, ball), ball.eps
                )
    return change


def add_universal(change: Images, images: Images, threat: ThreatModel) -> Images:
    """`images` with the same change, each inside its own S(x): eps, mask and bounds.

    Args:
        change: of shape (1, channels, ...), what `learn_universal` gave.
        images: shape (n, channels, ...).
        threat: what may be changed.

    Raises:
        ThreatModelError: a change of another shape, or one that is not finite.
    """
    images = images.detach()
    shape = (1, *images.shape[1:])
    fits = isinstance(change, torch.Tensor) and change.shape == shape
    if not fits or not bool(torch.isfinite(change).all()):
        raise ThreatModelError(
            f"expected a change of finite numbers of shape {shape}, got "
            f"{tuple(getattr(change, 'shape', ())) or type(change).__name__}."
        )
    return threat.project(images + change, images)
