from __future__ import annotations

import hashlib
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from published import fill, torchvision_densenet, torchvision_resnet, value_of
from robustmri.core.errors import CheckpointError, SettingsError
from robustmri.models.backbones import build_classifier, build_network
from robustmri.models.checkpoint import find_checkpoint
from robustmri.models.weights import POSITIONS, _resample_positions, load_weights


def torchvision_vit(classes=1000, size=224, linear=("linear_1", "linear_2")):
    """Names and shapes of torchvision's vit_b_16; newer releases say mlp.0 and mlp.3."""
    shapes = {
        "class_token": (1, 1, 768),
        "conv_proj.weight": (768, 3, 16, 16),
        "conv_proj.bias": (768,),
        "encoder.pos_embedding": (1, (size // 16) ** 2 + 1, 768),
    }
    for number in range(12):
        layer = f"encoder.layers.encoder_layer_{number}"
        for part, shape in {
            "ln_1": (768,),
            "ln_2": (768,),
            "self_attention.out_proj": (768, 768),
            f"mlp.{linear[0]}": (3072, 768),
            f"mlp.{linear[1]}": (768, 3072),
        }.items():
            shapes |= {f"{layer}.{part}.weight": shape, f"{layer}.{part}.bias": shape[:1]}
        shapes |= {f"{layer}.self_attention.in_proj_weight": (2304, 768)}
        shapes |= {f"{layer}.self_attention.in_proj_bias": (2304,)}
    shapes |= {"encoder.ln.weight": (768,), "encoder.ln.bias": (768,)}
    return shapes | {"heads.head.weight": (classes, 768), "heads.head.bias": (classes,)}


def assert_holds(network, pairs):
    state = network.state_dict()
    for ours, theirs in pairs.items():
        torch.testing.assert_close(state[ours], torch.full_like(state[ours], value_of(theirs)))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_has_torchvisions_names_and_shapes(name):
    with torch.device("meta"):
        state = build_network(name, 7, 224).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == torchvision_resnet(
        name, 7, planes=1
    )


def test_resnet_file_is_loaded(tmp_path):
    torch.save(fill(torchvision_resnet("resnet18")), tmp_path / "resnet18.pth")
    network = build_network("resnet18", 3, 32)
    fresh = network.fc.weight.clone()
    said = load_weights(network, "resnet18", str(tmp_path / "resnet18.pth")).words
    assert_holds(
        network,
        {name: name for name in ("layer1.0.conv1.weight", "layer4.0.downsample.1.running_var")},
    )
    assert torch.equal(network.fc.weight, fresh)
    digest = hashlib.sha256((tmp_path / "resnet18.pth").read_bytes()).hexdigest()
    assert said == (
        f"resnet18.pth (sha256 {digest[:16]}); three colour planes folded into one; last layer "
        "drawn anew"
    )


def test_head_is_kept_where_the_classes_are_as_many(tmp_path):
    save_file(
        {k: v.contiguous() for k, v in fill(torchvision_resnet("resnet18", 3, 1)).items()},
        tmp_path / "a.safetensors",
    )
    network = build_network("resnet18", 3, 32)
    said = load_weights(network, "resnet18", str(tmp_path / "a.safetensors")).words
    assert_holds(network, {"fc.weight": "fc.weight", "conv1.weight": "conv1.weight"})
    assert ";" not in said


def test_folded_resnet_stem_computes_what_three_planes_do(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {k: v.clone() for k, v in fill(torchvision_resnet("resnet18")).items()}
    state["conv1.weight"] = torch.randn(64, 3, 7, 7, generator=generator)
    state["bn1.running_var"] = torch.rand(64, generator=generator) + 0.5
    torch.save(state, tmp_path / "w.pth")
    classifier = build_classifier(
        "resnet18", ("a", "b"), 32, weights=str(tmp_path / "w.pth")
    ).eval()
    colour = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    colour.load_state_dict({"weight": state["conv1.weight"]})
    norm = nn.BatchNorm2d(64).eval()
    norm.load_state_dict(
        {k.removeprefix("bn1."): v for k, v in state.items() if k.startswith("bn1.")}
    )
    grey = torch.rand(2, 1, 32, 32, generator=generator)
    stem = nn.Sequential(classifier.network.conv1, classifier.network.bn1)
    mean, std = (
        torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1),
        torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1),
    )
    ours = stem((grey - classifier.spec.mean) / classifier.spec.std)
    theirs = norm(colour((grey.expand(-1, 3, -1, -1) - mean) / std))
    # The kernel touches the padding elsewhere.
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    torch.testing.assert_close(ours[inside], theirs[inside], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dot", ["", "."])
def test_densenet_file_is_loaded(tmp_path, dot):
    torch.save(fill(torchvision_densenet(dot=dot)), tmp_path / "d.pth")
    network = build_network("densenet121", 3, 32)
    load_weights(network, "densenet121", str(tmp_path / "d.pth"))
    theirs, ours = "features.denseblock3.denselayer24", "features.denseblock3.denselayer24.layers"
    assert_holds(
        network,
        {
            f"{ours}.norm1.running_var": f"{theirs}.norm{dot}1.running_var",
            f"{ours}.conv2.weight": f"{theirs}.conv{dot}2.weight",
            "features.transition2.norm.bias": "features.transition2.norm.bias",
            "features.norm5.weight": "features.norm5.weight",
        },
    )


@pytest.mark.parametrize("linear", [("linear_1", "linear_2"), ("0", "3")])
def test_vit_file_is_loaded(tmp_path, linear):
    torch.save(fill(torchvision_vit(3, linear=linear)), tmp_path / "vit.pth")
    network = build_network("vit", 3, 32)
    said = load_weights(network, "vit", str(tmp_path / "vit.pth")).words
    theirs = "encoder.layers.encoder_layer_11"
    assert_holds(
        network,
        {
            "vit.patch_embedding.position_embeddings": "encoder.pos_embedding",
            "vit.blocks.11.norm1.weight": f"{theirs}.ln_1.weight",
            "vit.blocks.11.norm2.bias": f"{theirs}.ln_2.bias",
            "vit.blocks.11.attn.qkv.weight": f"{theirs}.self_attention.in_proj_weight",
            "vit.blocks.11.attn.qkv.bias": f"{theirs}.self_attention.in_proj_bias",
            "vit.blocks.11.attn.out_proj.weight": f"{theirs}.self_attention.out_proj.weight",
            "vit.blocks.11.mlp.linear1.weight": f"{theirs}.mlp.{linear[0]}.weight",
            "vit.blocks.11.mlp.linear2.bias": f"{theirs}.mlp.{linear[1]}.bias",
            "vit.norm.weight": "encoder.ln.weight",
            "vit.classification_head.weight": "heads.head.weight",
        },
    )
    token = value_of("class_token") + value_of("encoder.pos_embedding")
    torch.testing.assert_close(network.vit.cls_token, torch.full((1, 1, 768), token))
    assert said.endswith("three colour planes folded into one; position embeddings interpolated")


def test_position_embeddings_keep_their_place(tmp_path):
    """A ramp from left to right is still one on a coarser grid, and is still constant from top to
    bottom.
    """
    state = fill(torchvision_vit(3, size=128))
    ramp = torch.linspace(0, 1, 8).expand(8, 8).reshape(1, 64, 1).expand(1, 64, 768)
    state["encoder.pos_embedding"] = torch.cat([torch.zeros(1, 1, 768), ramp], 1)
    torch.save(state, tmp_path / "vit.pth")
    network = build_network("vit", 3, 64)
    load_weights(network, "vit", str(tmp_path / "vit.pth"))
    grid = network.vit.patch_embedding.position_embeddings[0, :, 0].detach().unflatten(0, (4, 4))
    assert (grid.diff(dim=1) > 0.2).all()
    torch.testing.assert_close(grid.diff(dim=0), torch.zeros(3, 4), rtol=0, atol=1e-5)


@pytest.mark.parametrize("nest", ["state_dict", "model"])
@pytest.mark.parametrize("prefix", ["module.", "network.", "module.model."])
def test_nesting_and_prefixes_are_seen_through(tmp_path, nest, prefix):
    state = {
        prefix + name: value for name, value in fill(torchvision_resnet("resnet18", 3, 1)).items()
    }
    torch.save({"epoch": 3, nest: state}, tmp_path / "w.pt")
    network = build_network("resnet18", 3, 32)
    load_weights(network, "resnet18", str(tmp_path / "w.pt"))
    assert_holds(network, {"fc.bias": "fc.bias"})


def test_a_file_without_head_leaves_it_fresh(tmp_path):
    shapes = {k: v for k, v in torchvision_resnet("resnet18").items() if not k.startswith("fc.")}
    torch.save(fill(shapes), tmp_path / "w.pth")
    said = load_weights(build_network("resnet18", 3, 32), "resnet18", str(tmp_path / "w.pth")).words
    assert "last layer drawn anew" in said


def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path):
    torch.save(fill(torchvision_resnet("resnet50")), tmp_path / "w.pth")
    network = build_network("resnet18", 3, 32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(
        CheckpointError,
        match=r"w.pth does not fit resnet18 \(\d+ unexpected: layer1.0.conv3.weight, ",
    ):
        load_weights(network, "resnet18", str(tmp_path / "w.pth"))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_missing_name_is_listed(tmp_path):
    state = fill(torchvision_resnet("resnet18"))
    del state["layer2.1.bn2.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"1 missing: layer2.1.bn2.bias\)"):
        load_weights(build_network("resnet18", 3, 32), "resnet18", str(tmp_path / "w.pth"))


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_never_run(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1), "x": Trap(tmp_path / "sprung")}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        load_weights(nn.Linear(1, 1), "resnet18", str(tmp_path / "w.pth"))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"\x00\xffnothing of the kind" * 9, b"<html>not found</html>"]
)
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}.*damaged"):
        load_weights(nn.Linear(1, 1), "resnet18", str(tmp_path / name))


