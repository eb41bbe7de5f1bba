from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from robustmri.core.errors import SettingsError
from robustmri.models.backbones import (
    BACKBONES,
    build_classifier,
    build_network,
    monai_settings,
)

# Numbers of parameters for 1000 classes and three planes, as torchvision publishes them; of the
# last those in its published file.
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "densenet121": 7_978_856,
    "vit": 86_567_656,
    "efficientnet-lite0": 4_652_008,
}
PLANE = {
    "resnet18": 64 * 49,
    "resnet50": 64 * 49,
    "densenet121": 64 * 49,
    "vit": 768 * 256,
    "efficientnet-lite0": 32 * 9,
}
# torchvision's embedding of the class token's position, which is part of our token.
CLASS_POSITION = {"vit": 768}


@pytest.fixture(scope="module")
def vit():
    return build_network("vit", 3, 32).eval()


@pytest.mark.parametrize("name", [name for name in BACKBONES if name.startswith("resnet")])
def test_resnets_are_monais_to_the_last_bit(name):
    """Names, order, first weights of a seed, and logits: a checkpoint fits both."""
    from monai.networks import nets

    kind, settings = monai_settings(name, 3, 1)
    made = []
    with torch.random.fork_rng():
        for build in (lambda: build_network(name, 3, 32), lambda: getattr(nets, kind)(**settings)):
            torch.manual_seed(0)
            made.append(build().eval())
    ours, theirs = made
    assert [part for part, _ in ours.named_modules()] == [
        part for part, _ in theirs.named_modules()
    ]
    weights, expected = ours.state_dict(), theirs.state_dict()
    assert list(weights) == list(expected)
    assert all(torch.equal(weights[part], expected[part]) for part in expected)
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name):
    with torch.device("meta"):
        network = build_network(name, 1000, 224)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == PUBLISHED[name] - 2 * PLANE[name] - CLASS_POSITION.get(name, 0)


def test_the_narrow_one_has_half_the_channels_of_its_namesake():
    with torch.device("meta"):
        whole, narrow = (
            build_network(name, 3, 64).state_dict() for name in ("resnet18", "resnet18-half")
        )
    assert whole.keys() == narrow.keys()
    assert {*PUBLISHED, "resnet18-half"} == set(BACKBONES)
    for name, weight in whole.items():
        if weight.dim() and not name.startswith("fc."):
            assert narrow[name].shape[0] == weight.shape[0] // 2


@pytest.mark.parametrize("name", ["resnet18", "resnet18-half", "densenet121", "efficientnet-lite0"])
@pytest.mark.parametrize("size", [32, 50])
def test_logits_of_grey_images_of_any_size(name, size):
    network = build_network(name, 4, size).eval()
    assert network(torch.rand(2, 1, size, size)).shape == (2, 4)


def test_vit_gives_plain_logits(vit):
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        logits = vit(images)
        vit.vit.classification_head.bias += 5.0
        assert logits.shape == (2, 3)
        # A Tanh behind the head would squash this.
        torch.testing.assert_close(vit(images), logits + 5.0)
        vit.vit.classification_head.bias -= 5.0


def test_vit_attention_is_the_textbook_one(vit):
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        fast = vit(images)
        for block in vit.vit.blocks:
            block.attn.use_flash_attention = False
        torch.testing.assert_close(vit(images), fast, rtol=1e-4, atol=1e-4)


def test_every_parameter_of_vit_is_used(vit):
    gradients = torch.autograd.grad(
        vit(torch.rand(1, 1, 32, 32)).sum(), list(vit.parameters()), allow_unused=True
    )
    assert all(gradient is not None for gradient in gradients)


def test_seed_decides_the_weights_and_leaves_torchs_generator_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = build_classifier("resnet18", ("a", "b"), 32, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    again = build_classifier("resnet18", ("a", "b"), 32, seed=1).state_dict()
    other = build_classifier("resnet18", ("a", "b"), 32, seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["network.conv1.weight"], other["network.conv1.weight"])


def test_classifier_knows_what_it_is():
    classifier = build_classifier("resnet18", ["glioma", "pituitary"], 48)
    assert classifier.spec.classes == ("glioma", "pituitary")
    assert (classifier.spec.backbone, classifier.spec.size, classifier.spec.weights) == (
        "resnet18",
        48,
        "none",
    )
    assert classifier.training


@pytest.mark.parametrize(
    ("name", "classes", "size", "said"),
    [
        ("resnet81", 3, 64, "Did you mean 'resnet18'"),
        ("keras:vgg", 3, 64, "timm:NAME"),
        ("resnet18", 1, 64, "at least 2 classes, got 1"),
        ("resnet18", 3, 16, "at least 32 px, got 16"),
        ("vit", 3, 50, "--size 48"),
    ],
)
def test_impossible_networks_are_refused(name, classes, size, said):
    with pytest.raises(SettingsError, match=said):
        build_network(name, classes, size)


def test_class_names_must_differ():
    with pytest.raises(SettingsError, match="differ"):
        build_classifier("resnet18", ("glioma", "glioma"), 32)


def test_importing_the_room_does_not_import_monai():
    code = "import sys, robustmri.models.checkpoint; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
