"""Networks built from published files compute what their publishers' three-plane networks compute
on grey images.
"""

from __future__ import annotations

import re

import pytest
import torch
from monai.networks.nets.densenet import DenseNet121
from monai.networks.nets.resnet import ResNet
from torch import nn

from published import (
    as_radimagenet,
    as_robustness,
    fill,
    torchvision_densenet,
    torchvision_resnet,
    value_of,
)
from robustmri.core.errors import CheckpointError
from robustmri.models.backbones import build_classifier
from robustmri.models.hub import ThreePlanes
from robustmri.models.layouts import read_published
from robustmri.models.weights import load_weights

CLASSES = ("a", "b", "c")
IMAGENET = (torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))
HALVES = (torch.full((3,), 0.5), torch.full((3,), 0.5))


def colour(grey, mean, std):
    return (grey.expand(-1, 3, -1, -1) - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def reference(name, constants, whole_kernel):
    """A three-plane network that has seen images, so that its activations are of a sane size.

    Args:
        constants: mean and std of its planes.
        whole_kernel: False leaves of the first kernel only what never touches the padding of 32 px
            images.
    """
    torch.manual_seed(0)
    if name == "densenet121":
        network = DenseNet121(spatial_dims=2, in_channels=3, out_channels=len(CLASSES))
        stem = network.features.conv0
    else:
        block, layers = {
            "resnet18": ("basic", [2, 2, 2, 2]),
            "resnet50": ("bottleneck", [3, 4, 6, 3]),
        }[name]
        network = ResNet(
            block=block,
            layers=layers,
            block_inplanes=[64, 128, 256, 512],
            spatial_dims=2,
            n_input_channels=3,
            conv1_t_size=7,
            conv1_t_stride=2,
            shortcut_type="B",
            bias_downsample=False,
            num_classes=len(CLASSES),
        )
        stem = network.conv1
    with torch.no_grad():
        if not whole_kernel:
            inner = stem.weight[:, :, 3:5, 3:5].clone()
            stem.weight.zero_()[:, :, 3:5, 3:5] = inner
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.uniform_(module.bias, -0.2, 0.2)
        network.train()(colour(torch.rand(8, 1, 32, 32), *constants))
    return network.eval()


def torchvisions(network):
    """Its tensors by torchvision's names."""
    return {
        re.sub(r"\.layers\.(norm|conv)([12])\.", r".\1\2.", name).replace(
            "class_layers.out.", "classifier."
        ): value
        for name, value in network.state_dict().items()
    }


@pytest.fixture
def forked_rng():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize(
    ("name", "publish", "constants", "exact_at_borders"),
    [
        ("resnet18", dict, IMAGENET, False),
        ("resnet50", as_robustness, IMAGENET, False),
        ("resnet50", as_radimagenet, HALVES, True),
        ("densenet121", as_radimagenet, HALVES, True),
    ],
)
def test_grey_images_give_the_published_networks_logits(
    tmp_path, forked_rng, name, publish, constants, exact_at_borders
):
    theirs = reference(name, constants, whole_kernel=exact_at_borders)
    torch.save(publish(torchvisions(theirs)), tmp_path / "w.pt")
    ours = build_classifier(name, CLASSES, 32, weights=str(tmp_path / "w.pt")).eval()
    if publish is as_radimagenet:  # It has no head.
        assert "last layer drawn anew" in ours.spec.weights
        head = {
            key: value
            for key, value in theirs.state_dict().items()
            if key.startswith(("fc.", "class_layers.out"))
        }
        assert len(ours.network.load_state_dict(head, strict=False).unexpected_keys) == 0
    # In double precision: how float32 convolutions round depends on the processor, and fifty layers
    # carry it on.
    ours, theirs, grey = ours.double(), theirs.double(), torch.rand(3, 1, 32, 32).double()
    with torch.no_grad():
        expected = theirs(colour(grey, *constants))
        torch.testing.assert_close(ours(grey), expected, rtol=1e-4, atol=1e-4)
        assert (ours(grey) - expected.roll(1, 0)).abs().max() > 1e-2  # The images do differ.


def test_radimagenets_own_code_maps_to_minus_one_and_one(tmp_path):
    """As the authors' notebook does it: (image - 127.5) * 2 / 255 for 8-bit images."""
    torch.save(as_radimagenet(fill(torchvision_resnet("resnet50"))), tmp_path / "ResNet50.pt")
    classifier = build_classifier("resnet50", CLASSES, 32, weights=str(tmp_path / "ResNet50.pt"))
    image = torch.tensor([0.0, 51.0, 255.0])
    normalised = (image / 255 - classifier.spec.mean) / classifier.spec.std
    torch.testing.assert_close(normalised, (image - 127.5) * 2 / 255)
    assert "laid out and normalised as RadImageNet's" in classifier.spec.weights


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_robustness_checkpoint_is_read(tmp_path, zipped, prefix):
    state = fill(torchvision_resnet("resnet18"))
    content = as_robustness(state, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), prefix=prefix)
    # Those of 2020 are not zipped.
    torch.save(content, tmp_path / "w.ckpt", _use_new_zipfile_serialization=zipped)
    read = read_published(tmp_path / "w.ckpt")
    assert read.tensors.keys() == state.keys()
    assert all(torch.equal(read.tensors[name], value) for name, value in state.items())
    assert read.mean == pytest.approx((0.5, 0.4, 0.3))
    assert read.std == pytest.approx((0.2, 0.3, 0.4))


