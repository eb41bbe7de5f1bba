"""Runs a notebook without Jupyter; as a script, it stores in the tutorial what came out."""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

TUTORIAL = Path(__file__).resolve().with_name("tutorial.ipynb")


def run_notebook(notebook: dict[str, Any]) -> dict[str, Any]:
    """Run the code cells of a notebook one after another, in the current folder.

    Args:
        notebook: as its JSON holds it.

    Returns:
        The same with its outputs: what each cell printed, and the value of a last line that is an
        expression.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            outputs = _run("".join(cell["source"]), f"cell {number}", names)
            cell = cell | {"outputs": outputs}
        cells.append(cell)
    return notebook | {"cells": cells}


def _run(source: str, where: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    body = ast.parse(source, where).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    value, printed = None, io.StringIO()
    with redirect_stdout(printed):
        exec(compile(ast.Module(body, []), where, "exec"), names)
        if last:
            value = eval(compile(ast.Expression(last.value), where, "eval"), names)
    outputs: list[dict[str, Any]] = []
    if said := printed.getvalue():
        lines = said.splitlines(keepends=True)
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines})
    if value is not None:
        data = {"text/plain": [repr(value)]}
        if hasattr(value, "_repr_png_"):
            picture = base64.b64encode(value._repr_png_()).decode("ascii")
            data = {"image/png": picture, "text/plain": ["(a picture)"]}
        outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
    return outputs


if __name__ == "__main__":
    stored = json.loads(TUTORIAL.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        made = run_notebook(stored)
    TUTORIAL.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
