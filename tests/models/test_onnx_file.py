"""An ONNX file becomes known operators; what is not known, or lies elsewhere, is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from robustmri.core.errors import CheckpointError, SettingsError
from robustmri.models.black_box import read_black_box
from robustmri.models.importers.onnx_file import declared_input, load_model, network_of

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
    logits = network_of(load_model(path))(images)
    expected = images.flatten(1) @ torch.tensor(weight).T
    torch.testing.assert_close(logits, expected)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), images)
    torch.testing.assert_close(gradient[0].flatten(), torch.tensor(weight[1]))
    assert declared_input(load_model(path)) == (None, 1, 4, 4)


def test_an_operator_that_is_not_known_is_named(tmp_path, weight):
    path = write(tmp_path / "net.onnx", linear("Loop"), weight)
    with pytest.raises(CheckpointError, match="not known here: Loop"):
        network_of(load_model(path))


def test_what_is_no_onnx_file_is_said(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"not a network")
    with pytest.raises(CheckpointError, match="not an ONNX file"):
        network_of(load_model(tmp_path / "net.onnx"))
    with pytest.raises(CheckpointError, match="not a file"):
        network_of(load_model(tmp_path / "nowhere.onnx"))


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
        network_of(load_model(path))


def test_a_graph_within_a_graph_reads_nothing_elsewhere(tmp_path, weight):
    helper = onnx.helper
    held = onnx.numpy_helper.from_array(weight, "w")
    held.ClearField("raw_data")
    held.data_location = onnx.TensorProto.EXTERNAL
    held.external_data.add(key="location", value="../secret")
    inner = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "in", [], [], [held])
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    path = write(tmp_path / "net.onnx", [node], weight)
    (tmp_path.parent / "secret").write_bytes(weight.tobytes())
    with pytest.raises(CheckpointError, match="same folder"):
        load_model(path)


def test_a_black_box_reads_no_other_file(tmp_path, weight, monkeypatch):
    pytest.importorskip("onnxruntime")
    path = write(tmp_path / "model.onnx", linear(), weight)
    images = torch.zeros(1, 1, 4, 4)
    assert read_black_box(path)(images).shape == (1, 3)
    model = onnx.load(str(path))
    (held,) = model.graph.initializer
    held.ClearField("raw_data")
    held.data_location = onnx.TensorProto.EXTERNAL
    held.external_data.add(key="location", value="secret")
    path.write_bytes(model.SerializeToString())
    (tmp_path / "secret").write_bytes(weight.tobytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"wants weights from 'secret'"):
        read_black_box(path)


def one_node(operator: str, *, opset: int = 17, inputs: tuple = ("x",), **attributes):
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info(name, float32, ["n", 4]) for name in inputs],
        [helper.make_tensor_value_info("y", float32, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"opset": 6}, "operator set 6, expected 7 or newer"),
        ({"inputs": ("x", "again")}, r"one input, .* the file has \['x', 'again'\]"),
        ({"inputs": ()}, "the file has none"),
        ({"body": onnx.GraphProto()}, "holds a graph of its own"),
    ],
)
def test_what_a_network_of_images_does_not_have_is_refused(settings, said, tmp_path):
    onnx.save(one_node("Relu", **settings), str(tmp_path / "net.onnx"))
    with pytest.raises(CheckpointError, match=said):
        network_of(load_model(tmp_path / "net.onnx"))


def test_constants_and_attributes_of_every_kind_arrive(tmp_path):
    """Constants as tensors, numbers and lists; attributes as text, lists, and a tensor."""
    helper, array = onnx.helper, onnx.numpy_helper.from_array
    make, int64 = helper.make_node, onnx.TensorProto.INT64
    nodes = [
        make("Constant", [], ["two"], value=array(np.array([2.0], dtype=np.float32))),
        make("Constant", [], ["sizes"], value_ints=[2, 3]),
        make("Constant", [], ["half"], value_float=0.5),
        make(
            "ConstantOfShape", ["sizes"], ["five"], value=helper.make_tensor("v", int64, [1], [5])
        ),
        make("Cast", ["five"], ["fives"], to=onnx.TensorProto.FLOAT),
        make("Transpose", ["fives"], ["turned"], perm=[1, 0]),
        make("Einsum", ["x", "turned"], ["sums"], equation="nk,kc->nc"),
        make("Mul", ["sums", "two"], ["more"]),
        make("Mul", ["more", "half"], ["y"]),
    ]
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "many",
        [helper.make_tensor_value_info("x", float32, ["n", 3])],
        [helper.make_tensor_value_info("y", float32, ["n", 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, str(tmp_path / "net.onnx"))
    x = torch.rand(4, 3)
    expected = 5 * x.sum(1, keepdim=True).expand(4, 2)
    torch.testing.assert_close(network_of(load_model(tmp_path / "net.onnx"))(x), expected)


def in_two_files(folder: Path, weight: np.ndarray) -> Path:
    """The same network, its weights in a file beside it."""
    model = onnx.load(str(write(folder / "net.onnx", linear(), weight)))
    onnx.save(
        model,
        str(folder / "net.onnx"),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return folder / "net.onnx"


def test_weights_beside_the_file_are_read(tmp_path, weight, monkeypatch):
    path = in_two_files(tmp_path, weight)
    images = torch.rand(2, 1, 4, 4)
    expected = images.flatten(1) @ torch.tensor(weight).T
    torch.testing.assert_close(network_of(load_model(path))(images), expected)
    room = path.stat().st_size + 1
    monkeypatch.setattr("robustmri.models.importers.onnx_file.LARGEST_BYTES", room)
    with pytest.raises(CheckpointError, match="more than allowed"):
        network_of(load_model(path))
    monkeypatch.undo()
    (tmp_path / "weights.bin").write_bytes(b"too short")
    with pytest.raises(CheckpointError, match="weights cannot be read"):
        network_of(load_model(path))


def test_a_weight_is_no_input(weight, tmp_path):
    """Old files name their weights among the inputs."""
    model = onnx.load(str(write(tmp_path / "net.onnx", linear(), weight)))
    shape = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [3, 16])
    model.graph.input.insert(0, shape)
    assert declared_input(model) == (None, 1, 4, 4)
    assert declared_input(one_node("Relu", inputs=())) == ()


def test_without_the_package_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SettingsError, match=r"pip install 'robustmri\[import\]'"):
        network_of(load_model(tmp_path / "net.onnx"))
