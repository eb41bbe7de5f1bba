"""The one training loop; standard training and every repair run through it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from torch import Tensor, nn

from robustmri.core import processes
from robustmri.core.errors import RobustMRIError, SettingsError
from robustmri.core.files import discard_unfinished
from robustmri.core.progress import Progress, silent
from robustmri.models.classifier import Classifier
from robustmri.models.dual_norm import collapsed, make_dual
from robustmri.models.optimised import fast_precision
from robustmri.models.weights import head_of
from robustmri.training.averages import Average, average_of
from robustmri.training.batches import Examples, Part, batches, seed_of, steps_of
from robustmri.training.cost import MEASURED, TimeEstimate, estimate_time
from robustmri.training.deadline import (
    Fitted,
    fit_settings,
    fitting_epochs,
    next_pass,
    read_fitted,
    write_fitted,
)
from robustmri.training.history import Choice, TrainingHistory, safer
from robustmri.training.launch import launch
from robustmri.training.loggers import close_logger, log_epoch, open_logger
from robustmri.training.minimax import Objective
from robustmri.training.objectives import objective_of
from robustmri.training.resume import Stateful, Storing, resume, save, write_epochs
from robustmri.training.schedule import eps_at, learning_rate
from robustmri.training.selection import Epoch, rollback_epoch
from robustmri.training.settings import TrainSettings
from robustmri.training.validation import clean_accuracy, validate
from robustmri.training.weight_perturbation import moved

WORTH_MEASURING = 10
"""The expected cost is measured where the run is so many times as long as measuring it."""
MEASURING = 0.1
"""Share of a limited time after which no further batch is measured."""
TOO_SHORT = 2.0
"""So few seconds are not spent on measuring: one epoch, be it cut short, is all there is."""
Value = TypeVar("Value")


def fit(
    classifier: Classifier,
    train: Examples,
    validation: Examples,
    settings: TrainSettings,
    run: Path,
    *,
    repair: bool = False,
    progress: Progress = silent,
) -> tuple[Classifier, Choice]:
    """Train `classifier`; returns the weights of the epoch that was chosen, and the choice.

    Everything random is drawn from (seed, epoch, step), and after an epoch `run`/resume.pt holds
    the whole state, so a run that was killed goes on from its last finished epoch and ends with the
    same weights. Where an epoch shows that training went astray, the weights of the epoch that was
    best until then are put back, and it goes on from them with half the learning rate, and one-step
    training with two steps.

    Args:
        classifier: where to start from; trained in place.
        train: examples to learn from.
        validation: examples, of other patients if the split is patient-wise, to choose the epoch
            on.
        settings: see `TrainSettings`.
        run: folder for epochs.csv and resume.pt; all processes must see the same one.
        repair: whether `classifier` has been trained: `clean_cost` is then counted from its
            accuracy.
        progress: told after each step, on the first process.

    Raises:
        RobustMRIError: the loss is not finite any more and no sound epoch lies behind, or another
            process has ended.
        SettingsError: as many processes as the settings ask for cannot be had.
    """
    entered = time.monotonic()
    fabric = launch(settings.devices, settings.nodes, precision=_fabric_precision(settings))
    device, first = fabric.device, fabric.is_global_zero
    train, validation = (
        Examples(part.images.to(device), part.labels.to(device)) for part in (train, validation)
    )
    asked = msgspec.structs.replace(settings, mirrored=classifier.spec.mirrored)
    classifier = classifier.answering(mirrored=False)
    if settings.dual_batch_norm:
        make_dual(classifier)
    if fabric.world_size > 1 and device.type == "cuda":  # Torch has it for GPUs alone.
        classifier = nn.SyncBatchNorm.convert_sync_batchnorm(classifier)
    classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    settings, fitted = _fit_to_minutes(
        fabric, classifier, train, validation, settings, run, entered
    )
    average = average_of(settings, classifier)
    model, optimiser = fabric.setup(classifier, _optimiser(classifier, settings))
    if first:
        discard_unfinished(run)
    with processes.explain_lost_process():
        stored = _stored(classifier, optimiser, average)
        history = resume(run, stored, device, clean_cost=settings.clean_cost) or TrainingHistory(
            settings.clean_cost,
            _on_main_process(fabric, lambda: clean_accuracy(classifier, validation, asked))
            if repair
            else None,
        )
        objective = objective_of(safer(settings, history.alarms), classifier)
        steps, passes = (
            steps_of(len(train.labels), settings),
            math.ceil(settings.epochs / objective.replays),
        )
        epochs_per_pass = settings.epochs / passes
        seconds, each = (fitted.seconds, fitted.seconds_per_epoch) if fitted else (None, None)
        each = each and each * objective.replays

        def batches_of(pass_index: int) -> Iterator[list[Part]]:
            return batches(
                train,
                settings,
                pass_index,
                begins=begins,
                epochs_per_pass=length * steps / own_steps,
                rank=fabric.global_rank,
                ranks=fabric.world_size,
            )

        def where() -> tuple[float, float, int]:
            """Where the next pass begins, and how far it goes, in epochs; and its steps."""
            taken = [row.seconds for row in history.epochs]
            begins, length, share = next_pass(taken, passes, seconds, each)
            return (
                begins * epochs_per_pass,
                length * epochs_per_pass,
                max(1, math.ceil(share * steps)),
            )

        logger = open_logger(settings, run, history.epochs) if first else None

        left = 0 if history.over else passes - len(history.epochs)
        # At its end eps has grown.
        begins, length, own_steps = settings.epochs - epochs_per_pass, epochs_per_pass, steps
        if seconds is None and left * min(steps, MEASURED + 1) >= WORTH_MEASURING * (MEASURED + 1):
            cost = _expected_cost(
                fabric, classifier, objective, settings, validation, batches_of, left, steps
            )
            if first:
                progress("training", (passes - left) * steps, passes * steps, str(cost))

        storing = Storing()
        spent, started = sum(row.seconds for row in history.epochs), time.monotonic()
        ends = math.inf if seconds is None else started + seconds - spent
        begins, length, own_steps = where()
        while length and not history.over:
            pass_index, losses = len(history.epochs), []
            model.train()
            with _drawing(device, seed_of(settings.seed, pass_index, fabric.global_rank)):
                for step, parts in enumerate(islice(batches_of(pass_index), own_steps)):
                    if step and fabric.world_size == 1 and time.monotonic() > ends:
                        break  # Far slower than measured: what has been learnt may still be kept.
                    rate = learning_rate(begins + step / own_steps * length, settings)
                    for group in optimiser.param_groups:
                        # A run that was begun before there were shares has none.
                        group["lr"] = group.get("share", 1.0) * history.rate_factor * rate
                    for replay in range(objective.replays):
                        losses.append(
                            _step(fabric, model, optimiser, objective, parts, replay, settings)
                        )
                        _average_statistics(fabric, classifier)
                        average.after_step(classifier)
                    if first:
                        progress(
                            "training", pass_index * steps + step + 1, passes * steps, history.note
                        )
            loss = float(fabric.all_reduce(torch.stack(losses).mean()))
            if not math.isfinite(loss) and not rollback_epoch(history.epochs):
                raise RobustMRIError(
                    f"The loss is {loss} in epoch {pass_index + 1}; this run cannot go on. Start "
                    "another one, in another --out, with a lower learning_rate (now "
                    f"{settings.learning_rate:g})."
                )
            average.after_epoch(classifier, round(begins + length), _images(batches_of(pass_index)))
            candidate = average.kept(classifier)
            _average_statistics(fabric, candidate)
            measured = _on_main_process(fabric, lambda: validate(candidate, validation, settings))  # noqa: B023
            now, before = time.monotonic(), started
            started = now
            row = Epoch(
                epoch=pass_index + 1,
                learning_rate=history.rate_factor * learning_rate(begins, settings),
                eps=eps_at(begins + length, settings, classifier),
                train_loss=loss,
                validation_accuracy=measured.clean,
                validation_robust_accuracy=measured.robust,
                validation_fgsm_accuracy=measured.one_step,
                zero_gradient_share=measured.zero_gradients,
                worst_class_accuracy=measured.worst_class,
                worst_class_robust_accuracy=measured.worst_class_robust,
                seconds=round(fabric.broadcast(now - before), 1),
            )
            back = history.add(row, candidate)
            if back is not None:
                classifier.load_state_dict(back)
                optimiser.state.clear()
                average = average_of(settings, classifier)
                objective = objective_of(safer(settings, history.alarms), classifier)
            begins, length, own_steps = where()
            if first:
                write_epochs(run, history)
                storing.maybe(
                    lambda: save(run, _stored(classifier, optimiser, average), history),  # noqa: B023
                    last=not length or history.over,
                )
            log_epoch(logger, row)
            fabric.barrier()

    close_logger(logger)
    choice = history.choice()
    classifier.load_state_dict(history.kept[choice.row.epoch])
    classifier = collapsed(classifier).answering(mirrored=settings.mirrored)
    return classifier.cpu().to(memory_format=torch.contiguous_format).eval(), choice  # type: ignore[call-overload]


@contextmanager
def _drawing(device: torch.device, seed: int) -> Iterator[None]:
    """What a network draws by itself, as dropout does, follows from the seed, and leaves torch's
    own generators as they were.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _step(
    fabric: Any,
    model: nn.Module,
    optimiser: Any,
    objective: Objective,
    parts: list[Part],
    replay: int,
    settings: TrainSettings,
) -> Tensor:
    """One step of the optimiser; returns this process's part of the loss."""
    optimiser.zero_grad()
    # Once, before the weights move: those that are moved and those that step see the same images.
    found = [
        (objective.attack(model, batch._replace(replay=replay)), weight) for batch, weight in parts
    ]

    def descend(objective: Objective) -> Tensor:
        losses = []
        for number, (batch, weight) in enumerate(found, start=1):
            with fabric.no_backward_sync(model, enabled=number < len(found)):
                loss = objective(model, batch) * weight
                fabric.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    # The objective is not told of gradients at moved weights: Free takes one step for each step of
    # the weights.
    silent = replace(objective, listen=None)
    with moved(
        settings.weight_perturbation,
        model,
        lambda: descend(silent),
        size=settings.weight_perturbation_size,
    ):
        loss = descend(objective)
    optimiser.step()
    return loss


