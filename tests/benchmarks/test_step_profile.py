"""A gradient step taken apart, and the floors beside it."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import step_profile
from benchmarks.machine import IMITATION
from benchmarks.step_profile import PARTS, Shape, part_of, split_step


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("aten::mkldnn_convolution", "convolutions"),
        ("aten::convolution_backward", "convolutions"),
        ("aten::copy_", "layout"),
        ("aten::native_batch_norm", "normalisation"),
        ("aten::threshold_backward", "activations"),
        ("aten::max_pool2d_with_indices_backward", "activations"),
        ("aten::detach", "rest"),
    ],
)
def test_an_operation_belongs_to_a_part(operation, part):
    assert part_of(operation) == part


def test_the_parts_are_the_whole_and_sleep_is_pythons():
    images, weight = torch.rand(8, 8, 32, 32), torch.rand(8, 8, 3, 3)

    def step():
        torch.relu(torch.conv2d(images, weight))
        time.sleep(0.02)

    shares = split_step(step, 2)
    assert list(shares) == [*PARTS, "python", "rest"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["python"] > max(shares["activations"], shares["rest"])
    assert shares["convolutions"] > 0


@pytest.mark.parametrize(("kernel", "stride", "padding", "groups"), [(3, 1, 1, 1), (7, 2, 3, 2)])
def test_operations_of_a_convolution_are_those_that_torch_counts(kernel, stride, padding, groups):
    images, weight = torch.rand(2, 4, 15, 12), torch.rand(6, 4 // groups, kernel, kernel)
    shape = Shape(tuple(images.shape), tuple(weight.shape), (stride,) * 2, (padding,) * 2, groups)
    with FlopCounterMode(display=False) as counted:
        torch.conv2d(images, weight, stride=stride, padding=padding, groups=groups)
    assert shape.gflop == pytest.approx(counted.get_total_flops() / 1e9)
    assert min(step_profile.time_convolution(shape, torch.float32, 1)) > 0


def test_an_older_processor_is_imitated_by_the_environment_of_a_new_process(tmp_path, monkeypatch):
    asked = {}

    def run(command, **how):
        asked.update(how, command=command)
        return SimpleNamespace(returncode=0)

    for name in IMITATION:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(step_profile.subprocess, "run", run)
    with pytest.raises(SystemExit):
        step_profile.main(["--out", str(tmp_path), "--imitate", "avx2"])
    assert {name: asked["env"][name] for name in IMITATION} == IMITATION
    assert asked["command"][-2:] == ["--imitate", "avx2"]
