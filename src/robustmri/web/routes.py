"""What can be asked of the workbench, and who answers it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from robustmri.core.errors import RobustMRIError, SettingsError
from robustmri.web.bodies import Uploads, read_words
from robustmri.web.commands import make_command
from robustmri.web.estimates import Estimates
from robustmri.web.events import Events
from robustmri.web.fields import PHANTOM, Form
from robustmri.web.folder import UPLOADS, Folder, Found, id_of, is_finished
from robustmri.web.forms import make_forms
from robustmri.web.jobs import STATES, Job, Jobs
from robustmri.web.search import make_search, next_name
from robustmri.web.views import answer, case, compare, overview, result

REPORT_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
READ_AHEAD = 2
"""Results that are read before anybody asks."""
SHOWN_KINDS = ("result", "run", "cohort", "source", "slice", "model")
"""Things that a form can ask for."""


class Workbench:
    """A folder, its jobs, and what goes on while it is served."""

    def __init__(self, folder: Folder, jobs: Jobs, *, read_only: bool, on: str = "") -> None:
        self.folder, self.jobs, self.read_only, self.on = folder, jobs, read_only, on
        self.forms = make_forms()
        self._seen: set[str] = set()
        self._starting = threading.Lock()
        self.uploads, self.estimates = Uploads(folder.root), Estimates()
        self.events = Events(lambda: msgspec.json.encode(self.every_job()))

    def close(self) -> None:
        """Nothing is started or told from now on."""
        self.events.closed = True
        self.jobs.close()

    def read_ahead(self) -> None:
        """Read what a reader will ask for first: the newest results, and the pixels of their
        slices, whose hash takes a while.
        """
        rows = [row for row in overview.overview(self.folder)["results"] if not row["chosen"]]
        for row in rows[-READ_AHEAD:]:
            for read in (self._read_pixels, self._read_result):
                if self.events.closed:
                    return
                with contextlib.suppress(RobustMRIError, OSError):
                    read(row["id"])

    def _read_result(self, id: str) -> None:
        result.result(self.folder, id, {})
        result.cases(self.folder, id, {})

    def _read_pixels(self, id: str) -> None:
        if cohort := self.folder.cohort_of(self.folder.result(id)):
            self.folder.pixels(cohort)

    def every_job(self) -> dict[str, Any]:
        """The jobs, and where what they made can be seen."""
        every = [self.shown(job) for job in self.jobs.all()]
        done = {job.id for job in every if job.state == "done"}
        if done - self._seen:  # What it made is to be seen at once.
            self.folder.look()
        self._seen, found = done, self.folder.look(at_most_every=1.0).found
        made = {job.id: _address(job, found) for job in every if job.state == "done"}
        return {"jobs": every, "made": made, "states": STATES, "read_only": self.read_only}

    def shown(self, job: Job) -> Job:
        """A job without the place of the folder in what it said."""
        return msgspec.structs.replace(job, why=self.folder.say_lines(job.why))

    def every_form(self) -> dict[str, Any]:
        """The forms, and the things that they can be filled with."""
        return {"forms": list(self.forms.values()), "things": self.things()}

    def things(self) -> dict[str, list[dict[str, str]]]:
        """What a form can be filled with, by kind."""
        contents = self.folder.look()
        things = {kind: _named(contents.of(kind)) for kind in SHOWN_KINDS}  # type: ignore[arg-type]
        things["run"] = _named([one for one in contents.of("run") if is_finished(one)])
        things["source"].insert(0, {"id": PHANTOM, "name": "synthetic phantom"})
        return things

    def command(self, body: Mapping[str, Any]) -> tuple[Form, list[str], str]:
        """The form, the command and the name of what it makes that a request asks for."""
        form = self.forms.get(str(body.get("verb")))
        answers = body.get("answers")
        if form is None or not isinstance(answers, dict):
            raise SettingsError(f"expected a verb ({', '.join(self.forms)}) and its answers.")
        return form, *make_command(self.folder, form, answers)

    def start(self, body: Mapping[str, Any]) -> Job:
        """Put what a request asks for into the queue."""
        form, words, out = self.command(body)
        title = f"{form.title}: {out}"
        with self._starting:  # Two pages may ask at once.
            busy = ("waiting", "running")
            if any(job.out == out and job.state in busy for job in self.jobs.all()):
                raise SettingsError(f"A job makes {out} already. Choose another name, or wait.")
            if form.guarded:  # What bounds it holds on this machine alone.
                return self.jobs.add(form.verb, title, words, out, guarded=True)
            return self.jobs.add(form.verb, title, self._placed(words), out)

    def _placed(self, words: list[str]) -> list[str]:
        """The command where jobs are to run; the process here waits for the one there."""
        if not self.on:
            return words
        logs = str(self.folder.root / ".cluster")
        return [*words[:2], "robustmri.app.cluster", self.on, logs, "--", *words[3:]]

    def search(self, body: Mapping[str, Any]) -> Job:
        """Put a search that no result has stored into the queue."""
        taken = [job.out for job in self.jobs.all()]
        words, out, title = make_search(self.folder, body, taken)
        return self.jobs.add("evaluate", title, self._placed(words), out)

    def pair(self, body: Mapping[str, Any]) -> Job:
        """Put the pairing of two results by patient into the queue."""
        taken = [job.out for job in self.jobs.all()]
        answers = {name: str(body.get(name)) for name in ("first", "second")}
        answers["out"] = next_name(self.folder, taken, "compare-", ".html")
        return self.start({"verb": "compare", "answers": answers})

    def estimate(self, body: Mapping[str, Any]) -> dict[str, str]:
        """How long it would take."""
        form, words, _ = self.command(body)
        if not form.estimates:
            raise SettingsError(f"{form.title} does not say how long it takes.")
        busy = any(job.state == "running" for job in self.jobs.all())
        said = self.estimates.ask(words)
        return {"words": f"{said}, while another job runs" if busy else said}

    def forget(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Remove what was uploaded."""
        kind = body.get("kind")
        if kind not in ("slice", "model"):
            raise SettingsError("expected the kind of what was uploaded: slice or model.")
        path = self.folder.find(kind, str(body.get("id"))).path
        if path.parent != self.uploads.folder:
            raise SettingsError("This was not uploaded: it lies in the folder, and stays there.")
        path.unlink(missing_ok=True)
        return self.things()


