"""What is exported is read back, and answers the same."""

from __future__ import annotations

import pytest
import torch

import robustmri
from foreign import SIDE, author_network, example, write_onnx
from robustmri.core.errors import CheckpointError, DataError, SettingsError
from robustmri.models.backbones import build_network
from robustmri.models.checkpoint import load_checkpoint, save_checkpoint
from robustmri.models.classifier import Classifier, ClassifierSpec

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

SPEC = ClassifierSpec(backbone="resnet18", classes=("b", "a"), size=SIDE, mean=0.4, std=0.3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    save_checkpoint(Classifier(build_network("resnet18", 2, SIDE), SPEC), folder)
    return folder


def logits_of(checkpoint):
    classifier, _ = load_checkpoint(checkpoint)
    with torch.no_grad():
        return classifier(example(1, 5))


def test_a_hugging_face_folder_and_back(trained, tmp_path):
    out = robustmri.export_model(trained, tmp_path / "folder", to="huggingface")
    made = robustmri.import_model(out, tmp_path / "again")
    assert (made.spec.classes, made.spec.size) == (SPEC.classes, SPEC.size)
    assert (made.spec.mean, made.spec.std, made.spec.guessed) == (0.4, 0.3, ())
    assert torch.equal(logits_of(tmp_path / "again"), logits_of(trained))


@pytest.mark.slow
def test_transformers_opens_the_folder(trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    out = robustmri.export_model(trained, tmp_path / "folder", to="huggingface")
    model = transformers.AutoModelForImageClassification.from_pretrained(out).eval()
    with torch.no_grad():
        logits = model((example(1, 5) - 0.4) / 0.3).logits
    torch.testing.assert_close(logits, logits_of(trained), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("planes", [1, 3])
def test_an_import_goes_out_as_onnx_and_back(planes, tmp_path):
    """Its end, its order and its normalisation are inside."""
    network = author_network(3, planes=planes, end=torch.nn.Sigmoid())
    path = write_onnx(network, tmp_path / "theirs.onnx")
    robustmri.import_model(path, tmp_path / "first", classes=("a", "b", "c"))
    out = robustmri.export_model(tmp_path / "first", tmp_path / "ours.onnx")
    made = robustmri.import_model(out, tmp_path / "again")
    assert (made.spec.classes, made.spec.size) == (("a", "b", "c"), SIDE)
    assert (made.spec.mean, made.spec.std, made.spec.guessed) == (0.0, 1.0, ())
    expected = logits_of(tmp_path / "first")
    torch.testing.assert_close(logits_of(tmp_path / "again"), expected, rtol=1e-4, atol=1e-4)
    session = runtime.InferenceSession(out.read_bytes())
    (answers,) = session.run(None, {session.get_inputs()[0].name: example(1, 5).repeat(1, planes, 1, 1).numpy()})
    torch.testing.assert_close(torch.tensor(answers), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_program_of_torch_export_and_back(trained, tmp_path):
    out = robustmri.export_model(trained, tmp_path / "ours.pt2", to="pt2")
    given = {"classes": SPEC.classes, "mean": [0.0], "std": [1.0], "trust": True}
    robustmri.import_model(out, tmp_path / "again", **given)
    torch.testing.assert_close(
        logits_of(tmp_path / "again"), logits_of(trained), rtol=1e-3, atol=1e-3
    )


def test_what_cannot_be_exported_is_said(trained, tmp_path):
    path = write_onnx(author_network(2, planes=1), tmp_path / "theirs.onnx")
    for black_box in (False, True):
        out = tmp_path / f"import{black_box}"
        robustmri.import_model(path, out, classes=("a", "b"), black_box=black_box)
    (tmp_path / "taken").write_text("mine")
    for checkpoint, out, to, kind, said in (
        (trained, "x", "tensorflow", SettingsError, "--to cannot be 'tensorflow'"),
        (trained, "taken", "onnx", DataError, "exists already"),
        (tmp_path / "importTrue", "x", "onnx", CheckpointError, "is an ONNX file already"),
        (tmp_path / "importFalse", "x", "huggingface", CheckpointError, "this is imported-onnx"),
        (tmp_path / "nowhere", "x", "onnx", CheckpointError, "does not exist"),
    ):
        with pytest.raises(kind, match=said):
            robustmri.export_model(checkpoint, tmp_path / out, to=to)
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "taken").read_text() == "mine"
