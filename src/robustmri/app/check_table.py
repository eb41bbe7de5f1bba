"""What the command line says of checks: a row for each that an evaluation runs on itself."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

from robustmri.evaluation import (
    budget_checks,
    masking_checks,
    order_checks,
    shortcut_checks,
    study_checks,
)
from robustmri.report.tables import Table

ABOUT = {
    budget_checks: "the attacks",
    order_checks: "the attacks",
    masking_checks: "the classifier, asked further",
    shortcut_checks: "the classifier, asked further",
    study_checks: "the study",
}
"""What the checks of each file look at."""


class KnownCheck(NamedTuple):
    """What a check is called in results, what it asks, and what it looks at."""

    name: str
    asks: str
    about: str


def list_checks() -> list[KnownCheck]:
    """Every check of an evaluation, as its function says it."""
    return [check for module in ABOUT for check in _checks_of(module)]


def tabulate_checks() -> Table:
    """A row for each check."""
    rows = [list(check) for check in list_checks()]
    notes = [
        "Each passes, warns or fails; a failed one takes the headline out of the report, and "
        "evaluate --strict then ends with status 3. Besides, of the split: patients, groups, "
        "copies and near-duplicates in one set only, no patient under two names, test slices new "
        "to the classifier. More: docs/checks.md."
    ]
    return Table(["Check", "Asks whether", "About"], rows, notes)


def _checks_of(module: ModuleType) -> Iterator[KnownCheck]:
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("check_"):
            said = (ast.get_docstring(node) or "").split("\n\n")[0]
            for name in _names_in(node):
                yield KnownCheck(name, " ".join(said.split()), ABOUT[module])


def _names_in(function: ast.FunctionDef) -> list[str]:
    """The constant that the function gives its `Check` as a name."""
    given = [
        word.value.value
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "name" and isinstance(word.value, ast.Constant)
    ]
    return list(dict.fromkeys(map(str, given)))
