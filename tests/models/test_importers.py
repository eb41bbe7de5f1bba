"""Each kind of file becomes a network that answers as its author's; each wrong one is said."""

from __future__ import annotations

import json
import sys
import zipfile
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from foreign import (
    SIDE,
    author_network,
    build,
    example,
    write_exported,
    write_onnx,
    write_pickle,
    write_safetensors,
    write_script,
    write_state,
    write_trace,
)
from robustmri.core.errors import CheckpointError, RobustMRIError, SettingsError
from robustmri.models.backbones import build_network, monai_settings
from robustmri.models.checkpoint import load_checkpoint, save_checkpoint
from robustmri.models.graph import GraphNetwork
from robustmri.models.importers import weights_file
from robustmri.models.importers.assemble import Wishes, assemble
from robustmri.models.importers.routes import read_model
from robustmri.models.stem import IMAGENET_MEAN, IMAGENET_STD

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

PROGRAMS = {
    "script": (write_script, "theirs.pt"),
    "trace": (write_trace, "theirs.pt"),
    "export": (write_exported, "theirs.pt2"),
    "pickle": (write_pickle, "theirs.pth"),
}


def assert_same(found: nn.Module, network: nn.Module, planes: int = 3) -> None:
    images = example(planes, 5)
    with torch.no_grad():
        torch.testing.assert_close(found(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("planes", [1, 3])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_onnx_answers_for_any_number_of_images(planes, batch, tmp_path):
    network = author_network(planes=planes)
    found = read_model(str(write_onnx(network, tmp_path / "theirs.onnx", batch=batch)))
    assert (found.format, found.channels, found.size) == ("graph", planes, SIDE)
    assert_same(found.network, network, planes)


@pytest.mark.parametrize(
    "kind",
    [
        "script",
        "trace",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("export", "pickle")),
    ],
)
def test_a_program_is_run_only_if_it_is_trusted(kind, tmp_path):
    write, name = PROGRAMS[kind]
    network = author_network()
    path = write(network, tmp_path / name)
    with pytest.raises(RobustMRIError, match=r"--trust|state_dict"):
        read_model(str(path))
    found = read_model(str(path), size=SIDE, trust=True)
    assert isinstance(found.network, GraphNetwork)
    assert (found.format, found.channels, found.size) == ("graph", 3, SIDE)
    assert_same(found.network, network)


@pytest.mark.parametrize(
    ("member", "what"),
    [
        ("archive/code/__torch__.py", "a TorchScript program"),
        ("theirs/archive_format", "a program of torch.export"),
        ("serialized_exported_program.json", "a program of torch.export"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".pt2", ".pth"])
def test_a_program_is_known_by_what_it_holds_and_not_opened(member, what, suffix, tmp_path):
    with zipfile.ZipFile(tmp_path / f"theirs{suffix}", "w") as archive:
        archive.writestr(member, "not to be read")
    with pytest.raises(SettingsError, match=f"is {what}: to open it is to run it.*--trust"):
        read_model(str(tmp_path / f"theirs{suffix}"))
    with pytest.raises(CheckpointError, match="cannot be opened"):
        read_model(str(tmp_path / f"theirs{suffix}"), trust=True)


def test_a_network_of_another_library_by_name(tmp_path, monkeypatch):
    """Its planes are normalised inside of it."""
    built = SimpleNamespace(
        models=SimpleNamespace(
            get_model=lambda name, weights, num_classes: author_network(num_classes)
        )
    )
    monkeypatch.setitem(sys.modules, "torchvision", built)
    network = author_network(4)
    path = write_state(network, tmp_path / "theirs.pth")
    found = read_model(str(path), arch="torchvision:theirs", size=SIDE)
    assert (found.backbone, found.channels) == ("torchvision:theirs", 3)
    images = example(3, 3)
    wishes = Wishes(("a", "b", "c", "d"))
    for mean, std in (((), ()), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), ((0.5,), (0.25,))):
        wishes = wishes._replace(mean=mean, std=std)
        classifier, _ = assemble(found, images, wishes, name="theirs.pth")
        assumed = [said for said in classifier.spec.guessed if "torchvision:theirs was pub" in said]
        assert bool(assumed) == (not mean)
        used = [
            torch.tensor(values or usual).view(1, -1, 1, 1)
            for values, usual in ((mean, IMAGENET_MEAN), (std, IMAGENET_STD))
        ]
        with torch.no_grad():
            expected = network((images.expand(-1, 3, -1, -1) - used[0]) / used[1])
            torch.testing.assert_close(classifier(images), expected, rtol=1e-4, atol=1e-5)
            save_checkpoint(classifier, tmp_path / "kept")
            kept, _ = load_checkpoint(tmp_path / "kept")
            assert torch.equal(kept(images), classifier(images))


def test_a_function_builds_it_and_takes_weights(tmp_path):
    network = build()
    with torch.no_grad():
        network[6].weight.mul_(2)
    weights = write_state(network, tmp_path / "w.pt")
    with pytest.raises(SettingsError, match=r"code of its author's.*--trust"):
        read_model("foreign:build", weights=str(weights))
    found = read_model("foreign:build", weights=str(weights), size=SIDE, trust=True)
    assert_same(found.network, network)


@pytest.mark.parametrize(
    ("name", "channels", "outputs"),
    [("resnet18-half", 3, 5), ("resnet18-half", 1, 3), ("resnet18", 3, 1)],
)
@pytest.mark.parametrize("write", [write_state, write_safetensors])
def test_weights_by_name_are_recognised_and_keep_their_head(
    write, name, channels, outputs, tmp_path
):
    network = build_network(
        name, max(outputs, 2), SIDE, channels=channels, one_logit=outputs == 1
    ).eval()
    suffix = ".pth" if write is write_state else ".safetensors"
    found = read_model(str(write(network, tmp_path / f"theirs{suffix}")))
    assert (found.backbone, found.channels, found.format) == (name, channels, "backbone")
    assert name in found.guessed[0]
    assert_same(found.network, network, channels)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "densenet121", "vit", "efficientnet-lite0"])
