"""The machine that numbers were taken on: what it can do, whether it was quiet, and that no table
mixes two.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.inputs import versions
from robustmri.core.errors import DataError
from robustmri.core.provenance import describe_run
from robustmri.models.optimised import fast_precision

FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Of a processor, by their names in /proc/cpuinfo; the last two multiply in bfloat16."""
IMITATION = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
"""Environment in which torch and oneDNN behave as on a processor without AVX512."""
CPUINFO = Path("/proc/cpuinfo")
QUIET_LOAD = 0.3
"""Processes that waited for a core in the minute before the start; with more, others compute."""
QUIET_SPREAD = 0.1
"""By which the slowest round of a contender may exceed its fastest."""


def describe_machine() -> dict[str, Any]:
    """What the numbers depend on; no name, no folder."""
    run = describe_run()
    return {
        "processor": run["processor"],
        "features": list(processor_features()),
        "imitates": imitated(os.environ),
        "cores": run["cores"],
        "threads": torch.get_num_threads(),
        "bf16": fast_precision(torch.device("cpu")) == "bf16",
        "accelerator": run["accelerator"],
        "system": run["system"],
        "python": run["python"],
        "torch": torch.__version__,
        "packages": run["packages"],
        "peers": versions(),
    }


def processor_features() -> tuple[str, ...]:
    """Those of `FEATURES` that the processor has; none where the system does not tell."""
    try:
        said = CPUINFO.read_text()
    except OSError:
        return ()
    flags = {word for line in said.splitlines() if line[:5] == "flags" for word in line.split()}
    return tuple(name for name in FEATURES if name in flags)


def imitated(environment: Mapping[str, str]) -> str:
    """The older processor that the environment makes of this one, in words; "" where none.

    >>> imitated({"ATEN_CPU_CAPABILITY": "avx2", "HOME": "/root"})
    'ATEN_CPU_CAPABILITY=avx2'
    """
    return ", ".join(f"{name}={environment[name]}" for name in IMITATION if environment.get(name))


def features_of(machine: Mapping[str, Any]) -> str:
    """The machine in a line: processor and features, threads, torch; an imitation is called one.

    >>> features_of({"processor": "P", "features": ["avx2"], "imitates": "", "cores": 2,
    ...     "threads": 2, "bf16": False, "torch": "2.13"})
    'P (avx2), 2 cores, 2 threads, without bfloat16 arithmetic, torch 2.13'
    """
    fast = "with" if machine["bf16"] else "without"
    said = (
        f"{machine['processor']} ({' '.join(machine['features']) or 'features unknown'}), "
        f"{machine['cores']} cores, {machine['threads']} threads, {fast} bfloat16 arithmetic, "
        f"torch {machine['torch']}"
    )
    if machine["imitates"]:
        said += f"; IMITATION of an older processor by {machine['imitates']}"
    return said


def refuse_another(path: Path, found: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse to put numbers of this machine beside those that a file holds from another.

    Raises:
        DataError: one of the facts differs; the first that does is named.
    """
    for name in {**here, **found}:
        if found.get(name) != here.get(name):
            raise DataError(
                f"{path} is of another machine: its {name} is {found.get(name, 'not told')!r}, "
                f"here {here.get(name)!r}. Choose another --out: a table of two machines would "
                "compare nothing."
            )


def load_now() -> float | None:
    """Processes that wanted a core in the last minute, on average; None where nobody counts."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def disturbances(load: float | None, rows: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Why the machine does not count as quiet, in sentences; none where it does.

    Args:
        load: before the start, as `load_now` gave it.
        rows: of a table, with the `seconds` of each round.

    >>> disturbances(1.5, [{"contender": "ours", "seconds": [1.0, 1.3]}])
    ['a load of 1.5 before the start', 'rounds of ours differ by 30 %']
    """
    said = [f"a load of {load:g} before the start"] if load and load > QUIET_LOAD else []
    for row in rows:
        seconds = row.get("seconds") or [1.0]
        spread = max(seconds) / max(min(seconds), 1e-9) - 1
        if spread > QUIET_SPREAD:
            said.append(f"rounds of {row['contender']} differ by {spread:.0%}".replace("%", " %"))
    return said