def test_a_truncated_file_is_named(tmp_path):
    torch.save({"w": torch.zeros(1000)}, tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"w\.pth.*damaged"):
        load_weights(nn.Linear(1, 1), "resnet18", str(tmp_path / "w.pth"))


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no named tensors"):
        load_weights(nn.Linear(1, 1), "resnet18", str(tmp_path / "w.pth"))


def test_a_file_of_tensors_without_names_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no named tensors"):
        load_weights(nn.Linear(1, 1), "resnet18", str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("before", "after", "class_token", "expected"),
    [
        (16, 16, False, 16),  # As many: they stay.
        (17, 16, True, 16),  # The class token's moves into the token.
        (17, 16, False, 17),  # Without a class token there is none to move.
        (15, 16, False, 15),  # No square: not a grid.
        (16, 4, False, 4),
    ],
)
def test_position_embeddings_of_another_number_of_patches(before, after, class_token, expected):
    positions = torch.rand(1, before, 3)
    state = {POSITIONS: positions}
    if class_token:
        state["vit.cls_token"] = torch.ones(1, 1, 3)
    found = _resample_positions(state, after, None)
    assert found[POSITIONS].shape == (1, expected, 3)
    if expected == before:
        assert torch.equal(found[POSITIONS], positions)
    if class_token:
        torch.testing.assert_close(found["vit.cls_token"], 1 + positions[:, :1])
        assert torch.equal(found[POSITIONS], positions[:, 1:])


