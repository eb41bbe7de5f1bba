"""ONNX: a graph of known operators, or a black box where one of them is not known.

An ONNX file is data, but it may name other files that hold its weights: these must lie beside it.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from robustmri.core.errors import CheckpointError, SettingsError, in_short
from robustmri.models.graph import Attribute, Graph, GraphNetwork, Node
from robustmri.models.graph_operators import OPERATORS

LARGEST_BYTES = 4 << 30
"""Of an ONNX file with its weights."""
OLDEST_OPSET = 7


def load_model(path: Path) -> Any:
    """The parsed file with its weights, checked before anything beside it is read.

    Args:
        path: .onnx file; weights in files of their own must lie in its folder.

    Raises:
        CheckpointError: damaged, too large, or its weights lie elsewhere.
        SettingsError: the package onnx is missing.
    """
    onnx = _onnx()
    if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
        raise CheckpointError(f"{path} is not a file of at most {LARGEST_BYTES >> 30} GiB.")
    model = parse(path.read_bytes(), path)
    _refuse_files_elsewhere(model, path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise CheckpointError(
            f"{path}: its weights cannot be read ({in_short(error)}). Put the file that it was "
            "saved with beside it."
        ) from error
    return model


def parse(content: bytes, path: Path) -> Any:
    """The model of an ONNX file's bytes; nothing beside it is read.

    Raises:
        CheckpointError: it is no ONNX file.
        SettingsError: the package onnx is missing.
    """
    onnx = _onnx()
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own errors are of several kinds.
        raise CheckpointError(f"{path} is not an ONNX file ({in_short(error)}).") from error


def unknown_operators(model: Any) -> list[str]:
    """Operators of the file that have no counterpart here, each once."""
    nodes = model.graph.node
    named = dict.fromkeys(_operator(node) for node in nodes)
    return [name for name in named if name not in OPERATORS and name != "Constant"]


def network_of(model: Any) -> GraphNetwork:
    """The network of a parsed ONNX model, differentiable.

    Raises:
        CheckpointError: too old, of several inputs, or with an operator that is not known
            (`unknown_operators` names them; such a file can be a `BlackBox`).
    """
    from onnx import numpy_helper

    graph = model.graph
    opset = max(
        (one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0
    )
    if opset < OLDEST_OPSET:
        raise CheckpointError(
            f"The file follows ONNX operator set {opset}, expected {OLDEST_OPSET} or newer. "
            "Export it again."
        )
    unknown = unknown_operators(model)
    if unknown:
        raise CheckpointError(f"Operators that are not known here: {', '.join(unknown)}.")
    tensors: dict[str, Tensor] = {}
    for value in graph.initializer:
        tensors[value.name] = torch.from_numpy(numpy_helper.to_array(value).copy())
    nodes = []
    for node in graph.node:
        attributes = _attributes(node)
        if node.op_type == "Constant":
            tensors[node.output[0]] = _constant(node)
        else:
            if node.op_type == "Split" and len(node.input) < 2 and "split" not in attributes:
                # Before operator set 18 nothing else says into how many parts.
                attributes.setdefault("num_outputs", len(node.output))
            nodes.append(
                Node(
                    operator=_operator(node),
                    inputs=list(node.input),
                    outputs=list(node.output),
                    attributes=attributes,
                )
            )
    inputs = [value.name for value in graph.input if value.name not in tensors]
    if len(inputs) != 1:
        raise CheckpointError(f"Expected one input, the images; the file has {inputs or 'none'}.")
    return GraphNetwork(
        Graph(input=inputs[0], output=graph.output[0].name, nodes=nodes, opset=opset), tensors
    )


def declared_input(model: Any) -> tuple[int | None, ...]:
    """Shape of the images that the file declares; None where it may vary."""
    made = {value.name for value in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in made:
            sizes = value.type.tensor_type.shape.dim
            return tuple(one.dim_value if one.HasField("dim_value") else None for one in sizes)
    return ()


def _operator(node: Any) -> str:
    return str(node.op_type) if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _attributes(node: Any) -> dict[str, Attribute]:
    from onnx import AttributeProto, helper, numpy_helper

    found: dict[str, Attribute] = {}
    for one in node.attribute:
        if one.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            raise CheckpointError(f"{node.op_type} holds a graph of its own: not known here.")
        if one.type == AttributeProto.TENSOR:
            if node.op_type == "ConstantOfShape":
                found["value_type"] = int(one.t.data_type)
                found["value"] = numpy_helper.to_array(one.t).reshape(-1)[0].item()
            continue
        value = helper.get_attribute_value(one)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, (list, tuple)) or (
            hasattr(value, "__len__") and not isinstance(value, str)
        ):
            value = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
        found[one.name] = value
    return found


def _constant(node: Any) -> Tensor:
    from onnx import helper, numpy_helper

    (one,) = node.attribute
    if one.name == "value":
        return torch.from_numpy(numpy_helper.to_array(one.t).copy())
    return torch.tensor(helper.get_attribute_value(one))


def _refuse_files_elsewhere(model: Any, path: Path) -> None:
    """A weight may lie in a file of its own: in the same folder, a plain file, no link."""
    names = external_files(model)
    total = path.stat().st_size
    for name in sorted(names):
        beside = path.parent / name
        plain = PurePosixPath(name).parts == (name,) and "\\" not in name and name != ".."
        if not plain or beside.is_symlink() or not beside.is_file():
            raise CheckpointError(
                f"{path} wants weights from {name!r}. Expected a file in the same folder."
            )
        total += beside.stat().st_size
    if total > LARGEST_BYTES:
        raise CheckpointError(f"{path} and its weights take {total >> 20} MiB, more than allowed.")


def external_files(message: Any) -> set[str]:
    """Names of the files that any tensor of a model lies in, in graphs within graphs too."""
    if message.DESCRIPTOR.name == "TensorProto":
        return {entry.value for entry in message.external_data if entry.key == "location"}
    found: set[str] = set()
    for field, value in message.ListFields():
        if field.message_type is not None:
            several = not hasattr(value, "DESCRIPTOR")
            found |= set().union(*map(external_files, value if several else [value]))
    return found


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise SettingsError(
            "Reading ONNX needs the package onnx. Install it: pip install 'robustmri[import]'."
        ) from error
    return onnx
