"""Operators of an imported graph that move, cut, count and make, without arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from robustmri.core.errors import CheckpointError

Inputs = Sequence[Any]
Attributes = Mapping[str, Any]

# ONNX's numbers of element types.
TYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
LARGEST_SHAPE = 1 << 26
"""Elements that an operator which makes a tensor from a shape may ask for."""


def whole_numbers(value: Any) -> list[int]:
    """A list of whole numbers from an attribute or from a tensor."""
    if isinstance(value, Tensor):
        return [int(one) for one in value.reshape(-1).tolist()]
    return [int(one) for one in ([value] if isinstance(value, int) else value)]


def axes_of(inputs: Inputs, attributes: Attributes) -> list[int] | None:
    """Axes: an input in newer operator sets, an attribute before."""
    if len(inputs) > 1 and inputs[1] is not None:
        return whole_numbers(inputs[1])
    return whole_numbers(attributes["axes"]) if "axes" in attributes else None


def reshape(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """Another shape."""
    x, shape = inputs[0], whole_numbers(inputs[1])
    if not attributes.get("allowzero", 0):
        shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    made: Tensor = x.reshape(tuple(shape))
    return made


def squeeze(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """Without axes of length 1."""
    x, axes = inputs[0], axes_of(inputs, attributes)
    if axes is None:
        axes = [axis for axis, size in enumerate(x.shape) if size == 1]
    made: Tensor = x.squeeze(tuple(axes))
    return made


def unsqueeze(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """With further axes of length 1."""
    x, axes = inputs[0], axes_of(inputs, attributes) or []
    room = x.dim() + len(axes)
    for axis in sorted(axis % room for axis in axes):
        x = x.unsqueeze(axis)
    made: Tensor = x
    return made


def flatten(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """Two axes."""
    x = inputs[0]
    axis = int(attributes.get("axis", 1))
    axis += x.dim() if axis < 0 else 0
    made: Tensor = x.reshape(math.prod(x.shape[:axis]), -1)
    return made


def slice_of(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """A part along some axes."""
    x = inputs[0]
    if opset >= 10:
        starts, ends = whole_numbers(inputs[1]), whole_numbers(inputs[2])
        given = inputs[3] if len(inputs) > 3 else None
        axes = whole_numbers(given) if given is not None else list(range(len(starts)))
        given = inputs[4] if len(inputs) > 4 else None
        steps = whole_numbers(given) if given is not None else [1] * len(starts)
    else:
        starts, ends = whole_numbers(attributes["starts"]), whole_numbers(attributes["ends"])
        axes = whole_numbers(attributes.get("axes", range(len(starts))))
        steps = [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        where = range(*slice(start, end, step).indices(x.shape[axis]))
        if step > 0:
            length = max(len(where), 0)
            stop = where.start + (length - 1) * step + 1 if length else where.start
            x = x[(slice(None),) * (axis % x.dim()) + (slice(where.start, stop, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(where), device=x.device))
    made: Tensor = x
    return made


def split(inputs: Inputs, attributes: Attributes, opset: int) -> tuple[Tensor, ...]:
    """Parts along an axis."""
    x, axis = inputs[0], int(attributes.get("axis", 0))
    if len(inputs) > 1 and inputs[1] is not None:
        return torch.split(x, whole_numbers(inputs[1]), dim=axis)
    if "split" in attributes:
        return torch.split(x, whole_numbers(attributes["split"]), dim=axis)
    parts = int(attributes.get("num_outputs", 2))
    return torch.split(x, -(-x.shape[axis] // parts), dim=axis)


def gather(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """Picked along an axis."""
    x, index = inputs
    axis = int(attributes.get("axis", 0)) % x.dim()
    index = torch.where(index < 0, index + x.shape[axis], index).to(torch.int64)
    picked = x.index_select(axis, index.reshape(-1))
    made: Tensor = picked.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))
    return made


def scatter_nd(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """With some elements replaced."""
    x, index, updates = inputs
    if attributes.get("reduction", "none") != "none":
        raise CheckpointError("ScatterND with a reduction is not known.")
    made: Tensor = x.index_put(index.to(torch.int64).unbind(-1), updates.to(x.dtype))
    return made


def shape(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """The sizes."""
    sizes = list(inputs[0].shape)
    start, end = attributes.get("start", 0), attributes.get("end", len(sizes))
    return torch.tensor(sizes[start:end], dtype=torch.int64, device=inputs[0].device)


def constant_of_shape(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """A tensor of one value."""
    sizes = whole_numbers(inputs[0])
    if min(sizes, default=1) < 0 or math.prod(sizes) > LARGEST_SHAPE:
        raise CheckpointError(f"ConstantOfShape asks for {sizes}, more than {LARGEST_SHAPE}.")
    kind = TYPES.get(int(attributes.get("value_type", 1)), torch.float32)
    value = attributes.get("value", 0.0)
    return torch.full(sizes, value, dtype=kind, device=inputs[0].device)


def expand(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """Repeated along axes of length 1."""
    x = inputs[0]
    sizes = torch.broadcast_shapes(x.shape, whole_numbers(inputs[1]))
    if math.prod(sizes) > LARGEST_SHAPE:
        raise CheckpointError(f"Expand asks for {list(sizes)}, more than {LARGEST_SHAPE}.")
    made: Tensor = x.expand(sizes)
    return made


def cast(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """In another element type."""
    kind = TYPES.get(int(attributes["to"]))
    if kind is None:
        raise CheckpointError(f"Cast to ONNX type {attributes['to']} is not known.")
    # A view of lower precision stays in it, where the author meant "any float".
    stays = inputs[0].dtype == torch.bfloat16 and kind == torch.float32
    made: Tensor = inputs[0] if stays else inputs[0].to(kind)
    return made


def pad(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """With a border."""
    x = inputs[0]
    pads = whole_numbers(inputs[1] if opset >= 11 else attributes["pads"])
    given = inputs[2] if opset >= 11 and len(inputs) > 2 else attributes.get("value", 0.0)
    value = 0.0 if given is None else float(given)
    axes = (
        whole_numbers(inputs[3])
        if len(inputs) > 3 and inputs[3] is not None
        else list(range(x.dim()))
    )
    half = len(pads) // 2
    sides = {axis % x.dim(): (pads[k], pads[half + k]) for k, axis in enumerate(axes)}
    mode = attributes.get("mode", "constant")
    if mode == "constant":
        around = [side for axis in reversed(range(x.dim())) for side in sides.get(axis, (0, 0))]
        return F.pad(x, around, value=value)
    for axis, (before, after) in sides.items():
        if before or after:
            x = x.index_select(axis, _beyond(mode, x.shape[axis], before, after).to(x.device))
    made: Tensor = x
    return made


def _beyond(mode: str, length: int, before: int, after: int) -> Tensor:
    """Which places a border repeats."""
    places = torch.arange(-before, length + after)
    if mode == "edge":
        return places.clamp(0, length - 1)
    if mode == "wrap":
        return places % length
    if mode != "reflect":
        raise CheckpointError(f"Pad in mode {mode!r} is not known.")
    period = max(2 * (length - 1), 1)
    return (length - 1) - ((places % period) - (length - 1)).abs()


def transpose(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """Axes in another order."""
    x = inputs[0]
    made: Tensor = x.permute(*whole_numbers(attributes.get("perm", range(x.dim())[::-1])))
    return made


def range_of(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """Numbers in order."""
    start, limit, step = (one.item() for one in inputs)
    if not step or (limit - start) / step > LARGEST_SHAPE:
        raise CheckpointError(f"Range from {start} to {limit} by {step} is too long.")
    return torch.arange(start, limit, step, dtype=inputs[0].dtype, device=inputs[0].device)
