"""Seconds per image and gradient step, and what each of our speed-ups brings by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.contenders import OURS
from benchmarks.inputs import Inputs
from benchmarks.setting import QUICK
from benchmarks.timing import Entry, race, ratios_of, row_of
from robustmri.attacks.engine import by_backpropagation, loss_against
from robustmri.attacks.protocol import Predictor
from robustmri.core.arrays import Images, Labels
from robustmri.models.backbones import build_classifier
from robustmri.models.classifier import Classifier
from robustmri.models.optimised import OptimisedView, fast_precision, simplified
from robustmri.threat.threat_model import ThreatModel

Gradient = Callable[[Images], Images]
REFERENCE = "torchattacks' way"
SPEED_UPS = (
    ("parameters too, .backward()", REFERENCE),
    (REFERENCE, "frozen"),
    ("frozen", "frozen, batch-norm folded"),
    ("frozen, grey in three planes", "frozen"),
    ("frozen", "frozen, channels-last"),
    ("frozen", "frozen, bf16"),
    (f"{OURS}, float32", OURS),
    (OURS, f"{OURS}, a half batch on each core"),
    ("parameters too, .backward()", OURS),
    (REFERENCE, OURS),
)
"""Pairs that differ in one thing, the slower way first; then ours against the two ways of the
peers.
"""


class _ThreePlanes(nn.Module):
    """The same network as one trained on colour pictures has it: the grey plane repeated, a stem of
    three planes.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        name, stem = next(
            (name, part)
            for name, part in self.network.named_modules()
            if isinstance(part, nn.Conv2d)
        )
        planes = copy.deepcopy(stem)
        planes.in_channels = 3
        planes.weight = nn.Parameter(stem.weight.detach().repeat(1, 3, 1, 1) / 3)
        parent, _, child = name.rpartition(".")
        setattr(self.network.get_submodule(parent), child, planes)

    def forward(self, images: Images) -> Tensor:
        logits: Tensor = self.network(images.repeat(1, 3, 1, 1))
        return logits


def _peers_way(classifier: nn.Module, labels: Labels) -> Gradient:
    """torchattacks: `torch.autograd.grad` towards the images, parameters as they are."""

    def gradient(points: Images) -> Images:
        points = points.detach().requires_grad_(True)
        loss = nn.functional.cross_entropy(classifier(points), labels)
        return torch.autograd.grad(loss, points)[0]

    return gradient


def _backward(classifier: nn.Module, labels: Labels) -> Gradient:
    """foolbox and ART: `.backward()`, which computes the parameters' gradients too."""

    def gradient(points: Images) -> Images:
        points = points.detach().requires_grad_(True)
        nn.functional.cross_entropy(classifier(points), labels).backward()
        assert points.grad is not None
        return points.grad

    return gradient


def _ours(view: Predictor, labels: Labels) -> Gradient:
    """As the engine does it."""
    objective, rows = (
        loss_against("cross_entropy", labels, ThreatModel()),
        torch.arange(len(labels)).to(labels),
    )
    return lambda points: by_backpropagation(view, points, rows, objective, {})[2]


def _side_by_side(view: Predictor, labels: Labels) -> Gradient:
    """As many parts as cores, each on a thread with one core, in place of one batch on all
    cores.
    """
    cores = torch.get_num_threads()
    pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))
    parts = [_ours(view, part) for part in labels.tensor_split(cores)]

    def gradient(points: Images) -> Images:
        return torch.cat(
            list(pool.map(lambda part, here: part(here), parts, points.tensor_split(cores)))
        )

    return gradient


def _in_bf16(classifier: nn.Module) -> nn.Module:
    return nn.Sequential(_To(torch.bfloat16), classifier.to(torch.bfloat16), _To(torch.float32))


class _To(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, values: Tensor) -> Tensor:
        return values.to(self.dtype)