def test_the_other_backbones_too(name, tmp_path):
    network = build_network(name, 4, SIDE, channels=3).eval()
    found = read_model(str(write_state(network, tmp_path / "theirs.pth")))
    assert (found.backbone, found.channels) == (name, 3)
    assert_same(found.network, network)
    exported = write_onnx(network, tmp_path / "theirs.onnx")
    assert_same(read_model(str(exported)).network, network)


def test_prefixes_and_nests_are_seen_through(tmp_path):
    network = build_network("resnet18-half", 3, SIDE).eval()
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "theirs.ckpt")
    assert_same(read_model(str(tmp_path / "theirs.ckpt")).network, network, 1)


def test_planes_last_are_turned(tmp_path):
    network = author_network(planes=3)
    path = write_onnx(network, tmp_path / "theirs.onnx")
    model = onnx.load(str(path))
    (given,) = model.graph.input
    for axis, size in zip(given.type.tensor_type.shape.dim[1:], (SIDE, SIDE, 3), strict=True):
        axis.dim_value = size
    turn = onnx.helper.make_node("Transpose", ["last"], ["images"], perm=[0, 3, 1, 2])
    given.name = "last"
    model.graph.node.insert(0, turn)
    onnx.save(model, str(path))
    for black_box in (False, True):
        found = read_model(str(path), black_box=black_box)
        assert (found.size, found.channels) == (SIDE, 3)
        assert_same(found.network, network)


def with_operator(path, operator: str, **attributes):
    """The model with one more operator at its end."""
    model = onnx.load(str(path))
    model.graph.node.append(onnx.helper.make_node(operator, ["outputs"], ["last"], **attributes))
    model.graph.output[0].name = "last"
    onnx.save(model, str(path))
    return path


