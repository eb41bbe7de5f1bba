"""The classifier as an attack sees it: the same function, faster, with nothing to learn.

Batch-norm is folded into the convolution before it, memory is channels-last, the arithmetic bfloat16 where that is
fast, and on a CPU each core works on its own micro-batches. What an attack claims on this view counts only after a
forward of the original classifier in float32 has confirmed it.
"""

from __future__ import annotations

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robustmri.arrays import Images, Logits
from robustmri.errors import ThreatModelError

Precision = Literal["fp32", "bf16"]
MICRO_BATCH = 32
"""Images of one lane's forward. Smaller ones spend their time on the weights: 8 took 1.6 to 1.8 times as long as 32
(ResNet-18 in bfloat16, 64 and 96 px, two cores)."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fast_precision(device: torch.device) -> Precision:
    """bfloat16 where the hardware multiplies in it: recent NVIDIA GPUs, and CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    try:
        with open("/proc/cpuinfo") as stream:
            flags = stream.read()
    except OSError:
        return "fp32"
    return "bf16" if device.type == "cpu" and ("avx512_bf16" in flags or "amx_bf16" in flags) else "fp32"


def fold_batch_norm(network: nn.Module, example: Tensor) -> nn.Module:
    """A copy of `network` in evaluation mode with each batch-norm folded into the convolution that feeds it.

    Pairs are found by running `example` through the network: a batch-norm whose input is the very output of a
    convolution. The folded copy is used only if it computes the same function, on `example` and on noise (a black
    example could not tell); otherwise, as where a convolution's output has a second reader, a plain copy comes back.
    """
    plain = copy.deepcopy(network).eval().requires_grad_(False)
    folded = copy.deepcopy(plain)
    names = {module: name for name, module in folded.named_modules()}
    produced: dict[int, tuple[nn.Module, Tensor]] = {}
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def watch(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, _CONVOLUTIONS):
            produced[id(output)] = (module, output)  # The tensor is held, so that its id stays its own.
        elif isinstance(module, _BATCH_NORMS) and module.track_running_stats and inputs and id(inputs[0]) in produced:
            pairs.append((produced[id(inputs[0])][0], module))

    watched = [module.register_forward_hook(watch) for module in folded.modules()]
    noise = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    example = torch.cat([example, noise])
    with torch.no_grad():
        expected = folded(example)
        for hook in watched:
            hook.remove()
        for convolution, batch_norm in pairs:
            _replace(folded, names[convolution], fuse_conv_bn_eval(convolution, batch_norm))  # type: ignore[type-var, arg-type]
            _replace(folded, names[batch_norm], nn.Identity())
        # Relative to the largest logit: an absolute tolerance accepts anything where all logits are small.
        same = bool((folded(example) - expected).abs().max() <= 1e-3 * expected.abs().max())
    return folded if same else plain


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


class OptimisedView:
    """Images in [0, 1] to float32 logits, differentiable with respect to the images only.

    Args:
        classifier: left as it is; the view holds a converted copy, so make a new view after its weights change.
        example: images of the shape that will come, at least one, on the classifier's device.
        precision: "fp32", "bf16", or None for the faster of the two here.
        lanes: threads, each with one core and micro-batches of its own; None: one per core on a CPU, none on a GPU.
    """

    def __init__(
        self, classifier: nn.Module, example: Images, *, precision: Precision | None = None, lanes: int | None = None
    ) -> None:
        self.precision: Precision = precision or fast_precision(example.device)
        self.dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        if not len(example):
            raise ThreatModelError("an optimised view needs at least one example image, got none.")
        with _no_autocast(example.device):
            network = fold_batch_norm(classifier, example[:2].float())
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(example.dim(), torch.contiguous_format)
        self._layout = layout
        self._network = network.to(self.dtype).to(memory_format=layout)  # type: ignore[call-overload]
        self._lanes = lanes if lanes is not None else (_cores() if example.device.type == "cpu" else 0)

    def __call__(self, images: Images) -> Logits:
        """Logits of `images`."""
        with _no_autocast(images.device):
            if self._lanes < 2 or len(images) <= MICRO_BATCH:
                return self.forward(images)
            logits: Logits = _Lanes.apply(images, self)  # type: ignore[no-untyped-call]
            return logits

    def forward(self, images: Images) -> Logits:
        """Logits of one batch, in the calling thread."""
        converted = images.to(self.dtype).contiguous(memory_format=self._layout)
        logits: Logits = self._network(converted).float()
        return logits

    def split(self, images: Tensor) -> list[Tensor]:
        """Equal parts of at most `MICRO_BATCH` images, as many for each lane: of 47, 24 and 23 and not 32 and 15."""
        rounds = -(-len(images) // (MICRO_BATCH * self._lanes))
        return list(torch.tensor_split(images, rounds * self._lanes))

    def each(self, work: Any, parts: list[Any]) -> list[Any]:
        """`work` applied to every part, on one-core threads; results in the order of the parts."""
        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(self._lanes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                return list(pool.map(work, parts))
        finally:
            # A lane's setting is its own, but also what later threads of the process begin with.
            torch.set_num_threads(threads)


class _Lanes(torch.autograd.Function):
    """Micro-batches side by side: small convolutions scale better over images than inside one image."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, view: OptimisedView) -> Tensor:
        needed = ctx.needs_input_grad[0]

        def run(part: Tensor) -> tuple[Tensor, Tensor]:
            with torch.set_grad_enabled(needed):
                part = part.detach().requires_grad_(needed)
                return part, view.forward(part)

        ctx.view, ctx.parts = view, view.each(run, view.split(images))
        return torch.cat([logits.detach() for _, logits in ctx.parts])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        def run(job: tuple[tuple[Tensor, Tensor], Tensor]) -> Tensor:
            (part, logits), upstream = job
            if not upstream.any():  # Nobody climbs from these images any more.
                return torch.zeros_like(part)
            return torch.autograd.grad(logits, part, upstream)[0]

        parts = ctx.view.each(run, list(zip(ctx.parts, ctx.view.split(gradient), strict=True)))
        ctx.parts = None
        return torch.cat(parts), None


def _cores() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, torch.get_num_threads())


def _no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, enabled=False) if device.type in ("cpu", "cuda") else nullcontext()