def _expected_cost(
    fabric: Any,
    classifier: Classifier,
    objective: Objective,
    settings: TrainSettings,
    validation: Examples,
    batches_of: Callable[[int], Iterator[list[Part]]],
    left: int,
    steps: int,
    most: float = math.inf,
) -> TimeEstimate:
    """What the `left` passes will cost, measured on a copy of the network."""
    twin = copy.deepcopy(classifier)
    model, optimiser = fabric.setup(twin, _optimiser(twin, settings))
    share = chain.from_iterable(batches_of(pass_index) for pass_index in count())

    def learn() -> None:
        parts = next(share)
        for replay in range(objective.replays):
            float(_step(fabric, model, optimiser, objective, parts, replay, settings))

    model.train()
    return estimate_time(
        learn,
        lambda: validate(twin, validation, settings),
        batches=left * steps,
        validations=left,
        most=most,
    )


def expected_time(
    classifier: Classifier, train: Examples, validation: Examples, settings: TrainSettings
) -> TimeEstimate:
    """What the whole run would take on this machine, measured on a few batches; `classifier` stays
    as it is.
    """
    fabric = launch(settings.devices, settings.nodes, precision=_fabric_precision(settings))
    train, validation = (
        Examples(part.images.to(fabric.device), part.labels.to(fabric.device))
        for part in (train, validation)
    )
    classifier = copy.deepcopy(classifier).to(fabric.device).answering(mirrored=False)
    if settings.dual_batch_norm:
        make_dual(classifier)
    each = _cost_of_epoch(fabric, classifier, train, validation, settings)
    seconds = each.seconds * settings.epochs
    most = 60 * settings.minutes if settings.minutes else math.inf
    return replace(each, seconds=min(seconds, most))


