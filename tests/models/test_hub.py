from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
import torch

import robustmri
from robustmri.core.errors import CheckpointError, SettingsError
from robustmri.models.backbones import build_classifier
from robustmri.models.checkpoint import load_checkpoint, save_checkpoint
from robustmri.models.hub import _import, is_hub, pretrained_state
from robustmri.models.stem import IMAGENET_MEAN, IMAGENET_STD, ThreePlanes

NAMES = {"timm": "timm:resnet10t", "torchvision": "torchvision:mobilenet_v3_small"}


def imports(package):
    try:
        _import(package)
    except (ImportError, RuntimeError):
        return False
    return True


def test_names():
    assert is_hub("hf:microsoft/resnet-18")
    assert not is_hub("timm")
    assert not is_hub("other:resnet18")


@pytest.mark.parametrize(
    ("package", "name"), [*NAMES.items(), ("transformers", "hf:microsoft/resnet-18")]
)
def test_a_missing_library_is_named_with_its_extra(package, name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(SettingsError, match=rf"needs the package {package}.*robustmri\[hub\]"):
        build_classifier(name, ("a", "b"), 64)


@pytest.mark.parametrize(("package", "name"), NAMES.items())
def test_a_foreign_network_is_built_saved_and_loaded(package, name, tmp_path):
    if not imports(package):
        pytest.skip(f"{package} is not installed")
    classifier = build_classifier(name, ("a", "b", "c"), 64).eval()
    assert isinstance(classifier.network, ThreePlanes)
    images = torch.rand(2, 1, 64, 64)
    save_checkpoint(classifier, tmp_path / "checkpoint")
    again, _ = load_checkpoint(tmp_path / "checkpoint")
    with torch.no_grad():
        logits = classifier(images)
        assert logits.shape == (2, 3)
        assert torch.equal(again(images), logits)
    torch.save(classifier.network.model.state_dict(), tmp_path / "own.pth")
    other = build_classifier(
        name, ("a", "b", "c"), 64, weights=str(tmp_path / "own.pth"), seed=1
    ).eval()
    with torch.no_grad():
        assert torch.equal(other(images), logits)


@pytest.mark.peer
@pytest.mark.parametrize(
    "name",
    [
        "timm:resnet10t",
        "timm:tf_efficientnet_lite0",
        "timm:vit_tiny_patch16_224",
        "torchvision:resnet18",
        "torchvision:mobilenet_v3_small",
    ],
)
def test_a_file_of_the_library_answers_as_its_own_network(name, tmp_path):
    """What stands in the file is all that the library's own code needs, too."""
    package, _, model = name.partition(":")
    if not imports(package):
        pytest.skip(f"{package} is not installed")
    library, mean, std = _import(package), IMAGENET_MEAN, IMAGENET_STD
    if package == "timm":
        facts = library.get_pretrained_cfg(model)
        mean, std = facts.mean, facts.std
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if package == "timm":
            network = library.create_model(model, num_classes=3)
        else:
            network = library.models.get_model(model, weights=None, num_classes=3)
        network.train()(torch.rand(4, 3, 224, 224))  # Statistics of its own.
    network.eval()
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    made = robustmri.import_model(
        tmp_path / "theirs.pth", tmp_path / "checkpoint", arch=name, classes=("a", "b", "c")
    )
    assert (made.spec.backbone, made.spec.size) == (name, 224)
    images = torch.rand(2, 1, 224, 224, generator=torch.Generator().manual_seed(1))
    planes = [(images - one) / other for one, other in zip(mean, std, strict=True)]
    with torch.no_grad():
        expected = network(torch.cat(planes, 1))
        found = load_checkpoint(tmp_path / "checkpoint")[0](images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("package", "name"), [("timm", "timm:nope"), ("torchvision", "torchvision:nope")]
)
def test_an_unknown_name_is_refused(package, name):
    if not imports(package):
        pytest.skip(f"{package} is not installed")
    with pytest.raises(SettingsError, match="nope"):
        build_classifier(name, ("a", "b"), 64)


@pytest.mark.parametrize("name", ["hf:/data/nets/vit", "hf:../vit", "timm:hf-hub:a/b"])
def test_what_could_not_be_loaded_again_is_not_built(name):
    with pytest.raises(SettingsError, match="no name that"):
        build_classifier(name, ("a", "b"), 64)


def test_a_hugging_face_network_is_built_by_its_name(tmp_path, monkeypatch):
    if not imports("transformers"):
        pytest.skip("transformers is not installed")
    import transformers

    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
    )
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(
        tmp_path / "net"
    )
    monkeypatch.chdir(tmp_path)
    classifier = build_classifier("hf:net", ("a", "b", "c"), 64, weights="pretrained")
    assert classifier(torch.rand(2, 1, 64, 64)).shape == (2, 3)
    assert "last layer drawn anew" in classifier.spec.weights


class Code:
    """What a pickle may hold in place of tensors."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


def test_a_library_that_would_run_the_code_of_a_file_does_not(tmp_path, monkeypatch):
    """torchvision asks torch to load its files with all that is in them."""
    torch.save({"weight": Code(tmp_path / "ran")}, tmp_path / "file.pth")

    def get_model(name, weights):
        return torch.load(tmp_path / "file.pth", weights_only=False)

    library = SimpleNamespace(models=SimpleNamespace(get_model=get_model))
    monkeypatch.setitem(sys.modules, "torchvision", library)
    before = dict(os.environ)
    with pytest.raises(CheckpointError, match="hold more than tensors"):
        pretrained_state("torchvision:resnet18", 32)
    assert not (tmp_path / "ran").exists()
    assert dict(os.environ) == before
