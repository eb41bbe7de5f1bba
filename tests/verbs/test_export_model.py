"""What is exported is read back, and answers the same."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

import robustmri
from foreign import SIDE, author_network, example, write_onnx
from robustmri.core.errors import CheckpointError, DataError, SettingsError
from robustmri.data.intensity import resize, scale, to_channels
from robustmri.models.backbones import build_network
from robustmri.models.checkpoint import load_checkpoint, save_checkpoint
from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.models.exporters import _bundle_inference
from robustmri.models.importers import monai_bundle as importer
from robustmri.results.schema import load_result, save_result

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

SPEC = ClassifierSpec(backbone="resnet18", classes=("b", "a"), size=SIDE, mean=0.4, std=0.3)


HERE = str(Path(robustmri.__file__).parent).encode()
"""Where the package lies: nobody's business who gets a network."""


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


def test_what_nobody_measured_goes_out_without_a_figure(trained, tmp_path):
    out = robustmri.export_model(trained, tmp_path / "folder", to="huggingface")
    head, text = (out / "README.md").read_text(encoding="utf-8").split("---\n")[1:]
    assert json.loads(head.partition("library_name: ")[2].partition("\n")[0]) == "transformers"
    assert "model-index" not in head
    assert "Nothing was measured" in text
    assert "AutoModelForImageClassification.from_pretrained" in text
    assert "- **Classes:** b, a" in text


@pytest.fixture
def measured(trained, folders, tmp_path):
    """A result that says it is of these weights."""
    copy = shutil.copytree(folders["after"], tmp_path / "result")
    result, (_, stored) = load_result(copy), load_checkpoint(trained)
    model = msgspec.structs.replace(result.model, checkpoint_sha256=stored.weights_sha256)
    save_result(msgspec.structs.replace(result, model=model), copy)
    return copy


@pytest.mark.parametrize(
    ("to", "out", "card"),
    [
        ("huggingface", "folder", "folder/README.md"),
        ("monai", "bundle", "bundle/docs/README.md"),
        ("pt2", "ours.pt2", "ours.md"),
    ],
)
def test_the_card_tells_what_was_measured(trained, measured, tmp_path, to, out, card, monkeypatch):
    program = SimpleNamespace(graph=SimpleNamespace(nodes=()))
    monkeypatch.setattr("torch.export.export", lambda *given, **more: program)
    monkeypatch.setattr("torch.export.save", lambda program, stream: stream.write(b"x"))
    robustmri.export_model(trained, tmp_path / out, to=to, result=measured)
    text = (tmp_path / card).read_text(encoding="utf-8")
    front = json.loads(text.partition("model-index: ")[2].partition("\n")[0])
    clean = front[0]["results"][0]["metrics"][0]
    assert clean["value"] == round(load_result(measured).results[0].accuracy, 4)
    assert "## Evaluation" in text


def test_figures_of_other_weights_are_refused(trained, folders, tmp_path):
    with pytest.raises(CheckpointError, match="a result of other weights"):
        robustmri.export_model(trained, tmp_path / "x", to="huggingface", result=folders["after"])
    assert not (tmp_path / "x").exists()


COLOURED = msgspec.structs.replace(SPEC, channels=3, size=(32, 40))


@pytest.fixture(params=[0.4, (0.5, 0.4, 0.3)], ids=["one mean", "three"])
def coloured(request, tmp_path):
    """A classifier of oblong images in colour, and the folder of it."""
    spec = msgspec.structs.replace(COLOURED, mean=request.param)
    classifier = Classifier(build_network("resnet18", 2, SIDE, channels=3), spec).eval()
    save_checkpoint(classifier, tmp_path / "checkpoint")
    out = robustmri.export_model(tmp_path / "checkpoint", tmp_path / "folder", to="huggingface")
    return classifier, out


def test_the_processor_is_one_that_knows_height_and_width(coloured):
    """As ConvNext's, which ResNets have, does not; a mean is needed for each plane."""
    told = json.loads((coloured[1] / "preprocessor_config.json").read_text())
    assert told["image_processor_type"] == "ViTImageProcessor"
    assert told["size"] == {"height": 32, "width": 40}
    assert len(told["image_mean"]) == len(told["image_std"]) == 3


