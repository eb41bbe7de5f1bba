"""An accelerator that is pretended: its tensors lie on the CPU, say that they do not, and refuse to
meet those that do, as a GPU's would.

A pytest plugin (`-p pretended_gpu`), for a process of its own: what it registers stays. It rests on
torch's experimental backends in Python (2.10 and later).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
MAY_MEET = ("aten::index", "aten::_index_put_impl_", "aten::copy_", "aten::_to_copy")
"""Operations that CUDA allows with an index, or a source, on the CPU."""

_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)


class Pretended(torch.Tensor):
    """Wraps the tensor that does the work, `raw`."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> Pretended:
        wrapped: Pretended = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            layout=raw.layout,
            device=DEVICE,
        )
        wrapped.raw = raw
        return wrapped

    def __init__(self, raw: torch.Tensor) -> None:
        pass

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, given: tuple[Any, ...] = (), options: Any = None
    ) -> Any:
        return run(function, given, options or {})


def is_here(value: Any) -> bool:
    return type(value) is Pretended


def unwrap(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == NAME:
        return torch.device("cpu")
    return value.raw if is_here(value) else value


def run(function: Any, given: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Do it on the CPU, if all tensors are where they should be."""
    leaves = tree_leaves((given, options))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim()]
    name = function._schema.name
    if len({is_here(tensor) for tensor in tensors}) > 1 and not name.startswith(MAY_MEET):
        raise RuntimeError(f"{name}: expected all tensors on the same device, {NAME} and cpu met")
    own = {id(leaf.raw): leaf for leaf in leaves if is_here(leaf)}
    target = options.get("device")
    to_here = target.type == NAME if isinstance(target, torch.device) else bool(own)
    made = function(*tree_map(unwrap, given), **tree_map(unwrap, options))
    if name == "aten::copy_":
        return given[0]

    def wrap(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or is_here(value):
            return value
        known = own.get(id(value))  # In place.
        return known if known is not None else Pretended(value) if to_here else value

    return tree_map(wrap, made)


_library = torch.library.Library("_", "IMPL")
_library.fallback(lambda function, *given, **options: run(function, given, options), "PrivateUse1")


def _made_on_the_cpu(name: str) -> None:
    """Such a function of torch, which makes a tensor, makes it on the CPU and moves it."""
    make = getattr(torch, name)

    def moved(*given: Any, device: Any = None, **options: Any) -> torch.Tensor:
        if device is not None and torch.device(device).type == NAME:
            return make(*given, **options).to(DEVICE)
        return make(*given, **options, **({} if device is None else {"device": device}))

    setattr(torch, name, moved)


for _name in ("as_tensor", "tensor", "arange", "linspace", "full", "zeros", "ones", "empty"):
    _made_on_the_cpu(_name)

# What torch does in C++ for its own tensors only.
_in_c = {name: getattr(torch.Tensor, name) for name in ("new_tensor", "tolist", "__getitem__")}


def _new_tensor(self: torch.Tensor, data: Any, **options: Any) -> Any:
    if is_here(self):
        return torch.tensor(data, dtype=options.get("dtype", self.dtype)).to(DEVICE)
    return _in_c["new_tensor"](self, data, **options)


def _tolist(self: torch.Tensor) -> Any:
    return _in_c["tolist"](unwrap(self))


def _getitem(self: torch.Tensor, key: Any) -> Any:
    key = torch.tensor(key) if is_here(self) and isinstance(key, list) else key
    return _in_c["__getitem__"](self, key)


torch.Tensor.new_tensor = _new_tensor  # type: ignore[method-assign]
torch.Tensor.tolist = _tolist  # type: ignore[method-assign]
torch.Tensor.__getitem__ = _getitem  # type: ignore[method-assign, assignment]
