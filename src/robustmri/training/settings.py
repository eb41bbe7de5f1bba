"""Everything that decides what a training run becomes."""

from __future__ import annotations

from typing import Literal

import msgspec

from robustmri.errors import SettingsError
from robustmri.threat.eps import parse_eps


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one training run; the run folder keeps them, and a recipe holds one set for each stage.

    Attributes:
        objective: "standard" (clean images) or "adversarial" (PGD examples made on the fly).
        backbone: network, as `robustmri.models.backbones` names it.
        weights: "none", "imagenet", or a path to a .pth or .safetensors file.
        epochs: passes over the training set.
        batch_size: images of a step, over all devices.
        learning_rate: peak of the schedule: linear warm-up, then half a cosine down to zero.
        warmup_epochs: length of the warm-up.
        momentum: of stochastic gradient descent (Nesterov's).
        weight_decay: on all weights with two axes or more; biases and batch-norms are left alone.
        label_smoothing: share of the label spread over all classes.
        ema_decay: weights are averaged over steps with this decay, and the average is what is kept; 0: no average.
        augment: "none", "light" or "standard" (see `robustmri.training.augment`).
        eps: radius of the training attack, as text with its units ("0.04", "8/255", "0.04@normalised").
        norm: "linf" or "l2".
        attack_steps: steps of the training attack.
        attack_step_size: length of a step, as a fraction of eps.
        eps_ramp_epochs: eps grows linearly from zero over so many epochs.
        guard_steps: PGD steps of the robust validation.
        guard_slices: validation slices it looks at; 0: all.
        precision: "auto", "fp32" or "bf16".
        seed: of weights, order, augmentation and random starts.
        devices: processes or GPUs on each node.
        nodes: machines.
    """

    objective: Literal["standard", "adversarial"] = "standard"
    backbone: str = "resnet18"
    weights: str = "none"
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.05
    warmup_epochs: float = 2.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    augment: Literal["none", "light", "standard"] = "standard"
    eps: str = "0.04"
    norm: Literal["linf", "l2"] = "linf"
    attack_steps: int = 7
    attack_step_size: float = 0.25
    eps_ramp_epochs: float = 0.0
    guard_steps: int = 10
    guard_slices: int = 128
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 0
    devices: int = 1
    nodes: int = 1

    @property
    def attacked(self) -> bool:
        """Whether training meets attacked images; robust accuracy is then measured after each epoch."""
        return self.objective != "standard"

    def __post_init__(self) -> None:
        parse_eps(self.eps)
        for name in ("epochs", "batch_size", "attack_steps", "guard_steps", "devices", "nodes"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "attack_step_size"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} must be positive, got {getattr(self, name)}.")
        for name in ("momentum", "ema_decay", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}.")
        for name in ("warmup_epochs", "weight_decay", "eps_ramp_epochs", "guard_slices"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must be at least 0, got {getattr(self, name)}.")