def make_routes(bench: Workbench) -> list[Route]:
    """Everything but the page itself."""
    folder, jobs = bench.folder, bench.jobs

    def describe(request: Request) -> dict[str, Any]:
        return {**overview.overview(folder), "read_only": bench.read_only}

    nothing_asked: dict[str, Any] = {"search": []} if bench.read_only else {}

    def one_result(request: Request) -> dict[str, Any]:
        return result.result(folder, _id(request), request.query_params) | nothing_asked

    def one_case(request: Request) -> dict[str, Any]:
        return case.case(folder, *_ids(request), request.query_params) | nothing_asked

    def compared(request: Request) -> dict[str, Any]:
        first, second = request.path_params["id"], request.path_params["other"]
        said = compare.compare(folder, first, second, request.query_params)
        return said | {"read_only": bench.read_only}

    def one_job(request: Request) -> dict[str, Any]:
        job = jobs.read(_id(request))
        return {"job": bench.shown(job), "log": folder.say_lines(jobs.log(job.id))}

    async def listen(request: Request) -> Response:
        return StreamingResponse(bench.events.listen(), media_type="text/event-stream")

    async def upload(request: Request) -> Response:
        kind, suffix = request.path_params["kind"], request.query_params.get("suffix", "")
        name = await bench.uploads.receive(request, kind, suffix)
        things = await run_in_threadpool(bench.things)
        return _json({"id": id_of(kind, f"{bench.uploads.folder.name}/{name}"), "things": things})

    def thumbnail(request: Request) -> Response:
        return Response(case.thumbnail(folder, *_ids(request)), media_type="image/png")

    def picture(request: Request) -> Response:
        return Response(answer.picture(folder, _id(request)), media_type="image/png")

    def report(request: Request) -> Response:
        page = folder.find("report", _id(request)).path.read_bytes()
        # A sandbox: whatever the file is, it runs nothing and knows no cookie.
        headers = {"Content-Security-Policy": REPORT_POLICY}
        return Response(page, media_type="text/html", headers=headers)

    shown: dict[str, Callable[[Request], Any]] = {
        "/api/overview": describe,
        "/api/results/{id}": one_result,
        "/api/results/{id}/patients": lambda request: result.patients(
            folder, _id(request), request.query_params
        ),
        "/api/results/{id}/cases": lambda request: result.cases(
            folder, _id(request), request.query_params
        ),
        "/api/results/{id}/cases/{case}": one_case,
        "/api/compare/{id}/{other}": compared,
        "/api/answers/{id}": lambda request: answer.answer(folder, _id(request)),
        "/api/jobs": lambda request: bench.every_job(),
        "/api/jobs/{id}": one_job,
        "/api/forms": lambda request: bench.every_form(),
    }
    numbers = {
        "/api/results/{id}/cases/{case}/slice": case.pixels,
        "/api/results/{id}/cases/{case}/change": case.change,
    }
    asked: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "/api/jobs": bench.start,
        "/api/searches": bench.search,
        "/api/comparisons": bench.pair,
        "/api/estimates": bench.estimate,
        "/api/uploads/remove": bench.forget,
    }
    told: dict[str, Callable[[Request], Any]] = {
        "/api/jobs/{id}/cancel": lambda request: bench.shown(jobs.cancel(_id(request))),
        "/api/jobs/{id}/again": lambda request: bench.shown(jobs.again(_id(request))),
    }
    return [
        Route("/api/jobs/events", listen),
        *(Route(path, _as_json(what)) for path, what in shown.items()),
        *(Route(path, _as_bytes(folder, what)) for path, what in numbers.items()),
        Route("/api/results/{id}/cases/{case}/thumbnail.png", thumbnail),
        Route("/api/answers/{id}/picture.png", picture),
        Route("/reports/{id}", report),
        *(Route(path, _as_json(what), methods=["POST"]) for path, what in told.items()),
        *(Route(path, _with_words(what), methods=["POST"]) for path, what in asked.items()),
        Route("/api/uploads/{kind}", upload, methods=["POST"]),
    ]


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def _ids(request: Request) -> tuple[str, str]:
    return _id(request), str(request.path_params["case"])