def _cost_of_epoch(
    fabric: Any,
    classifier: Classifier,
    train: Examples,
    validation: Examples,
    settings: TrainSettings,
    most: float = math.inf,
) -> TimeEstimate:
    """One with the full eps."""
    objective, steps = objective_of(settings, classifier), steps_of(len(train.labels), settings)

    def last_pass(pass_index: int) -> Iterator[list[Part]]:
        ranks = {"rank": fabric.global_rank, "ranks": fabric.world_size}
        return batches(train, settings, pass_index, begins=settings.epochs - 1.0, **ranks)

    cost = _expected_cost(
        fabric, classifier, objective, settings, validation, last_pass, 1, steps, most
    )
    return replace(cost, seconds=cost.seconds / objective.replays)


def _fit_to_minutes(
    fabric: Any,
    classifier: Classifier,
    train: Examples,
    validation: Examples,
    settings: TrainSettings,
    run: Path,
    entered: float,
) -> tuple[TrainSettings, Fitted | None]:
    """The settings with the epochs that fit into `minutes`, and how that was found; None: as long
    as it takes.

    Measured once, before the first epoch; a resumed run finds the number in its folder.
    """
    if not settings.minutes:
        return settings, None
    fitted = _on_main_process(fabric, lambda: read_fitted(run))
    if fitted is None:
        whole, each = 60 * settings.minutes, math.inf
        if _on_main_process(fabric, lambda: whole - (time.monotonic() - entered) > TOO_SHORT):
            each = _cost_of_epoch(
                fabric, classifier, train, validation, settings, MEASURING * whole
            ).seconds
        seconds = max(whole - (time.monotonic() - entered), 0.0)
        fitted = _on_main_process(
            fabric,
            lambda: Fitted(
                minutes=settings.minutes,
                seconds=round(seconds, 1),
                seconds_per_epoch=None if math.isinf(each) else round(each, 3),
                epochs=fitting_epochs(
                    seconds,
                    each,
                    settings.epochs,
                    replays=objective_of(settings, classifier).replays,
                ),
            ),
        )
        if fabric.is_global_zero:
            write_fitted(run, fitted)
    return fit_settings(settings, fitted.epochs), fitted


