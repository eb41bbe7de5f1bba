"""An ONNX file becomes known operators; what is not known, or lies elsewhere, is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from robustmri.core.errors import CheckpointError
from robustmri.models.importers.onnx_file import declared_input, load_model, read_onnx

onnx = pytest.importorskip("onnx")


@pytest.fixture
def weight() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)


def write(path: Path, nodes: list, weight: np.ndarray) -> Path:
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", float32, ["n", 1, 4, 4])],
        [helper.make_tensor_value_info("y", float32, ["n", 3])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, str(path))
    return path


def linear(operator: str = "Gemm") -> list:
    make = onnx.helper.make_node
    return [make("Flatten", ["x"], ["f"]), make(operator, ["f", "w"], ["y"], transB=1)]


def test_its_answer_and_its_gradient(tmp_path, weight):
    path = write(tmp_path / "net.onnx", linear(), weight)
    images = torch.rand(5, 1, 4, 4).requires_grad_()
    logits = read_onnx(path)(images)
    expected = images.flatten(1) @ torch.tensor(weight).T
    torch.testing.assert_close(logits, expected)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), images)
    torch.testing.assert_close(gradient[0].flatten(), torch.tensor(weight[1]))
    assert declared_input(load_model(path)) == (None, 1, 4, 4)


def test_an_operator_that_is_not_known_is_named(tmp_path, weight):
    path = write(tmp_path / "net.onnx", linear("Loop"), weight)
    with pytest.raises(CheckpointError, match="not known here: Loop"):
        read_onnx(path)


def test_what_is_no_onnx_file_is_said(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"not a network")
    with pytest.raises(CheckpointError, match="not an ONNX file"):
        read_onnx(tmp_path / "net.onnx")
    with pytest.raises(CheckpointError, match="not a file"):
        read_onnx(tmp_path / "nowhere.onnx")


@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "a/b", "nowhere"])
def test_weights_that_lie_elsewhere_are_not_read(place, tmp_path, weight):
    path = write(tmp_path / "net.onnx", linear(), weight)
    model = onnx.load(str(path))
    (held,) = model.graph.initializer
    held.ClearField("raw_data")
    held.data_location = onnx.TensorProto.EXTERNAL
    held.external_data.add(key="location", value=place)
    path.write_bytes(model.SerializeToString())
    (tmp_path.parent / "secret").write_bytes(weight.tobytes())
    with pytest.raises(CheckpointError, match="same folder"):
        read_onnx(path)
