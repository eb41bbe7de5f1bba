"""Other ways back through a classifier than its own: what rounds or detaches is taken for the
identity, answers that are drawn are averaged.

Reference: Athalye et al. 2018, Sec. 4.1 (BPDA) and 4.2 (EOT).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robustmri.attacks.protocol import Predictor
from robustmri.core.arrays import Images, Logits

_CUTS = ("round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "detach")
"""Functions whose gradient is zero almost everywhere, and which stay near what goes in."""
_SQUASHES = ("softmax", "sigmoid")
"""Functions whose gradient rounds to zero where they are sure; only of logits, not inside."""
_HARD = ("gt", "ge", "greater", "greater_equal", "heaviside", "argmax", "bucketize", "searchsorted")
_LIKE_HARD = ("lt", "le", "less", "less_equal")
_CASTS = ("bool", "byte", "char", "short", "int", "long", "to", "type")
"""Functions whose result has no gradient, whatever is made of it: what has again the shape of what
went in, as numbers with a point, is taken for it on the way back."""
HARD = {
    function: (name, sign)
    for names, sign in ((_HARD + _CASTS, 1.0), (_LIKE_HARD, -1.0))
    for name in names
    for place in (torch, Tensor)
    if (function := getattr(place, name, None)) is not None
} | {Tensor.__gt__: ("gt", 1.0), Tensor.__ge__: ("ge", 1.0)}
HARD |= {Tensor.__lt__: ("lt", -1.0), Tensor.__le__: ("le", -1.0)}
CUTS = {
    function: name
    for name in _CUTS + _SQUASHES
    for place in (torch, Tensor)
    if (function := getattr(place, name, None)) is not None
}
TINIEST = 1e-30
"""A probability that float32 can still take the logarithm of."""


class StraightThrough:
    """The classifier, its answers unchanged, its way back without what cuts the gradient.

    Taken for the identity are the functions of `CUTS`, such as rounding or a softmax at the end,
    those of `HARD`, such as a comparison or a cast to bytes, `torch.no_grad`, and modules without
    weights that are not torch's own and return what has the same shape: smoothing, JPEG.

    Args:
        classifier: in evaluation mode; left as it is.

    Attributes:
        replaced: names of what was taken for the identity in the last forward.
    """

    def __init__(self, classifier: nn.Module) -> None:
        self.classifier = classifier
        self.replaced: list[str] = []

    def __call__(self, images: Images) -> Logits:
        """Logits of `images`."""
        self.replaced = []
        with _identity_modules(self.classifier, self.replaced), _Mode(self.replaced):
            logits: Logits = self.classifier(images)
        self.replaced = list(dict.fromkeys(self.replaced))
        return logits


class Expected:
    """The answer that a classifier gives on average, as logarithms of probabilities.

    Args:
        predictor: answers otherwise each time.
        draws: answers that are averaged.
    """

    def __init__(self, predictor: Predictor, draws: int) -> None:
        self.predictor, self.draws = predictor, draws

    def __call__(self, images: Images) -> Logits:
        """Logits of `images`."""
        answers = [self.predictor(images).float().softmax(1) for _ in range(self.draws)]
        return torch.stack(answers).mean(0).clamp_min(TINIEST).log()


class _Mode(TorchFunctionMode):
    """Inside, functions that cut the gradient of a tensor hand it on."""

    def __init__(self, replaced: list[str]) -> None:
        super().__init__()
        self.replaced = replaced
        # Results without a gradient: what they were made of, by what, and which way it leads. They
        # are held, so that their ids stay their own.
        self._hard: dict[int, tuple[Tensor, Tensor, str, float]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch._C._set_grad_enabled and not args[0]:
            return None
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is None or not first.requires_grad:
            return self._from_hard(first, func(*args, **(kwargs or {})))
        if func in (Tensor.numpy, Tensor.__array__):
            first = first.detach()
            return func(first, *args[1:], **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        if func in HARD and isinstance(out, Tensor) and not out.requires_grad:
            self._hard[id(out)] = out, first, *HARD[func]
            return self._from_hard(out, out)
        name = CUTS.get(func)
        if name is None or not isinstance(out, Tensor) or out.shape != first.shape:
            return out
        if name in _SQUASHES and out.dim() != 2:
            return out
        self.replaced.append(name)
        return _hand_on(first, out)

    def _from_hard(self, first: Tensor | None, out: Any) -> Any:
        """What was made of a result without a gradient."""
        if id(first) not in self._hard or not isinstance(out, Tensor) or out.requires_grad:
            return out
        _, source, name, sign = self._hard[id(first)]
        if out.is_floating_point() and out.shape == source.shape:
            self.replaced.append(name)
            return _hand_on(source * sign, out.to(source.dtype))
        self._hard[id(out)] = out, source, name, sign
        return out


@contextmanager
def _identity_modules(network: nn.Module, replaced: list[str]) -> Iterator[None]:
    def hand_on(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        first = inputs[0] if inputs else None
        if not (isinstance(first, Tensor) and isinstance(output, Tensor)):
            return output
        if first.shape != output.shape or not first.requires_grad:
            return output
        replaced.append(type(module).__name__)
        return _hand_on(first, output)

    hooks = [module.register_forward_hook(hand_on) for module in network.modules() if _own(module)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _own(module: nn.Module) -> bool:
    return not type(module).__module__.startswith("torch.") and not any(
        True for _ in module.parameters()
    )


class _HandOn(torch.autograd.Function):
    """The value of what comes after, the gradient of what came before."""

    @staticmethod
    def forward(ctx: Any, before: Tensor, after: Tensor) -> Tensor:
        """What came `after`."""
        return after.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """To what was `before`."""
        return gradients[0], None


def _hand_on(before: Tensor, after: Tensor) -> Tensor:
    handed: Tensor = _HandOn.apply(before, after)  # type: ignore[no-untyped-call]
    return handed
