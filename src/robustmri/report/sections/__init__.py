"""The sections of a report: a file each, with a function and a template of its name, and the place
on the page.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from robustmri.report.page import Page

Section = Callable[[Page], dict[str, Any] | None]


def _read_folder() -> tuple[Section, ...]:
    """Every section of this folder's files, by `PLACE`."""
    names = [file.name for file in pkgutil.iter_modules(__path__)]
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    ordered = sorted(modules, key=lambda name: (modules[name].PLACE, name))
    return tuple(getattr(modules[name], name) for name in ordered)


SECTIONS = _read_folder()
"""Each gives what its template `NAME.html.j2` shows, or None where the results do not have it."""