def _images(steps: Iterator[list[Part]]) -> Iterator[Tensor]:
    """The images of a pass, to re-estimate batch-norm from."""
    return (part.batch.images for parts in steps for part in parts)


def _average_statistics(fabric: Any, network: nn.Module) -> None:
    """Give all processes the mean of batch-norm's running statistics: each saw its own images."""
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if fabric.world_size == 1 or not buffers:
        return
    mean = fabric.all_reduce(torch.cat([buffer.flatten() for buffer in buffers]))
    for buffer, part in zip(
        buffers, mean.split([buffer.numel() for buffer in buffers]), strict=True
    ):
        buffer.copy_(part.view_as(buffer))


def _on_main_process(fabric: Any, work: Callable[[], Value]) -> Value:
    """What `work` gives on the first process, on all: so that all go the same way."""
    value: Value = fabric.broadcast(work() if fabric.is_global_zero else None)
    return value


def _stored(classifier: nn.Module, optimiser: Any, average: Average) -> dict[str, Stateful]:
    """What a resumed run goes on from."""
    parts: dict[str, Any] = {"classifier": classifier, "optimiser": optimiser}
    return parts if average.kind == "none" else {**parts, "average": average}


def _fabric_precision(settings: TrainSettings) -> Any:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = fast_precision(device) if settings.precision == "auto" else settings.precision
    return {"fp32": "32-true", "bf16": "bf16-mixed"}[precision]


def _optimiser(classifier: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov's momentum; norms and biases do not decay, and all
    but the last layer may learn more slowly.
    """
    last = set(head_of(classifier)) if settings.body_rate < 1 else set()
    if settings.body_rate < 1 and not last:
        raise SettingsError(
            "body_rate lets all but the last linear layer learn more slowly, and this network has "
            "none. Leave it at 1, with a smaller learning_rate."
        )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            decay = settings.weight_decay if parameter.dim() > 1 else 0.0
            share = 1.0 if not last or name in last else settings.body_rate
            groups.setdefault((decay, share), []).append(parameter)
    return torch.optim.SGD(
        [
            {"params": parameters, "weight_decay": decay, "share": share}
            for (decay, share), parameters in groups.items()
        ],
        settings.learning_rate,
        settings.momentum,
        nesterov=settings.momentum > 0,
    )
