"""The page itself: one for all views, which looks at its address, and the files that it loads."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from robustmri.report.figures import TEMPLATES

STATIC = Path(str(files("robustmri.web"))) / "static"
KINDS = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".html": "text/html",
    ".svg": "image/svg+xml",
}
SHARED = ("colours.css", "type.css", "figures.css")
"""Of the report: its colours, its type and its drawings are the page's too."""
ADDRESSES = (
    "/",
    "/jobs",
    "/results/{id}",
    "/results/{id}/{case}",
    "/compare/{id}/{other}",
    "/answers/{id}",
)


def page_routes() -> list[Route]:
    """Every view, and every file of the page."""
    static = {
        path.relative_to(STATIC).as_posix(): path
        for path in STATIC.rglob("*")
        if path.suffix in KINDS and path.name != "index.html"
    }
    static |= {name: TEMPLATES / name for name in SHARED}
    return [
        *(Route(path, the_page) for path in ADDRESSES),
        *(Route(f"/static/{name}", _file(path)) for name, path in static.items()),
    ]


def the_page(request: Request, status: int = 200) -> Response:
    """The page, which looks at its address and shows its view, or that there is none."""
    page = STATIC / "index.html"
    return Response(page.read_bytes(), status, media_type=KINDS[page.suffix])


def _file(path: Path) -> Callable[[Request], Response]:
    return lambda request: Response(path.read_bytes(), media_type=KINDS[path.suffix])
