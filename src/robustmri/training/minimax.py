"""One step of min-max: a batch, the search for its worst images, and a loss of the logits there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustmri.attacks.protocol import Attack, Predictor
from robustmri.core.arrays import Images, Labels
from robustmri.models.dual_norm import collapsed, using
from robustmri.models.optimised import OptimisedView, Precision
from robustmri.threat.threat_model import ThreatModel


class Batch(NamedTuple):
    """What one optimiser step learns from.

    Attributes:
        images: clean images, as augmented.
        labels: their classes.
        epoch: the time in epochs, with its fraction.
        generator: source of the random starts.
        replay: how many steps this batch has been used for already, for objectives that replay it.
        attacked: the worst images, where they have been found already.
    """

    images: Images
    labels: Labels
    epoch: float
    generator: torch.Generator
    replay: int = 0
    attacked: Images | None = None


@dataclass(frozen=True)
class Objective:
    """Something to descend: find the worst images, then put a loss on the logits.

    Args:
        loss: (logits of the clean images, logits of the attacked ones, labels) to a scalar; logits
            that it does not look at come as None.
        search: classifier and batch to the attacked images; None: there are none.
        clean: whether the loss looks at the clean images.
        listen: told the batch, and the loss's gradient at the attacked images once the backward
            that trains the weights has it.
        replays: optimiser steps on each batch.
    """

    loss: Callable[..., Tensor]
    search: Callable[[nn.Module, Batch], Images] | None = None
    clean: bool = True
    listen: Callable[[Batch, Images], None] | None = None
    replays: int = 1

    def attack(self, classifier: nn.Module, batch: Batch) -> Batch:
        """The batch with its attacked images, which are looked for only if it does not hold them
        yet.
        """
        if self.search is None or batch.attacked is not None:
            return batch
        return batch._replace(attacked=self.search(classifier, batch))

    def __call__(self, classifier: nn.Module, batch: Batch) -> Tensor:
        """The loss of one batch, a scalar with a gradient in the classifier's parameters."""
        batch = self.attack(classifier, batch)
        clean = attacked = None
        if self.clean:
            with using(classifier, "clean"):
                clean = classifier(batch.images)
        if batch.attacked is not None:
            images = batch.attacked
            if self.listen:
                images = images.detach().requires_grad_(True)
                images.register_hook(partial(self.listen, batch))
            with using(classifier, "attacked"):
                attacked = classifier(images)
        return self.loss(clean, attacked, batch.labels)


def ramped(threat: ThreatModel, epoch: float, ramp_epochs: float) -> ThreatModel:
    """The threat at a time in epochs: eps grows linearly from zero over the first `ramp_epochs`."""
    return replace(
        threat, eps=threat.eps * min(1.0, epoch / ramp_epochs) if ramp_epochs else threat.eps
    )


def searched(
    find: Callable[[nn.Module, Predictor, Batch, ThreatModel], Images],
    threat: ThreatModel,
    ramp_epochs: float,
    precision: Precision | None,
) -> Callable[[nn.Module, Batch], Images]:
    """A search on an optimised view of the network, with the weights of the moment.

    The view is made anew in each epoch, and takes over the weights in between: whether batch-norms
    may be folded has been tried on the weights that it was made with.
    """
    latest: dict[tuple[nn.Module, int], OptimisedView] = {}

    def view_of(network: nn.Module, batch: Batch) -> OptimisedView:
        plain, key = collapsed(network), (network, int(batch.epoch))
        if key in latest:
            latest[key].refresh(plain)
        else:
            latest.clear()
            latest[key] = OptimisedView(plain, batch.images, precision=precision)
        return latest[key]

    def search(classifier: nn.Module, batch: Batch) -> Images:
        here = ramped(threat, batch.epoch, ramp_epochs)
        if not here.eps > 0:
            return batch.images
        network = getattr(classifier, "module", classifier)
        return find(network, view_of(network, batch), batch, here)

    return search


def attacked_by(
    attack: Attack, threat: ThreatModel, ramp_epochs: float, precision: Precision | None
) -> Callable[[nn.Module, Batch], Images]:
    """The search that `attack` does."""

    def find(network: nn.Module, view: Predictor, batch: Batch, here: ThreatModel) -> Images:
        return attack(view, batch.images, batch.labels, here, generator=batch.generator)

    return searched(find, threat, ramp_epochs, precision)
