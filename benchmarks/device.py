"""`python -m benchmarks.device --out FOLDER --minutes 1`: what of a card's measured peak is used.

A gradient step, PGD, our suite and a training step, ours beside torchattacks' way, from random
weights on noise. Every number is written as soon as it is there; what the time does not allow is
left out by name. Floating-point operations are those of the network as it was built, counted once:
folding a batch-norm or dropping the parameters' gradients is a gain and not less work.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gradient_step import _backward, _example, _ours, _peers_way
from benchmarks.machine import describe_machine, disturbances, features_of, load_now
from benchmarks.training import ours as our_training
from benchmarks.training import torchattacks_loop
from robustmri.attacks import PGD, standard
from robustmri.core.arrays import Images, Labels
from robustmri.core.files import write_json
from robustmri.models.classifier import Classifier
from robustmri.models.optimised import OptimisedView, Precision
from robustmri.threat.threat_model import ThreatModel

EPS, STEPS = 0.04, 20
PEAKS = (("float32", torch.float32, False), ("TF32", torch.float32, True))


class Bench:
    """The rows so far, and the time.

    Args:
        out: folder for device.json and device.md.
        minutes: after them nothing more is begun.
        facts: head of the file.
    """

    def __init__(self, out: Path, minutes: float, facts: dict[str, Any]) -> None:
        self.out, self.ends = out, time.monotonic() + 60 * minutes
        self.record: dict[str, Any] = {**facts, "rows": [], "left_out": []}

    def measure(
        self,
        task: str,
        way: str,
        work: Callable[[], Any],
        images: int,
        flops: float,
        seconds: float = 0,
    ) -> None:
        """Time one way of a task: once to warm up, then thrice, or as often as the time allows.

        Args:
            task: what is done.
            way: how.
            work: does it; on a GPU it must wait for the end.
            images: that it is done to.
            flops: floating-point operations, as the network was built.
            seconds: that it takes before it can be timed, about: compiling.
        """
        if time.monotonic() + seconds > self.ends:
            self.record["left_out"].append(f"{task}: {way}")
            self.write()
            return
        try:
            work()
            times: list[float] = []
            while not times or (len(times) < 3 and time.monotonic() < self.ends):
                began = time.perf_counter()
                work()
                times.append(time.perf_counter() - began)
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            self.record["rows"].append(
                {"task": task, "way": way, "failed": f"{type(error).__name__}: {said}"}
            )
            self.write()
            return
        best = statistics.median(times)
        self.record["rows"].append(
            {
                "task": task,
                "way": way,
                "seconds": round(best, 5),
                "ms_per_image": round(1000 * best / images, 4),
                "tflops": round(flops / best / 1e12, 4) if flops else None,
                "runs": len(times),
            }
        )
        self.write()

    def write(self) -> None:
        """device.json and device.md."""
        write_json(self.out / "device.json", self.record)
        peak = self.record.get("peak_tflops", {})
        best = max(peak.values(), default=None)
        noise = disturbances(self.record.get("load"))
        lines = [f"{features_of(self.record['machine'])}.", ""]
        lines += [f"**Not a quiet machine**: {'; '.join(noise)}.", ""] if noise else []
        lines += [f"Measured peaks, TFLOP/s: {json.dumps(peak)}.", ""]
        lines += ["| task | way | ms an image | TFLOP/s | of the peak |", "|---|---|---|---|---|"]
        for row in self.record["rows"]:
            share = f"{row['tflops'] / best:.0%}" if best and row.get("tflops") else "-"
            cells = (row.get("ms_per_image", row.get("failed")), row.get("tflops") or "-", share)
            lines.append(f"| {row['task']} | {row['way']} | {' | '.join(map(str, cells))} |")
        left = ", ".join(self.record["left_out"])
        lines += ["", f"Left out for want of time: {left}."] if left else []
        (self.out / "device.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def done(work: Callable[[], Any], device: torch.device) -> Callable[[], None]:
    """`work`, and then until the device has done it."""

    def both() -> None:
        work()
        wait(device)

    return both


def measure_peaks(device: torch.device, side: int) -> dict[str, float]:
    """TFLOP/s of a square matrix product on random numbers, in each arithmetic."""
    found = {}
    for name, dtype, rounded in (*PEAKS, ("bfloat16", torch.bfloat16, False)):
        if rounded and device.type != "cuda":
            continue
        torch.backends.cuda.matmul.allow_tf32 = rounded
        one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        one @ other
        wait(device)
        began = time.perf_counter()
        for _ in range(5):
            one @ other
        wait(device)
        found[name] = round(5 * 2 * side**3 / (time.perf_counter() - began) / 1e12, 4)
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def count_flops(classifier: Classifier, images: Images) -> tuple[float, float]:
    """Of a forward, and of a forward with the gradient towards the images, for one image."""
    frozen = [parameter.requires_grad for parameter in classifier.parameters()]
    classifier.requires_grad_(False)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        classifier(images[:1])
    with FlopCounterMode(display=False) as both:
        points = images[:1].detach().requires_grad_(True)
        classifier(points).sum().backward()  # The counter does not follow autograd.grad.
    for parameter, flag in zip(classifier.parameters(), frozen, strict=True):
        parameter.requires_grad_(flag)
    return float(forward.get_total_flops()), float(both.get_total_flops())


def run(bench: Bench, network: str, size: int, batch: int, device: torch.device) -> None:
    """All tasks, the cheapest first."""
    bench.record["peak_tflops"] = measure_peaks(device, 8192 if device.type == "cuda" else 512)
    bench.write()
    images, labels, classifier = _example(network, size, batch, str(device))
    forward, gradient = count_flops(classifier, images)
    bench.record |= {"gflops_per_image": {"forward": forward / 1e9, "gradient": gradient / 1e9}}
    peers = importlib.util.find_spec("torchattacks") is not None

    def bf16(way: Callable[[Images], Images]) -> Callable[[], None]:
        def work() -> None:
            with torch.autocast(device.type, torch.bfloat16):
                way(images)

        return done(work, device)

    def plain(way: Callable[[Images], Images]) -> Callable[[], None]:
        return done(lambda: way(images), device)

    precisions: dict[str, Precision] = {"ours, float32": "fp32", "ours, bfloat16": "bf16"}
    views = {
        name: OptimisedView(classifier, images[:2], precision=precision)
        for name, precision in precisions.items()
    }
    step, flops = "gradient step", gradient * batch
    bench.measure(
        step, "ours, bfloat16", plain(_ours(views["ours, bfloat16"], labels)), batch, flops
    )
    bench.measure(step, "ours, float32", plain(_ours(views["ours, float32"], labels)), batch, flops)
    bench.measure(step, "torchattacks' way", plain(_peers_way(classifier, labels)), batch, flops)
    bench.measure(
        step, "torchattacks' way in autocast", bf16(_peers_way(classifier, labels)), batch, flops
    )
    bench.measure(
        step, "foolbox' and ART's way", plain(_backward(classifier, labels)), batch, flops
    )
    predicted = classifier(images).argmax(1).detach()
    train(bench, classifier, images, labels, 7 * gradient + 3 * forward, device, peers)
    attack(bench, classifier, views["ours, bfloat16"], images, predicted, gradient, device, peers)
    if device.type == "cuda":
        compiled = OptimisedView(classifier, images[:2], precision="bf16", compiled=True)
        way = "ours, bfloat16, compiled with CUDA graphs"
        bench.measure(step, way, plain(_ours(compiled, labels)), batch, flops, seconds=40)


def attack(
    bench: Bench,
    classifier: Classifier,
    view: OptimisedView,
    images: Images,
    labels: Labels,
    flops: float,
    device: torch.device,
    peers: bool,
) -> None:
    """PGD-20 to the end for every image, and the suite."""
    threat, n = ThreatModel(eps=EPS), len(images)

    def ours(one: Any) -> Callable[[], None]:
        def work() -> None:
            one(view, images, labels, threat, generator=torch.Generator().manual_seed(0))

        return done(work, device)

    task = f"PGD-{STEPS}"
    bench.measure(task, "ours", ours(PGD(steps=STEPS)), n, STEPS * flops * n)
    if peers:
        import torchattacks

        peer = torchattacks.PGD(classifier, eps=EPS, alpha=EPS / 8, steps=STEPS)
        bench.measure(
            task,
            "torchattacks",
            done(lambda: peer(images, labels), device),
            n,
            STEPS * flops * n,
        )
    bench.measure("suite, 20 steps", "ours", ours(standard(steps=20, queries=50)), n, 0)
    if peers:
        # Its AutoAttack ends in an IndexError on three classes: these are members that do not.
        two = torchattacks.MultiAttack(
            [
                torchattacks.APGD(classifier, eps=EPS, steps=20, loss="ce"),
                torchattacks.Square(classifier, eps=EPS, n_queries=50),
            ]
        )
        bench.measure(
            "suite, 20 steps",
            "torchattacks' APGD-CE and Square",
            done(lambda: two(images, labels), device),
            n,
            0,
        )


def train(
    bench: Bench,
    classifier: Classifier,
    images: Images,
    labels: Labels,
    flops: float,
    device: torch.device,
    peers: bool,
) -> None:
    """A step of PGD-7 adversarial training, of so many operations for each image (seven gradients
    towards it, and one towards the weights, which is two forwards more); ours with its validation
    of one image.
    """
    import copy

    n, work = len(images), flops * len(images)

    def step(train: Callable[..., Any], **others: Any) -> Callable[[], Any]:
        own = copy.deepcopy(classifier).train()
        for module in own.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1
        return done(lambda: train(own, images, labels, EPS, n, **others), device)

    task = "PGD-7 training step"
    if device.type == "cuda" or not torch.cuda.is_available():
        bench.measure(task, "ours", step(our_training), n, work)
    if peers:
        bench.measure(task, "torchattacks in a plain loop", step(torchattacks_loop), n, work)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=0, help="0: 128 on a GPU, 4 elsewhere")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    batch = given.batch or (128 if device.type == "cuda" else 4)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    load = load_now()  # Before the imports of our own.
    facts = {
        "device": card,
        "network": given.network,
        "size": given.size,
        "batch": batch,
        "machine": describe_machine(),
        "load": load,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    run(Bench(given.out, given.minutes, facts), given.network, given.size, batch, device)


if __name__ == "__main__":
    main()
