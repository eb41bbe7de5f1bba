"""Everything that decides what a training run becomes."""

from __future__ import annotations

from typing import Literal

import msgspec

from robustmri.core.errors import SettingsError
from robustmri.threat.eps import parse_eps


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one training run; the run folder keeps them, and a recipe holds one set for each
    stage.

    Attributes:
        objective: "standard" (clean images), "adversarial" (PGD examples made on the fly),
            "one-step", "free", "trades" or "mart" (see `robustmri.training.objectives`).
        backbone: network, as `robustmri.models.backbones` names it.
        weights: "none"; published ones by name ("imagenet", "radimagenet", "robust-imagenet:linf-4"
            and others in `robustmri.models.starts`); "pretrained" for networks of other libraries;
            "https://...#sha256=..."; or the path of a .pth, .pt, .ckpt or .safetensors file.
        epochs: passes over the training set.
        batch_size: images of a step, over all devices.
        accumulate: parts that each device takes its share of a step in, one after another: less
            memory, the same gradient, but batch-norm sees a part at a time.
        learning_rate: peak of the schedule: linear warm-up, then half a cosine down to zero.
        warmup_epochs: length of the warm-up.
        momentum: of stochastic gradient descent (Nesterov's).
        weight_decay: on all weights with two axes or more; biases and batch-norms are left alone.
        label_smoothing: share of the label spread over all classes.
        average: what is kept: "ema" (average of the weights over steps, with `ema_decay`), "swa"
            (equal average over the ends of epochs, batch-norm re-estimated), or "none" (the weights
            themselves).
        ema_decay: decay of "ema"; 0: no average.
        swa_from_epoch: epochs before the first that enters "swa".
        augment: "none", "light" or "standard" (see `robustmri.training.augment`).
        eps: radius of the training attack, as text with its units ("0.04", "8/255",
            "0.04@normalised").
        norm: "linf" or "l2".
        attack_steps: steps of the training attack.
        attack_step_size: length of a step, as a fraction of eps.
        eps_ramp_epochs: eps grows linearly from zero over so many epochs, and over all but the last
            of a shorter run.
        beta: weight of the divergence in "trades" (6 in its paper) and "mart" (5).
        replays: of "free": optimiser steps on each batch; the epochs are divided by it.
        clean_share: of "adversarial" and "one-step": share of the loss that is on clean images.
        logit_pairing: weight of the distance between clean and attacked logits, on top of any
            attacked objective.
        weight_perturbation: "awp" or "sam": each step's gradient is taken at weights moved uphill;
            "none": where they are.
        weight_perturbation_size: how far: for "awp" a share of each weight's norm (0.005 in its
            paper), for "sam" a length over all weights (0.05).
        dual_batch_norm: separate batch-norms for clean and attacked images; the one for attacked
            images is kept.
        guard_steps: PGD steps of the robust validation.
        guard_slices: validation slices it looks at; 0: all.
        clean_cost: which epoch is kept: the most robust one that loses at most so many percentage
            points of clean accuracy; None: the one with the best mean of clean and robust accuracy.
        precision: "auto", "fp32" or "bf16".
        seed: of weights, order, augmentation and random starts.
        logger: "tensorboard" or "mlflow": where the rows of epochs.csv are shown too; "none":
            nowhere.
        devices: processes or GPUs on each node.
        nodes: machines.
        minutes: time for the run: of its `epochs` so many are made as fit on the machine at hand,
            and warm-up, ramp of eps and averages shrink with them; 0: as long as it takes.
    """

    objective: Literal["standard", "adversarial", "one-step", "free", "trades", "mart"] = "standard"
    backbone: str = "resnet18"
    weights: str = "none"
    epochs: int = 30
    batch_size: int = 64
    accumulate: int = 1
    learning_rate: float = 0.05
    warmup_epochs: float = 2.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    average: Literal["none", "ema", "swa"] = "ema"
    ema_decay: float = 0.0
    swa_from_epoch: int = 0
    augment: Literal["none", "light", "standard"] = "standard"
    eps: str = "0.04"
    norm: Literal["linf", "l2"] = "linf"
    attack_steps: int = 7
    attack_step_size: float = 0.25
    eps_ramp_epochs: float = 0.0
    beta: float = 6.0
    replays: int = 4
    clean_share: float = 0.0
    logit_pairing: float = 0.0
    weight_perturbation: Literal["none", "awp", "sam"] = "none"
    weight_perturbation_size: float = 0.005
    dual_batch_norm: bool = False
    guard_steps: int = 10
    guard_slices: int = 128
    clean_cost: float | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 0
    logger: Literal["none", "tensorboard", "mlflow"] = "none"
    devices: int = 1
    nodes: int = 1
    minutes: float = 0.0

    @property
    def attacked(self) -> bool:
        """Whether training meets attacked images; robust accuracy is then measured after each
        epoch.
        """
        return self.objective != "standard"

    @property
    def ramp_epochs(self) -> float:
        """Epochs until the whole eps is met: a short run meets it in its last one."""
        return min(self.eps_ramp_epochs, self.epochs - 1)

    def __post_init__(self) -> None:
        parse_eps(self.eps)
        at_least_1 = "epochs batch_size accumulate attack_steps replays guard_steps devices nodes"
        for name in at_least_1.split():
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "attack_step_size", "weight_perturbation_size"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} must be positive, got {getattr(self, name)}.")
        for name in ("momentum", "ema_decay", "label_smoothing", "clean_share"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(
                    f"{name} must be at least 0 and below 1, got {getattr(self, name)}."
                )
        at_least_0 = (
            "warmup_epochs weight_decay eps_ramp_epochs guard_slices swa_from_epoch beta "
            "logit_pairing minutes"
        )
        for name in at_least_0.split():
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must be at least 0, got {getattr(self, name)}.")
        if self.clean_cost is not None and not self.clean_cost >= 0:
            raise SettingsError(f"clean_cost must be at least 0, got {self.clean_cost}.")
        self._check_together()

    def _check_together(self) -> None:
        """Refuse settings that leave another one without effect."""
        if self.average == "swa" and self.swa_from_epoch >= self.epochs:
            raise SettingsError(
                f"swa_from_epoch must be below epochs, got {self.swa_from_epoch} and "
                f"{self.epochs}: nothing would be averaged."
            )
        if self.average == "swa" and self.dual_batch_norm:
            raise SettingsError(
                'average = "swa" re-estimates batch-norm on clean images, which dual_batch_norm '
                "keeps apart: set one of them off."
            )
        if self.clean_share and self.objective not in ("adversarial", "one-step"):
            raise SettingsError(
                f'clean_share belongs to "adversarial" and "one-step", and not to '
                f'"{self.objective}". Set it to 0.'
            )
        if self.logit_pairing and not self.attacked:
            raise SettingsError(
                "logit_pairing needs attacked images. Set it to 0, or choose another objective."
            )
        if self.label_smoothing and self.objective == "mart":
            raise SettingsError('label_smoothing has no meaning in "mart". Set it to 0.')
        sees_both = self.objective in ("trades", "mart") or self.clean_share or self.logit_pairing
        if self.dual_batch_norm and not sees_both:
            raise SettingsError(
                "dual_batch_norm needs an objective that looks at clean and at attacked images. "
                'Set clean_share, or choose "trades" or "mart".'
            )
