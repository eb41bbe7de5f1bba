"""The one training loop, on Lightning Fabric; the only file that imports it."""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robustmri.arrays import Images, Labels
from robustmri.attacks import PGD
from robustmri.errors import CheckpointError, RobustMRIError
from robustmri.models.classifier import Classifier
from robustmri.models.optimised import OptimisedView, fast_precision
from robustmri.progress import Progress, silent
from robustmri.provenance import atomic_file, discard_unfinished
from robustmri.threat.eps import parse_eps
from robustmri.threat.threat_model import ThreatModel
from robustmri.training.augment import augmentation
from robustmri.training.objectives import Batch, Objective, adversarial, standard
from robustmri.training.selection import Epoch, best_epoch
from robustmri.training.settings import TrainSettings

STATE = "resume.pt"


@dataclass(frozen=True)
class Examples:
    """Images in [0, 1], shape (n, 1, size, size), and their labels."""

    images: Images
    labels: Labels


def threat_of(settings: TrainSettings, classifier: Classifier) -> ThreatModel:
    """The threat model that the settings train against."""
    return ThreatModel(norm=settings.norm, eps=parse_eps(settings.eps).in_image_units(classifier.spec.std))


def objective_of(settings: TrainSettings, classifier: Classifier) -> Objective:
    """The objective that the settings name."""
    if settings.objective == "standard":
        return standard(settings.label_smoothing)
    return adversarial(
        # The last iterate, as the method has it: the best of all would be the same point most of the time.
        PGD(steps=settings.attack_steps, step_size=settings.attack_step_size, keep="last"),
        threat_of(settings, classifier),
        ramp_epochs=settings.eps_ramp_epochs,
        label_smoothing=settings.label_smoothing,
        precision=None if settings.precision == "auto" else settings.precision,
    )


def fit(
    classifier: Classifier,
    train: Examples,
    validation: Examples,
    settings: TrainSettings,
    run: Path,
    *,
    progress: Progress = silent,
) -> tuple[Classifier, Epoch]:
    """Train `classifier`; returns the best epoch's weights and its row.

    Everything random is drawn from (seed, epoch, step), and after each epoch `run`/resume.pt holds the whole state, so
    a run that was killed goes on from its last finished epoch and ends with the same weights.

    Args:
        classifier: where to start from; trained in place.
        train: examples to learn from.
        validation: examples, of other patients if the split is patient-wise, to choose the epoch on.
        settings: see `TrainSettings`.
        run: folder for epochs.csv and resume.pt.
        progress: told after each step.

    Raises:
        RobustMRIError: the loss is not finite any more.
    """
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # Its precision is in our settings already.
    fabric = Fabric(
        accelerator="auto" if torch.cuda.is_available() else "cpu",
        devices=settings.devices,
        num_nodes=settings.nodes,
        precision=_fabric_precision(settings),
    )
    fabric.launch()
    device = fabric.device
    train, validation = (Examples(part.images.to(device), part.labels.to(device)) for part in (train, validation))
    classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(classifier, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True)
    optimiser = torch.optim.SGD(
        _parameter_groups(classifier, settings.weight_decay), settings.learning_rate, settings.momentum, nesterov=True
    )
    model, optimiser = fabric.setup(classifier, optimiser)
    objective, change = objective_of(settings, classifier), augmentation(settings.augment)
    steps = math.ceil(len(train.labels) / settings.batch_size)
    if fabric.is_global_zero:
        discard_unfinished(run)
    history, kept = _resume(run / STATE, classifier, average, optimiser, device)

    for epoch in range(len(history), settings.epochs):
        started, losses = time.monotonic(), []
        model.train()
        for step, rows in enumerate(_batches(len(train.labels), settings, epoch, fabric)):
            now = epoch + step / steps
            for group in optimiser.param_groups:
                group["lr"] = _learning_rate(now, settings)
            seed = _seed(settings.seed, epoch, step, fabric.global_rank)
            batch = Batch(
                change(train.images[rows], seed).contiguous(memory_format=torch.channels_last),
                train.labels[rows],
                now,
                torch.Generator().manual_seed(seed),
            )
            loss = objective(model, batch)
            optimiser.zero_grad()
            fabric.backward(loss)
            optimiser.step()
            if settings.ema_decay:
                average.update_parameters(classifier)
            losses.append(loss.detach())
            progress("training", epoch * steps + step + 1, settings.epochs * steps, _note(history))
        mean = torch.stack(losses).mean()
        mean_loss = float(fabric.all_reduce(mean) if fabric.world_size > 1 else mean)  # type: ignore[arg-type]
        if not math.isfinite(mean_loss):
            raise RobustMRIError(
                f"The loss is {mean_loss} in epoch {epoch + 1}; this run cannot go on. Start another one, in another "
                f"--out, with a lower learning_rate (now {settings.learning_rate:g})."
            )
        candidate = average.module if settings.ema_decay else classifier
        row = _validate(candidate, validation, settings, epoch, mean_loss, time.monotonic() - started)
        history.append(row)
        if best_epoch(history) == row:
            kept = {name: value.detach().clone() for name, value in candidate.state_dict().items()}
        if fabric.is_global_zero:
            _save(run, classifier, average, optimiser, history, kept)
        fabric.barrier()

    classifier.load_state_dict(kept)
    return classifier.cpu().to(memory_format=torch.contiguous_format).eval(), best_epoch(history)  # type: ignore[call-overload]


