"""From somebody else's file to a checkpoint that is evaluated and hardened like any other."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

import robustmri
from foreign import SIDE, author_network, example, write_onnx, write_state
from robustmri.core.errors import CheckpointError, RobustMRIError, SettingsError
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_images
from robustmri.evaluation.plan import QUERY_ATTACKS
from robustmri.models.backbones import build_network
from robustmri.models.checkpoint import load_checkpoint, read_checkpoint
from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.results.lineage import is_of
from robustmri.training.settings import TrainSettings
from robustmri.verbs import import_model as verb
from robustmri.verbs.estimate import estimate_training
from robustmri.verbs.prepare import prepare
from tiny import CLASSES, read_outcomes, tiny_network, write_scans

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

QUICK = {"limit": 4, "batch_size": 8}
# From 48 px to 32.
POOL = {"kernel_shape": [17, 17]}
FEW = {"square": {"queries": 20}, "spsa": {"steps": 2, "samples": 4}}
FEW |= {"hop-skip-jump": {"steps": 1, "samples": 8}}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    scans = write_scans(folder / "scans", patients=5, each=2)
    prepare(str(scans), folder / "cohort", size=SIDE)
    return folder / "cohort"


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    scans = write_scans(folder / "scans", patients=5, each=2, classes=CLASSES[:2])
    prepare(str(scans), folder / "cohort", size=SIDE)
    return folder / "cohort"


@pytest.fixture(scope="module")
def learnt(cohort):
    """A network that has learnt the cohort, its outputs in the order of CLASSES."""
    scans = Cohort.open(cohort)
    rows = range(len(scans))
    images = load_images(scans, rows)
    names = [scans.cases[row].label for row in rows]
    labels = torch.tensor([CLASSES.index(name) for name in names])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = tiny_network("", 3, SIDE)
        steps = torch.optim.Adam(network.parameters(), 0.01)
        for _ in range(60):
            steps.zero_grad()
            nn.functional.cross_entropy(network((images - 0.5) / 0.25), labels).backward()
            steps.step()
    return network.eval()


def of(checks, name):
    return next(check for check in checks if check.name == name)


def test_a_graph_is_evaluated_and_hardened(cohort, learnt, tmp_path):
    path = write_onnx(learnt, tmp_path / "theirs.onnx")
    made = robustmri.import_model(
        path,
        tmp_path / "import",
        classes=CLASSES,
        mean=(0.5,),
        std=(0.25,),
        check=cohort,
    )
    assert [check.status for check in made.checks] == ["pass"] * len(made.checks)
    assert made.spec.guessed == ()
    assert made == read_checkpoint(tmp_path / "import")
    assert made.imported == "theirs.onnx: ONNX, a graph of known operators." + (
        ""
        if made.spec.order == ()
        else " Its outputs were put in the order of the cohort's classes."
    )
    files = {"classifier.json", "graph.json", "weights.safetensors"}
    assert {file.name for file in (tmp_path / "import").iterdir()} == files
    classifier, _ = load_checkpoint(tmp_path / "import")
    scans = Cohort.open(cohort)
    images = load_images(scans, range(6))
    with torch.no_grad():
        theirs = learnt((images - 0.5) / 0.25)
        order = [CLASSES.index(name) for name in scans.classes]
        torch.testing.assert_close(classifier(images), theirs[:, order], rtol=1e-4, atol=1e-4)
    result = robustmri.evaluate(
        tmp_path / "import", cohort, tmp_path / "before", attacks=("fgsm", "pgd"), **QUICK
    )
    assert result.model.backbone == "imported-onnx"
    assert {run.attack for run in result.attacks} == {"fgsm", "pgd"}
    run = robustmri.harden(
        tmp_path / "import", cohort, tmp_path / "hard", epochs=1, attack_steps=1, ema_decay=0.0
    )
    again, checkpoint = load_checkpoint(run)
    assert (checkpoint.spec.format, checkpoint.graph_sha256) == ("graph", made.graph_sha256)
    assert checkpoint.weights_sha256 != made.weights_sha256
    assert again(images).shape == (6, 3)


def test_another_order_of_the_classes_is_seen(cohort, learnt, tmp_path):
    path = write_onnx(learnt, tmp_path / "theirs.onnx")
    wrong = (CLASSES[1], CLASSES[2], CLASSES[0])
    made = robustmri.import_model(
        path, tmp_path / "wrong", classes=wrong, mean=(0.5,), std=(0.25,), check=cohort
    )
    check = of(made.checks, "right on labelled slices")
    assert check.status == "fail"
    assert "look at --classes" in check.detail
    meant = check.detail.split(" were ")[1].split(":")[0].split(", ")
    assert dict(zip(made.spec.classes, meant, strict=True)) == dict(
        zip(wrong, CLASSES, strict=True)
    )
    upper = tuple(name.upper() for name in CLASSES)
    made = robustmri.import_model(
        path, tmp_path / "right", classes=upper, mean=(0.5,), std=(0.25,), check=cohort
    )
    assert of(made.checks, "right on labelled slices").status == "pass"
    assert "capitals" in made.spec.guessed[0]


@pytest.mark.parametrize(
    ("end", "ends_in", "outputs", "kept"),
    [
        (nn.Softmax(1), "", 3, "logits"),
        (nn.Softmax(1), "softmax", 3, "logits"),
        (nn.LogSoftmax(1), "", 3, "logits"),
        (nn.Sequential(nn.Softmax(1), nn.Flatten()), "", 3, "softmax"),
        (nn.Sigmoid(), "", 1, "logits"),
        (nn.Sequential(nn.Sigmoid(), nn.Flatten()), "sigmoid", 1, "sigmoid"),
        (None, "", 1, "logits"),
    ],
)
@pytest.mark.parametrize("black_box", [False, True])
def test_what_it_ends_in_is_seen_and_undone(end, ends_in, outputs, kept, black_box, tmp_path):
    bare = author_network(outputs, planes=1)
    network = author_network(outputs, planes=1, end=end)
    path = write_onnx(network, tmp_path / "theirs.onnx")
    classes = ("a", "b", "c")[: max(outputs, 2)]
    made = robustmri.import_model(
        path,
        tmp_path / "import",
        classes=classes,
        mean=(0,),
        std=(1,),
        ends_in=ends_in,
        black_box=black_box,
    )
    ended = isinstance(end, (nn.Softmax, nn.Sigmoid, nn.Sequential))
    if black_box and ended:
        kept = "softmax" if outputs == 3 else "sigmoid"
    assert made.spec.ends_in == kept
    assert made.spec.one_logit == (outputs == 1)
    assert "It ends in" in made.imported if ended else "It ends in" not in made.imported
    classifier, _ = load_checkpoint(tmp_path / "import")
    images = example(1, 6)
    with torch.no_grad():
        expected = bare(images)
        if outputs == 1:
            expected = torch.cat([torch.zeros_like(expected), expected], 1)
        torch.testing.assert_close(
            classifier(images).softmax(1), expected.softmax(1), rtol=1e-3, atol=1e-5
        )


def test_a_black_box_meets_queries_alone(cohort, learnt, tmp_path):
    path = write_onnx(learnt, tmp_path / "theirs.onnx")
    made = robustmri.import_model(
        path,
        tmp_path / "import",
        classes=CLASSES,
        mean=(0.5,),
        std=(0.25,),
        check=cohort,
        black_box=True,
    )
    assert not made.spec.gradients
    assert of(made.checks, "gradient there to climb").status == "warn"
    assert of(made.checks, "right on labelled slices").status == "pass"
    names = {file.name for file in (tmp_path / "import").iterdir()}
    assert names == {"classifier.json", "model.onnx"}
    result = robustmri.evaluate(tmp_path / "import", cohort, tmp_path / "out", options=FEW, **QUICK)
    assert tuple(result.settings["evaluate"]["attacks"]) == QUERY_ATTACKS
    warned = next(check for check in result.checks if check.name == "attacks had the gradient")
    assert warned.status == "warn"
    assert "Square" in warned.detail
    assert "gradients are there to climb" not in {check.name for check in result.checks}
    assert any("black box" in sentence for sentence in result.threat)
    page = robustmri.write_report([tmp_path / "out"], tmp_path / "report.html").read_text()
    assert "only attacks by queries were run" in page
    assert "theirs.onnx" in page
    leaving = robustmri.write_report([tmp_path / "out"], tmp_path / "r.html", images=False)
    assert "theirs" not in leaving.read_text()
    with pytest.raises(SettingsError, match=r"offers no gradient, and pgd asks.*square, spsa"):
        robustmri.evaluate(
            tmp_path / "import", cohort, tmp_path / "pgd", attacks=("square", "pgd"), **QUICK
        )
    with pytest.raises(SettingsError, match="can be evaluated, not trained"):
        robustmri.harden(tmp_path / "import", cohort, tmp_path / "hard", epochs=1)
    assert not (tmp_path / "pgd").exists()


def test_one_output_for_two_classes(two_classes, tmp_path):
    network = author_network(1, planes=1)
    path = write_onnx(network, tmp_path / "theirs.onnx")
    scans = Cohort.open(two_classes)
    for number, classes in enumerate((scans.classes, scans.classes[::-1])):
        out = tmp_path / f"import{number}"
        robustmri.import_model(path, out, classes=classes, check=two_classes)
        classifier, _ = load_checkpoint(out)
        images = load_images(scans, range(5))
        with torch.no_grad():
            logits = classifier(images)
            single = network((images - classifier.spec.mean) / classifier.spec.std)[:, 0]
        difference = logits[:, 1] - logits[:, 0]
        torch.testing.assert_close(difference, -single if number else single)
        result = robustmri.evaluate(
            out, two_classes, tmp_path / f"out{number}", attacks=("pgd",), **QUICK
        )
        assert len(result.checks) > 5


def test_a_classifier_from_python_is_evaluated_as_it_is(cohort, learnt, tmp_path):
    scans = Cohort.open(cohort)
    spec = ClassifierSpec(backbone="mine", classes=scans.classes, size=SIDE, mean=0.5, std=0.25)
    mine = Classifier(learnt, spec).train()
    first = robustmri.evaluate(mine, cohort, tmp_path / "mine", attacks=("fgsm",), **QUICK)
    assert mine.training
    assert all(one.requires_grad for one in mine.parameters())
    order = [CLASSES.index(name) for name in scans.classes]

    def ask(images):
        flat = images.min() == images.max()
        assert flat or (images.view(np.uint32) & 0xFFFF).any(), "asked in 16 bits"
        with torch.no_grad():
            return learnt(torch.from_numpy(images))[:, order].numpy()

    box = robustmri.BlackBox(ask, spec)
    result = robustmri.evaluate(
        box, cohort, tmp_path / "box", options=FEW, precision="bf16", **QUICK
    )
    assert {run.attack for run in result.attacks} == set(QUERY_ATTACKS)
    assert result.model.checkpoint_sha256 != first.model.checkpoint_sha256
    clean = [row for row in read_outcomes(tmp_path / "box") if row["attack"] == "clean"]
    right = sum(row["prediction"] == row["label"] for row in clean)
    assert right == len(clean)
    with pytest.raises(CheckpointError, match="a function cannot be saved"):
        robustmri.save_checkpoint(box, tmp_path / "saved")


def test_two_normalisations_are_two_classifiers(cohort, tmp_path):
    """An evaluation of the one must not be taken for the other's."""
    path = write_onnx(author_network(planes=1), tmp_path / "theirs.onnx")
    classes = Cohort.open(cohort).classes
    made = [
        robustmri.import_model(path, tmp_path / str(mean), classes=classes, mean=[mean], std=[1])
        for mean in (0.0, 0.5)
    ]
    assert made[0].weights_sha256 == made[1].weights_sha256
    assert made[0].identity != made[1].identity
    result = robustmri.evaluate(
        tmp_path / "0.0", cohort, tmp_path / "result", attacks=["fgsm"], limit=4
    )
    with pytest.raises(CheckpointError, match="another checkpoint"):
        robustmri.certify(tmp_path / "0.5", cohort, tmp_path / "result")
    with pytest.raises(CheckpointError, match="these weights with another normalisation"):
        robustmri.export_model(tmp_path / "0.5", tmp_path / "x.onnx", result=tmp_path / "result")
    made_before = msgspec.structs.replace(result.model, identity="")
    assert is_of(made_before, made[1].weights_sha256, made[1].identity)


