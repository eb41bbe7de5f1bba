"""Who made a file, from what, and how."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from robustmri import __version__

PACKAGES = ("torch", "monai", "lightning-fabric", "kornia", "numpy")


COMMIT_FILE = "COMMIT"
"""In a package that was carried to another machine: the commit that it was made from."""


def now() -> str:
    """The time, in UTC, to the second, as every file says it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def commit() -> str | None:
    """Commit of this code: of the checkout it runs from, with `+` where that has uncommitted
    changes, or of the bundle that it came in.
    """
    package = Path(__file__).resolve().parents[1]
    if (package / COMMIT_FILE).is_file():
        return (package / COMMIT_FILE).read_text(encoding="utf-8").strip()
    if not (package.parents[1] / ".git").exists():
        return None
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=package,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip()


@cache
def _own_commit() -> str | None:
    """Of the code as it was when it was first asked."""
    return commit()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _accelerator() -> str | None:
    """Name of the GPU, where torch is loaded and sees one."""
    torch: Any = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None


def _without_folders(word: str) -> str:
    """Results travel; the folders of the machine that they were made on do not.

    >>> [_without_folders(word) for word in ("--out=/ward 3/run", "~/scans", "runs/a", "eps=8/255")]
    ['--out=run', 'scans', 'runs/a', 'eps=8/255']
    """
    option, equals, value = word.rpartition("=")
    elsewhere = value.startswith("~") or any(
        kind(value).is_absolute() for kind in (PurePosixPath, PureWindowsPath)
    )
    name = PureWindowsPath(value).name if "\\" in value else PurePosixPath(value).name
    return f"{option}{equals}{name if elsewhere else value}"


def describe_run(seed: int | None = None) -> dict[str, Any]:
    """What someone needs to repeat a run: code, packages, machine, command, seed and time (UTC)."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "robustmri": __version__,
        "commit": _own_commit(),
        "python": platform.python_version(),
        "packages": versions,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "accelerator": _accelerator(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "command": shlex.join(map(_without_folders, sys.argv)),
        "seed": seed,
        "created": now(),
    }
