"""The workbench as an application, and the server that runs it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response

from robustmri.core.download import is_loopback
from robustmri.core.errors import RobustMRIError, SettingsError
from robustmri.web.folder import Folder, NotThereError
from robustmri.web.guard import Guard, Keys, SafeHeaders, refusal
from robustmri.web.jobs import Jobs
from robustmri.web.pages import page_routes, the_page
from robustmri.web.routes import Workbench, make_routes

LOOPBACK = ["127.0.0.1", "localhost", "::1", "[::1]"]


def make_app(
    folder: Folder,
    keys: Keys,
    *,
    hosts: list[str] | None = None,
    read_only: bool = False,
    on: str = "",
) -> Starlette:
    """The application on a folder.

    Args:
        folder: what it shows.
        keys: who may see it.
        hosts: names by which it may be called, besides those of this machine itself.
        read_only: nothing can be started or changed.
        on: cluster that jobs are submitted to, as the command line's `--on`; empty: this machine.
    """
    bench = Workbench(folder, Jobs(folder.root), read_only=read_only, on=on)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if not read_only:
            bench.jobs.watch()
        threading.Thread(target=bench.read_ahead, daemon=True).start()
        yield
        bench.close()

    app = Starlette(
        routes=[*make_routes(bench), *page_routes()],
        middleware=[
            Middleware(SafeHeaders),
            Middleware(
                TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, *(hosts or [])], www_redirect=False
            ),
            Middleware(Guard, keys=keys, read_only=read_only),
        ],
        exception_handlers={
            RobustMRIError: _explain(folder),
            OSError: _explain(folder),
            HTTPException: _not_here,
        },
        lifespan=lifespan,
    )
    app.state.jobs, app.state.events = bench.jobs, bench.events
    return app


def serve(
    folder: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    read_only: bool = False,
    on: str = "",
) -> None:
    """Serve the workbench until Ctrl-C.

    Args:
        folder: of runs, cohorts and results.
        host: address to listen on; another than this machine's own only where others may look.
        port: of it.
        read_only: show, and change nothing.
        on: cluster that jobs are submitted to; empty: this machine.

    Raises:
        SettingsError: `host` stands for every address.
        DataError: no such folder.
    """
    import uvicorn

    from robustmri.web.patience import ImpatientProtocol

    if host in ("0.0.0.0", "::", ""):
        raise SettingsError(
            f"--host {host!r} stands for every address, so that a page from elsewhere could "
            "pretend to be this one. Give the name or address by which others call this machine."
        )
    shown = f"[{host}]" if ":" in host else host

    def announce(token: str) -> None:
        print(f"Open, once: http://{shown}:{port}/?token={token}", flush=True)

    content = Folder(folder)
    if not is_loopback(host):
        print("Others in the network can read along: this is not encrypted.", flush=True)
    keys = Keys(announce, f"workbench-{port}")
    app = make_app(content, keys, hosts=[host, shown], read_only=read_only, on=on)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        http=ImpatientProtocol,
        limit_concurrency=200,
        timeout_graceful_shutdown=2,
    )


def _explain(folder: Folder) -> Callable[[Request, Exception], Response]:
    def explain(request: Request, error: Exception) -> Response:
        return refusal(404 if isinstance(error, NotThereError) else 422, folder.say(error))

    return explain


def _not_here(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404 and "text/html" in request.headers.get("accept", ""):
        return the_page(request, status)
    return refusal(status, "There is nothing at this address.")
