"""Where the time of a gradient step goes, and how near it is to what this machine can do:
`python -m benchmarks.step_profile --help`.

Two floors stand beside each step. The arithmetic one is its floating-point operations at the speed
of a large matrix product; the other is the sum of its convolutions, each timed alone, ready in the
layout and the precision that it wants: what the step would take if nothing else had to be done.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.contenders import OURS
from benchmarks.device import count_flops
from benchmarks.gradient_step import _example, _ours
from benchmarks.machine import IMITATION, Others, disturbances, features_of, load_now
from benchmarks.report import PAGE, add_task, open_results
from benchmarks.setting import FULL, QUICK, Work
from robustmri.core.errors import RobustMRIError
from robustmri.models.optimised import OptimisedView, Precision, fast_precision

PARTS = {
    "convolutions": ("conv", "aten::addmm", "aten::mm", "aten::linear"),
    "layout": ("aten::copy_", "_to_copy", "aten::to", "contiguous", "aten::clone", "aten::resize_"),
    "normalisation": ("norm", "aten::sub", "aten::div", "aten::mul"),
    "activations": ("relu", "threshold", "pool", "aten::mean", "aten::add", "aten::sum"),
}
"""What belongs to which part, by what is in an operation's name; the first part that fits."""
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
TITLES: dict[Precision, str] = {"fp32": "float32", "bf16": "bfloat16"}
SIDE, QUICK_SIDE = 1536, 64
"""Of the matrices whose product is the machine's peak."""
Say = Callable[[str], None]


class Shape(NamedTuple):
    """A convolution as a network calls it."""

    images: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int

    @property
    def gflop(self) -> float:
        """Of a forward; as many are in the gradient towards the images."""
        rows, columns = (
            (size + 2 * pad - kernel) // step + 1
            for size, pad, kernel, step in zip(
                self.images[2:], self.padding, self.weight[2:], self.stride, strict=True
            )
        )
        each = self.weight[1] * self.weight[2] * self.weight[3]
        return 2e-9 * self.images[0] * self.weight[0] * rows * columns * each

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.images[1:]))
        return f"{sizes} by {'x'.join(map(str, self.weight))}, step {self.stride[0]}"


def part_of(operation: str) -> str:
    """The part of a step that an operation belongs to.

    >>> [part_of(name) for name in ("aten::convolution_backward", "aten::relu_", "aten::detach")]
    ['convolutions', 'activations', 'rest']
    """
    return next(
        (part for part, words in PARTS.items() if any(w in operation for w in words)), "rest"
    )


def best_of(times: int, work: Callable[[], Any]) -> float:
    """Seconds of the fastest of so many runs, after one that does not count."""
    work()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def split_step(step: Callable[[], Any], steps: int) -> dict[str, float]:
    """Share of each part in the time of a step; "python" is the time in which no operation ran.

    An operation counts without those that it calls.
    """
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        whole = 1e6 * (time.perf_counter() - began)
    spent: defaultdict[str, float] = defaultdict(float)
    for event in seen.key_averages():
        spent[part_of(event.key)] += event.self_cpu_time_total
    spent["python"] = max(0.0, whole - sum(spent.values()))
    whole = sum(spent.values())
    return {part: spent[part] / whole for part in (*PARTS, "python", "rest")}