def on_one_process(work: Callable[[], None]) -> None:
    """Do `work` on the first of the processes that train together; the others wait until it is done."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not several or torch.distributed.get_rank() == 0:
        work()
    if several:
        torch.distributed.barrier()


def _fabric_precision(settings: TrainSettings) -> Any:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = fast_precision(device) if settings.precision == "auto" else settings.precision
    return {"fp32": "32-true", "bf16": "bf16-mixed"}[precision]


def _parameter_groups(classifier: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    parameters = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.dim() > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.dim() <= 1], "weight_decay": 0.0},
    ]


def _learning_rate(now: float, settings: TrainSettings) -> float:
    """Linear warm-up, then half a cosine; `now` in epochs."""
    if now < settings.warmup_epochs:
        return settings.learning_rate * (now + 0.1) / (settings.warmup_epochs + 0.1)
    share = (now - settings.warmup_epochs) / max(settings.epochs - settings.warmup_epochs, 1e-9)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def _seed(*parts: int) -> int:
    """One seed from several numbers, without collisions between neighbours."""
    seed = 0
    for part in parts:
        seed = (seed * 6364136223846793005 + part + 1442695040888963407) % 2**63
    return seed


def _batches(n: int, settings: TrainSettings, epoch: int, fabric: Any) -> Iterator[Tensor]:
    """This rank's rows of each global batch; the order depends on seed and epoch alone."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(_seed(settings.seed, epoch)))
    for rows in order.split(settings.batch_size):
        mine = rows[fabric.global_rank :: fabric.world_size] if len(rows) >= fabric.world_size else rows
        yield mine.to(fabric.device)


def _validate(
    classifier: nn.Module, validation: Examples, settings: TrainSettings, epoch: int, loss: float, seconds: float
) -> Epoch:
    """The epoch's row. The robust accuracy is by a margin attack, which the training attack is not."""
    view = OptimisedView(classifier, validation.images)
    with torch.no_grad():
        logits = torch.cat([view(part) for part in validation.images.split(64)])
    right = logits.argmax(1) == validation.labels
    accuracy = right.float().mean().item()
    eps, robust = 0.0, None
    if settings.objective == "adversarial":
        threat = threat_of(settings, classifier)  # type: ignore[arg-type]
        eps = float(threat.eps)
        if settings.eps_ramp_epochs:
            eps *= min(1.0, (epoch + 1) / settings.eps_ramp_epochs)
        # Without a radius the whole validation set has the answer, and the epoch of standard training is chosen.
        robust = _robust_accuracy(view, validation, right, threat, settings) if threat.eps else accuracy
    return Epoch(
        epoch=epoch + 1, learning_rate=_learning_rate(float(epoch), settings), eps=eps, train_loss=loss,
        validation_accuracy=accuracy, validation_robust_accuracy=robust, seconds=round(seconds, 1),
    )  # fmt: skip


def _robust_accuracy(
    view: OptimisedView, validation: Examples, right: Tensor, threat: ThreatModel, settings: TrainSettings
) -> float:
    n = len(right)
    # Evenly spaced: the cohort lists slices patient by patient.
    looked_at = torch.linspace(0, n - 1, min(settings.guard_slices or n, n)).round().long().unique().to(right.device)
    rows = looked_at[right[looked_at]]
    if not len(rows):
        return 0.0
    attack = PGD(steps=settings.guard_steps, step_size=2.5 / settings.guard_steps, loss="margin", stop_when_fooled=True)
    generator = torch.Generator().manual_seed(settings.seed)
    images, labels = validation.images[rows], validation.labels[rows]
    attacked = attack(view, images, labels, threat, generator=generator)
    with torch.no_grad():
        held = torch.cat([~threat.fooled(view(part), truth) for part, truth in
                          zip(attacked.split(64), labels.split(64), strict=True)])  # fmt: skip
    return held.float().sum().item() / len(looked_at)


def _note(history: list[Epoch]) -> str:
    if not history:
        return ""
    last = history[-1]
    robust = last.validation_robust_accuracy
    return f"epoch {last.epoch}: validation {last.validation_accuracy:.1%}" + (
        "" if robust is None else f", robust {robust:.1%}"
    )


def _save(
    run: Path, classifier: nn.Module, average: nn.Module, optimiser: Any, history: list[Epoch], kept: dict[str, Tensor]
) -> None:
    state = {
        "classifier": classifier.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "history": [msgspec.to_builtins(row) for row in history],
        "kept": kept,
    }
    # Bytes first: on a full disk torch's own writer raises an error that does not say so.
    content = io.BytesIO()
    torch.save(state, content)
    with atomic_file(run / STATE) as partial:
        partial.write_bytes(content.getbuffer())
    with atomic_file(run / "epochs.csv") as partial, open(partial, "w", newline="") as stream:
        table = csv.DictWriter(stream, Epoch.__struct_fields__)
        table.writeheader()
        table.writerows(msgspec.to_builtins(row) for row in history)


def _resume(
    path: Path, classifier: nn.Module, average: nn.Module, optimiser: Any, device: torch.device
) -> tuple[list[Epoch], dict[str, Tensor]]:
    """Put a stored state back, if there is one; returns the epochs that are done and the best weights so far."""
    if not path.exists():
        return [], {}
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        classifier.load_state_dict(state["classifier"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        return msgspec.convert(state["history"], list[Epoch]), state["kept"]
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be used to go on ({error}). Remove it to start this run from its beginning."
        ) from error
