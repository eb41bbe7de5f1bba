"""Everything that decides what a training run becomes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from robustmri.core.errors import SettingsError
from robustmri.core.settings import MANY, SEEDS, about, check_bounds
from robustmri.threat.eps import check_eps, eps_text, parse_eps


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one training run; the run folder keeps them, and a recipe holds one set for each
    stage."""

    objective: Annotated[
        str,
        about(
            "what training descends: standard, adversarial, one-step, free, trades, mart or noisy"
        ),
    ] = "standard"
    backbone: Annotated[
        str,
        about("resnet18, resnet18-half, resnet50, densenet121, vit, efficientnet-lite0; timm:NAME"),
    ] = "resnet18"
    weights: Annotated[
        str,
        about(
            "none; imagenet, radimagenet, robust-imagenet or others of docs/repair.md; pretrained "
            "for networks of other libraries; https://...#sha256=...; or a .pth, .pt, .ckpt or "
            ".safetensors file"
        ),
    ] = "none"
    epochs: Annotated[int, about("passes over the training set", at_least=1, at_most=MANY)] = 30
    batch_size: Annotated[
        int, about("images of a step, over all devices", at_least=1, at_most=MANY)
    ] = 64
    accumulate: Annotated[
        int,
        about(
            "parts that each device takes its share of a step in, one after another: less "
            "memory, the same gradient, but batch-norm sees a part at a time",
            at_least=1,
            at_most=MANY,
        ),
    ] = 1
    learning_rate: Annotated[
        float,
        about(
            "peak of the schedule: linear warm-up, then half a cosine down to zero",
            above=0,
            at_most=1e30,
        ),
    ] = 0.05
    body_rate: Annotated[
        float,
        about(
            "share of the learning rate that all but the last layer learn with: below 1 for "
            "pretrained weights",
            above=0,
            at_most=1,
        ),
    ] = 1.0
    warmup_epochs: Annotated[float, about("length of the warm-up", at_least=0, at_most=MANY)] = 2.0
    momentum: Annotated[
        float,
        about(
            "of stochastic gradient descent (Nesterov's)",
            at_least=0,
            below=1,
        ),
    ] = 0.9
    weight_decay: Annotated[
        float,
        about(
            "on all weights with two axes or more; biases and batch-norms are left alone",
            at_least=0,
            at_most=1000,
        ),
    ] = 5e-4
    label_smoothing: Annotated[
        float,
        about(
            "share of the label spread over all classes",
            at_least=0,
            below=1,
        ),
    ] = 0.0
    average: Annotated[
        Literal["none", "ema", "swa"],
        about(
            'what is kept: "ema" (average of the weights over steps, with `ema_decay`), '
            '"swa" (equal average over the ends of epochs, batch-norm re-estimated), or '
            '"none" (the weights themselves)',
        ),
    ] = "ema"
    ema_decay: Annotated[
        float,
        about(
            'decay of "ema"; 0: no average',
            at_least=0,
            below=1,
        ),
    ] = 0.0
    swa_from_epoch: Annotated[
        int,
        about(
            'epochs before the first that enters "swa"',
            at_least=0,
            at_most=MANY,
        ),
    ] = 0
    augment: Annotated[
        Literal["none", "light", "standard"],
        about(
            '"none", "light" or "standard" (see `robustmri.training.augment`)',
        ),
    ] = "standard"
    balance: Annotated[
        bool,
        about("in each epoch as many slices of one class as of any other"),
    ] = False
    eps: Annotated[
        str,
        about(
            'radius of the training attack, as text with its units ("0.04", "8/255", '
            '"0.04@normalised")',
        ),
    ] = "0.04"
    norm: Annotated[
        Literal["linf", "l2"],
        about(
            '"linf" or "l2"',
        ),
    ] = "linf"
    attack_steps: Annotated[
        int, about("steps of the training attack", at_least=1, at_most=MANY)
    ] = 7
    attack_step_size: Annotated[
        float, about("length of a step, as a fraction of eps", above=0, at_most=1000)
    ] = 0.25
    eps_ramp_epochs: Annotated[
        float,
        about(
            "eps grows linearly from zero over so many epochs, and over all but the last of a "
            "shorter run",
            at_least=0,
            at_most=MANY,
        ),
    ] = 0.0
    beta: Annotated[
        float,
        about(
            'weight of the divergence in "trades" (6 in its paper) and "mart" (5)',
            at_least=0,
            at_most=MANY,
        ),
    ] = 6.0
    noise: Annotated[
        float,
        about(
            'of "noisy": standard deviation of the noise on every training image, as a fraction of '
            "the [0, 1] range; the sigma that `certify` is to use",
            above=0,
            at_most=10,
        ),
    ] = 0.25
    replays: Annotated[
        int,
        about(
            'of "free": optimiser steps on each batch; the epochs are divided by it',
            at_least=1,
            at_most=MANY,
        ),
    ] = 4
    clean_share: Annotated[
        float,
        about(
            'of "adversarial" and "one-step": share of the loss that is on clean images',
            at_least=0,
            below=1,
        ),
    ] = 0.0
    logit_pairing: Annotated[
        float,
        about(
            "weight of the distance between clean and attacked logits, on top of any attacked "
            "objective",
            at_least=0,
            at_most=MANY,
        ),
    ] = 0.0
    weight_perturbation: Annotated[
        Literal["none", "awp", "sam"],
        about(
            '"awp" or "sam": each step\'s gradient is taken at weights moved uphill; '
            '"none": where they are',
        ),
    ] = "none"
    weight_perturbation_size: Annotated[
        float,
        about(
            'how far: for "awp" a share of each weight\'s norm (0.005 in its paper), for '
            '"sam" a length over all weights (0.05)',
            above=0,
            at_most=1000,
        ),
    ] = 0.005
    dual_batch_norm: Annotated[
        bool,
        about(
            "separate batch-norms for clean and attacked images; the one for attacked images "
            "is kept",
        ),
    ] = False
    guard_steps: Annotated[
        int, about("PGD steps of the robust validation", at_least=1, at_most=MANY)
    ] = 10
    guard_slices: Annotated[int, about("validation slices it looks at; 0: all", at_least=0)] = 128
    clean_cost: Annotated[
        float | None,
        about(
            "which epoch is kept: the most robust one that loses at most so many percentage "
            "points of clean accuracy; None: the one with the best mean of clean and robust "
            "accuracy",
            at_least=0,
            at_most=100,
        ),
    ] = None
    mirrored: Annotated[
        bool,
        about(
            "what is kept answers by the mean of the logits for a slice and for its mirror image: "
            "more accurate, at twice the cost of an answer; training costs the same"
        ),
    ] = False
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        about(
            '"auto", "fp32" or "bf16"',
        ),
    ] = "auto"
    seed: Annotated[
        int, about("of weights, order, augmentation and random starts", at_least=0, at_most=SEEDS)
    ] = 0
    logger: Annotated[
        Literal["none", "tensorboard", "mlflow"],
        about(
            '"tensorboard" or "mlflow": where the rows of epochs.csv are shown too; '
            '"none": nowhere',
        ),
    ] = "none"
    devices: Annotated[int, about("processes or GPUs on each node", at_least=1, at_most=1024)] = 1
    nodes: Annotated[int, about("machines", at_least=1, at_most=10000)] = 1
    minutes: Annotated[
        float,
        about(
            "time for the run: of its `epochs` so many are made as fit on the machine at hand, and "
            "warm-up, ramp of eps and averages shrink with them; 0: as long as it takes",
            at_least=0,
            at_most=MANY,
        ),
    ] = 0.0

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
        msgspec.structs.force_setattr(self, "eps", eps_text(self.eps))
        check_bounds(self)
        check_eps(parse_eps(self.eps), self.norm)
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
