from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from robustmri.core.download import fetch
from robustmri.core.errors import DownloadError
from robustmri.data.figshare_release import KNOWN_FILES, ReleaseFile, download_release, list_release

CONTENT = bytes(range(256)) * 4000  # 1 MB


@dataclass
class Server:
    """A publisher on this machine; `cut` breaks the next answers off after so many bytes."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            if self.path not in state.files:
                self.send_error(404)
                return
            body = state.files[self.path]
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if start and start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            end = start + state.cut.pop(0) if state.cut else len(body)
            self.wfile.write(body[start:end])

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def nobody() -> str:
    """An address on this machine where no one answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def test_a_file_arrives_whole_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    calls: list[tuple[int, int | None]] = []
    for _ in range(2):
        path = fetch(
            f"{server.url}/a",
            tmp_path / "new" / "a",
            sha256=hashlib.sha256(CONTENT).hexdigest()[:8],
            size=len(CONTENT),
            progress=lambda *call: calls.append(call),
        )
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert [file.name for file in path.parent.iterdir()] == ["a"]


def test_a_broken_connection_is_resumed_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    server.cut = [300_000]
    with pytest.raises(DownloadError, match="Run it again"):
        fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT))
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "a.part").stat().st_size == 300_000
    assert fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT)).read_bytes() == CONTENT
    assert server.asked == [("/a", None), ("/a", "bytes=300000-")]
    assert not (tmp_path / "a.part").exists()


def test_a_server_that_cannot_resume_sends_it_all_again(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    server.ranges = False
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    assert fetch(f"{server.url}/a", tmp_path / "a").read_bytes() == CONTENT


def test_a_part_that_is_already_whole_needs_no_more_bytes(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / "a.part").write_bytes(CONTENT)
    assert fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT)).read_bytes() == CONTENT


@pytest.mark.parametrize(("stored", "asked"), [(len(CONTENT), 0), (len(CONTENT) + 1, 1)])
def test_a_part_of_known_size_is_taken_or_begun_anew(
    server: Server, tmp_path: Path, stored: int, asked: int
) -> None:
    """One that is whole needs no answer at all; of one that is too long nothing is kept."""
    server.files["/a"] = CONTENT
    (tmp_path / "a.part").write_bytes((CONTENT + b"more")[:stored])
    path = fetch(f"{server.url}/a", tmp_path / "a", size=len(CONTENT), md5=md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked == [("/a", None)] * asked


@pytest.mark.parametrize("wrong", [{"md5": "0" * 32}, {"sha256": "0" * 8}, {"size": 5}])
def test_another_file_than_expected_is_refused_and_removed(
    server: Server, tmp_path: Path, wrong: dict
) -> None:
    server.files["/a"] = CONTENT
    with pytest.raises(DownloadError, match="is not the expected file"):
        fetch(f"{server.url}/a", tmp_path / "a", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_file_that_does_not_fit_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / "a").write_bytes(b"an older version")
    assert fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT)).read_bytes() == CONTENT


def test_offline_and_not_found_are_said_plainly(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"cannot be reached .* Is this machine offline\?"):
        fetch(f"{nobody()}/a", tmp_path / "a")
    with pytest.raises(DownloadError, match="answered 404"):
        fetch(f"{server.url}/a", tmp_path / "a")
    assert not list(tmp_path.iterdir())


RELEASE = {
    "part1.zip": CONTENT,
    "part2.zip": CONTENT[::-1],
    "cvind.mat": b"folds",
    "README.txt": b"words",
}


def publish(server: Server) -> str:
    """The release, and the API that describes it."""
    server.files |= {f"/files/{name}": content for name, content in RELEASE.items()}
    listed = [
        {
            "name": name,
            "download_url": f"{server.url}/files/{name}",
            "size": len(content),
            "computed_md5": md5(content),
        }
        for name, content in RELEASE.items()
    ]
    server.files["/article"] = json.dumps({"files": listed}).encode()
    return f"{server.url}/article"


def test_the_release_is_what_the_api_lists(server: Server, tmp_path: Path) -> None:
    article = publish(server)
    calls: dict[str, tuple[int, int | None]] = {}
    out = download_release(
        tmp_path / "release",
        article=article,
        progress=lambda name, *bytes_: calls.__setitem__(name, bytes_),
    )
    assert {file.name: file.read_bytes() for file in out.iterdir()} == {
        name: content for name, content in RELEASE.items() if name != "README.txt"
    }
    assert calls["part1.zip"] == (len(CONTENT), len(CONTENT))
    assert all(wanted is None for _, wanted in server.asked)


def test_an_interrupted_release_goes_on(server: Server, tmp_path: Path) -> None:
    article = publish(server)
    # The article and the first zip arrive, the second zip breaks off.
    server.cut = [10**9, 10**9, 5000]
    with pytest.raises(DownloadError, match=r"part2\.zip broke off after 5000"):
        download_release(tmp_path, article=article)
    server.asked.clear()
    download_release(tmp_path, article=article)
    assert server.asked == [
        ("/article", None),
        ("/files/part2.zip", "bytes=5000-"),
        ("/files/cvind.mat", None),
    ]
    assert (tmp_path / "part2.zip").read_bytes() == RELEASE["part2.zip"]


def test_a_file_other_than_the_api_promised_is_refused(server: Server, tmp_path: Path) -> None:
    article = publish(server)
    server.files["/files/part1.zip"] = CONTENT[1:] + b"?"
    with pytest.raises(DownloadError, match="md5"):
        download_release(tmp_path, article=article)


@pytest.mark.parametrize(
    "answer", [None, b"<html>403</html>", b"[]", b'{"files": [{"name": "x.zip"}]}']
)
def test_without_a_usable_api_the_known_files_are_asked_for(
    server: Server, tmp_path: Path, answer: bytes | None
) -> None:
    publish(server)
    del server.files["/article"]
    if answer is not None:
        server.files["/article"] = answer
    assert list_release(f"{server.url}/article") == ()
    known = [ReleaseFile("cvind.mat", f"{server.url}/files/cvind.mat", 5, md5(b"folds"))]
    download_release(tmp_path, article=f"{server.url}/article", known=known)
    assert (tmp_path / "cvind.mat").read_bytes() == b"folds"


def test_offline_names_the_file_and_the_way_out(tmp_path: Path) -> None:
    known = [ReleaseFile("part1.zip", f"{nobody()}/part1.zip", None, None)]
    with pytest.raises(DownloadError, match="Is this machine offline"):
        download_release(tmp_path, article=f"{nobody()}/article", known=known)


def test_names_from_the_network_stay_in_the_folder(server: Server) -> None:
    entry = {"name": "../../evil.zip", "download_url": "http://x", "size": 1, "computed_md5": ""}
    server.files["/article"] = json.dumps({"files": [entry]}).encode()
    assert [file.name for file in list_release(f"{server.url}/article")] == ["evil.zip"]


def test_the_known_release_is_four_zips_and_the_folds() -> None:
    names = [file.name for file in KNOWN_FILES]
    assert [name.endswith(".zip") for name in names] == [True] * 4 + [False]
    assert sum(file.size or 0 for file in KNOWN_FILES) == 879_499_062
    assert all(len(file.md5 or "") == 32 for file in KNOWN_FILES)
