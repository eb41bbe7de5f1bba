"""The machine that numbers were taken on: what it can do, whether it was quiet, and that no table
mixes two.
"""

from __future__ import annotations

import os
import time
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
IMITATION = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""Environment in which torch, oneDNN and MKL behave as on a processor without AVX512."""
ALSO = (*IMITATION, "DNNL_MAX_CPU_ISA")
"""The same, by every name that they go by."""
STEERING = ("ATEN_", "ONEDNN_", "DNNL_", "MKL_", "OMP_")
"""What begins so in the environment decides how they compute."""
CPUINFO, STAT = Path("/proc/cpuinfo"), Path("/proc/stat")
QUIET_LOAD = 0.3
"""Processes that waited for a core in the minute before the start; with more, others compute."""
QUIET_OTHERS = 0.1
"""Cores that others may keep busy meanwhile."""
QUIET_SPREAD = 0.1
"""By which the slowest round of a contender may exceed its fastest."""


def describe_machine() -> dict[str, Any]:
    """What the numbers depend on; no name, no folder."""
    run = describe_run()
    return {
        "processor": run["processor"],
        "features": list(processor_features()),
        "imitates": imitated(os.environ),
        "environment": steered(os.environ),
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
    return ", ".join(f"{name}={environment[name]}" for name in ALSO if environment.get(name))


def steered(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the environment decides how it is computed.

    >>> steered({"OMP_NUM_THREADS": "1", "HOME": "/root"})
    {'OMP_NUM_THREADS': '1'}
    """
    return {name: environment[name] for name in sorted(environment) if name.startswith(STEERING)}


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


class Others:
    """What keeps this machine's cores busy besides this process, from now on."""

    def __init__(self) -> None:
        self._began = self._seen()

    def cores(self) -> float | None:
        """On average since; None where the system does not tell."""
        now = self._seen()
        if self._began is None or now is None:
            return None
        passed, busy, own = (after - before for after, before in zip(now, self._began, strict=True))
        return round(max(busy - own, 0.0) / max(passed, 1e-9), 2)

    def _seen(self) -> tuple[float, float, float] | None:
        """Seconds: of the clock, of all cores that worked, of this process and its children."""
        try:
            counted = STAT.read_text().splitlines()[0].split()[1:9]
        except OSError:
            return None
        user, nice, system, _, _, interrupts, soft, stolen = map(float, counted)
        busy = (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), busy, sum(os.times()[:4])


def disturbances(
    load: float | None,
    rows: Sequence[Mapping[str, Any]] = (),
    others: float | None = None,
) -> list[str]:
    """Why the machine does not count as quiet, in sentences; none where it does.

    Args:
        load: before the start, as `load_now` gave it.
        rows: of a table, with the `seconds` of each round.
        others: cores that others kept busy meanwhile, as `Others` counts them.

    >>> disturbances(1.5, [{"contender": "ours", "seconds": [1.0, 1.3]}])
    ['a load of 1.5 before the start', 'rounds of ours differ by 30 %']
    >>> disturbances(0.0, others=0.5)
    ['others kept 0.5 cores busy']
    """
    said = [f"a load of {load:g} before the start"] if load and load > QUIET_LOAD else []
    if others and others > QUIET_OTHERS:
        said.append(f"others kept {others:g} cores busy")
    for row in rows:
        seconds = row.get("seconds") or [1.0]
        spread = max(seconds) / max(min(seconds), 1e-9) - 1
        if spread > QUIET_SPREAD:
            said.append(f"rounds of {row['contender']} differ by {spread:.0%}".replace("%", " %"))
    return said
