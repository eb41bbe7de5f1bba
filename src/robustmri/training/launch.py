"""Start the processes that work together, or meet those that a launcher has started; on Lightning
Fabric.
"""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from inspect import signature
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from robustmri.core import processes
from robustmri.core.errors import SettingsError

PATIENCE = timedelta(days=1)
"""How long processes wait for a slower one; one that has ended is noticed at once."""
FEW = 8
"""So many processes may share a CPU of fewer cores, to try things out."""


def launch(devices: int = 1, nodes: int = 1, *, precision: Any = None) -> Any:
    """The processes that work on one job, as a `Fabric`: those of torchrun or of SLURM's srun, or
    new ones.

    New processes run this command from its beginning, with the same arguments, until they come here
    too.

    Args:
        devices: processes or GPUs on each node; 1 on 1 node: as many as a launcher, or an earlier
            stage, has started.
        nodes: machines.
        precision: Fabric's word for the arithmetic.

    Raises:
        SettingsError: so many cannot be had.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    # Its precision is in our settings already.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # Statistics are averaged by the loop: Fabric would write them in the middle of a step, before
    # its backward.
    known = signature(DistributedDataParallel).parameters
    buffers: dict[str, Any] = {
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
    }
    if processes.size() > 1 or devices * nodes == 1:
        devices, nodes = _started()
    elif not torch.cuda.is_available() and devices > max(os.cpu_count() or 1, FEW):
        raise SettingsError(
            f"{devices} devices on each node cannot be had: this machine has no GPU and "
            f"{os.cpu_count()} CPU cores."
        )
    try:
        fabric = Fabric(
            accelerator="auto" if torch.cuda.is_available() else "cpu",
            devices=devices,
            num_nodes=nodes,
            precision=precision,
            strategy=DDPStrategy(timeout=PATIENCE, **buffers) if devices * nodes > 1 else "auto",
        )
        fabric.launch()
    except (ValueError, MisconfigurationException) as error:
        raise SettingsError(f"{devices} devices on {nodes} nodes cannot be had: {error}") from error
    os.environ["LOCAL_WORLD_SIZE"] = str(devices)
    return fabric


def join_processes(devices: int = 1, nodes: int = 1) -> torch.device:
    """Where this process computes, once all that share the work are there; for the arguments see
    `launch`.

    Fabric, which takes seconds to load, is left out where there is one process alone.
    """
    if devices * nodes == 1 and _started() == (1, 1):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device: torch.device = launch(devices, nodes).device
    return device


def _started() -> tuple[int, int]:
    """How many processes a launcher, or an earlier `launch`, has started on each node, and on how
    many nodes.
    """
    said = os.environ
    if processes.size() > 1 or torch.distributed.is_torchelastic_launched():
        each = int(said["LOCAL_WORLD_SIZE"])
        return each, (processes.size() if processes.size() > 1 else int(said["WORLD_SIZE"])) // each
    if int(said.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        nodes = int(said.get("SLURM_STEP_NUM_NODES", "1"))
        return int(said["SLURM_STEP_NUM_TASKS"]) // nodes, nodes
    return 1, 1