def _named(things: list[Found]) -> list[dict[str, str]]:
    # What was uploaded is known by the name that it got, without the hidden folder.
    return [
        {
            "id": one.id,
            "name": one.name.removeprefix(f"{UPLOADS}/"),
            "uploaded": "yes" if one.name.startswith(f"{UPLOADS}/") else "",
        }
        for one in things
    ]


def _address(job: Job, found: Mapping[str, Found]) -> str:
    """Where what a job made can be seen; empty where it has no view of its own."""
    places = (("result", "/results"), ("report", "/reports"), ("answer", "/answers"))
    for kind, place in places:
        for made in (job.out, f"{job.out}/report.html"):  # A study writes a page about all.
            if (id := id_of(kind, made)) in found:
                return f"{place}/{id}"
    return ""


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _as_json(what: Callable[[Request], Any]) -> Callable[[Request], Response]:
    return lambda request: _json(what(request))


def _as_bytes(folder: Folder, what: Callable[..., Any]) -> Callable[[Request], Response]:
    return lambda request: Response(
        what(folder, *_ids(request)).tobytes(), media_type="application/octet-stream"
    )


def _with_words(
    what: Callable[[Mapping[str, Any]], Any],
) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        words = await read_words(request)
        return _json(await run_in_threadpool(what, words))

    return answered
