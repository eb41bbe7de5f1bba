"""The workbench as an application, and the server that runs it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from robustmri.core.errors import RobustMRIError, SettingsError
from robustmri.report.figures import TEMPLATES
from robustmri.web.folder import Folder, Found, NotThereError, id_of, is_finished
from robustmri.web.forms import PHANTOM, make_command, make_forms
from robustmri.web.guard import Guard, Keys, SafeHeaders, refusal
from robustmri.web.jobs import STATES, Job, Jobs
from robustmri.web.views import case, compare, overview, result

STATIC = Path(str(files("robustmri.web"))) / "static"
KINDS = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".html": "text/html",
    ".svg": "image/svg+xml",
}
SHARED = ("colours.css", "type.css", "figures.css")
"""Of the report: its colours, its type and its drawings are the page's too."""
ADDRESSES = ("/", "/jobs", "/results/{id}", "/results/{id}/{case}", "/compare/{id}/{other}")
"""Views; each is the same page, which looks at its address."""
MOST_BYTES = 64_000
"""Of a request's body."""
REPORT_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
LOOPBACK = ["127.0.0.1", "localhost", "::1", "[::1]"]
Answer = Callable[[Request], Any]


def make_app(
    folder: Folder, keys: Keys, *, hosts: list[str] | None = None, read_only: bool = False
) -> Starlette:
    """The application on a folder.

    Args:
        folder: what it shows.
        keys: who may see it.
        hosts: names by which it may be called, besides those of this machine itself.
        read_only: nothing can be started or changed.
    """
    jobs = Jobs(folder.root)
    forms = make_forms()

    def describe(request: Request) -> dict[str, Any]:
        return {**overview.overview(folder), "read_only": read_only}

    def one_result(request: Request) -> dict[str, Any]:
        return result.result(folder, request.path_params["id"])

    def its_cases(request: Request) -> dict[str, Any]:
        return result.cases(folder, request.path_params["id"], request.query_params)

    def one_case(request: Request) -> dict[str, Any]:
        return case.case(folder, *_ids(request), request.query_params)

    def compared(request: Request) -> dict[str, Any]:
        first, second = request.path_params["id"], request.path_params["other"]
        return compare.compare(folder, first, second, request.query_params.get("show", "saved"))

    def every_job(request: Request) -> dict[str, Any]:
        every, found = jobs.all(), folder.look(at_most_every=1.0).found
        made = {job.id: _address(job, found) for job in every if job.state == "done"}
        return {"jobs": every, "made": made, "states": STATES, "read_only": read_only}

    def one_job(request: Request) -> dict[str, Any]:
        job = jobs.read(request.path_params["id"])
        return {"job": job, "log": folder.say_lines(jobs.log(job.id))}

    def every_form(request: Request) -> dict[str, Any]:
        contents = folder.look()
        things: dict[str, list[dict[str, str]]] = {
            kind: [{"id": one.id, "name": one.name} for one in contents.of(kind)]
            for kind in ("result", "run", "cohort", "source")
        }
        ready = [one for one in contents.of("run") if is_finished(one)]
        things["run"] = [{"id": one.id, "name": one.name} for one in ready]
        things["source"].insert(0, {"id": PHANTOM, "name": "synthetic phantom"})
        return {"forms": list(forms.values()), "things": things}

    def start(body: Mapping[str, Any]) -> Any:
        form = forms.get(str(body.get("verb")))
        answers = body.get("answers")
        if form is None or not isinstance(answers, dict):
            raise SettingsError(f"expected a verb ({', '.join(forms)}) and its answers.")
        words, out = make_command(folder, form, answers)
        return jobs.add(form.verb, f"{form.title}: {out}", words, out)

    def cancel(request: Request) -> Any:
        return jobs.cancel(request.path_params["id"])

    def again(request: Request) -> Any:
        return jobs.again(request.path_params["id"])

    async def add_job(request: Request) -> Response:
        body = await _read_body(request)
        return _json(await run_in_threadpool(start, body))

    def pixels(request: Request) -> Response:
        return _bytes(case.pixels(folder, *_ids(request)).tobytes())

    def changed(request: Request) -> Response:
        return _bytes(case.change(folder, *_ids(request)).tobytes())

    def thumbnail(request: Request) -> Response:
        return Response(case.thumbnail(folder, *_ids(request)), media_type="image/png")

    def report(request: Request) -> Response:
        page = folder.find("report", request.path_params["id"]).path.read_bytes()
        # A sandbox: whatever the file is, it runs nothing and knows no cookie.
        headers = {"Content-Security-Policy": REPORT_POLICY}
        return Response(page, media_type="text/html", headers=headers)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if not read_only:
            jobs.watch()
        yield
        jobs.close()

    places = {
        "/api/overview": describe,
        "/api/results/{id}": one_result,
        "/api/results/{id}/cases": its_cases,
        "/api/results/{id}/cases/{case}": one_case,
        "/api/compare/{id}/{other}": compared,
        "/api/jobs": every_job,
        "/api/jobs/{id}": one_job,
        "/api/forms": every_form,
    }
    app = Starlette(
        routes=[
            *(Route(path, _as_json(answer)) for path, answer in places.items()),
            Route("/api/results/{id}/cases/{case}/slice", pixels),
            Route("/api/results/{id}/cases/{case}/change", changed),
            Route("/api/results/{id}/cases/{case}/thumbnail.png", thumbnail),
            Route("/api/jobs", add_job, methods=["POST"]),
            Route("/api/jobs/{id}/cancel", _as_json(cancel), methods=["POST"]),
            Route("/api/jobs/{id}/again", _as_json(again), methods=["POST"]),
            Route("/reports/{id}", report),
            *(Route(path, _page) for path in ADDRESSES),
            *(Route(f"/static/{name}", _file(path)) for name, path in _static().items()),
        ],
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
    app.state.jobs = jobs
    return app


def serve(
    folder: Path | str, *, host: str = "127.0.0.1", port: int = 8765, read_only: bool = False
) -> None:
    """Serve the workbench until Ctrl-C.

    Args:
        folder: of runs, cohorts and results.
        host: address to listen on; another than this machine's own only where others may look.
        port: of it.
        read_only: show, and change nothing.

    Raises:
        SettingsError: `host` stands for every address.
        DataError: no such folder.
    """
    import uvicorn

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
    app = make_app(
        content, Keys(announce, f"workbench-{port}"), hosts=[host, shown], read_only=read_only
    )
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=200,
        timeout_graceful_shutdown=2,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("10.0.0.7")
    (True, True, False)
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ids(request: Request) -> tuple[str, str]:
    return request.path_params["id"], request.path_params["case"]


def _address(job: Job, found: Mapping[str, Found]) -> str:
    """Where what a job made can be seen; empty where it has no view of its own."""
    for kind, place in (("result", "/results"), ("report", "/reports")):
        if (id := id_of(kind, job.out)) in found:
            return f"{place}/{id}"
    return ""


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _bytes(value: bytes) -> Response:
    return Response(value, media_type="application/octet-stream")


def _as_json(answer: Answer) -> Answer:
    return lambda request: _json(answer(request))


def _static() -> dict[str, Path]:
    own = {
        path.relative_to(STATIC).as_posix(): path
        for path in STATIC.rglob("*")
        if path.suffix in KINDS and path.name != "index.html"
    }
    return own | {name: TEMPLATES / name for name in SHARED}


def _file(path: Path) -> Answer:
    return lambda request: Response(path.read_bytes(), media_type=KINDS[path.suffix])


def _page(request: Request) -> Response:
    return Response((STATIC / "index.html").read_bytes(), media_type="text/html")


async def _read_body(request: Request) -> Mapping[str, Any]:
    """JSON of a request.

    Raises:
        SettingsError: too large, or no JSON object.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise SettingsError(f"a request may have at most {MOST_BYTES} bytes.")
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SettingsError(f"expected JSON ({error}).") from error


def _explain(folder: Folder) -> Callable[[Request, Exception], Response]:
    def explain(request: Request, error: Exception) -> Response:
        return refusal(404 if isinstance(error, NotThereError) else 422, folder.say(error))

    return explain


def _not_here(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return refusal(status, "There is nothing at this address.")
