"""Averages of the weights along a run: they lie in flatter places than its last weights, and
overfit later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar, cast

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from robustmri.core.arrays import Images
from robustmri.training.settings import TrainSettings

Kind = Literal["none", "ema", "swa"]
Network = TypeVar("Network", bound=nn.Module)


class Average:
    """A second network that follows the one in training.

    Args:
        kind: "ema": exponential average over steps, of weights and batch-norm statistics. "swa":
            equal average over the ends of epochs, with batch-norm re-estimated (Izmailov et al.
            2018, Algorithm 1). "none": no average.
        network: the network in training, not yet trained.
        decay: of "ema".
        from_epoch: epochs before the first that enters "swa".
    """

    def __init__(
        self, kind: Kind, network: nn.Module, *, decay: float = 0.999, from_epoch: int = 0
    ) -> None:
        self.kind = kind
        self.from_epoch = from_epoch
        ema = kind == "ema"
        # Each call makes a closure: none of them is stored with the state.
        self._averaged = AveragedModel(
            network, multi_avg_fn=get_ema_multi_avg_fn(decay) if ema else None, use_buffers=ema
        )

    def after_step(self, network: nn.Module) -> None:
        """Take in the weights after an optimiser step."""
        if self.kind == "ema":
            self._averaged.update_parameters(network)

    def after_epoch(self, network: nn.Module, epochs: int, batches: Iterable[Images]) -> None:
        """Take in the weights at the end of an epoch.

        Args:
            network: the network in training.
            epochs: how many epochs are done.
            batches: images of the training set, augmented, to re-estimate batch-norm from; not read
                if not needed.
        """
        if self.kind == "swa" and epochs > self.from_epoch:
            self._averaged.update_parameters(network)
            re_estimate_batch_norm(self._averaged.module, batches)

    def kept(self, network: Network) -> Network:
        """What to validate and to keep: the average once there is one, `network` before."""
        return cast(Network, self.module) if int(self._averaged.n_averaged) else network

    @property
    def module(self) -> nn.Module:
        """The averaged network."""
        module: nn.Module = self._averaged.module
        return module

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return self._averaged.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""
        self._averaged.load_state_dict(state)


def average_of(settings: TrainSettings, network: nn.Module) -> Average:
    """The average that the settings name."""
    kind: Kind = (
        "none" if settings.average == "ema" and not settings.ema_decay else settings.average
    )
    return Average(kind, network, decay=settings.ema_decay, from_epoch=settings.swa_from_epoch)


def re_estimate_batch_norm(network: nn.Module, batches: Iterable[Images]) -> None:
    """Replace batch-norm's running statistics by those of one pass over `batches`, each batch
    counting the same.

    Averaged weights give other activations than the weights they are averaged from, so statistics
    that were gathered along the run do not fit them. Reference: Izmailov et al. 2018, Algorithm 1.
    """
    update_bn(batches, network)
