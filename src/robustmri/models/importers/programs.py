"""What runs the author's code or pickles when it is opened: TorchScript, torch.export's .pt2, a
whole pickled network, or a function that builds one. Opened once, if it is trusted, and turned into
a graph.
"""

from __future__ import annotations

import importlib
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustmri.core.errors import CheckpointError, SettingsError, in_short
from robustmri.core.sizes import Size, sides, size_of, size_words
from robustmri.models.exporters import quiet, to_onnx
from robustmri.models.importers.found import Found
from robustmri.models.importers.onnx_file import declared_input
from robustmri.models.importers.onnx_import import USUAL_SIZE, check_equal, found_in
from robustmri.models.importers.weights_file import check_pickles
from robustmri.models.layouts import read_published

Kind = Literal["torchscript", "pt2", "state"]
KINDS = {
    "torchscript": "TorchScript",
    "pt2": "torch.export",
    "pickle": "a pickled network",
    "function": "built by a function",
    "transformers": "built by transformers",
    "bundle": "MONAI bundle",
}
FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def kind_of(path: Path) -> Kind:
    """What a .pt, .pth or .pt2 file holds, by the names in its archive."""
    if not zipfile.is_zipfile(path):
        return "state"
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] or name for name in archive.namelist()]
    if any(name.startswith("code/") or name == "constants.pkl" for name in names):
        return "torchscript"
    exported = ("archive_format", "serialized_exported_program.json", "archive_version")
    return "pt2" if any(name in exported for name in names) else "state"


def is_factory(model: str) -> bool:
    """Whether the words name a function of a module.

    >>> is_factory("package.module:build"), is_factory("model.onnx")
    (True, False)
    """
    return FACTORY.fullmatch(model) is not None


def read_program(
    path: Path, kind: Kind, *, size: Size = 0, channels: int = 0, trust: bool = False
) -> Found:
    """The network of a TorchScript or .pt2 file; for `size` and `channels` see `found_by_export`.

    Raises:
        SettingsError: it is not trusted, or a package that the conversion needs is missing.
        CheckpointError: damaged, or its graph answers otherwise than it does.
    """
    what = "a TorchScript program" if kind == "torchscript" else "a program of torch.export"
    refuse_code(path.name, what, trust)
    try:
        with quiet():
            if kind == "torchscript":
                module: Any = torch.jit.load(str(path), map_location="cpu").eval()
            else:
                program = torch.export.load(path)
                module = program.module()
    # The two readers raise a dozen kinds for damaged bytes, none of them common to all.
    except Exception as error:
        raise CheckpointError(f"{path.name} cannot be opened ({in_short(error)}).") from error
    if kind == "torchscript":
        return found_by_export(module, path.name, "torchscript", size=size, channels=channels)
    shape = program.example_inputs[0][0].shape if program.example_inputs else None
    return found_by_export(
        module, path.name, "pt2", size=size, channels=channels, program=program, shape=shape
    )


def read_factory(
    name: str,
    *,
    weights: Path | None = None,
    size: Size = 0,
    channels: int = 0,
    trust: bool = False,
) -> Found:
    """The network that a function of one's own builds, with weights from a file.

    Args:
        name: "package.module:function"; it is called without arguments and gives an nn.Module.
        weights: a state_dict that fits it exactly.
        size: see `found_by_export`.
        channels: likewise.
        trust: see `refuse_code`.
    """
    refuse_code(name, "code of its author's", trust)
    module, _, function = name.partition(":")
    try:
        network = getattr(importlib.import_module(module), function)()
    except Exception as error:  # It is code: anything may come.
        raise SettingsError(
            f"{name} could not be called without arguments ({type(error).__name__}: "
            f"{in_short(error)})."
        ) from error
    if not isinstance(network, nn.Module):
        raise SettingsError(f"{name} gave {type(network).__name__}. Expected an nn.Module.")
    if weights is not None:
        load_exactly(network, weights, trust)
    return found_by_export(network.eval(), name, "function", size=size, channels=channels)


