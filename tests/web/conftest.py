"""A folder of results, and the workbench on it, asked as a browser would."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.testclient import TestClient

from robustmri.web.folder import Folder
from robustmri.web.guard import Keys
from robustmri.web.server import make_app

Open = Callable[..., TestClient]


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that seals jobs is the user's: here a user without one."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


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
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two results of the same slices and a report. Read it, do not change it."""
    from robustmri.report import write_page

    root = tmp_path_factory.mktemp("workbench") / "folder"
    build = made_results().build_result
    folders = [
        build(root / "before", patients=9, synthetic=True),
        build(root / "deep" / "after", patients=9, synthetic=True, repaired=True),
    ]
    write_page(folders, root / "report.html")
    return root


@pytest.fixture(scope="session")
def paired(shown: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same two results with hashes, and what `compare` writes about them."""
    from robustmri.evaluation.paired import compare_results
    from robustmri.results.cases import load_cases
    from robustmri.results.comparison import save_comparison
    from robustmri.results.schema import load_result

    root = tmp_path_factory.mktemp("paired") / "folder"
    folders = [root / "before", root / "after"]
    for folder in folders:
        shutil.copytree(next(shown.glob(f"**/{folder.name}")), folder)
        seal(folder)
    results, tables = map(load_result, folders), (load_cases(one).outcomes for one in folders)
    made = compare_results([*results], [*tables], ["before", "after"], words=str)
    save_comparison(made, root / "compared.json")
    shutil.copy(shown / "report.html", root / "compared.html")
    return root


def seal(folder: Path) -> None:
    """Write the hashes of a result's files anew."""
    import msgspec

    from robustmri.results.schema import RobustnessReport, hash_files, save_result

    result = msgspec.json.decode((folder / "robustness.json").read_bytes(), type=RobustnessReport)
    files = hash_files(folder, ("outcomes.parquet", "examples.npz"))
    save_result(msgspec.structs.replace(result, files=files), folder)


def start(folder: Path, *, read_only: bool = False) -> TestClient:
    """A client of the workbench on a folder; its session is not opened yet."""
    tokens: list[str] = []
    app = make_app(Folder(folder), Keys(tokens.append), read_only=read_only)
    client = TestClient(app, base_url="http://127.0.0.1:8765")
    client.headers["origin"] = "http://127.0.0.1:8765"
    client.app_state = {"tokens": tokens, "jobs": app.state.jobs}
    return client


@pytest.fixture
def open_on() -> Open:
    """`open_on(folder, read_only=False)` gives a client whose session was opened."""

    def open_on(folder: Path, *, read_only: bool = False, session: bool = True) -> TestClient:
        client = start(folder, read_only=read_only)
        if session:
            client.get("/", params={"token": client.app_state["tokens"][0]})
        return client

    return open_on


@pytest.fixture(scope="session")
def client(shown: Path) -> TestClient:
    """The workbench on that folder, opened; it only answers."""
    client = start(shown)
    client.get("/", params={"token": client.app_state["tokens"][0]})
    return client


@pytest.fixture(scope="session")
def ids(client: TestClient) -> dict[str, str]:
    """Name to id of the results in it."""
    return {one["name"]: one["id"] for one in client.get("/api/overview").json()["results"]}


# In a browser.


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Chromium: the one in CHROMIUM, the system's, or Playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or None
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=path, args=["--no-sandbox"])


@pytest.fixture
def served() -> Iterator[Callable[..., str]]:
    """`served(folder)` gives the address that opens the workbench."""
    import uvicorn

    from robustmri.web.patience import ImpatientProtocol

    servers = []

    def serve(folder: Path, **settings: Any) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        tokens: list[str] = []
        app = make_app(Folder(folder), Keys(tokens.append), **settings)
        config = uvicorn.Config(
            app, port=port, http=ImpatientProtocol, log_level="error", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        servers.append((server, thread))
        return f"http://127.0.0.1:{port}/?token={tokens[0]}"

    yield serve
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def page(browser: Any, served: Callable[..., str]) -> Iterator[Any]:
    """A page that fails the test if it asks for anything elsewhere, or an error comes up. It is
    closed before the server.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, wrong = context.new_page(), list[str]()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.on("request", lambda one: wrong.append(one.url) if "//127.0.0.1" not in one.url else None)
    page.set_default_timeout(60_000)  # A busy machine is no fault.
    yield page
    context.close()
    assert wrong == []
