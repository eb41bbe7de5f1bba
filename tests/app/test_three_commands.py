"""The three commands of the README, as they stand there: weights of torchvision's ResNet-50, DICOM
files and a spreadsheet become a report.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import torch

from published import torchvision_resnet
from robustmri.results.schema import load_result
from tiny import draw_slice
from write_dicom import write_dicom

README = Path(__file__).resolve().parents[2] / "README.md"
CLASSES = ("pituitary", "glioma", "meningioma")  # Not in the order of the outputs.


def commands():
    text = README.read_text(encoding="utf-8")
    block = text.split("<!-- three-commands -->")[1].split("<!-- /three-commands -->")[0]
    return [shlex.split(line) for line in re.findall(r"^robustmri (.*)$", block, re.MULTILINE)]


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """resnet50.pth with random weights, and scans/ with its spreadsheet, in the current folder."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in torchvision_resnet("resnet50", classes=3).items():
        if name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight")):
            state[name] = torch.ones(shape)
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        else:
            state[name] = torch.randn(shape, generator=generator) * 0.05
    torch.save(state, "resnet50.pth")
    Path("scans").mkdir()
    book = openpyxl.Workbook()
    book.active.append(("file", "subject", "diagnosis", "age"))
    for kind, label in enumerate(CLASSES):
        for patient in range(2):
            grey = draw_slice(kind, patient, 0).astype(np.uint16) * 8
            write_dicom(Path("scans") / f"{label}{patient}.dcm", grey, patient=f"P{kind}{patient}")
            book.active.append((f"{label}{patient}.dcm", f"P{kind}{patient}", label, 50))
    book.save("scans/who.xlsx")


def check(result):
    assert result.split.kind == "none"
    assert result.split.n_slices == result.split.n_patients == 6
    assert result.cohort.classes == ["glioma", "meningioma", "pituitary"]
    assert {run.attack for run in result.attacks} >= {"fgsm", "pgd"}
    page = Path("report.html").read_text(encoding="utf-8")
    assert "External validation" in page
    assert "what the classifier was trained on is not known" in page
    assert "Not trained here; imported: " in page
    assert "resnet50, resnet50.pth; sha256" in page
    assert "Guessed at import: " in page
    assert "Checked at import on synthetic slices" in page


@pytest.mark.slow
def test_the_three_commands(run, theirs):
    for words in commands():
        status, said = run(*words)
        assert status == 0, said
    check(load_result("result"))


def test_the_three_commands_on_small_slices(run, theirs, use_few_probes, monkeypatch):
    """The same with slices of 32 px and few steps."""
    use_few_probes(monkeypatch)
    small = ("--size", 32)
    quick = ("--set", "evaluate.options.pgd.steps=2", "--attacks", "fgsm,pgd")
    for words, more in zip(commands(), (small, small, quick), strict=True):
        status, said = run(*words, *more)
        assert status == 0, said
    check(load_result("result"))
