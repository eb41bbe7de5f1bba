"""The GPU's tests on an accelerator that is pretended: no tensor is left behind on the CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

TESTS = Path(__file__).resolve().parents[1]
pytestmark = [
    pytest.mark.skipif(
        not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
        reason="torch knows no backends in Python",
    ),
    pytest.mark.skipif(
        not (TESTS / "pretended_gpu.py").is_file(), reason="not in a checkout of the project"
    ),
]

MIX = """
import pretended_gpu, torch
there = torch.ones(2, 3).to("pretended")
assert there.device.type == "pretended" and float((there * 2).sum()) == 12
there + torch.ones(2, 3)
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    surroundings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "ROBUSTMRI_TEST_DEVICE": "pretended",
    }
    return subprocess.run(
        [sys.executable, *arguments], env=surroundings, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_it_tells_the_devices_apart():
    said = python("-c", MIX)
    assert "expected all tensors on the same device" in said.stderr
    assert "aten::add" in said.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_attacks_leave_no_tensor_behind():
    said = python(
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "pretended_gpu",
        "-p",
        "no:cacheprovider",
        str(TESTS / "gpu" / "test_same_as_cpu.py"),
    )
    assert said.returncode == 0, said.stdout[-3000:] + said.stderr[-1000:]
    assert re.search(r"\b[2-9]\d passed", said.stdout), "not skipped"