@pytest.mark.parametrize("planes", [1, 3])
def test_weights_of_ours_by_name(planes, cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(verb, "USUAL_SIZE", SIDE)
    network = build_network("resnet18-half", 3, SIDE, channels=planes).eval()
    path = write_state(network, tmp_path / "theirs.pth")
    mean, std = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)) if planes == 3 else ((0.5,), (0.2,))
    made = robustmri.import_model(
        path, tmp_path / "import", classes=Cohort.open(cohort).classes, mean=mean, std=std
    )
    assert (made.spec.backbone, made.format_version) == ("resnet18-half", 1 if planes == 1 else 2)
    assert any("32 px, the usual one" in sentence for sentence in made.spec.guessed)
    classifier, _ = load_checkpoint(tmp_path / "import")
    images = example(1)
    given = [torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std)]
    with torch.no_grad():
        expected = network((images.expand(-1, planes, -1, -1) - given[0]) / given[1])
        torch.testing.assert_close(classifier(images), expected)


@pytest.mark.slow
def test_a_resnet50_with_torchvisions_names_on_phantoms(tmp_path):
    prepare("phantom:patients=9,slices=2", tmp_path / "cohort", size=64)
    scans = Cohort.open(tmp_path / "cohort")
    network = build_network("resnet50", 3, 64, channels=3).eval()
    path = write_state(network, tmp_path / "resnet50-theirs.pth")
    made = robustmri.import_model(
        path, tmp_path / "import", classes=scans.classes, check=tmp_path / "cohort"
    )
    assert made.spec.channels == 3
    assert made.spec.mean == (0.485, 0.456, 0.406)
    result = robustmri.evaluate(
        tmp_path / "import", tmp_path / "cohort", tmp_path / "out", attacks=("pgd",), **QUICK
    )
    assert result.model.backbone == "resnet50"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classes": ()}, "does not name its 3 classes. Give --classes in the order"),
        ({"classes": ("a", "b")}, "tells apart 3 classes; got 2 names"),
        ({"classes": ("a", "b", "b")}, "tells apart 3 classes; got 2 names"),
        ({"classes": ("a", "b", "c"), "check": True}, "the cohort's are"),
        ({"mean": (0.5,)}, "--mean and --std belong together"),
        ({"mean": (0.5,), "std": (0.0,)}, "no std 0"),
        ({"mean": (0.5, 0.5), "std": (0.1,)}, "one number or three"),
        ({"mean": (0.5,) * 3, "std": (0.1,) * 3}, "takes one plane"),
        ({"ends_in": "softmax"}, "rows are no probabilities"),
        ({"ends_in": "sigmoid"}, "to end in a sigmoid, but its outputs span"),
        ({"ends_in": "tanh"}, "--ends-in cannot be 'tanh'"),
        ({"check": True, "slices": 0, "classes": CLASSES}, "at least one slice"),
        ({"check": True, "side": 48}, "takes images of 48 px; the cohort has 32 px.*--size 48"),
    ],
)
def test_what_does_not_fit_is_said(options, said, cohort, tmp_path):
    given = {"classes": ("a", "b", "c")} | options
    side = given.pop("side", SIDE)
    path = write_onnx(author_network(planes=1), tmp_path / "theirs.onnx")
    if side != SIDE:
        model = onnx.load(str(path))
        for axis in model.graph.input[0].type.tensor_type.shape.dim[2:]:
            axis.dim_value = side
        model.graph.node.insert(0, onnx.helper.make_node("MaxPool", ["big"], ["images"], **POOL))
        model.graph.input[0].name = "big"
        onnx.save(model, str(path))
    if given.get("check"):
        given["check"] = cohort
    with pytest.raises(RobustMRIError, match=said):
        robustmri.import_model(path, tmp_path / "import", **given)
    assert not (tmp_path / "import").exists()


def test_a_changed_file_is_found(tmp_path):
    path = write_onnx(author_network(planes=1), tmp_path / "theirs.onnx")
    for black_box, name in (
        (False, "graph.json"),
        (False, "weights.safetensors"),
        (True, "model.onnx"),
    ):
        out = tmp_path / name
        robustmri.import_model(path, out, classes=("a", "b", "c"), black_box=black_box)
        content = bytearray((out / name).read_bytes())
        content[-2] ^= 1
        (out / name).write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged or was exchanged"):
            load_checkpoint(out)
        (out / name).unlink()
        with pytest.raises(CheckpointError, match="is missing"):
            load_checkpoint(out)


def test_the_time_of_training_what_only_answers_is_refused_as_its_training_is(cohort, tmp_path):
    path = write_onnx(author_network(3, planes=1), tmp_path / "theirs.onnx")
    robustmri.import_model(
        path, tmp_path / "import", classes=CLASSES, mean=(0,), std=(1,), black_box=True
    )
    with pytest.raises(SettingsError, match="only answers, it offers no gradient"):
        estimate_training(
            cohort, TrainSettings(objective="adversarial"), checkpoint=tmp_path / "import"
        )
