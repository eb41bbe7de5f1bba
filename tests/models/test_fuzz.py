"""Networks from elsewhere, damaged or edited (`make fuzz`): refused in a sentence, or read."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from bounded import bounded
from robustmri.core.errors import RobustMRIError
from robustmri.core.files import sha256_of
from robustmri.models.checkpoint import load_checkpoint, save_checkpoint
from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.models.importers.onnx_file import network_of
from robustmri.models.importers.routes import read_model
from robustmri.models.layouts import read_published

onnx = pytest.importorskip("onnx")
EXAMPLES = int(os.environ.get("ROBUSTMRI_FUZZ_EXAMPLES", "150"))
ODD: list[Any] = [
    None, [], {}, "", "x", True, 0, -1, 0.5, 1e308, 10**20, [None], [[]], {"": None}, [1, 2],
    {"a": "b"}, "$import os", "@network_def", ["a"], 10**6,
]  # fmt: skip
STATE = {"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(3600)]
many = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)


def linear_model() -> Any:
    """Logits of three classes of images of 8 x 8 pixels."""
    floats, make = onnx.TensorProto.FLOAT, onnx.helper
    weight = make.make_tensor("w", floats, [64, 3], [0.01 * k for k in range(192)])
    graph = make.make_graph(
        [
            make.make_node("Flatten", ["images"], ["flat"], axis=1),
            make.make_node("MatMul", ["flat", "w"], ["logits"]),
        ],
        "linear",
        [make.make_tensor_value_info("images", floats, ["n", 1, 8, 8])],
        [make.make_tensor_value_info("logits", floats, ["n", 3])],
        [weight],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(model, {"classes": '{"a": 0, "b": 1, "c": 2}'})
    return model


def onnx_file(room: Path) -> Path:
    path = room / "model.onnx"
    path.write_bytes(linear_model().SerializeToString())
    return path


def safetensors_file(room: Path) -> Path:
    save_file(STATE, room / "model.safetensors")
    return room / "model.safetensors"


def state_file(room: Path) -> Path:
    torch.save({"state_dict": STATE}, room / "model.pth")
    return room / "model.pth"


def program(room: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(torch.nn.Linear(4, 3), torch.zeros(1, 4)).save(room / "model.pt")
    return room / "model.pt"


def graph_weights(room: Path) -> Path:
    save_graph(room)
    return room / "checkpoint" / "weights.safetensors"


def save_graph(room: Path) -> Path:
    network = network_of(linear_model())
    spec = ClassifierSpec(backbone="onnx", classes=("a", "b", "c"), size=8, format="graph")
    save_checkpoint(Classifier(network, spec), room / "checkpoint", provenance={})
    return room / "checkpoint" / "graph.json"


def seal_again(path: Path) -> None:
    """The checkpoint's head says what the damaged file is now."""
    head = path.with_name("classifier.json")
    told = json.loads(head.read_text())
    told["graph_sha256" if path.name == "graph.json" else "weights_sha256"] = sha256_of(path)
    head.write_text(json.dumps(told))


def use_graph(path: Path) -> None:
    seal_again(path)
    classifier, _ = load_checkpoint(path.parent)
    classifier(torch.zeros(1, 1, 8, 8))


BYTES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "onnx": (onnx_file, lambda path: read_model(str(path))),
    "onnx, black box": (onnx_file, lambda path: read_model(str(path), black_box=True)),
    "safetensors": (safetensors_file, read_published),
    "state": (state_file, read_published),
    "state, by its layout": (state_file, lambda path: read_model(str(path))),
    "torchscript": (program, lambda path: read_model(str(path))),
    "a checkpoint's graph": (save_graph, use_graph),
    "a checkpoint's weights": (graph_weights, use_graph),
}


@pytest.mark.parametrize("kind", BYTES)
def test_damaged_bytes(kind: str, tmp_path: Path) -> None:
    make, use = BYTES[kind]
    path = make(tmp_path)
    content = path.read_bytes()
    place = st.one_of(st.integers(0, min(300, len(content) - 1)), st.integers(0, len(content) - 1))
    edit = st.tuples(place, st.binary(min_size=0, max_size=6), st.integers(0, 8))
    refused_or_read(use, path)

    @many
    @given(st.lists(edit, min_size=1, max_size=4), st.booleans())
    def check(edits: list[tuple[int, bytes, int]], cut: bool) -> None:
        mutated = content
        for start, put, taken in edits:
            mutated = mutated[:start] + put + mutated[start + taken :]
        path.write_bytes(mutated[: edits[0][0]] if cut else mutated)
        refused_or_read(use, path)

    check()


HUGGING_FACE = {
    "config.json": {
        "model_type": "resnet", "architectures": ["ResNetForImageClassification"],
        "depths": [2, 2, 2, 2], "layer_type": "basic", "hidden_sizes": [64, 128, 256, 512],
        "num_channels": 3, "id2label": {"0": "a", "1": "b"}, "image_size": [64, 64],
    },
    "preprocessor_config.json": {
        "size": {"height": 64, "width": 64}, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
}  # fmt: skip
BUNDLE = {
    "configs/inference.json": {
        "network_def": {
            "_target_": "monai.networks.nets.Classifier", "in_shape": [1, 8, 8], "classes": 3,
            "channels": [2, 2], "strides": [2, 2],
        },
        "preprocessing": {"transforms": [{"_target_": "ScaleIntensityd", "minv": 0.0}]},
    },
    "configs/metadata.json": {
        "network_data_format": {
            "inputs": {"image": {"spatial_shape": [8, 8]}},
            "outputs": {"pred": {"channel_def": {"0": "a", "1": "b", "2": "c"}}},
        }
    },
}  # fmt: skip
FOLDERS = {
    **{f"hugging face, {name}": (HUGGING_FACE, name) for name in HUGGING_FACE},
    **{f"bundle, {name}": (BUNDLE, name) for name in BUNDLE},
}


def places(told: Any) -> list[tuple[Any, ...]]:
    inner = list(told.items()) if isinstance(told, dict) else []
    inner = list(enumerate(told)) if isinstance(told, list) else inner
    return [(), *((name, *place) for name, value in inner for place in places(value))]


def with_replaced(told: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    changed = dict(told) if isinstance(told, dict) else list(told)
    changed[place[0]] = with_replaced(told[place[0]], place[1:], value)
    return changed


@pytest.mark.parametrize("kind", FOLDERS)
def test_edited_settings(kind: str, tmp_path: Path) -> None:
    files, name = FOLDERS[kind]
    for file, told in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(json.dumps(told))
    weights = tmp_path / ("models" if files is BUNDLE else "") / "model.safetensors"
    weights.parent.mkdir(exist_ok=True)
    save_file(STATE, weights)

    @many
    @given(st.sampled_from(places(files[name])), st.sampled_from(ODD))
    def check(place: tuple[Any, ...], value: Any) -> None:
        (tmp_path / name).write_text(json.dumps(with_replaced(files[name], place, value)))
        refused_or_read(lambda path: read_model(str(path)), tmp_path)

    check()


def refused_or_read(use: Callable[[Path], Any], path: Path) -> None:
    said = "read"
    try:
        with bounded():
            use(path)
    except RobustMRIError as error:
        said = str(error)
    assert 0 < len(said) < 2000