def test_an_operator_that_is_not_known_makes_a_black_box(tmp_path):
    network = author_network()
    path = with_operator(write_onnx(network, tmp_path / "theirs.onnx"), "Sinh")
    found = read_model(str(path))
    assert found.format == "black-box"
    assert "not all known here: Sinh" in found.guessed[0]
    assert_same(found.network, nn.Sequential(network, Sinh()))


class Sinh(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sinh()


def test_without_onnxruntime_a_black_box_asks_for_it(tmp_path, monkeypatch):
    path = with_operator(write_onnx(author_network(), tmp_path / "theirs.onnx"), "Sinh")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match=r"onnxruntime.*robustmri\[import\]"):
        read_model(str(path))


def test_a_graph_that_answers_otherwise_than_onnxruntime_is_refused(tmp_path, monkeypatch):
    from robustmri.models import graph

    path = write_onnx(author_network(), tmp_path / "theirs.onnx")
    wrong = dict(graph.OPERATORS) | {"Relu": lambda inputs, attributes, opset: inputs[0] * 1.5}
    monkeypatch.setattr(graph, "OPERATORS", wrong)
    with pytest.raises(CheckpointError, match="differ from onnxruntime's"):
        read_model(str(path))


def test_class_names_are_read_where_the_exporter_left_them(tmp_path):
    path = write_onnx(author_network(), tmp_path / "theirs.onnx")
    for said in ('["a", "b", "c"]', "{0: 'a', 1: 'b', 2: 'c'}", "a, b, c"):
        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, {"names": said})
        onnx.save(model, str(path))
        assert read_model(str(path)).classes == ("a", "b", "c")


def hugging_face_resnet(folder, network, processor=None, **config):
    """config.json and model.safetensors by transformers' names of a ResNet-18."""
    from safetensors.torch import save_file

    folder.mkdir()
    state = {}
    for name, value in network.state_dict().items():
        name = name.replace("conv1.", "embedder.embedder.convolution.", name.startswith("conv1"))
        name = name.replace("bn1.", "embedder.embedder.normalization.", name.startswith("bn1"))
        for stage in range(4):
            name = name.replace(f"layer{stage + 1}.", f"encoder.stages.{stage}.layers.")
        for layer in range(3):
            name = name.replace(f".conv{layer + 1}.", f".layer.{layer}.convolution.")
            name = name.replace(f".bn{layer + 1}.", f".layer.{layer}.normalization.")
        name = name.replace(".downsample.0.", ".shortcut.convolution.")
        name = name.replace(".downsample.1.", ".shortcut.normalization.")
        name = name.replace("fc.", "classifier.1.") if "fc." in name else f"resnet.{name}"
        state[name] = value.contiguous()
    save_file(state, folder / "model.safetensors")
    facts = {
        "model_type": "resnet",
        "layer_type": "basic",
        "depths": [2, 2, 2, 2],
        "embedding_size": 64,
        "id2label": {"0": "b", "1": "a"},
    }
    (folder / "config.json").write_text(json.dumps(facts | config))
    if processor is None:
        processor = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": SIDE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_a_hugging_face_resnet_is_one_of_ours(tmp_path):
    network = build_network("resnet18", 2, SIDE, channels=3).eval()
    found = read_model(str(hugging_face_resnet(tmp_path / "theirs", network)))
    assert (found.backbone, found.classes, found.size) == ("resnet18", ("b", "a"), SIDE)
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert_same(found.network, network)


GIVEN = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25] * 3, "size": SIDE}
ZERO_ONE = (0.0, 1.0)
CONVERTED = ((0.5, 0.4, 0.3), (0.25, 0.25, 0.25))
SCALED = tuple(tuple(value / 255 for value in values) for values in CONVERTED)
NOT_SAID = (None, None)