def test_the_files_own_normalisation_is_the_classifiers(tmp_path):
    state = fill(torchvision_resnet("resnet18"))
    torch.save(as_robustness(state, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)), tmp_path / "w.ckpt")
    spec = build_classifier("resnet18", CLASSES, 32, weights=str(tmp_path / "w.ckpt")).spec
    assert (spec.mean, spec.std) == (0.4, 0.3)
    torch.save(as_robustness(state), tmp_path / "w.ckpt")
    spec = build_classifier("resnet18", CLASSES, 32, weights=str(tmp_path / "w.ckpt")).spec
    assert (spec.mean, spec.std) == (0.449, 0.226)


@pytest.mark.parametrize("name", ["resnet50", "densenet121"])
def test_radimagenet_names_are_torchvisions(tmp_path, name):
    shapes = torchvision_resnet(name) if name == "resnet50" else torchvision_densenet()
    state = {
        key: value
        for key, value in fill(shapes).items()
        if not key.startswith(("fc.", "classifier."))
    }
    torch.save(as_radimagenet(state), tmp_path / "w.pt")
    read = read_published(tmp_path / "w.pt")
    assert read.tensors.keys() == state.keys()
    assert all(torch.equal(read.tensors[key], value) for key, value in state.items())
    assert (read.mean, read.std) == ((0.5,) * 3, (0.5,) * 3)


def test_a_network_of_another_library_gets_the_files_planes(tmp_path):
    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 2, 1, bias=False)

        def forward(self, images):
            return self.conv1(images).mean((2, 3))

    weight = torch.randn(2, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    constants = (torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4]))
    content = as_robustness(
        {"conv1.weight": weight}, *(tuple(values.tolist()) for values in constants)
    )
    torch.save(content, tmp_path / "w.ckpt")
    network = ThreePlanes(Foreign())
    start = load_weights(network, "timm:any", str(tmp_path / "w.ckpt"))
    grey = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = nn.functional.conv2d(colour(grey, *constants), weight).mean((2, 3))
    torch.testing.assert_close(
        network((grey - start.mean) / start.std), expected, rtol=1e-4, atol=1e-4
    )


def test_a_conversion_from_keras_is_refused_by_name(tmp_path):
    shapes = torchvision_resnet("resnet50") | {"conv1.bias": (64,), "layer1.0.conv1.bias": (64,)}
    torch.save(fill(shapes), tmp_path / "notop.pth")
    with pytest.raises(
        CheckpointError, match=r"notop.pth was converted from Keras: .* take RadImageNet's own"
    ):
        read_published(tmp_path / "notop.pth")


class Recipe:
    def __reduce__(self):
        return value_of, ("x",)


def test_objects_beside_the_tensors_are_refused_with_the_way_out(tmp_path):
    torch.save(as_robustness({"w": torch.zeros(1)}) | {"args": Recipe()}, tmp_path / "w.ckpt")
    with pytest.raises(CheckpointError, match=r"w.ckpt was not opened: .* save its tensors alone"):
        read_published(tmp_path / "w.ckpt")
