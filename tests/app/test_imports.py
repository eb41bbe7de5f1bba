"""`robustmri import` and `models`: what is said, and every refusal in one line."""

from __future__ import annotations

import json

import pytest

from foreign import author_network, write_onnx
from robustmri.models.checkpoint import read_checkpoint

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def test_an_import_says_what_it_guessed_and_found(robustmri, tmp_path):
    path = write_onnx(author_network(), tmp_path / "theirs.onnx")
    status, out, err = robustmri(
        "import", path, "--out", tmp_path / "out", "--classes", "ill,well,other"
    )
    assert (status, err) == (0, "")
    assert "theirs.onnx: ONNX, a graph of known operators." in out
    assert "32 px, in colour or grey, classes ill, well, other" in out
    assert "guessed: Mean and standard deviation are ImageNet's: the file does not say." in out
    for check in read_checkpoint(tmp_path / "out").checks:
        assert check.name in out
    assert "go on with: robustmri evaluate" in out
    given = ["--mean", "0.1,0.2,0.3", "--std", "0.5,0.5,0.5"]
    status, out, _ = robustmri(
        "import", path, "--out", tmp_path / "out", "--classes", "ill,well,other", *given
    )
    assert status == 0
    assert "guessed" not in out
    assert read_checkpoint(tmp_path / "out").spec.mean == (0.1, 0.2, 0.3)


def test_names_of_a_file_move_no_cursor(robustmri, tmp_path):
    path = write_onnx(author_network(), tmp_path / "theirs.onnx")
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {"names": json.dumps(["\x1b[2Ja", "[bold]b", "c"])})
    onnx.save(model, str(path))
    status, out, _ = robustmri("import", path, "--out", tmp_path / "out")
    assert status == 0
    assert "\x1b" not in out
    assert r"\x1b[2Ja, [bold]b, c" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.onnx"], "nowhere.onnx does not exist"),
        (["{path}"], "does not name its 3 classes"),
        (["{path}", "--classes", "a,b,c", "--mean", "grey"], "--mean must be one number or three"),
        (["{path}", "--classes", "a,b,c", "--check", "{folder}"], "is not a cohort"),
        (["foreign:build"], "add --trust"),
    ],
)
def test_what_cannot_be_imported_is_one_line(words, said, robustmri, tmp_path):
    path = write_onnx(author_network(), tmp_path / "theirs.onnx")
    words = [word.format(path=path, folder=tmp_path) for word in words]
    status, out, err = robustmri("import", *words, "--out", tmp_path / "out")
    assert status in (1, 2)
    assert out == ""
    (line,) = err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


def test_networks_and_imports_are_listed(robustmri):
    status, out, _ = robustmri("models")
    assert status == 0
    for name in ("resnet18", "vit", "timm:NAME", ".onnx", "MONAI bundle", "--trust"):
        assert name in out
