"""Measure how easily a medical-image classifier is fooled, repair it, and report both.

import robustmri
robustmri.prepare("scans", "cohort")
robustmri.train("cohort", "standard")
robustmri.evaluate("standard", "cohort", "before")

The public names stand in `__init__.pyi`; each is loaded when it is first asked for, because the
command line must answer before torch is there.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_HOME = {
    alias.name: line.module
    for line in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(line, ast.ImportFrom) and line.module
    for alias in line.names
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name."""
    if name not in _HOME:
        raise AttributeError(f"module 'robustmri' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