def variants(classifier: Classifier, images: Images, labels: Labels) -> dict[str, Gradient]:
    """Name to the gradient of the loss with respect to the images, each on a copy of its own."""

    def frozen() -> Classifier:
        return copy.deepcopy(classifier).requires_grad_(False)

    planes = copy.deepcopy(classifier)
    planes.network = _ThreePlanes(planes.network)
    planes = planes.to(images.device).requires_grad_(False)
    last = frozen().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    made: dict[str, Gradient] = {
        "parameters too, .backward()": _backward(copy.deepcopy(classifier), labels),
        REFERENCE: _peers_way(copy.deepcopy(classifier), labels),
        "frozen": _peers_way(frozen(), labels),
        "frozen, grey in three planes": _peers_way(planes, labels),
        "frozen, batch-norm folded": _peers_way(
            simplified(classifier, images[:2], swap=False)[0], labels
        ),
        "frozen, channels-last": lambda points: in_last(
            points.contiguous(memory_format=torch.channels_last)
        ),
        "frozen, bf16": _peers_way(_in_bf16(frozen()), labels),
        OURS: _ours(OptimisedView(classifier, images[:2]), labels),
        f"{OURS}, float32": _ours(OptimisedView(classifier, images[:2], precision="fp32"), labels),
        f"{OURS}, a half batch on each core": _side_by_side(
            OptimisedView(classifier, images[:2]), labels
        ),
    }
    in_last = _peers_way(last, labels)
    return made


def gradient_steps(inputs: Inputs) -> dict[str, Any]:
    """The record of the task: one table over all networks of `Work.networks`, random weights."""
    rows, ratios, setting = [], [], {}
    for backbone, size, batch in inputs.work.networks:
        where = f"{backbone} at {size} px"
        images, labels, classifier = _example(backbone, size, batch, inputs.device)
        made = variants(classifier, images, labels)
        steps = inputs.work.gradient_steps
        entries = [
            Entry(name, _prepare(gradient, images, steps)) for name, gradient in made.items()
        ]
        inputs.say(where)
        finishes = race(entries, rounds=inputs.rounds, warm_up=inputs.work != QUICK, say=inputs.say)
        expected = made[REFERENCE](images).flatten().double()
        for name, gradient in made.items():
            found = gradient(images).flatten().double()
            cosine = float(found @ expected / (found.norm() * expected.norm()))
            row = row_of(f"{where}: {name}", finishes[name])
            per_step = row["median_seconds"] / (steps * batch) if row["seconds"] else None
            row["ms_per_image_and_step"] = per_step and round(1000 * per_step, 3)
            rows.append(row | {"cosine_to_reference": round(cosine, 4)})
        for pair in ratios_of(finishes, SPEED_UPS):
            ratios.append(pair | {"seconds_of": f"{where}: {pair['seconds_of']}"})
        setting[where] = {
            "batch": batch,
            "steps": steps,
            "bf16": fast_precision(images.device) == "bf16",
        }
    return {
        "title": "One gradient step, random weights",
        "setting": {"device": _device(inputs.device), **setting},
        "rows": rows,
        "ratios": ratios,
        "missing": [],
    }


def _example(
    backbone: str, size: int, batch: int, device: str
) -> tuple[Images, Labels, Classifier]:
    """Noise, labels, and a network whose batch-norms know the noise: untouched ones let activations
    grow and grow.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 1, size, size, generator=generator)
    labels = torch.randint(3, (batch,), generator=generator)
    classifier = build_classifier(backbone, ("meningioma", "glioma", "pituitary"), size).train()
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # The mean over all batches seen, which is one.
    with torch.no_grad():
        classifier(images)
    return images.to(device), labels.to(device), classifier.to(device).eval()


def _prepare(gradient: Gradient, images: Images, steps: int) -> Callable[[bool], Callable[[], Any]]:
    def run(number: int) -> Images:
        points = images
        for _ in range(number):
            points = (points + 0.005 * gradient(points).sign()).clamp(0, 1)
        return points.cpu()  # On a GPU this waits until all is done.

    return lambda warm_up: lambda: run(1 if warm_up else steps)


def _device(name: str) -> str:
    return torch.cuda.get_device_name(name) if name.startswith("cuda") else name
