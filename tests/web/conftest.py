"""A folder of results, and the workbench on it, asked as a browser would."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

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
