"""Weights in 16 bit and in parts, for a way home that is narrow, and the checkpoint put together
again from them.

Convolutions and matrices are rounded to float16, ten bits of mantissa; biases and batch-norms, a
thousandth of the bytes, stay in float32. The checkpoint that comes of it says so, and has a hash of
its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor

from robustmri.core.errors import CheckpointError
from robustmri.core.files import atomic_file, atomic_folder, sha256_of
from robustmri.models.checkpoint import HEAD_FILE, WEIGHTS_FILE, Checkpoint, find_checkpoint

MIB = 2**20


class Halved(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to put a checkpoint together again.

    Attributes:
        checkpoint: as it was.
        parts: names of the files, in their order.
        sha256: of all parts together.
        largest_change: of any weight, as a share of the largest weight of its tensor.
    """

    checkpoint: Checkpoint
    parts: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    sha256: str
    largest_change: float


def count_parts(run: Path, part_mib: float) -> int:
    """How many parts the weights of a run will take, about."""
    size = (find_checkpoint(run) / WEIGHTS_FILE).stat().st_size / 2
    return max(1, -(-int(size) // int(part_mib * MIB)))


def halve(run: Path, folder: Path, name: str, *, part_mib: float = 15.0) -> Halved:
    """Write the weights of a run's checkpoint, rounded, as `folder`/weights-`name`.1-of-3 and so
    on.

    Args:
        run: run folder, or checkpoint folder.
        folder: for the parts.
        name: what they are called.
        part_mib: size of a part at most.

    Raises:
        CheckpointError: its network is not built by a name.
    """
    from safetensors.torch import load_file, save

    from robustmri.models.checkpoint import read_checkpoint

    place = find_checkpoint(run)
    made = read_checkpoint(place)
    if made.spec.format != "backbone":
        raise CheckpointError(
            f"{place} is an import kept as a {made.spec.format}; only the weights of a network "
            "that is built by its name travel in parts. Copy the folder."
        )
    state = load_file(place / WEIGHTS_FILE)
    rounded = {key: _round(value) for key, value in state.items()}
    content, step = save(rounded), int(part_mib * MIB)
    pieces = [content[start : start + step] for start in range(0, len(content), step)]
    names = tuple(f"weights-{name}.{k}-of-{len(pieces)}" for k in range(1, len(pieces) + 1))
    for part, piece in zip(names, pieces, strict=True):
        with atomic_file(folder / part) as partial:
            partial.write_bytes(piece)
    return Halved(
        checkpoint=made,
        parts=names,
        sha256=sha256(content).hexdigest(),
        largest_change=_largest_change(state, rounded),
    )


def join(halved: Halved, folder: Path, out: Path) -> Checkpoint:
    """Put the parts in `folder` together again, as a checkpoint folder with float32 weights.

    Raises:
        CheckpointError: a part is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    if not halved.parts:
        raise CheckpointError(f"{folder} names no parts of weights. Copy its files again.")
    missing = [part for part in halved.parts if not (folder / part).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)} of {len(halved.parts)} parts. Copy them, too."
        )
    content = b"".join((folder / part).read_bytes() for part in halved.parts)
    if sha256(content).hexdigest() != halved.sha256:
        raise CheckpointError(
            f"{folder / halved.parts[0]} and the parts after it are damaged. Copy them again."
        )
    try:
        state = {key: _unrounded(value) for key, value in load(content).items()}
    except SafetensorError as error:
        raise CheckpointError(
            f"{folder / halved.parts[0]} holds no weights ({error}). Copy it again."
        ) from error
    before = halved.checkpoint
    note: dict[str, Any] = {
        "to": "float16, for the way; biases and batch-norms not",
        "largest_change": halved.largest_change,
        "weights_sha256_before": before.weights_sha256,
    }
    with atomic_folder(out) as partial:
        (partial / WEIGHTS_FILE).write_bytes(save(state))
        after = msgspec.structs.replace(
            before,
            weights_sha256=sha256_of(partial / WEIGHTS_FILE),
            provenance={**before.provenance, "rounded": note},
        )
        (partial / HEAD_FILE).write_bytes(
            msgspec.json.format(msgspec.json.encode(after), indent=2) + b"\n"
        )
    return after


def _round(value: Tensor) -> Tensor:
    """In float16, where that holds its numbers."""
    if not value.is_floating_point() or value.dim() < 2:
        return value
    half = value.half()
    return half if bool(torch.isfinite(half).all()) else value


def _unrounded(value: Tensor) -> Tensor:
    return value.float() if value.dtype == torch.float16 else value


def _largest_change(state: Mapping[str, Tensor], rounded: Mapping[str, Tensor]) -> float:
    shares = [
        float((value - rounded[key].float()).abs().max() / value.abs().max().clamp_min(1e-30))
        for key, value in state.items()
        if rounded[key].dtype != value.dtype
    ]
    return max(shares, default=0.0)