def test_missing_file_and_unknown_words():
    with pytest.raises(CheckpointError, match=r"imagnet is not a file\. Did you mean 'imagenet'"):
        load_weights(nn.Linear(1, 1), "resnet18", "imagnet")
    with pytest.raises(CheckpointError, match="Choices: none, pretrained"):
        load_weights(nn.Linear(1, 1), "timm:convnext_tiny", "mine.pth")
    with pytest.raises(SettingsError, match="Use none, imagenet, or"):
        load_weights(nn.Linear(1, 1), "resnet18", "pretrained")
    with pytest.raises(SettingsError, match="Use none, pretrained, or"):
        load_weights(nn.Linear(1, 1), "timm:convnext_tiny", "imagenet")


NESTED = {
    "net": lambda state: {"net": state, "acc": 91.2},
    "averaged": lambda state: {
        "n_averaged": torch.tensor(3),
        **{f"module.{name}": value for name, value in state.items()},
    },
    "lightning": lambda state: {
        "state_dict": {
            **{f"model.{name}": value for name, value in state.items()},
            "criterion.weight": torch.ones(3),
            "val_acc.correct": torch.ones(()),
        }
    },
    "backbone": lambda state: {f"backbone.{name}": value for name, value in state.items()},
}


@pytest.mark.parametrize("layout", NESTED)
def test_own_weights_are_found_in_whatever_they_were_saved(layout, tmp_path):
    network, saved = (build_network("resnet18-half", 3, 32) for _ in range(2))
    torch.save(NESTED[layout](saved.state_dict()), tmp_path / "own.pth")
    load_weights(network, "resnet18-half", str(tmp_path / "own.pth"))
    for name, value in saved.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


def test_quantised_weights_are_refused(tmp_path):
    network = build_network("resnet18-half", 3, 32)
    state = {
        name: (10 * value).to(torch.int8) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    torch.save(state, tmp_path / "int8.pth")
    with pytest.raises(CheckpointError, match=r"weights in torch.int8, without their scales"):
        load_weights(network, "resnet18-half", str(tmp_path / "int8.pth"))


def test_a_file_of_weights_is_no_run(tmp_path):
    (tmp_path / "own.pth").touch()
    with pytest.raises(
        CheckpointError, match=r"is a file, expected the folder of a run.*--weights"
    ):
        find_checkpoint(tmp_path / "own.pth")
