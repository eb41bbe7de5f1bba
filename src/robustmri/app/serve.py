"""The command `serve`: the workbench, in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustmri.app.cluster import read_place
from robustmri.app.options import On
from robustmri.core.errors import SettingsError


def serve(
    folder: Annotated[
        Path, typer.Argument(help="Folder of runs, cohorts and results.", show_default=False)
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; by default nobody else can reach it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8765,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Show, and let nothing be started or changed.")
    ] = False,
    on: On = "",
) -> None:
    """Look at a folder of runs and results in a browser, and start what is next. Ctrl-C ends it."""
    try:
        from robustmri.web import server
    except ImportError as error:
        raise SettingsError(
            f"The workbench needs {error.name}. Install it with: pip install 'robustmri[web]'"
        ) from error
    if on:
        read_place(on)
    server.serve(folder, host=host, port=port, read_only=read_only, on=on)
