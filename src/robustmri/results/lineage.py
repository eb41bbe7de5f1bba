"""Which network a result is of, and which was made from which, by what the results say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustmri.core.files import fingerprint
from robustmri.results.schema import ModelFacts, RobustnessReport

SCRATCH = "scratch"
"""In place of a checkpoint: a fresh network."""


def is_of(model: ModelFacts, weights_sha256: str, identity: str) -> bool:
    """Whether a result's classifier has these weights and this identity, which says more: two
    imports of one file may normalise differently. An empty identity is not known.
    """
    same = not (model.identity and identity) or model.identity == identity
    return same and model.checkpoint_sha256 == weights_sha256


def repairs(results: Sequence[RobustnessReport]) -> bool:
    """Whether these are two results, of a network and of its repair.

    The second was hardened from the first, or from the same fresh network: backbone, weights, seed
    and split of both agree. The order of the two is not enough.
    """
    return len(results) == 2 and _repairs(results[0], results[1])


def put_repair_last(results: Sequence[RobustnessReport]) -> list[int]:
    """Places of the results in the order in which they are shown: a network before its repair,
    otherwise as they come.
    """
    return [1, 0] if repairs([*results][::-1]) else [*range(len(results))]


def _repairs(before: RobustnessReport, after: RobustnessReport) -> bool:
    start = start_of(after)
    if start == SCRATCH:
        return _fresh(before) == _fresh(after) and (
            before.model.objective == "standard" != after.model.objective
        )
    return bool(start) and start in (before.model.identity, before.model.checkpoint_sha256)


def start_of(result: RobustnessReport) -> str:
    """What a network's training began with: the identity of a checkpoint, "scratch", or nothing
    where that is not known. Of pooled results the hash of all starts, as of all checkpoints.
    """
    pooled = result.provenance.get("pooled")
    if not isinstance(pooled, list) or not pooled:
        return _start(result.provenance)
    starts = [_start(part) for part in pooled]
    if "" in starts:
        return ""
    return SCRATCH if set(starts) == {SCRATCH} else fingerprint(starts)


def _start(origin: Any) -> str:
    checkpoint = origin.get("checkpoint") if isinstance(origin, dict) else None
    start = checkpoint.get("start") if isinstance(checkpoint, dict) else None
    return start if isinstance(start, str) else ""


def _fresh(result: RobustnessReport) -> tuple[Any, ...] | None:
    """What a fresh network was drawn from and learnt on; None where it was not fresh."""
    if start_of(result) != SCRATCH:
        return None
    split, seed = result.split.fingerprint, result.model.training.get("seed")
    return result.model.backbone, result.model.weights, split, seed
