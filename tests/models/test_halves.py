from __future__ import annotations

import msgspec
import pytest
import torch

from robustmri.core.errors import CheckpointError
from robustmri.models.backbones import build_classifier
from robustmri.models.checkpoint import load_checkpoint, save_checkpoint
from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.models.graph import Graph, GraphNetwork, Node
from robustmri.models.halves import Halved, count_parts, halve, join


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("halves")
    classifier = build_classifier("resnet18-half", ("a", "b", "c"), 32).eval()
    save_checkpoint(classifier, folder / "run" / "checkpoint", provenance={"split": "s"})
    return folder / "run"


def test_parts_make_the_network_again(run, tmp_path):
    halved = halve(run, tmp_path, "hard", part_mib=2.0)
    assert len(halved.parts) == count_parts(run, 2.0) == 3
    assert halved.parts[0] == "weights-hard.1-of-3"
    assert all((tmp_path / part).stat().st_size <= 2 * 2**20 for part in halved.parts)
    # The description travels as JSON.
    halved = msgspec.json.decode(msgspec.json.encode(halved), type=Halved)
    join(halved, tmp_path, tmp_path / "again" / "checkpoint")
    before, stored_before = load_checkpoint(run)
    after, stored = load_checkpoint(tmp_path / "again")
    assert stored.weights_sha256 != stored_before.weights_sha256
    assert stored.provenance["split"] == "s"
    assert stored.provenance["rounded"]["weights_sha256_before"] == stored_before.weights_sha256
    assert 0 < halved.largest_change < 2**-10
    images = torch.rand(8, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(before(images), after(images), rtol=0.02, atol=0.02)
    for (name, one), other in zip(
        before.state_dict().items(), after.state_dict().values(), strict=True
    ):
        assert one.dtype == other.dtype
        assert one.dim() > 1 or torch.equal(one, other), f"{name} was rounded"


def test_a_missing_or_damaged_part_is_named(run, tmp_path):
    halved = halve(run, tmp_path, "hard", part_mib=2.0)
    content = (tmp_path / halved.parts[1]).read_bytes()
    (tmp_path / halved.parts[1]).unlink()
    with pytest.raises(CheckpointError, match="2-of-3 of 3 parts"):
        join(halved, tmp_path, tmp_path / "again")
    (tmp_path / halved.parts[1]).write_bytes(content[:-1] + b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        join(halved, tmp_path, tmp_path / "again")


def test_an_import_that_is_no_backbone_is_refused(tmp_path):
    flat = Node(operator="Flatten", inputs=["x"], outputs=["y"])
    graph = Graph(input="x", output="y", nodes=[flat], opset=17)
    spec = ClassifierSpec(backbone="theirs.onnx", classes=("a", "b"), size=2, format="graph")
    save_checkpoint(Classifier(GraphNetwork(graph, {}), spec), tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="kept as a graph"):
        halve(tmp_path, tmp_path, "w")
