"""A table of what each wrong answer costs, as the user gives it."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

from robustmri.core.errors import SettingsError
from robustmri.results.patients import Cost

COLUMNS = ("truth", "answer", "cost")
MOST_BYTES = 1 << 20


def read_costs(path: str | Path, classes: Sequence[str]) -> tuple[Cost, ...]:
    """Read a CSV with the columns truth, answer and cost, and perhaps consequence: a row for each
    wrong answer; a right one costs nothing unless a row says otherwise.

    Raises:
        SettingsError: no such file or table, a class that the classifier does not tell apart, a
            cost that is no number of at least 0, a pair twice, or one that is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise SettingsError(f"--costs {path} is not a file. Make a CSV: {','.join(COLUMNS)}.")
    if path.stat().st_size > MOST_BYTES:
        raise SettingsError(f"--costs {path} has more than {MOST_BYTES >> 20} MiB.")
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            heads = [str(head).strip().casefold() for head in reader.fieldnames or ()]
            read = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"--costs {path} is not a CSV in UTF-8 ({error}).") from error
    if missing := [name for name in COLUMNS if name not in heads]:
        raise SettingsError(
            f"--costs {path} has no column {missing[0]!r}. Expected {', '.join(COLUMNS)} and, if "
            f"you like, consequence; got {', '.join(heads) or 'nothing'}."
        )
    if twice := [name for name in heads if heads.count(name) > 1]:
        raise SettingsError(f"--costs {path} has two columns {twice[0]!r}. Remove one of them.")
    costs: dict[tuple[str, str], Cost] = {}
    for number, cells in enumerate(read, start=2):
        if None in cells:
            raise SettingsError(
                f"--costs {path}, line {number} has more cells than the {len(heads)} columns of "
                'the header. Put a text with a comma into quotes: "1,000".'
            )
        row = dict(zip(heads, map(_text, cells.values()), strict=True))
        one = _read_row(row, classes, f"--costs {path}, line {number}")
        if (one.truth, one.answer) in costs:
            raise SettingsError(
                f"--costs {path}, line {number}: {one.truth!r} taken for {one.answer!r} has a cost "
                "already."
            )
        costs[one.truth, one.answer] = one
    for pair in permutations(classes, 2):
        if pair not in costs:
            raise SettingsError(
                f"--costs {path} does not say what {pair[0]!r} taken for {pair[1]!r} costs. Every "
                "wrong answer needs a row, if it is 0 too."
            )
    return tuple(costs.values())


def _text(cell: object) -> str:
    return cell.strip() if isinstance(cell, str) else ""


def _read_row(row: dict[str, str], classes: Sequence[str], where: str) -> Cost:
    for name in ("truth", "answer"):
        if row.get(name) not in classes:
            raise SettingsError(
                f"{where}: {row.get(name)!r} is no class. The classifier tells apart "
                f"{', '.join(classes)}."
            )
    try:
        cost = float(row.get("cost", ""))
    except ValueError:
        cost = math.nan
    if not (math.isfinite(cost) and cost >= 0):
        raise SettingsError(f"{where}: a cost is a number of at least 0, got {row.get('cost')!r}.")
    return Cost(
        truth=row["truth"], answer=row["answer"], cost=cost, consequence=row.get("consequence", "")
    )
