"""A frozen network's convolutions as a search on a CPU wants them: the same sums, less work.

Weights are laid out once for the whole search and not in every call; a ReLU, and the sum that a
residual block ends in, are done while the convolution writes; the way back through a convolution
of stride 1 is a convolution with the turned kernel, which processors do faster than its transpose;
and a strided convolution of one or a few planes, a stem, sees blocks of 2 x 2 pixels as planes.
Only roundings differ.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from robustmri.core.arrays import Images

BATCH = 64
"""Weights are laid out for so many images; other numbers are as right, and hardly slower."""
FEW_PLANES = 4
"""A strided convolution of at most so many planes is done on blocks of pixels."""
CLOSE = {torch.float32: 0.999, torch.bfloat16: 0.9}
"""Cosine of the two gradients, at least: between roundings, not between functions."""
_SUMS = (operator.add, operator.iadd, torch.add)
_RELUS = (torch.relu, functional.relu)


def packed(network: nn.Module, example: Images) -> nn.Module:
    """`network` with its convolutions packed; itself where that is not possible here.

    Args:
        network: frozen, in evaluation mode, on the CPU; left as it is, and its weights are shared:
            where they change, call `repack`.
        example: one image or more, in the network's precision and memory layout.
    """
    if not _possible(example):
        return network
    state = torch.get_rng_state()
    sizes = _sizes(network, example)
    if not sizes or not torch.equal(state, torch.get_rng_state()):
        return network  # One that draws must go on drawing.
    for fused in (True, False):
        try:
            made = _twin(network, {id(one): _replaced(one, at) for one, at in sizes.items()})
            made = _fused(made) if fused else made
            if _same(network, made, example):
                return made
        except Exception:  # Of networks that cannot be copied in parts, and of processors.
            continue
    return network


def repack(network: nn.Module) -> None:
    """Take over the weights of the network that `packed` was given."""
    for module in network.modules():
        if isinstance(module, (PackedConvolution, BlockConvolution)):
            module.pack()


def _possible(example: Images) -> bool:
    return (
        example.device.type == "cpu"
        and example.dtype in CLOSE
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def _sizes(network: nn.Module, example: Images) -> dict[nn.Conv2d, torch.Size]:
    """Shape of what each convolution reads; those that can be packed only."""
    sizes: dict[nn.Conv2d, torch.Size] = {}

    def note(module: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        sizes[module] = inputs[0].shape

    hooks = [
        module.register_forward_pre_hook(note)
        for module in network.modules()
        if type(module) is nn.Conv2d
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    ]
    with torch.no_grad():
        network(example[:1])
    for hook in hooks:
        hook.remove()
    return sizes


def _replaced(convolution: nn.Conv2d, shape: torch.Size) -> nn.Module:
    few = convolution.in_channels <= FEW_PLANES and convolution.dilation == (1, 1)
    if few and convolution.stride == (2, 2) and min(convolution.kernel_size) > 2:
        return BlockConvolution(convolution, (shape[2], shape[3]))
    return PackedConvolution(convolution, (shape[2], shape[3]))


def _twin(module: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    """`module` with the same parameters and other parts: those that `made` has."""
    if id(module) not in made:
        twin = copy.copy(module)
        made[id(module)] = twin
        twin._modules = {
            name: None if part is None else _twin(part, made)
            for name, part in module._modules.items()
        }
    return made[id(module)]


def _same(network: nn.Module, other: nn.Module, example: Images) -> bool:
    """Whether the two have the same gradient on noise."""
    noise = torch.rand(example[:1].shape, generator=torch.Generator().manual_seed(0)).to(example)
    found = []
    for one in (network, other):
        points = noise.clone().requires_grad_(True)
        with torch.enable_grad():
            logits = one(points)
            weights = torch.linspace(-1, 2, logits.numel()).reshape(logits.shape)
            total = (logits.float() * weights).sum()
            found.append(torch.autograd.grad(total, points)[0].flatten().double())
    close = functional.cosine_similarity(found[0], found[1], dim=0)
    return bool(close >= CLOSE[example.dtype] or torch.equal(found[0], found[1]))


class PackedConvolution(nn.Module):
    """A convolution whose weights are packed, and what comes right after it.

    Args:
        source: whose weights it has, now and after each `pack`.
        size: height and width of what it reads.
    """

    relu = False

    def __init__(self, source: nn.Conv2d, size: tuple[int, int]) -> None:
        super().__init__()
        self.source, self.size = (source,), size  # In a tuple: no part of this module.
        self.stride, self.dilation = list(source.stride), list(source.dilation)
        self.padding = [int(side) for side in source.padding]
        sides = zip(source.kernel_size, self.padding, strict=True)
        self.turned = [kernel - 1 - side for kernel, side in sides]
        plain = self.stride == [1, 1] and self.dilation == [1, 1]
        self.turns = plain and min(self.turned) >= 0
        self.pack()

    def pack(self) -> None:
        """Lay out the weights."""
        (source,) = self.source
        self.weight, self.bias = source.weight.detach(), source.bias
        self.forwards = self._laid_out(self.weight, self.padding, self.size)
        if self.turns:
            size = [side + 2 * p - k + 1 for side, p, k in self._sides()]
            turned = self.weight.transpose(0, 1).flip(2, 3)
            turned = turned.contiguous(memory_format=torch.channels_last)
            self.backwards = self._laid_out(turned, self.turned, (size[0], size[1]))

    def _sides(self) -> Any:
        return zip(self.size, self.padding, self.weight.shape[2:], strict=True)

    def _laid_out(self, weight: Tensor, padding: list[int], size: tuple[int, int]) -> Tensor:
        reads = [BATCH, weight.shape[1], *size]
        lay_out: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
        laid: Tensor = lay_out(weight.to_mkldnn(), padding, self.stride, self.dilation, 1, reads)
        return laid

    def forward(self, images: Tensor, added: Tensor | None = None) -> Tensor:
        """Convolved, `added` added, and through the ReLU where it has one."""
        apply: Any = _Convolved.apply
        convolved: Tensor = apply(images, added, self)
        return convolved

    def run(self, images: Tensor, added: Tensor | None) -> Tensor:
        """The same without a gradient."""
        how = (self.padding, self.stride, self.dilation, 1)
        run = torch.ops.mkldnn._convolution_pointwise
        after = "relu" if self.relu else "none"
        if added is None:
            return run(images, self.forwards, self.bias, *how, after, [], "")  # type: ignore[no-any-return]
        then: Any = ("add", 1.0, after if self.relu else None, [], "")
        return run.binary(images, added, self.forwards, self.bias, *how, *then)  # type: ignore[no-any-return]

    def back(self, images: Tensor, gradient: Tensor) -> Tensor:
        """From the gradient at what is written to that at `images`, what was read."""
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        if self.turns:
            how: Any = (self.turned, self.stride, self.dilation, 1, "none", [], "")
            return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
                gradient, self.backwards, None, *how
            )
        convolution = (self.stride, self.padding, self.dilation, False, [0, 0], 1)
        found: Tensor = torch.ops.aten.convolution_backward(
            gradient, images, self.weight, None, *convolution, [True, False, False]
        )[0]
        return found


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, added: Tensor | None, by: PackedConvolution) -> Tensor:
        written = by.run(images, added)
        ctx.by, ctx.adds = by, added is not None
        ctx.save_for_backward(images, written if by.relu else None)
        return written

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images, written = ctx.saved_tensors
        if written is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, written, 0)
        back = ctx.by.back(images, gradient) if ctx.needs_input_grad[0] else None
        return back, gradient if ctx.adds else None, None


class BlockConvolution(nn.Module):
    """A convolution of stride 2 as one of stride 1, whose planes are the pixels of 2 x 2 blocks.

    A kernel of 7 x 7 on one plane is one of 4 x 4 on four, padded with zeros to 8 x 8. Processors
    work on planes by the dozen: on a single one they are idle for the most part.

    Args:
        source: whose weights it has, now and after each `pack`.
        size: height and width of what it reads.
    """

    def __init__(self, source: nn.Conv2d, size: tuple[int, int]) -> None:
        super().__init__()
        self.source = (source,)
        self.kernel = [side + side % 2 for side in source.kernel_size]
        self.padding = [int(side) for side in source.padding]
        # Nothing is drawn for weights that come from elsewhere.
        self.inner = nn.utils.skip_init(
            nn.Conv2d,
            4 * source.in_channels,
            source.out_channels,
            [side // 2 for side in self.kernel],
            bias=source.bias is not None,
            dtype=source.weight.dtype,
        ).requires_grad_(False)
        self._fill()
        room = [sum(self._around(side, axis), side) // 2 for axis, side in enumerate(size)]
        self.packed = PackedConvolution(self.inner, (room[0], room[1]))

    def pack(self) -> None:
        """Lay out the weights."""
        self._fill()
        self.packed.pack()

    def _fill(self) -> None:
        (source,) = self.source
        height, width = source.kernel_size
        whole = functional.pad(
            source.weight, (0, self.kernel[1] - width, 0, self.kernel[0] - height)
        )
        with torch.no_grad():
            self.inner.weight.copy_(functional.pixel_unshuffle(whole, 2))
            if source.bias is not None:
                self.inner.bias.copy_(source.bias)
        self.inner.to(memory_format=torch.channels_last)

    def _around(self, side: int, axis: int) -> tuple[int, int]:
        """Zeros before and after a side, so that the blocks are whole; less than none cuts."""
        before, kernel = self.padding[axis], self.source[0].kernel_size[axis]
        written = (side + 2 * before - kernel) // 2 + 1
        return before, 2 * (written - 1) + self.kernel[axis] - side - before

    def forward(self, images: Tensor) -> Tensor:
        """Convolved."""
        around = (*self._around(images.shape[3], 1), *self._around(images.shape[2], 0))
        blocks = functional.pixel_unshuffle(functional.pad(images, around), 2)
        convolved: Tensor = self.packed(blocks.contiguous(memory_format=torch.channels_last))
        return convolved


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        ours = isinstance(module, (PackedConvolution, BlockConvolution))
        return ours or super().is_leaf_module(module, name)


def _fused(network: nn.Module) -> nn.Module:
    """`network`, or the part of it that can be traced, with ReLUs and sums done by convolutions."""
    if isinstance(getattr(network, "network", None), nn.Module):
        network.network = _fused(network.network)  # type: ignore[arg-type]
        return network
    try:
        graph = _Tracer().trace(network)
    except Exception:  # Its forward asks about values: it runs as it is written.
        return network
    parts = dict(network.named_modules(remove_duplicate=False))
    for node in list(graph.nodes):
        if _is(node, nn.Identity, parts):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in list(graph.nodes):
        if _is(node, PackedConvolution, parts) and calls.count(node.target) == 1:
            _fuse(graph, node, parts)
    graph.lint()
    return fx.GraphModule(network, graph)


def _is(node: fx.Node, kind: type[nn.Module], parts: dict[str, nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(parts[str(node.target)], kind)


def _fuse(graph: fx.Graph, node: fx.Node, parts: dict[str, nn.Module]) -> None:
    """Let the convolution at `node` do the sum and the ReLU of which nothing else reads the way."""
    chain, inputs = [node], list(node.args)
    after = _only_reader(node)
    if after is not None and after.target in _SUMS and len(after.args) == 2:
        others = [one for one in after.args if one is not node]
        if len(others) == 1 and isinstance(others[0], fx.Node):
            chain.append(after)
            inputs.append(others[0])
            after = _only_reader(after)
    if after is not None and (after.target in _RELUS or _is(after, nn.ReLU, parts)):
        chain.append(after)
        parts[str(node.target)].relu = True  # type: ignore[assignment]
    if len(chain) == 1:
        return
    with graph.inserting_after(chain[-1]):
        made = graph.call_module(str(node.target), tuple(inputs))
    chain[-1].replace_all_uses_with(made)
    for one in reversed(chain):
        graph.erase_node(one)


def _only_reader(node: fx.Node) -> fx.Node | None:
    readers = list(node.users)
    return readers[0] if len(readers) == 1 else None