@pytest.mark.slow
def test_transformers_prepares_pictures_by_the_folder(coloured):
    transformers = pytest.importorskip("transformers")
    classifier, out = coloured
    pixels = np.random.default_rng(0).integers(0, 255, (32, 40, 3)).astype(np.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    model = transformers.AutoModelForImageClassification.from_pretrained(out).eval()
    with torch.no_grad():
        logits = model(**processor(Image.fromarray(pixels), return_tensors="pt")).logits
        expected = classifier(torch.tensor(pixels).permute(2, 0, 1)[None] / 255)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


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
    assert HERE not in out.read_bytes()
    made = robustmri.import_model(out, tmp_path / "again")
    assert (made.spec.classes, made.spec.size) == (("a", "b", "c"), SIDE)
    assert (made.spec.mean, made.spec.std, made.spec.guessed) == (0.0, 1.0, ())
    expected = logits_of(tmp_path / "first")
    torch.testing.assert_close(logits_of(tmp_path / "again"), expected, rtol=1e-4, atol=1e-4)
    session = runtime.InferenceSession(out.read_bytes())
    (answers,) = session.run(
        None, {session.get_inputs()[0].name: example(1, 5).repeat(1, planes, 1, 1).numpy()}
    )
    torch.testing.assert_close(torch.tensor(answers), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_program_of_torch_export_and_back(trained, tmp_path):
    out = robustmri.export_model(trained, tmp_path / "ours.pt2", to="pt2")
    with zipfile.ZipFile(out) as program:
        assert not [name for name in program.namelist() if HERE in program.read(name)]
    given = {"classes": SPEC.classes, "mean": [0.0], "std": [1.0], "trust": True}
    robustmri.import_model(out, tmp_path / "again", **given)
    torch.testing.assert_close(
        logits_of(tmp_path / "again"), logits_of(trained), rtol=1e-3, atol=1e-3
    )


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    return robustmri.export_model(trained, tmp_path_factory.mktemp("b") / "bundle", to="monai")


def test_a_monai_bundle_and_back(trained, bundle, tmp_path):
    made = robustmri.import_model(bundle, tmp_path / "again")
    assert (made.spec.backbone, made.spec.classes, made.spec.size) == ("resnet18", ("b", "a"), SIDE)
    assert (made.spec.mean, made.spec.std, made.spec.guessed) == (0.4, 0.3, ())
    assert torch.equal(logits_of(tmp_path / "again"), logits_of(trained))


@pytest.mark.filterwarnings("ignore")  # MONAI's own.
def test_monai_reads_the_bundle(trained, bundle):
    from monai.bundle import ConfigParser, load

    network = load(
        bundle.name, bundle_dir=str(bundle.parent), workflow_type="inference", device="cpu"
    ).eval()
    with torch.no_grad():
        logits = network((example(1, 5) - SPEC.mean) / SPEC.std)
    assert torch.equal(logits, logits_of(trained))
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser.read_meta(bundle / "configs" / "metadata.json")
    outputs = parser.get_parsed_content("_meta_#network_data_format#outputs#pred")
    assert outputs["channel_def"] == {"0": "b", "1": "a"}
    assert "the darkest pixel 0" in parser.get_parsed_content("_meta_#description")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """8-bit PNGs that span [0, 1], and what they hold; rows are no columns."""
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 200, (3, SIDE, SIDE)).astype(np.uint8)
    pixels[:, :3], pixels[:, :, :3] = 0, 255
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder, torch.tensor(pixels)[:, None] / 255


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mean", [0.4, (0.5, 0.4, 0.3)])
def test_monai_prepares_pictures_as_we_do(mean, pictures, tmp_path):
    """Its reader turns pictures if it is not told."""
    from monai.bundle import ConfigParser

    planes = 3 if isinstance(mean, tuple) else 1
    spec = msgspec.structs.replace(SPEC, mean=mean, channels=planes)
    classifier = Classifier(build_network("resnet18", 2, SIDE, channels=planes), spec).eval()
    save_checkpoint(classifier, tmp_path / "checkpoint")
    out = robustmri.export_model(tmp_path / "checkpoint", tmp_path / "bundle", to="monai")
    parser = ConfigParser()
    parser.read_config(out / "configs" / "inference.json")
    parser.update({"bundle_root": str(out), "dataset_dir": str(pictures[0])})
    network = parser.get_parsed_content("network").cpu().eval()
    network.load_state_dict(torch.load(parser.get_parsed_content("ckpt_path"), weights_only=True))
    soften = parser.get_parsed_content("postprocessing")
    with torch.no_grad():
        found = [
            soften({"pred": network(batch["image"].as_tensor())[0]})["pred"]
            for batch in parser.get_parsed_content("dataloader")
        ]
        expected = classifier(pictures[1]).softmax(1)
    torch.testing.assert_close(torch.stack(found), expected, rtol=0, atol=1e-5)
    assert importer._normalisation(parser.config) == (mean, (0.3,) * 3 if planes == 3 else 0.3, ())


LEVELS = np.linspace(40, 210, 45 * 30).reshape(45, 30)
"""A picture without edges, higher than wide."""
COLOURS = np.stack([LEVELS, LEVELS[::-1], LEVELS[:, ::-1]], axis=2).astype(np.uint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(24, 24), (20, 28)])
@pytest.mark.parametrize(
    ("planes", "pixels"),
    [
        (3, COLOURS),
        (3, LEVELS.astype(np.uint8)),
        (1, COLOURS),
        (1, LEVELS.astype(np.uint8)),
        (1, (LEVELS * 200).astype(np.uint16)),
    ],
    ids=["colours", "grey in three planes", "colours made grey", "grey", "16 bit"],
)
def test_monai_pads_scales_and_colours_as_prepare_does(planes, pixels, size, tmp_path):
    from monai.bundle import ConfigParser

    spec = msgspec.structs.replace(SPEC, channels=planes, size=size, mean=0.0, std=1.0)
    Image.fromarray(pixels).save(tmp_path / "1.png")
    parser = ConfigParser(_bundle_inference(spec))
    parser.update({"dataset_dir": str(tmp_path)})
    (found,) = [batch["image"] for batch in parser.get_parsed_content("dataloader")]
    prepared = scale(to_channels(pixels, planes), "full" if planes == 3 else "minmax")
    expected = np.moveaxis(np.atleast_3d(resize(prepared, size)), 2, 0)
    assert found.shape[1:] == expected.shape
    apart = np.abs(found[0].numpy() - expected)
    # Where prepare averages over areas, MONAI smooths: edges of what was padded differ a little.
    assert (apart.mean() < 0.01, apart.max() < 0.15) == (True, True)


