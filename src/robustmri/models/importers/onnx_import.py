"""An ONNX model as an import: a graph that answers as onnxruntime does, or else a black box."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor

from robustmri.core.errors import CheckpointError
from robustmri.core.sizes import Size, sides, size_of, size_option, size_words
from robustmri.models.black_box import black_box_of, open_session
from robustmri.models.graph import GraphNetwork
from robustmri.models.importers.found import Found
from robustmri.models.importers.onnx_file import (
    declared_input,
    load_model,
    network_of,
    unknown_operators,
)

USUAL_SIZE = 224
TOLERANCE = 1e-3
"""Of the largest output: what float32 may lose on another order of sums."""
NAMED = ("classes", "class_names", "labels", "names")
"""Keys of a model's metadata under which exporters leave the names of the classes."""


def read_onnx_model(
    path: Path, *, size: Size = 0, channels: int = 0, black_box: bool = False
) -> Found:
    """The network of an ONNX file.

    Args:
        path: .onnx file.
        size: height and width of the images, where the file leaves them open.
        channels: planes of the images, where it leaves them open; 0: as many as it takes.
        black_box: run it by onnxruntime even if its operators are known.

    Raises:
        CheckpointError: damaged, not of images, or the graph answers otherwise than onnxruntime.
        SettingsError: the package onnx, or for a black box onnxruntime, is missing.
    """
    return found_in(load_model(path), path.name, size=size, channels=channels, black_box=black_box)


def found_in(
    model: Any,
    file: str,
    *,
    kind: str = "onnx",
    size: Size = 0,
    channels: int = 0,
    black_box: bool = False,
) -> Found:
    """The network of a parsed ONNX model that was made of a file of some kind; for the rest see
    `read_onnx_model`.
    """
    shape = declared_input(model)
    if len(shape) != 4 or _element_type(model) != 1:
        raise CheckpointError(
            f"{file} takes {_described(model, shape)}. Expected images: four axes of float32."
        )
    planes_last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    batch, *rest = (shape[0], shape[3], shape[1], shape[2]) if planes_last else shape
    given, height, width = rest
    declared: Size = size_of(height or width or 0, width or height or 0)
    if declared and size and declared != size:
        raise CheckpointError(
            f"{file} takes images of {size_words(declared)}, --size says {size_option(size)}. "
            "Leave it out."
        )
    side, guessed = declared or size or USUAL_SIZE, []
    if len(model.graph.output) > 1:
        guessed.append(f"Of several outputs the first counts: {model.graph.output[0].name}.")
    unknown = unknown_operators(model)
    content = b""
    if black_box or unknown:
        content = _whole(model, file)
        network: Any = black_box_of(content, file)
        why = f"its operators are not all known here: {', '.join(unknown)}"
        guessed += [f"It only answers, without gradients: {why}."] if unknown else []
    else:
        network = network_of(model)
        if planes_last:
            turned = network.graph.with_planes_first()
            network = GraphNetwork(turned, network.tensors())
    network = network.eval()
    planes = _planes(network, given or channels or None, side, file)
    if isinstance(network, GraphNetwork):
        network = _any_batch(network, batch or 0, _images(planes, side))
        compare_with_runtime(network, model, file, planes, side, batch or 0, planes_last)
    return Found(
        network=network,
        backbone=f"imported-{kind}",
        how="ONNX, run by onnxruntime" if content else "ONNX, a graph of known operators",
        format="black-box" if content else "graph",
        channels=planes,
        size=declared or None,
        classes=_class_names(model),
        mean=_number(model, "mean"),
        std=_number(model, "std"),
        guessed=tuple(guessed),
        black_box=content,
    )


def compare_with_runtime(
    network: GraphNetwork,
    model: Any,
    file: str,
    planes: int,
    side: Size,
    batch: int,
    planes_last: bool,
) -> None:
    """Refuse a graph whose outputs on random images are not onnxruntime's; without that package
    nothing is compared.

    Raises:
        CheckpointError: they differ.
    """
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return
    session = open_session(_whole(model, file), file)
    images = _images(planes, side, batch or 2)
    asked = (images.permute(0, 2, 3, 1) if planes_last else images).contiguous().numpy()
    expected = torch.as_tensor(session.run(None, {session.get_inputs()[0].name: asked})[0])
    with torch.no_grad():
        check_equal(network(images), expected, file, "onnxruntime")