@pytest.mark.parametrize(
    ("processor", "size", "expected", "said"),
    [
        (GIVEN, SIDE, CONVERTED, ""),
        ({**GIVEN, "rescale_factor": 1 / 255, "do_rescale": True}, SIDE, CONVERTED, ""),
        ({**GIVEN, "do_rescale": False}, SIDE, SCALED, ""),
        ({**GIVEN, "rescale_factor": 1 / 127.5}, SIDE, [[v / 2 for v in c] for c in CONVERTED], ""),
        ({**GIVEN, "do_normalize": False}, SIDE, ZERO_ONE, ""),
        ({**GIVEN, "do_normalize": False, "do_rescale": False}, SIDE, (0, 1 / 255), ""),
        ({"size": 64}, 64, NOT_SAID, ""),
        ({}, None, NOT_SAID, ""),
        ({"image_mean": 0.5}, None, NOT_SAID, ""),
        ({"image_mean": 0.5, "image_std": 0.25}, None, (0.5, 0.25), ""),
        (
            {**GIVEN, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 192}},
            (224, 192),
            CONVERTED,
            "",
        ),
        ({**GIVEN, "crop_size": 24, "do_center_crop": False}, SIDE, CONVERTED, ""),
        ({**GIVEN, "do_pad": True, "include_top": True}, SIDE, CONVERTED, "do_pad, include_top"),
        ({**GIVEN, "do_pad": False}, SIDE, CONVERTED, ""),
    ],
)
def test_what_a_processor_says_is_kept(processor, size, expected, said, tmp_path):
    network = build_network("resnet18", 2, SIDE, channels=3)
    found = read_model(str(hugging_face_resnet(tmp_path / "theirs", network, processor)))
    assert found.size == size
    for value, wanted in zip((found.mean, found.std), expected, strict=True):
        assert value == pytest.approx(wanted)
    assert bool(found.guessed) == bool(said)
    assert said in " ".join(found.guessed)


def test_what_a_processor_does_not_say_is_called_a_guess(tmp_path):
    network = build_network("resnet18", 2, SIDE, channels=3)
    folder = hugging_face_resnet(tmp_path / "theirs", network, {"size": SIDE})
    found = read_model(str(folder))
    for given, guessed in (((), True), ((0.5,), False)):
        classifier, _ = assemble(found, example(), Wishes(mean=given, std=given), name="theirs")
        assert (classifier.spec.mean == IMAGENET_MEAN) == guessed
        assert any("are ImageNet's" in said for said in classifier.spec.guessed) == guessed