@pytest.mark.slow
def test_monai_runs_the_bundle(trained, bundle, pictures, tmp_path):
    pytest.importorskip("ignite")
    code = (
        "import sys; from monai.bundle import run; "
        "run(config_file=sys.argv[1], bundle_root=sys.argv[2], dataset_dir=sys.argv[3], "
        "output_dir=sys.argv[4])"
    )
    places = [bundle / "configs" / "inference.json", bundle, pictures[0], tmp_path / "eval"]
    subprocess.run([sys.executable, "-c", code, *map(str, places)], check=True)
    with open(tmp_path / "eval" / "predictions.csv", newline="") as stream:
        found = [[float(value) for value in row[1:]] for row in csv.reader(stream)]
    classifier, _ = load_checkpoint(trained)
    with torch.no_grad():
        expected = classifier(pictures[1]).softmax(1)
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-5)


def test_mirror_images_go_out_with_it(trained, tmp_path):
    path = write_onnx(author_network(2, planes=1), tmp_path / "theirs.onnx")
    robustmri.import_model(path, tmp_path / "plain", classes=("a", "b"))
    mirrored = tmp_path / "mirrored"
    save_checkpoint(load_checkpoint(tmp_path / "plain")[0].answering(mirrored=True), mirrored)
    robustmri.import_model(
        robustmri.export_model(mirrored, tmp_path / "mirrored.onnx", to="onnx"), tmp_path / "back"
    )
    expected = logits_of(mirrored)
    torch.testing.assert_close(logits_of(tmp_path / "back"), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits_of(tmp_path / "plain"), expected, atol=1e-3)
    save_checkpoint(load_checkpoint(trained)[0].answering(mirrored=True), mirrored)
    for to in ("huggingface", "monai"):
        with pytest.raises(CheckpointError, match="asked about mirror images too"):
            robustmri.export_model(mirrored, tmp_path / "x", to=to)


def test_what_cannot_be_exported_is_said(trained, tmp_path):
    path = write_onnx(author_network(2, planes=1), tmp_path / "theirs.onnx")
    for black_box in (False, True):
        out = tmp_path / f"import{black_box}"
        robustmri.import_model(path, out, classes=("a", "b"), black_box=black_box)
    (tmp_path / "taken.onnx").write_text("mine")
    for checkpoint, out, to, kind, said in (
        (trained, "x", "tensorflow", SettingsError, "--to cannot be 'tensorflow'"),
        (trained, "x", "onnx", SettingsError, r"must end in \.onnx"),
        (trained, "taken.onnx", "onnx", DataError, "exists already"),
        (tmp_path / "importTrue", "x.onnx", "onnx", CheckpointError, "is an ONNX file already"),
        (tmp_path / "importFalse", "x", "huggingface", CheckpointError, "this is imported-onnx"),
        (tmp_path / "importFalse", "x", "monai", CheckpointError, "this is imported-onnx"),
        (tmp_path / "nowhere", "x.onnx", "onnx", CheckpointError, "does not exist"),
    ):
        with pytest.raises(kind, match=said):
            robustmri.export_model(checkpoint, tmp_path / out, to=to)
        assert not list(tmp_path.glob("x*"))
    assert (tmp_path / "taken.onnx").read_text() == "mine"