def read_pickled(
    path: Path, *, size: Size = 0, channels: int = 0, trust: bool = False
) -> Found | None:
    """The network of a file of `torch.save(network, path)`; None where it holds something else."""
    if not trust:
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # It is code: anything may come.
        raise CheckpointError(f"{path.name} cannot be opened ({in_short(error)}).") from error
    if not isinstance(content, nn.Module):
        return None
    return found_by_export(content.eval(), path.name, "pickle", size=size, channels=channels)


def load_exactly(network: nn.Module, weights: Path, trust: bool) -> None:
    """Load a state_dict in which nothing is missing and nothing is left over.

    Raises:
        CheckpointError: it does not fit.
    """
    check_pickles(weights, trust)
    try:
        network.load_state_dict(read_published(weights, trust=trust).tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{weights.name} does not fit the network ({in_short(error)})."
        ) from error


def found_by_export(
    module: nn.Module,
    name: str,
    kind: str,
    *,
    size: Size = 0,
    channels: int = 0,
    program: Any = None,
    shape: tuple[int, ...] | None = None,
) -> Found:
    """A graph that answers as the module does.

    Args:
        module: in evaluation mode; one batch of images in, one tensor out.
        name: for messages.
        kind: of file, a key of `KINDS`.
        size: of its images; 0: as `shape` says, else `USUAL_SIZE`.
        channels: planes of its images; 0: as `shape` says, else as its first convolution has.
        program: torch.export's, where the module is made from one.
        shape: of the images that it was exported with.

    Raises:
        CheckpointError: torch cannot export it, or the graph answers otherwise.
        SettingsError: a package is missing.
    """
    planes = shape[1] if shape else channels or _planes_of(module)
    side = size or (size_of(*shape[2:4]) if shape else USUAL_SIZE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = torch.randn(2, planes, *sides(side))
        with torch.no_grad(), quiet():
            try:
                expected = _tensor_of(module(images))
            except Exception as error:  # It is code: anything may come.
                raise CheckpointError(
                    f"{name} cannot be run on two images of {planes} planes and "
                    f"{size_words(side)} ({in_short(error)}). Name their size with --size, their "
                    "planes with --channels; a program must take any number of images."
                ) from error
            model = to_onnx(module, images, name, program=program)
    found = found_in(model, name, kind=kind, size=0 if _fixed(model) else side)
    with torch.no_grad():
        check_equal(found.network(images), expected, name, "the network")
    kept = "a graph of known operators" if found.format == "graph" else "run by onnxruntime"
    known = side if size or shape else None
    return replace(found, how=f"{KINDS[kind]}, as {kept}", size=known)


def refuse_code(name: str, what: str, trust: bool) -> None:
    """Refuse to run somebody's code unless its user vouches for it.

    Raises:
        SettingsError: nobody does.
    """
    if not trust:
        raise SettingsError(
            f"{name} is {what}: to open it is to run it, with all your rights. If you know who "
            "made it, add --trust; else ask for an ONNX file or for .safetensors, which are data."
        )


def _fixed(model: Any) -> bool:
    """Whether the model fixes the size of its images."""
    return declared_input(model)[2] is not None


def _planes_of(module: nn.Module) -> int:
    """Planes that the first convolution takes; 3 where there is none."""
    kernels = (one for one in module.parameters() if one.dim() == 4)
    first = next(kernels, None)
    planes = 3 if first is None else int(first.shape[1])
    return planes if planes in (1, 3) else 3


def _tensor_of(output: Any) -> Tensor:
    for name in ("logits", "out"):
        if not isinstance(output, Tensor):
            output = getattr(output, name, output)
    if isinstance(output, (tuple, list)):
        output = output[0]
    if isinstance(output, dict):
        output = output.get("logits", next(iter(output.values())))
    made: Tensor = output
    return made