@pytest.mark.parametrize("kind", ["feature_extractor_type", "image_processor_type"])
def test_a_mobile_vit_gets_blue_first_and_nothing_normalised(kind, tmp_path, monkeypatch):
    """Whose settings are those of apple/mobilevit-small."""
    network = author_network()

    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, pixel_values):
            return SimpleNamespace(logits=self.network(pixel_values))

    auto = SimpleNamespace(from_pretrained=lambda *_, **__: Theirs().eval())
    built = SimpleNamespace(AutoModelForImageClassification=auto)
    monkeypatch.setitem(sys.modules, "transformers", built)
    processor = {"crop_size": SIDE, "do_center_crop": True, "do_resize": True, "size": SIDE + 4}
    processor |= {"do_flip_channel_order": True, kind: "MobileViTFeatureExtractor"}
    folder = hugging_face_resnet(
        tmp_path / "theirs",
        build_network("resnet18", 3, SIDE, channels=3),
        processor,
        model_type="mobilevit",
    )
    found = read_model(str(folder))
    assert (found.size, found.mean, found.std, found.guessed) == (SIDE, 0.0, 1.0, ())
    images = example()
    with torch.no_grad():
        expected = network(images[:, [2, 1, 0]])
        torch.testing.assert_close(found.network(images), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found.network(images), network(images), atol=1e-2)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"auto_map": {"AutoModel": "code.Net"}}, "code of its own"),
        ({"model_type": "swin"}, "transformers"),
        ({"hidden_act": "gelu"}, "transformers"),
    ],
)
def test_a_hugging_face_folder_that_is_none_of_ours(config, said, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    network = build_network("resnet18", 2, SIDE, channels=3)
    folder = hugging_face_resnet(tmp_path / "theirs", network, **config)
    with pytest.raises(RobustMRIError, match=said):
        read_model(str(folder))


@pytest.mark.slow
def test_a_hugging_face_vit_and_one_that_transformers_builds(tmp_path):
    transformers = pytest.importorskip("transformers")
    kinds = {
        "vit": transformers.ViTConfig(image_size=SIDE, num_labels=3),
        "small": transformers.ViTConfig(
            image_size=SIDE,
            num_labels=3,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
        ),
        "resnet": transformers.ResNetConfig(num_labels=3),
    }
    for name, config in kinds.items():
        model = transformers.AutoModelForImageClassification.from_config(config).eval()
        model.save_pretrained(tmp_path / name)
        found = read_model(str(tmp_path / name), size=SIDE)
        images = example()
        with torch.no_grad():
            torch.testing.assert_close(
                found.network(images), model(images).logits, rtol=1e-3, atol=1e-4
            )


def monai_bundle(folder, network, **settings):
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    definition = {
        "_target_": "monai.networks.nets.EfficientNetBN",
        "model_name": "efficientnet-b0",
        "spatial_dims": 2,
        "in_channels": 1,
        "num_classes": "@count",
    }
    config = {"count": 3, "network_def": definition | settings}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    metadata = {
        "network_data_format": {
            "inputs": {"image": {"num_channels": 1, "spatial_shape": [SIDE, SIDE]}},
            "outputs": {"pred": {"channel_def": {"0": "c", "1": "a", "2": "b"}}},
        }
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    if network is not None:
        torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.mark.slow
def test_a_monai_bundle_is_built_from_its_settings(tmp_path):
    from monai.networks.nets.efficientnet import EfficientNetBN

    network = EfficientNetBN("efficientnet-b0", False, spatial_dims=2, in_channels=1, num_classes=3)
    folder = monai_bundle(tmp_path / "theirs", network.eval(), pretrained=True)
    found = read_model(str(folder))
    assert (found.classes, found.size, found.channels) == (("c", "a", "b"), SIDE, 1)
    assert_same(found.network, network, 1)


TO_ONE = {"_target_": "ScaleIntensityd", "keys": "image"}
OWN = {"_target_": "NormalizeIntensityd", "keys": "image"}
FIXED = {**OWN, "subtrahend": 0.4, "divisor": 0.3}


@pytest.mark.parametrize(
    ("steps", "mean", "std", "lost"),
    [
        ([TO_ONE], 0.0, 1.0, False),
        ([TO_ONE, {"_target_": "EnsureTyped"}], 0.0, 1.0, False),
        ([{"_target_": "ScaleIntensityRange", "b_min": 0.0, "b_max": 1.0}], 0.0, 1.0, False),
        ([{**TO_ONE, "minv": -1.0}], None, None, False),
        ([TO_ONE, {"_target_": "ThresholdIntensityd"}], None, None, False),
        ([TO_ONE, FIXED], 0.4, 0.3, False),
        ([FIXED], None, None, False),
        ([TO_ONE, OWN], None, None, True),
        ([OWN], None, None, True),
        ([TO_ONE, {**OWN, "subtrahend": 0.4}], None, None, True),
        ([TO_ONE, {**FIXED, "nonzero": True}], None, None, True),
        ([], None, None, False),
    ],
)
def test_how_a_bundle_normalises(steps, mean, std, lost, tmp_path):
    kind, settings = monai_settings("resnet18-half", 3, 1)
    folder = monai_bundle(tmp_path / "theirs", build_network("resnet18-half", 3, SIDE))
    config = {"network_def": {"_target_": f"monai.networks.nets.{kind}", **settings}}
    config["preprocessing"] = {"_target_": "Compose", "transforms": steps}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    found = read_model(str(folder))
    assert (found.mean, found.std) == (mean, std)
    assert any("cannot be kept" in said for said in found.guessed) == lost


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_classes": "$__import__('os').getpid()"}, "expression, which is not evaluated"),
        ({"_target_": "their.module.Net"}, "not one of MONAI's"),
        ({"_target_": "monai.networks.nets.nowhere"}, "not one of MONAI's"),
        ({"nonsense": 1}, "cannot be built"),
        ({}, "has no models/model.pt"),
    ],
)
def test_a_bundle_that_needs_code_is_refused(settings, said, tmp_path):
    with pytest.raises(CheckpointError, match=said):
        read_model(str(monai_bundle(tmp_path / "theirs", None, **settings)))


