"""Each operator of an imported graph does what ONNX says, told by the reference that comes with
ONNX.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from robustmri.core.errors import CheckpointError
from robustmri.models.graph_operators import OPERATORS
from robustmri.models.importers.onnx_file import network_of

onnx = pytest.importorskip("onnx")


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


X = drawn(2, 4, 6, 5)
ROWS = drawn(3, 4)
POSITIVE = np.abs(ROWS) + 0.1
KERNEL = drawn(6, 2, 3, 3, seed=1)
FOUR, SIX = drawn(4, seed=2), drawn(6, seed=3)
WHOLE = ints(-7, -1, 2, 7, 9)
TRUTHS = np.array([True, True, False]), np.array([True, False, False])
NOTHING = np.array([], dtype=np.float32)

# Operator, inputs (None: left out), attributes, and the operator set where it is not 17.
CASES: list[Any] = [
    *((name, [ROWS], {}, 17) for name in ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Identity")),
    *((name, [ROWS], {}, 17) for name in ("Neg", "Relu", "Selu", "Sigmoid", "Sign", "Sin", "Tanh")),
    *((name, [ROWS], {}, 18) for name in ("Softplus", "HardSwish", "Mish", "Dropout")),
    *((name, [POSITIVE], {}, 17) for name in ("Log", "Reciprocal", "Sqrt")),
    *((name, [ROWS, FOUR], {}, 17) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu")),
    *((name, [X, drawn(4, 1, 1, seed=4)], {}, 17) for name in ("Add", "Div", "PRelu", "Sum")),
    *((name, [FOUR, ROWS], {}, 17) for name in ("Sub", "Div")),
    *((name, [WHOLE, ints(2, 2, 2, 9, -9)], {}, 17) for name in ("Div", "Mod", "Equal")),
    *(
        (name, [WHOLE, ints(2, -1, 2, 9, -9)], {}, 17)
        for name in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual")
    ),
    *((name, [*TRUTHS], {}, 17) for name in ("And", "Or")),
    ("Not", [TRUTHS[0]], {}, 17),
    ("Where", [TRUTHS[0], drawn(3), drawn(3, seed=1)], {}, 17),
    ("Round", [np.array([0.5, 1.5, -2.5, 2.6], dtype=np.float32)], {}, 17),
    ("Pow", [POSITIVE, FOUR], {}, 17),
    ("Sum", [ROWS, ROWS, FOUR], {}, 17),
    ("Max", [ROWS, FOUR, ROWS[:1]], {}, 17),
    ("Min", [ROWS, FOUR, ROWS[:1]], {}, 17),
    ("MatMul", [ROWS, drawn(2, 4, 5)], {}, 17),
    ("Einsum", [ROWS, ROWS], {"equation": "ik,jk->ij"}, 17),
    ("Elu", [ROWS], {}, 17),
    ("Elu", [ROWS], {"alpha": 0.3}, 17),
    ("LeakyRelu", [ROWS], {}, 17),
    ("LeakyRelu", [ROWS], {"alpha": 0.3}, 17),
    ("HardSigmoid", [3 * ROWS], {}, 17),
    ("HardSigmoid", [3 * ROWS], {"alpha": 0.1, "beta": 0.6}, 17),
    ("Gelu", [ROWS], {}, 20),
    ("Gelu", [ROWS], {"approximate": "tanh"}, 20),
    ("Clip", [ROWS, np.float32(-0.5), np.float32(0.3)], {}, 17),
    ("Clip", [ROWS, None, np.float32(0.3)], {}, 17),
    ("Clip", [ROWS, np.float32(-0.5)], {}, 17),
    ("Clip", [ROWS], {"min": -0.5, "max": 0.3}, 6),
    ("Softmax", [X], {}, 17),
    ("Softmax", [X], {"axis": 1}, 17),
    ("LogSoftmax", [ROWS], {}, 11),
    # Convolutions and pools.
    ("Conv", [X, KERNEL[:, :, :, :3], SIX], {"group": 2}, 17),
    ("Conv", [X, drawn(6, 4, 3, 2)], {"pads": [1, 1, 1, 1], "strides": [2, 1]}, 17),
    ("Conv", [X, drawn(6, 4, 3, 2)], {"pads": [0, 1, 2, 0]}, 17),
    ("Conv", [X, drawn(6, 4, 3, 2)], {"dilations": [2, 1]}, 17),
    ("Conv", [X, drawn(6, 4, 3, 2)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 17),
    ("Conv", [X, drawn(6, 4, 3, 2)], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, 17),
    ("Conv", [X, drawn(6, 4, 3, 2)], {"auto_pad": "VALID"}, 17),
    ("Conv", [X[..., 0], drawn(6, 4, 3)], {}, 17),
    ("MaxPool", [X], {"kernel_shape": [3, 2], "strides": [2, 1]}, 17),
    ("MaxPool", [X - 9], {"kernel_shape": [3, 3], "pads": [1, 0, 0, 1]}, 17),
    ("MaxPool", [X], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 17),
    ("MaxPool", [X], {"kernel_shape": [2, 2], "dilations": [2, 2]}, 17),
    ("AveragePool", [X], {"kernel_shape": [3, 2], "strides": [2, 1]}, 17),
    ("AveragePool", [X], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 17),
    (
        "AveragePool",
        [X],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        17,
    ),
    (
        "AveragePool",
        [X],
        {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1], "count_include_pad": 1},
        17,
    ),
    ("AveragePool", [X], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 17),
    ("GlobalAveragePool", [X], {}, 17),
    ("GlobalMaxPool", [X], {}, 17),
    # Norms.
    ("BatchNormalization", [X, FOUR, FOUR + 1, FOUR - 1, np.abs(FOUR)], {"epsilon": 0.1}, 17),
    ("LayerNormalization", [X, SIX[:5]], {}, 17),
    ("LayerNormalization", [X, drawn(6, 5), drawn(6, 5, seed=1)], {"axis": 2, "epsilon": 0.1}, 17),
    ("InstanceNormalization", [X, FOUR, FOUR + 1], {"epsilon": 0.1}, 17),
    ("GroupNormalization", [X, FOUR[:2], FOUR[2:]], {"num_groups": 2, "epsilon": 0.1}, 18),
    ("GroupNormalization", [X, FOUR, FOUR + 1], {"num_groups": 2}, 21),
    ("Gemm", [ROWS, drawn(4, 5), drawn(5)], {}, 17),
    ("Gemm", [ROWS, drawn(5, 4)], {"transB": 1, "alpha": 0.5}, 17),
    (
        "Gemm",
        [ROWS, drawn(3, 5), drawn(4, 1)],
        {"transA": 1, "alpha": 0.5, "beta": 2.0},
        17,
    ),
    # Sums over axes.
    *(
        (name, [X], {"axes": [1, -1], "keepdims": 0}, 13)
        for name in ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin")
    ),
    *(
        (name, [X, ints(2)], {}, 18)
        for name in ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum")
    ),
    ("ReduceSum", [X], {"keepdims": 0}, 13),
    ("ReduceSum", [X], {"noop_with_empty_axes": 1}, 13),
    # Shapes.
    ("Reshape", [X, ints(0, -1, 5)], {}, 17),
    ("Reshape", [X[:0], ints(3, 0)], {"allowzero": 1}, 17),
    ("Squeeze", [X[:1, :, :1]], {}, 17),
    ("Squeeze", [X[:1, :, :1], ints(2)], {}, 17),
    ("Squeeze", [X[:1, :, :1]], {"axes": [0]}, 11),
    ("Unsqueeze", [ROWS, ints(-1, 0)], {}, 17),
    ("Unsqueeze", [ROWS], {"axes": [1]}, 11),
    ("Flatten", [X], {}, 17),
    ("Flatten", [X], {"axis": 0}, 17),
    ("Flatten", [X], {"axis": 4}, 17),
    ("Flatten", [X], {"axis": -1}, 17),
    ("Transpose", [X], {"perm": [0, 3, 1, 2]}, 17),
    ("Transpose", [X], {}, 17),
    ("Concat", [ROWS, ROWS + 1], {"axis": -1}, 17),
    ("Shape", [X], {}, 17),
    ("Shape", [X], {"start": 1, "end": -1}, 17),
    ("Slice", [X, ints(1), ints(4)], {}, 17),
    ("Slice", [X, ints(1, -3), ints(9, -1), ints(2, -1)], {}, 17),
    ("Slice", [X, ints(0, 4), ints(6, 0), ints(2, 3), ints(2, -1)], {}, 17),
    ("Slice", [X, ints(4), ints(2), ints(1)], {}, 17),
    ("Slice", [X], {"starts": [1], "ends": [3], "axes": [1]}, 9),
    ("Slice", [X], {"starts": [1, 1], "ends": [2, 3]}, 9),
    ("Split", [X], {"axis": 1, "num_outputs": 2}, 18),
    ("Split", [X], {"axis": 3, "num_outputs": 2}, 18),
    ("Split", [X, ints(1, 3)], {"axis": 1}, 17),
    ("Split", [X], {"axis": 1, "split": [3, 1]}, 11),
    ("Gather", [X, ints(0, -1)], {"axis": 2}, 17),
    ("Gather", [X, np.array([[1, 0], [0, 1]])], {}, 17),
    ("Gather", [ROWS, np.array(-2)], {"axis": -1}, 17),
    ("ScatterND", [ROWS, np.array([[0, 1], [2, 3]]), drawn(2)], {}, 17),
    ("ScatterND", [ROWS, np.array([[2]]), drawn(1, 4)], {}, 17),
    ("Expand", [ROWS[:, None], ints(2, 1)], {}, 17),
    ("Cast", [3 * ROWS], {"to": 7}, 17),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 3, 0)], {}, 17),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 3, 0), np.float32(2)], {"mode": "constant"}, 17),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 3, 0)], {"mode": "reflect"}, 17),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 3, 0)], {"mode": "edge"}, 17),
    ("Pad", [X, ints(1, 3), None, ints(-1)], {}, 18),
    ("Range", [np.float32(1), np.float32(2), np.float32(0.25)], {}, 17),
    ("Range", [np.int64(5), np.int64(0), np.int64(-2)], {}, 17),
    # Sizes.
    ("Resize", [X, NOTHING, np.float32([1, 1, 2, 2])], {}, 17),
    ("Resize", [X, NOTHING, np.float32([1, 1, 2, 2])], {"mode": "linear"}, 17),
    ("Resize", [X, None, None, ints(2, 4, 9, 7)], {"mode": "linear"}, 17),
    (
        "Resize",
        [X, None, None, ints(2, 4, 9, 7)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        17,
    ),
    ("Resize", [X, None, None, ints(2, 4, 12, 10)], {"mode": "cubic"}, 17),
    (
        "Resize",
        [X, NOTHING, np.float32([1, 1, 2, 2])],
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        17,
    ),
]
# What a classifier seldom has: either as ONNX has it, or refused; never another answer.
SELDOM: list[tuple[str, list[Any], dict[str, Any], int]] = [
    ("Mod", [3 * ROWS, FOUR], {"fmod": 1}, 17),
    ("AveragePool", [X], {"kernel_shape": [2, 2], "dilations": [2, 2]}, 19),
    ("Resize", [X, NOTHING, np.float32([1, 2, 2, 2])], {}, 17),
    ("Resize", [X, NOTHING, np.float32([1, 1, 1.3, 1.7])], {"mode": "linear"}, 17),
    ("Resize", [X, None, None, ints(2, 4, 9, 7)], {}, 17),
    *(
        (
            "Resize",
            [X, None, None, ints(2, 4, 9, 7)],
            {"mode": mode, "coordinate_transformation_mode": places},
            17,
        )
        for mode, places in (
            ("linear", "asymmetric"),
            ("nearest", "asymmetric"),
            ("nearest", "align_corners"),
            ("nearest", "half_pixel"),
            ("linear", "align_corners"),
            ("linear", "pytorch_half_pixel"),
            ("cubic", "half_pixel"),
            ("cubic", "asymmetric"),
        )
    ),
    *(
        ("Resize", [X, NOTHING, np.float32([1, 1, 1.6, 0.7])], {"nearest_mode": way, **places}, 17)
        for way in ("floor", "ceil", "round_prefer_ceil", "round_prefer_floor")
        for places in ({}, {"coordinate_transformation_mode": "asymmetric"})
    ),
    (
        "Resize",
        [X, None, None, ints(2, 4, 1, 1)],
        {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
        17,
    ),
    ("Resize", [X, None, None, ints(2, 4, 9, 7)], {"mode": "cubic", "cubic_coeff_a": -0.5}, 17),
    (
        "MaxPool",
        [X],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        17,
    ),
    ("Clip", [X], {}, 17),
    ("Pad", [ROWS, ints(1, 0, 1, 2)], {"mode": "reflect"}, 17),
    ("Pad", [ROWS, ints(1, 0, 1, 2)], {"mode": "edge"}, 17),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "wrap"}, 19),
    ("Resize", [X, None, None, ints(2, 4, 3, 2)], {"mode": "linear", "antialias": 1}, 18),
    ("Resize", [X, None, None, ints(2, 4, 9, 7)], {"mode": "cubic", "exclude_outside": 1}, 17),
]


def by_reference(name: str, inputs: list[Any], attributes: dict[str, Any], opset: int) -> list[Any]:
    from onnx.reference import ReferenceEvaluator

    kept = {f"i{k}": np.asarray(one) for k, one in enumerate(inputs) if one is not None}
    names = ["" if one is None else f"i{k}" for k, one in enumerate(inputs)]
    parts = 2 if name == "Split" else 1
    outputs = [f"o{k}" for k in range(parts)]
    node = onnx.helper.make_node(name, names, outputs, **attributes)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [value(k, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in kept.items()],
        [value(k, onnx.TensorProto.FLOAT, None) for k in outputs],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    found: list[Any] = ReferenceEvaluator(model).run(None, kept)
    return found


@pytest.mark.parametrize(
    ("name", "inputs", "attributes", "opset"),
    CASES,
    ids=[f"{k}-{getattr(case, 'values', case)[0]}" for k, case in enumerate(CASES)],
)
def test_is_the_operator_of_the_reference(name, inputs, attributes, opset):
    given = [None if one is None else torch.from_numpy(np.array(one)) for one in inputs]
    found = OPERATORS[name](given, attributes, opset)
    found = found if isinstance(found, tuple) else (found,)
    expected = by_reference(name, inputs, attributes, opset)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == np.shape(other)
        # 1e-5: float32, added in another order.
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "inputs", "attributes", "opset"), SELDOM)
def test_no_setting_is_overlooked(name, inputs, attributes, opset):
    given = [None if one is None else torch.from_numpy(np.array(one)) for one in inputs]
    try:
        found = OPERATORS[name](given, attributes, opset)
    except CheckpointError:
        return
    (expected,) = by_reference(name, inputs, attributes, opset)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("axis", "shape"), [(None, (2, 120)), (2, (8, 30)), (3, (48, 5))])
def test_softmax_before_operator_set_13_is_over_all_later_axes(axis, shape):
    """The reference knows the newer one alone."""
    x = torch.from_numpy(X)
    attributes = {} if axis is None else {"axis": axis}
    found = OPERATORS["Softmax"]([x], attributes, 11)
    torch.testing.assert_close(found, x.reshape(shape).softmax(1).reshape(x.shape))


@pytest.mark.parametrize(
    ("name", "inputs", "attributes", "said"),
    [
        ("Cast", [ROWS], {"to": 8}, "Cast to ONNX type 8"),
        ("ScatterND", [ROWS, ints(0), ROWS[0]], {"reduction": "add"}, "with a reduction"),
        ("Range", [np.int64(0), np.int64(1), np.int64(0)], {}, "from 0 to 1 by 0"),
        ("Range", [np.int64(0), np.int64((1 << 26) + 1), np.int64(1)], {}, "too long"),
        ("Expand", [FOUR, ints(1 << 25, 4)], {}, "more than"),
        ("ConstantOfShape", [ints(2, -1)], {}, "more than"),
        ("Resize", [X], {}, "without sizes and without scales"),
        ("Resize", [X, NOTHING, NOTHING], {}, "without sizes and without scales"),
        ("AveragePool", [X], {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]}, "uneven padding"),
    ],
)
def test_refuses(name, inputs, attributes, said):
    given = [None if one is None else torch.from_numpy(np.array(one)) for one in inputs]
    with pytest.raises(CheckpointError, match=said):
        OPERATORS[name](given, attributes, 17)


@pytest.mark.parametrize("kind", [1, 7])
def test_a_tensor_of_one_value_has_the_type_asked_for(kind):
    attributes = {"value": 3, "value_type": kind}
    made = OPERATORS["ConstantOfShape"]([torch.tensor([2, 3])], attributes, 17)
    assert made.tolist() == [[3, 3, 3], [3, 3, 3]]
    assert made.dtype == {1: torch.float32, 7: torch.int64}[kind]
    zeros = OPERATORS["ConstantOfShape"]([torch.tensor([], dtype=torch.int64)], {}, 17)
    assert (zeros.shape, zeros.item(), zeros.dtype) == ((), 0.0, torch.float32)


@pytest.mark.parametrize("flipped", [False, True])
def test_a_constant_takes_the_precision_of_what_it_meets(flipped):
    x, one = torch.rand(2, 3, dtype=torch.float64), torch.tensor([0.1])
    made = OPERATORS["Sub"]([one, x] if flipped else [x, one], {}, 17)
    assert made.dtype == torch.float64


def test_bounds_like_those_of_relu6_have_no_slope_at_them():
    x = torch.tensor([-1.0, 0.0, 3.0, 6.0], requires_grad=True)
    made = OPERATORS["Clip"]([x, torch.tensor(0.0), torch.tensor(6.0)], {}, 17)
    (slope,) = torch.autograd.grad(made.sum(), x)
    assert slope.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(("parts", "opset"), [(2, 13), (4, 13), (4, 11), (4, 18)])
def test_equal_parts_are_as_many_as_are_named(parts, opset):
    """Before operator set 18 nothing else says how many."""
    value = onnx.helper.make_tensor_value_info
    names = [f"o{k}" for k in range(parts)]
    told = {"num_outputs": parts} if opset >= 18 else {}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Split", ["x"], names, axis=1, **told),
            onnx.helper.make_node("Concat", names[:0:-1], ["y"], axis=1),
        ],
        "one",
        [value("x", onnx.TensorProto.FLOAT, X.shape)],
        [value("y", onnx.TensorProto.FLOAT, [None] * 4)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    onnx.checker.check_model(model)
    found = network_of(model)(torch.from_numpy(X))
    assert np.array_equal(found.numpy(), np.concatenate(np.split(X, parts, 1)[:0:-1], 1))
