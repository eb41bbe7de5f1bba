"""A machine with a few packages and no index: an environment that sees those of this one."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path


def make_machine(folder: Path, has: Iterable[str]) -> tuple[Path, dict[str, str]]:
    """A new virtual environment with pip and the packages `has`, as far as they are installed here.

    Returns:
        Its Python, and what to run it with: an environment in which pip finds no index.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    seen = folder / "packages"
    seen.mkdir()
    for name in has:
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        for top in sorted({file.parts[0] for file in files} - {"..", "__pycache__"}):
            link, target = seen / top, Path(str(metadata.distribution(name).locate_file(top)))
            if not link.exists() and target.exists():
                link.symlink_to(target)
    version = f"python{sysconfig.get_python_version()}"
    place = folder / "venv" / "lib" / version / "site-packages" / "machine.pth"
    place.write_text(f"{seen}\n", encoding="utf-8")
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "OMP_NUM_THREADS") if name in os.environ
    }
    return python, {
        **kept,
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PYTHON": str(python),
    }
