"""Several processes that do one job together: which one this is, and waiting for the others."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from robustmri.core.errors import RobustMRIError


def _group() -> Any:
    """torch.distributed, once processes have met; torch is not loaded to find that out."""
    distributed = sys.modules.get("torch.distributed")
    return (
        distributed
        if distributed and distributed.is_available() and distributed.is_initialized()
        else None
    )


def rank() -> int:
    """Number of this process among those that have met; 0 if it is alone."""
    group = _group()
    return group.get_rank() if group else 0


def size() -> int:
    """How many processes have met."""
    group = _group()
    return group.get_world_size() if group else 1


def is_main_process() -> bool:
    """Whether this process is the one to talk to the user, also before the processes have met."""
    return process_name() == "0"


def process_name() -> str:
    """How this process is called, also before the processes have met; "0" is the first one, or one
    that is alone.
    """
    if _group():
        return str(rank())
    for name in ("RANK", "SLURM_PROCID"):  # torchrun, srun
        if name in os.environ:
            return os.environ[name]
    node, local = (os.environ.get(name, "0") for name in ("NODE_RANK", "LOCAL_RANK"))  # Fabric
    return local if node == "0" else f"{local} of machine {node}"


def wait_for_all() -> None:
    """Come back when every process has come here."""
    group = _group()
    if group:
        with explain_lost_process():
            group.barrier()


def on_one_process(work: Callable[[], None]) -> None:
    """Do `work` on the first process; the others wait until it is done."""
    if rank() == 0:
        work()
    wait_for_all()


@contextmanager
def explain_lost_process() -> Iterator[None]:
    """Where one process has ended, the others fail in the library that connects them: say so in a
    sentence.

    Raises:
        RobustMRIError: another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if _group() and any(word in str(error).lower() for word in ("gloo", "nccl", "connection")):
            raise RobustMRIError(
                f"process {rank()} of {size()} has lost another one. Look for what that one said; "
                "the same command goes on from what was stored."
            ) from error
        raise