def convolutions_of(view: OptimisedView, images: Tensor) -> Counter[Shape]:
    """How often the view's network calls each convolution in a forward."""
    met: Counter[Shape] = Counter()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        assert not isinstance(module.padding, str)
        met[
            Shape(
                tuple(inputs[0].shape),
                tuple(module.weight.shape),
                module.stride,
                module.padding,
                module.groups,
            )
        ] += 1

    hooks = [
        module.register_forward_hook(note)
        for module in view._network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        view(images)
    for hook in hooks:
        hook.remove()
    return met


def time_convolution(shape: Shape, dtype: torch.dtype, times: int) -> tuple[float, float]:
    """Seconds of a forward and of the gradient towards its images, alone, channels last."""
    layout = torch.channels_last
    images = torch.randn(shape.images).to(dtype).contiguous(memory_format=layout)
    weight = torch.randn(shape.weight).to(dtype).contiguous(memory_format=layout)
    settings = (list(shape.stride), list(shape.padding), [1, 1])

    def forward() -> Tensor:
        return torch.convolution(images, weight, None, *settings, False, [0, 0], shape.groups)

    with torch.no_grad():
        gradient = forward()
        backward = torch.ops.aten.convolution_backward

        def back() -> None:
            backward(
                *(gradient, images, weight, None, *settings, False, [0, 0], shape.groups),
                [True, False, False],
            )

        return best_of(times, forward), best_of(times, back)


def matrix_peak(dtype: torch.dtype, side: int) -> float:
    """GFLOP/s of a square matrix product."""
    one, other = (torch.randn(side, side).to(dtype) for _ in range(2))
    return 2e-9 * side**3 / best_of(5, lambda: one @ other)


def profile_steps(work: Work, rounds: int, say: Say) -> dict[str, Any]:
    """The record of the task: a row for each network, size and precision, and one for each
    convolution in them.
    """
    quick = work == QUICK
    precisions: list[Precision] = ["fp32"]
    if fast_precision(torch.device("cpu")) == "bf16":
        precisions.append("bf16")
    side, times = (QUICK_SIDE, 1) if quick else (SIDE, 3)
    peaks = {one: matrix_peak(DTYPES[one], side) for one in precisions}
    rows, shapes, timed = [], [], {}
    for network, size, batch in work.profiles:
        images, labels, classifier = _example(network, size, batch, "cpu")
        _, gradient = count_flops(classifier, images)
        for one in precisions:
            where = f"{network} at {size} px, {TITLES[one]}"
            say(where)
            view = OptimisedView(classifier, images[:2], precision=one)
            step = partial(_ours(view, labels), images)
            seconds = [best_of(1, step) for _ in range(rounds)]
            shares = split_step(step, 1 if quick else 3)
            alone = 0.0
            for shape, calls in convolutions_of(view, images).items():
                key = shape, one
                if key not in timed:
                    timed[key] = time_convolution(shape, DTYPES[one], times)
                    shapes.append(_shape_row(shape, one, timed[key], peaks[one]))
                alone += calls * sum(timed[key])
            median = statistics.median(seconds)
            each = 1000 * median / batch
            rows.append(
                {
                    "contender": f"{where}: {OURS}",
                    "median_seconds": round(median, 5),
                    "seconds": [round(one, 5) for one in seconds],
                    "ms_per_image_and_step": round(each, 3),
                    **{f"ms_{part}": round(each * share, 4) for part, share in shares.items()},
                    "gflops": round(gradient * batch / median / 1e9, 1),
                    "of_gemm": round(gradient * batch / median / 1e9 / peaks[one], 3),
                    "ms_convolutions_alone": round(1000 * alone / batch, 4),
                    "of_convolutions": round(alone / median, 3),
                }
            )
    return {
        "title": "Where the time of a gradient step goes, random weights",
        "setting": {
            "batch": {f"{name} at {size} px": batch for name, size, batch in work.profiles},
            "gflops_of_a_matrix_product": {
                TITLES[one]: round(peak, 1) for one, peak in peaks.items()
            },
            "left_out": "" if "bf16" in precisions else "bfloat16, which this processor lacks",
        },
        "rows": rows,
        "details": shapes,
        "ratios": [],
        "missing": [],
    }


def _shape_row(
    shape: Shape, precision: Precision, seconds: tuple[float, float], peak: float
) -> dict[str, Any]:
    forward, backward = (shape.gflop / one for one in seconds)
    return {
        "convolution": f"{shape}, {shape.images[0]} images, {TITLES[precision]}",
        "GFLOP": round(shape.gflop, 3),
        "forward, GFLOP/s": round(forward, 1),
        "of a matrix product": round(forward / peak, 2),
        "gradient, GFLOP/s": round(backward, 1),
        "of a matrix product ": round(backward / peak, 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Profile, and write benchmarks.json and its page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_profile", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--imitate",
        choices=["avx2"],
        help="an older processor, by the environment of torch and oneDNN; the page says that it is "
        "an imitation: caches, clock and memory stay those of this machine",
    )
    parser.add_argument("--quick", action="store_true", help="to see that it runs")
    given = parser.parse_args(arguments)
    if given.imitate and any(os.environ.get(name) != value for name, value in IMITATION.items()):
        words = sys.argv[1:] if arguments is None else arguments
        command = [sys.executable, "-m", "benchmarks.step_profile", *map(str, words)]
        sys.exit(subprocess.run(command, env={**os.environ, **IMITATION}, check=False).returncode)
    load = load_now()
    results = open_results(given.out, {"random_weights": True, "quick": given.quick})
    for line in (features_of(results["machine"]), *disturbances(load)):
        print(line, file=sys.stderr)
    others = Others()
    record = profile_steps(
        QUICK if given.quick else FULL,
        1 if given.quick else given.rounds,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    add_task(given.out, results, "profile", record, load=load, others=others.cores())
    print((given.out / PAGE).read_text())


if __name__ == "__main__":
    try:
        main()
    except RobustMRIError as error:
        sys.exit(str(error))
