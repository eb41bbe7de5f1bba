"""Classifiers as their authors hand them over: each kind of file, written by its own library."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SIDE = 32


def author_network(
    outputs: int = 3, planes: int = 3, end: nn.Module | None = None
) -> nn.Sequential:
    """Small, in evaluation mode, with statistics of its own; each call gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(outputs + planes)
        network = nn.Sequential(
            nn.Conv2d(planes, 4, 3, stride=2, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(4),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(64, outputs),
            *([] if end is None else [end]),
        )
        norm: Any = network[1]
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return network.eval()


def build() -> nn.Module:
    """What `foreign:build` names."""
    return author_network()


def example(planes: int = 3, count: int = 2) -> Tensor:
    """Images of the network's size."""
    return torch.rand(count, planes, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def planes_of(network: nn.Module) -> int:
    """Planes that it takes."""
    return int(next(one for one in network.parameters() if one.dim() == 4).shape[1])


def quietly(work: Callable[[], Any]) -> Any:
    """Exporters warn of themselves; an author has seen it."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work()
    finally:
        logger.setLevel(before)


def write_onnx(
    network: nn.Module, path: Path, *, batch: int = 0, images: Tensor | None = None
) -> Path:
    """By torch's exporter, for any number of images or for batches of so many."""
    images = example(planes_of(network), batch or 2) if images is None else images
    buffer = io.BytesIO()
    free = {} if batch else {"dynamic_axes": {"images": {0: "n"}, "outputs": {0: "n"}}}
    export: Any = torch.onnx.export
    quietly(
        lambda: export(
            network,
            (images,),
            buffer,
            input_names=["images"],
            output_names=["outputs"],
            dynamo=False,
            **free,
        )
    )
    path.write_bytes(buffer.getvalue())
    return path


def write_state(network: nn.Module, path: Path) -> Path:
    """torch.save of its state."""
    torch.save(network.state_dict(), path)
    return path


def write_safetensors(network: nn.Module, path: Path) -> Path:
    """safetensors of its state."""
    from safetensors.torch import save_file

    save_file(network.state_dict(), path)
    return path


def write_script(network: nn.Module, path: Path) -> Path:
    """TorchScript, scripted."""
    quietly(lambda: torch.jit.script(network).save(str(path)))
    return path


def write_trace(network: nn.Module, path: Path) -> Path:
    """TorchScript, traced."""
    quietly(lambda: torch.jit.trace(network, example(planes_of(network))).save(str(path)))  # type: ignore[no-untyped-call]
    return path


def write_exported(network: nn.Module, path: Path) -> Path:
    """torch.export's program for any number of images."""
    shapes = ({0: torch.export.Dim("n")},)
    images = example(planes_of(network))
    quietly(
        lambda: torch.export.save(
            torch.export.export(network, (images,), dynamic_shapes=shapes), path
        )
    )
    return path


def write_pickle(network: nn.Module, path: Path) -> Path:
    """The whole network, pickled."""
    torch.save(network, path)
    return path