def test_what_cannot_be_imported_is_said_in_one_sentence(tmp_path):
    network = author_network()
    onnx_file = write_onnx(network, tmp_path / "theirs.onnx")
    state = write_state(network, tmp_path / "small.pth")
    headless = build_network("resnet18-half", 2, SIDE).state_dict()
    headless = {name: value for name, value in headless.items() if not name.startswith("fc")}
    torch.save(headless, tmp_path / "headless.pth")
    wide = write_onnx(network, tmp_path / "wide.onnx")
    model = onnx.load(str(wide))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 48
    onnx.save(model, str(wide))
    whole = write_onnx(network, tmp_path / "whole.onnx")
    model = onnx.load(str(whole))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.save(model, str(whole))
    (tmp_path / "broken.pt2").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    for model_path, options, said in (
        ("nowhere.pth", {}, "does not exist"),
        (state, {}, "none of our networks by its names: nearest is"),
        (state, {"arch": "resnet18"}, "takes 0 planes|no last layer"),
        (state, {"arch": "resnet81"}, "Did you mean 'resnet18'"),
        (tmp_path / "headless.pth", {"arch": "resnet18-half"}, r"no last layer \(fc.weight\)"),
        (onnx_file, {"size": 64}, "images of 32 px, --size says 64"),
        (onnx_file, {"arch": "resnet18"}, "--arch belongs to files of weights"),
        (onnx_file, {"weights": "w.pt"}, "--weights belongs to package.module:function"),
        (state, {"black_box": True}, "--black-box belongs to ONNX"),
        (wide, {}, "cannot run wide.onnx"),
        (whole, {}, "UINT8 of shape"),
        (tmp_path / "broken.pt2", {}, "cannot be read|damaged"),
        (tmp_path / "empty", {}, "no known layout"),
        ("foreign:nothing", {"trust": True}, "could not be called"),
        ("foreign:example", {"trust": True}, "gave Tensor. Expected an nn.Module"),
    ):
        with pytest.raises(RobustMRIError, match=said):
            read_model(str(model_path), **options)


def test_an_old_torch_opens_no_pickle_that_is_not_trusted(tmp_path, monkeypatch):
    network = build_network("resnet18-half", 2, SIDE)
    path = write_state(network, tmp_path / "theirs.pth")
    monkeypatch.setattr(weights_file.torch, "__version__", "2.9.1+cpu")
    with pytest.raises(CheckpointError, match=r"torch 2\.9\.1\+cpu opens none safely"):
        read_model(str(path))
    assert read_model(str(path), trust=True).backbone == "resnet18-half"
    safe = write_safetensors(network, tmp_path / "theirs.safetensors")
    assert read_model(str(safe)).backbone == "resnet18-half"


def test_a_pickle_runs_nothing_unless_it_is_trusted(tmp_path):
    torch.save({"state_dict": Trap(tmp_path / "ran")}, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        read_model(str(tmp_path / "theirs.pth"))
    assert not (tmp_path / "ran").exists()


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)
