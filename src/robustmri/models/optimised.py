"""The classifier as an attack sees it: the same function, faster, with nothing to learn.

Batch-norm is folded into the convolution before it, memory is channels-last, the arithmetic
bfloat16 where that is fast, and on a CPU the first convolution has a gradient of its own. What an
attack claims on this view counts only after a forward of the original classifier in float32 has
confirmed it.
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from robustmri.core.arrays import Images, Logits
from robustmri.core.errors import SettingsError, ThreatModelError
from robustmri.models.input_gradient import by_remainders

Precision = Literal["fp32", "bf16"]
Pair = tuple[str, str]
SMALLEST_BUCKET = 8
"""Smaller batches are padded to so many images before a compiled network."""
_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
_ISA = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""oneDNN's own setting, under both of its names."""
_ROUNDING = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
"""In the environment it lets oneDNN round float32, whatever torch is told."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


def fast_precision(device: torch.device) -> Precision:
    """bfloat16 where the hardware multiplies in it: recent NVIDIA GPUs, and CPUs with AVX512-BF16
    or AMX, unless the environment keeps oneDNN from using them.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    if any(os.environ.get(name, "").upper() in _WITHOUT_BF16 for name in _ISA):
        return "fp32"
    try:
        with open("/proc/cpuinfo") as stream:
            flags = stream.read()
    except OSError:
        return "fp32"
    return (
        "bf16"
        if device.type == "cpu" and ("avx512_bf16" in flags or "amx_bf16" in flags)
        else "fp32"
    )


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, float32 means float32: GPUs else round the factors of convolutions to 10 bits (TF32),
    and CPUs to 8, where torch was told that they may.

    What counts, and whether a batch-norm may be folded, is decided in here; what is only searched
    for need not be.

    Raises:
        SettingsError: the environment has oneDNN round them, which nothing here can prevent.
    """
    for name in _ROUNDING:
        if os.environ.get(name, "STRICT").upper() != "STRICT":
            raise SettingsError(
                f"{name}={os.environ[name]} rounds what has to be verified in float32. Remove it "
                "from the environment."
            )
    if torch.cuda.is_available():
        parts: list[tuple[Any, str, Any]] = [
            (torch.backends.cudnn, "allow_tf32", False),
            (torch.backends.cuda.matmul, "allow_tf32", False),
        ]
    else:  # Not both: torch keeps one notion of it for a product on either.
        cpu: Any = torch.backends.mkldnn
        parts = [(part, "fp32_precision", "ieee") for part in (cpu.conv, cpu.matmul)]
    before = [getattr(part, name) for part, name, _ in parts]
    for part, name, value in parts:
        setattr(part, name, value)
    try:
        yield
    finally:
        for (part, name, _), value in zip(parts, before, strict=True):
            setattr(part, name, value)


def simplified(
    network: nn.Module, example: Tensor, *, swap: bool = True
) -> tuple[nn.Module, list[Pair]]:
    """A copy of `network` in evaluation mode that computes the same with less work.

    A batch-norm is folded into the convolution that feeds it. Max-pooling comes before the ReLU
    that feeds it: both are monotone, so they may change places, and a quarter of the ReLU's work is
    left. Either is done only if it leaves the function as it is, on `example` and on noise (a black
    example could not tell): where a convolution's output has a second reader, it would not.

    Args:
        network: left as it is.
        example: one image or more; running it shows which module reads whose output.
        swap: whether to move ReLUs.

    Returns:
        The copy, and the names of the convolutions and batch-norms that were folded.
    """
    plain = copy.deepcopy(network).eval().requires_grad_(False)
    folds = [
        (convolution, batch_norm)
        for convolution, batch_norm in _neighbours(plain, example, _CONVOLUTIONS, BATCH_NORMS)
        # One that stays in training mode, whatever it is told, has no statistics of its own.
        if plain.get_submodule(batch_norm).track_running_stats
        and not plain.get_submodule(batch_norm).training
    ]
    swaps = _neighbours(plain, example, (nn.ReLU,), _MAX_POOLS) if swap else []
    images = torch.cat(
        [example, torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example)]
    )
    with torch.no_grad():
        expected = plain(images)
        for these, those in ((folds, swaps), (folds, []), ([], swaps)):
            made = _with(plain, these, those)
            # Relative to the largest logit: an absolute tolerance accepts anything where all logits
            # are small.
            if (made(images) - expected).abs().max() <= 1e-3 * expected.abs().max():
                return made, these
    return plain, []


def _with(network: nn.Module, folds: list[Pair], swaps: list[Pair]) -> nn.Module:
    changed = copy.deepcopy(network)
    for convolution, batch_norm in folds:
        pair = changed.get_submodule(convolution), changed.get_submodule(batch_norm)
        _replace(changed, convolution, fuse_conv_bn_eval(*pair))  # type: ignore[type-var, arg-type]
        _replace(changed, batch_norm, nn.Identity())
    for relu, pool in swaps:
        _replace(changed, pool, nn.Sequential(changed.get_submodule(pool), nn.ReLU(inplace=True)))
        _replace(changed, relu, nn.Identity())
    return changed


def _neighbours(
    network: nn.Module,
    example: Tensor,
    first: tuple[type[nn.Module], ...],
    then: tuple[type[nn.Module], ...],
) -> list[Pair]:
    """Names of modules of two kinds, called as often, the second of which always reads the very
    output of the first.
    """
    made: dict[int, tuple[str, Tensor]] = {}
    calls: Counter[str] = Counter()
    pairs: list[Pair] = []

    def watch(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[name] += 1
        if isinstance(module, then) and inputs and id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], name))
        if isinstance(module, first):
            made[id(output)] = name, output  # The tensor is held, so that its id stays its own.
        else:
            made.pop(id(output), None)  # Changed in place since.

    hooks = [
        module.register_forward_hook(partial(watch, name))
        for name, module in network.named_modules()
    ]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    # In every call, of which there are two where mirror images are asked about.
    found = Counter(pairs)
    return [(one, other) for (one, other), n in found.items() if calls[one] == calls[other] == n]


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


class OptimisedView:
    """Images in [0, 1] to float32 logits, differentiable with respect to the images only.

    Args:
        classifier: left as it is; the view holds a converted copy, see `refresh`.
        example: images of the shape that will come, at least one, on the classifier's device.
        precision: "fp32", "bf16", or None for the faster of the two here; "fp32" for a classifier
            that ends in probabilities: of 16 bits one near 1 has no logarithm left.
        compiled: run it through `torch.compile`, on a GPU with CUDA graphs; batches are then padded
            to a power of two, so that it compiles a few sizes only. Takes half a minute a size, so
            it is for long runs.
    """

    def __init__(
        self,
        classifier: nn.Module,
        example: Images,
        *,
        precision: Precision | None = None,
        compiled: bool = False,
    ) -> None:
        if getattr(getattr(classifier, "spec", None), "ends_in", "logits") != "logits":
            precision = "fp32"
        self.precision: Precision = precision or fast_precision(example.device)
        self.dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        if not len(example):
            raise ThreatModelError("an optimised view needs at least one example image, got none.")
        with _no_autocast(example.device), full_float32():
            network, self._pairs = simplified(classifier, example[:1].float())
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(
            example.dim(), torch.contiguous_format
        )
        self._layout = layout
        self._network = network.to(self.dtype).to(memory_format=layout)  # type: ignore[call-overload]
        if example.device.type == "cpu" and not compiled:
            by_remainders(self._network)
        self._run, self._compiled = self._network, compiled
        if compiled:
            # DeepFool asks one forward for several gradients, and an evaluation needs each size of
            # batch twice, with and without one.
            from torch._dynamo import config as tracing
            from torch._functorch import config as gradients

            gradients.donated_buffer = False
            tracing.recompile_limit = max(tracing.recompile_limit, 32)
            mode = "reduce-overhead" if example.device.type == "cuda" else "default"
            self._run = torch.compile(self._network, dynamic=False, mode=mode)

    def refresh(self, classifier: nn.Module) -> None:
        """Take over new weights of the network that the view was made from, at a tenth of a new
        view's cost.
        """
        folded = {name for pair in self._pairs for name in pair}
        modules, own = dict(classifier.named_modules()), dict(self._network.named_modules())
        with torch.no_grad():
            for convolution, batch_norm in self._pairs:
                before, norm = modules[convolution], modules[batch_norm]
                weight, bias = fuse_conv_bn_weights(
                    before.weight,
                    before.bias,
                    norm.running_mean,
                    norm.running_var,
                    norm.eps,
                    norm.weight,
                    norm.bias,
                )
                own[convolution].weight.copy_(weight)
                own[convolution].bias.copy_(bias)
            for name, module in modules.items():
                if name not in folded and name in own:
                    for part, value in (
                        *module.named_parameters(recurse=False),
                        *module.named_buffers(recurse=False),
                    ):
                        getattr(own[name], part).copy_(value)

    def __call__(self, images: Images) -> Logits:
        """Logits of `images`."""
        with _no_autocast(images.device):
            converted = images.to(self.dtype).contiguous(memory_format=self._layout)
            if self._compiled:
                room = max(SMALLEST_BUCKET, 1 << (len(images) - 1).bit_length()) - len(images)
                converted = torch.cat([converted, converted.new_zeros(room, *converted.shape[1:])])
                converted = converted.contiguous(memory_format=self._layout)
            logits: Logits = self._run(converted)[: len(images)].float()
            # CUDA graphs write their next answer into the same place.
            return logits.clone() if self._compiled else logits


def _no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    return (
        torch.autocast(device.type, enabled=False)
        if device.type in ("cpu", "cuda")
        else nullcontext()
    )