def check_equal(found: Tensor, expected: Tensor, file: str, whose: str) -> None:
    """Refuse outputs that are not the ones that they should be.

    Raises:
        CheckpointError: with the largest difference.
    """
    same = found.shape == expected.shape
    difference = float((found - expected).abs().max()) if same else float("nan")
    if not same or not difference <= TOLERANCE * float(expected.abs().max()):
        raise CheckpointError(
            f"{file}: the graph that was made of it gives {tuple(found.shape)} outputs that differ "
            f"from {whose}'s {tuple(expected.shape)} by up to {difference:.3g}. It is not "
            "imported; --black-box runs it without gradients."
        )


def _any_batch(network: GraphNetwork, batch: int, images: Tensor) -> GraphNetwork:
    """The network for any number of images: as it is, or in batches of what the file fixes.

    What was exported for one image often takes more; whether it does is seen by its answers.
    """
    if not batch:
        return network
    fixed = GraphNetwork(msgspec.structs.replace(network.graph, batch=batch), network.tensors())
    fixed = fixed.eval()
    with torch.no_grad():
        expected = fixed(images)
        try:
            found = network(images)
        except (RuntimeError, IndexError, ValueError):
            return fixed
    same = found.shape == expected.shape and torch.allclose(found, expected, 1e-3, 1e-5)
    return network if same else fixed


def _planes(network: Any, declared: int | None, side: Size, file: str) -> Literal[1, 3]:
    """Planes of the images, as declared, or as many as it takes."""
    if declared in (1, 3):
        return 1 if declared == 1 else 3
    if declared is None:
        choices: tuple[Literal[1, 3], ...] = (3, 1)
        for planes in choices:
            try:
                with torch.no_grad():
                    network(_images(planes, side))
            except Exception:  # Of torch or of onnxruntime.
                continue
            return planes
    raise CheckpointError(f"{file} takes images of {declared or '?'} planes. Expected 1 or 3.")


def _images(planes: int, side: Size, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, planes, *sides(side), generator=generator)


def _element_type(model: Any) -> int:
    made = {value.name for value in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in made]
    return int(given[0].type.tensor_type.elem_type) if given else 0


def _described(model: Any, shape: tuple[int | None, ...]) -> str:
    from onnx import TensorProto

    kind = TensorProto.DataType.Name(_element_type(model))
    return f"{kind} of shape ({', '.join(str(side or '?') for side in shape)})"


def _whole(model: Any, file: str) -> bytes:
    """The model in one piece, weights that lay beside it too."""
    try:
        content: bytes = model.SerializeToString()
    except ValueError as error:  # protobuf's limit of 2 GiB.
        raise CheckpointError(
            f"{file} is too large to be run by onnxruntime from one piece."
        ) from (error)
    return content


def _number(model: Any, key: str) -> float | None:
    """What the images are normalised with, where `export` has left it."""
    for entry in model.metadata_props:
        if entry.key == key:
            try:
                return float(entry.value)
            except ValueError:
                return None
    return None


def _in_order(held: dict[Any, Any]) -> list[Any]:
    """Names by their numbers, whichever of the two are the keys; none where neither are.

    >>> _in_order({"1": "glioma", "0": "none"}), _in_order({"glioma": 1, "none": 0})
    (['none', 'glioma'], ['none', 'glioma'])
    """
    for pairs in (held.items(), [(value, key) for key, value in held.items()]):
        try:
            return [name for _, name in sorted((int(number), name) for number, name in pairs)]
        except (TypeError, ValueError, OverflowError):
            continue
    return []


def _class_names(model: Any) -> tuple[str, ...]:
    """Names that the exporter left: JSON or Python's spelling of a list or of {number: name}, or
    words divided by commas.
    """
    for entry in model.metadata_props:
        if entry.key.lower() in NAMED:
            held: Any = None
            for read in (json.loads, ast.literal_eval):
                try:
                    held = read(entry.value)
                    break
                except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                    continue
            if isinstance(held, dict):
                held = _in_order(held)
            if held is None:
                held = [part.strip() for part in entry.value.split(",")]
            if isinstance(held, list) and all(isinstance(name, str) for name in held):
                return tuple(held)
    return ()
