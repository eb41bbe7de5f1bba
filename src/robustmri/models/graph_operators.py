"""The operators that an imported graph may use: ONNX's names and meaning, torch's arithmetic.

Each takes the input tensors (None where one is left out), the attributes and the version of the
operator set. Only what classifiers of images use is here, and nothing that reads or writes files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from robustmri.core.errors import CheckpointError
from robustmri.models.graph_resize import resize
from robustmri.models.graph_shapes import (
    Attributes,
    Inputs,
    axes_of,
    cast,
    constant_of_shape,
    expand,
    flatten,
    gather,
    pad,
    range_of,
    reshape,
    scatter_nd,
    shape,
    slice_of,
    split,
    squeeze,
    transpose,
    unsqueeze,
    whole_numbers,
)

Operator = Callable[[Inputs, Attributes, int], Any]


def _like(x: Any, reference: Any) -> Any:
    """A constant in the precision of the activations that it meets."""
    both = isinstance(x, Tensor) and isinstance(reference, Tensor)
    if both and x.is_floating_point() and reference.is_floating_point():
        return x.to(reference.dtype)
    return x


def _binary(work: Callable[[Any, Any], Any]) -> Operator:
    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Any:
        a, b = inputs
        smaller = a.dim() < b.dim()
        return work(_like(a, b) if smaller else a, b if smaller else _like(b, a))

    return run


def _unary(work: Callable[[Any], Any]) -> Operator:
    return lambda inputs, attributes, opset: work(inputs[0])


def _folded(work: Callable[[Any, Any], Any]) -> Operator:
    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Any:
        made = inputs[0]
        for other in inputs[1:]:
            made = work(made, other)
        return made

    return run


def _divide(a: Tensor, b: Tensor) -> Tensor:
    whole = not a.is_floating_point() and not b.is_floating_point()
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def _padded(
    x: Tensor, attributes: Attributes, kernel: Sequence[int], value: float = 0.0
) -> tuple[Tensor, list[int]]:
    """`x` with what cannot be left to the operator padded already, and the padding that can be."""
    axes = len(kernel)
    strides = whole_numbers(attributes.get("strides", [1] * axes))
    dilations = whole_numbers(attributes.get("dilations", [1] * axes))
    pads = whole_numbers(attributes.get("pads", [0] * 2 * axes))
    auto = attributes.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = [0] * 2 * axes
        for axis in range(axes):
            size, span = x.shape[2 + axis], (kernel[axis] - 1) * dilations[axis] + 1
            total = max((math.ceil(size / strides[axis]) - 1) * strides[axis] + span - size, 0)
            small, large = total // 2, total - total // 2
            upper = auto == "SAME_UPPER"
            pads[axis], pads[axes + axis] = (small, large) if upper else (large, small)
    begin, end = pads[:axes], pads[axes:]
    if begin == end:
        return x, begin
    around = [side for axis in reversed(range(axes)) for side in (begin[axis], end[axis])]
    return F.pad(x, around, value=value), [0] * axes


def _conv(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    x, weight = inputs[:2]
    bias = inputs[2] if len(inputs) > 2 else None
    axes = weight.dim() - 2
    x, padding = _padded(_like(x, weight), attributes, weight.shape[2:])
    run: Any = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    made: Tensor = run(
        x,
        weight,
        bias,
        stride=whole_numbers(attributes.get("strides", [1] * axes)),
        padding=padding,
        dilation=whole_numbers(attributes.get("dilations", [1] * axes)),
        groups=int(attributes.get("group", 1)),
    )
    return made


def _batch_norm(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    x, scale, bias, mean, variance = (_like(one, inputs[1]) for one in inputs)
    epsilon = float(attributes.get("epsilon", 1e-5))
    return F.batch_norm(x, mean, variance, scale, bias, training=False, eps=epsilon)


def _refuse_cut_windows(name: str, attributes: Attributes) -> None:
    """ONNX and torch disagree about the last window where it reaches into padding."""
    if attributes.get("ceil_mode", 0) and any(whole_numbers(attributes.get("pads", []))):
        raise CheckpointError(f"{name} with padding and ceil_mode is not known.")


def _max_pool(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    kernel = whole_numbers(attributes["kernel_shape"])
    _refuse_cut_windows("MaxPool", attributes)
    x, padding = _padded(inputs[0], attributes, kernel, value=-math.inf)
    run: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    made: Tensor = run(
        x,
        kernel,
        stride=whole_numbers(attributes.get("strides", [1] * len(kernel))),
        padding=padding,
        dilation=whole_numbers(attributes.get("dilations", [1] * len(kernel))),
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
    )
    return made


def _average_pool(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    kernel = whole_numbers(attributes["kernel_shape"])
    counted = bool(attributes.get("count_include_pad", 0))
    if any(step != 1 for step in whole_numbers(attributes.get("dilations", []))):
        raise CheckpointError("AveragePool with dilations is not known.")
    _refuse_cut_windows("AveragePool", attributes)
    x, padding = _padded(inputs[0], attributes, kernel)
    if x is not inputs[0] and not counted:
        raise CheckpointError("AveragePool with uneven padding that is not counted is not known.")
    run: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    made: Tensor = run(
        x,
        kernel,
        stride=whole_numbers(attributes.get("strides", [1] * len(kernel))),
        padding=padding,
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
        count_include_pad=counted,
    )
    return made


def _gemm(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    a, b = _like(inputs[0], inputs[1]), inputs[1]
    a = a.transpose(0, 1) if attributes.get("transA", 0) else a
    b = b.transpose(0, 1) if attributes.get("transB", 0) else b
    alpha, beta = float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
    bias = inputs[2] if len(inputs) > 2 else None
    if alpha == beta == 1.0 and bias is not None and bias.dim() == 1:
        return F.linear(a, b.transpose(0, 1), bias)
    made: Tensor = alpha * (a @ b)
    return made if bias is None else made + beta * bias


def _reduce(work: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Operator:
    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
        x, axes = inputs[0], axes_of(inputs, attributes)
        if not axes:
            if attributes.get("noop_with_empty_axes", 0):
                made: Tensor = x
                return made
            axes = list(range(x.dim()))
        return work(x, tuple(axes), bool(attributes.get("keepdims", 1)))

    return run


def _layer_norm(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    x, scale = _like(inputs[0], inputs[1]), inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    axis = int(attributes.get("axis", -1)) % x.dim()
    return F.layer_norm(
        x, tuple(x.shape[axis:]), scale, bias, float(attributes.get("epsilon", 1e-5))
    )


def _instance_norm(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    x, scale, bias = (_like(one, inputs[1]) for one in inputs)
    return F.instance_norm(x, weight=scale, bias=bias, eps=float(attributes.get("epsilon", 1e-5)))


def _group_norm(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    x, scale, bias = (_like(one, inputs[1]) for one in inputs)
    groups = int(attributes["num_groups"])
    if len(scale) == groups != x.shape[1]:  # One number a group, before operator set 21.
        scale, bias = (one.repeat_interleave(x.shape[1] // groups) for one in (scale, bias))
    return F.group_norm(x, groups, scale, bias, float(attributes.get("epsilon", 1e-5)))


def _mod(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    run = torch.fmod if attributes.get("fmod", 0) else torch.remainder
    return run(inputs[0], inputs[1])


def _clip(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    x = inputs[0]
    low = inputs[1] if len(inputs) > 1 else attributes.get("min")
    high = inputs[2] if len(inputs) > 2 else attributes.get("max")
    low, high = (None if one is None else float(one) for one in (low, high))
    if low is None or high is None:
        made: Tensor = x if low is high else x.clamp(low, high)
        return made
    return F.hardtanh(x, low, high)  # Like ReLU6, and unlike clamp, without a slope at its bounds.


def _softmax(work: Callable[..., Tensor]) -> Operator:
    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
        x = inputs[0]
        axis = int(attributes.get("axis", -1 if opset >= 13 else 1))
        if opset >= 13 or axis % x.dim() == x.dim() - 1:
            return work(x, dim=axis)
        return work(x.flatten(axis), dim=-1).reshape(x.shape)

    return run


def _gelu(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    return F.gelu(inputs[0], approximate=attributes.get("approximate", "none"))


def _prelu(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    x, slope = inputs
    made: Tensor = torch.where(x < 0, slope * x, x)
    return made


OPERATORS: dict[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": cast,
    "Ceil": _unary(torch.ceil),
    "Clip": _clip,
    "Concat": lambda inputs, attributes, opset: torch.cat(
        list(inputs), dim=int(attributes["axis"])
    ),
    "ConstantOfShape": constant_of_shape,
    "Conv": _conv,
    "Cos": _unary(torch.cos),
    "Div": _binary(_divide),
    "Dropout": _unary(lambda x: x),
    "Einsum": lambda inputs, attributes, opset: torch.einsum(attributes["equation"], *inputs),
    "Elu": lambda inputs, attributes, opset: F.elu(inputs[0], attributes.get("alpha", 1.0)),
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": expand,
    "Flatten": flatten,
    "Floor": _unary(torch.floor),
    "Gather": gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _unary(lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True)),
    "GlobalMaxPool": _unary(lambda x: x.amax(tuple(range(2, x.dim())), keepdim=True)),
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "GroupNormalization": _group_norm,
    "HardSigmoid": lambda inputs, attributes, opset: (
        inputs[0] * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5)
    ).clamp(0, 1),
    "HardSwish": _unary(F.hardswish),
    "Identity": _unary(lambda x: x),
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda inputs, attributes, opset: F.leaky_relu(
        inputs[0], attributes.get("alpha", 0.01)
    ),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "LogSoftmax": _softmax(torch.log_softmax),
    "MatMul": _binary(torch.matmul),
    "Max": _folded(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _folded(torch.minimum),
    "Mish": _unary(F.mish),
    "Mod": _mod,
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _binary(torch.logical_or),
    "PRelu": _prelu,
    "Pad": pad,
    "Pow": _binary(torch.pow),
    "Range": range_of,
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceL2": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduce(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keep)),
    "Relu": _unary(F.relu),
    "Reshape": reshape,
    "Resize": resize,
    "Round": _unary(torch.round),
    "ScatterND": scatter_nd,
    "Selu": _unary(F.selu),
    "Shape": shape,
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Slice": slice_of,
    "Softmax": _softmax(torch.softmax),
    "Softplus": _unary(F.softplus),
    "Split": split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": squeeze,
    "Sub": _binary(torch.sub),
    "Sum": _folded(torch.add),
    "Tanh": _unary(torch.tanh),
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
    "Where": lambda inputs, attributes, opset: torch.where(*inputs),
}
"""Name of an ONNX operator to what computes it."""
