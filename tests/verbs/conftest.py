"""Results of three networks on the same slices, drawn from a seed: no network, no scans."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def made_results() -> ModuleType:
    """`tests/report/conftest.py`, which draws results from a seed."""
    path = Path(__file__).parents[1] / "report" / "conftest.py"
    spec = importlib.util.spec_from_file_location("made_results", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def settle() -> Callable[[Path], Path]:
    """Makes a result's numbers follow from its outcomes."""
    found: Callable[[Path], Path] = made_results().settle
    return found


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network, its repair, another network that withstands as much, and one that was tested on
    other people. Read them only.
    """
    root, made = tmp_path_factory.mktemp("results"), made_results()
    few: dict[str, Any] = {"patients": 12, "images": False, "attacks": ("fgsm", "pgd", "worst")}
    other = {"start": "ef" * 32, "backbone": "densenet121", "name": "standard training"}
    kinds: dict[str, dict[str, Any]] = {
        "before": {},
        "after": {"repaired": True},
        "other": {"repaired": True, **other},
        "strangers": {"repaired": True, **other, "seed": 1},
    }
    return {
        name: made.settle(made.build_result(root / name, **few, **settings))
        for name, settings in kinds.items()
    }
