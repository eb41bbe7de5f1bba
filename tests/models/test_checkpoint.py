from __future__ import annotations

import json

import msgspec
import pytest
import torch
from torch import nn

from robustmri.core.errors import CheckpointError
from robustmri.models.backbones import build_classifier
from robustmri.models.checkpoint import (
    check_fits,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from robustmri.models.classifier import Classifier, ClassifierSpec

CLASSES = ("meningioma", "glioma", "pituitary")


@pytest.fixture(scope="module")
def classifier():
    return build_classifier("resnet18", CLASSES, 32).eval()


@pytest.fixture
def saved(classifier, tmp_path):
    save_checkpoint(
        classifier, tmp_path / "run" / "checkpoint", training={"epochs": 2}, provenance={"seed": 0}
    )
    return tmp_path / "run" / "checkpoint"


def small(backbone="custom"):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    return Classifier(network, ClassifierSpec(backbone=backbone, classes=("ill", "well"), size=2))


def test_what_is_saved_comes_back_bit_for_bit(classifier, saved):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    again, checkpoint = load_checkpoint(saved)
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), classifier(images))
    assert checkpoint.spec == classifier.spec == again.spec
    assert (checkpoint.training, checkpoint.provenance) == ({"epochs": 2}, {"seed": 0})
    assert not again.training
    assert read_checkpoint(saved) == checkpoint
    assert sorted(path.name for path in saved.iterdir()) == [
        "classifier.json",
        "weights.safetensors",
    ]


def test_a_run_folder_will_do(saved):
    assert load_checkpoint(saved.parent)[1] == load_checkpoint(str(saved))[1]


def test_channels_last_weights_and_training_mode_are_kept_by_the_one_who_saves(tmp_path):
    classifier = build_classifier("resnet18", CLASSES, 32).to(memory_format=torch.channels_last)
    save_checkpoint(classifier, tmp_path / "a")
    assert classifier.training
    assert classifier.network.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    again, _ = load_checkpoint(tmp_path / "a")
    assert torch.equal(
        again.network.layer1[0].conv1.weight, classifier.network.layer1[0].conv1.weight
    )


def test_same_weights_give_the_same_hash(saved, classifier, tmp_path):
    other = save_checkpoint(classifier, tmp_path / "other")
    assert other.weights_sha256 == read_checkpoint(saved).weights_sha256


def test_an_interrupted_save_leaves_the_old_checkpoint(saved, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    before = read_checkpoint(saved)
    monkeypatch.setattr("robustmri.models.checkpoint.sha256_of", stop)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(small(), saved)
    assert read_checkpoint(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint"]


def test_a_flipped_bit_is_found(saved):
    content = bytearray((saved / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (saved / "weights.safetensors").write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="damaged or was exchanged"):
        load_checkpoint(saved)


def test_missing_weights_are_named(saved):
    (saved / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"weights.safetensors is missing"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "content", [b"", b'{"format_version": 1, "spec"', b"[]", b"\xff\xfe", b'{"format_version": 1}']
)
def test_a_damaged_head_is_named(saved, content):
    (saved / "classifier.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"classifier.json is damaged"):
        load_checkpoint(saved)


def test_another_format_version_is_refused(saved):
    head = json.loads((saved / "classifier.json").read_text())
    (saved / "classifier.json").write_text(json.dumps(head | {"format_version": 99}))
    with pytest.raises(CheckpointError, match="format version 99, this release reads 1"):
        load_checkpoint(saved)


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_checkpoint(tmp_path)


def test_a_network_of_ones_own(tmp_path):
    classifier = small()
    save_checkpoint(classifier, tmp_path / "own")
    with pytest.raises(CheckpointError, match=r"network=MyNetwork\(\)"):
        load_checkpoint(tmp_path / "own")
    again, _ = load_checkpoint(
        tmp_path / "own", network=nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    )
    images = torch.rand(3, 1, 2, 2)
    assert torch.equal(again(images), classifier(images))
    with pytest.raises(CheckpointError, match="does not fit the network 'custom'"):
        load_checkpoint(tmp_path / "own", network=nn.Linear(4, 2))


def test_tied_weights_are_saved(tmp_path):
    classifier = small()
    classifier.network.append(nn.Linear(2, 2))
    classifier.network.append(classifier.network[-1])
    save_checkpoint(classifier, tmp_path / "tied")
    assert read_checkpoint(tmp_path / "tied").spec == classifier.spec


def test_cohort_and_checkpoint_must_agree(saved):
    checkpoint = read_checkpoint(saved)
    check_fits(checkpoint, list(CLASSES), 32)
    with pytest.raises(
        CheckpointError, match="tells apart meningioma, glioma, pituitary; the cohort has glioma"
    ):
        check_fits(checkpoint, ("glioma", "meningioma", "pituitary"), 32)
    with pytest.raises(
        CheckpointError, match=r"images of 32 px; the cohort has 64 px\..*--size 32"
    ):
        check_fits(checkpoint, CLASSES, 64)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_kept(number, tmp_path):
    classifier = build_classifier("resnet18-half", ("ill", "well"), 32)
    save_checkpoint(classifier, tmp_path / "run")
    before = (tmp_path / "run" / "weights.safetensors").read_bytes()
    with torch.no_grad():
        next(classifier.parameters())[0] = number
    with pytest.raises(CheckpointError, match="smaller learning rate"):
        save_checkpoint(classifier, tmp_path / "run")
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == before


def test_what_older_releases_would_misread_they_refuse(tmp_path):
    """A network that is as it always was keeps the old number, so that they read it."""
    spec = small().spec
    for changes, version in (
        ({}, 1),
        ({"guessed": ("something",)}, 1),
        ({"ends_in": "softmax"}, 2),
        ({"channels": 3}, 2),
        ({"order": (1, 0)}, 2),
        ({"mirrored": True}, 2),
        ({"mean": (0.1, 0.2, 0.3)}, 2),
    ):
        classifier = Classifier(small().network, msgspec.structs.replace(spec, **changes))
        made = save_checkpoint(classifier, tmp_path / "own")
        assert made.format_version == version, changes
        assert read_checkpoint(tmp_path / "own") == made


def test_a_head_of_an_older_release_is_read(saved):
    head = json.loads((saved / "classifier.json").read_text())
    spec = {name: head["spec"][name] for name in ("backbone", "classes", "size", "weights")}
    old = {"spec": spec} | {
        name: head[name] for name in ("weights_sha256", "training", "provenance", "format_version")
    }
    (saved / "classifier.json").write_text(json.dumps(old))
    classifier, checkpoint = load_checkpoint(saved)
    assert (classifier.spec.mean, classifier.spec.format) == (0.449, "backbone")
    assert checkpoint.identity == head["weights_sha256"]


def test_the_same_weights_asked_about_mirror_images_are_another_classifier(tmp_path):
    plain = small()
    one, other = (
        save_checkpoint(plain.answering(mirrored=mirrored), tmp_path / str(mirrored))
        for mirrored in (False, True)
    )
    assert one.weights_sha256 == other.weights_sha256 == one.identity
    assert other.identity != one.identity
