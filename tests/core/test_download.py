from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from robustmri.core import download
from robustmri.core.download import fetch
from robustmri.core.errors import DownloadError, RobustMRIError, SettingsError
from robustmri.core.locks import locked
from robustmri.data.fetch_figshare import KNOWN_FILES, ReleaseFile, download_release

CONTENT = bytes(range(256)) * 4000  # 1 MB


@dataclass
class Server:
    """A publisher on this machine.

    Attributes:
        cut: breaks the next answers off after so many bytes.
        ranges: whether it can go on in the middle; "wrong": it goes on elsewhere.
        length: what it announces in place of the size; None: nothing.
        moved: path to where it sends on.
        drip: "head" or "body" comes a byte at a time, without end.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    ranges: Any = True
    length: Any = ()
    moved: dict[str, str] = field(default_factory=dict)
    drip: str = ""
    over: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def drip(self) -> None:
            try:
                while not state.over.wait(0.02):
                    self.wfile.write(b"x")
            except OSError:  # They have had enough.
                pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            if state.drip == "head":
                self.drip()
                return
            if self.path in state.moved:
                self.send_response(302)
                self.send_header("Location", state.moved[self.path])
                self.end_headers()
                return
            if self.path not in state.files:
                self.send_error(404)
                return
            body = state.files[self.path]
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if start and start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            first = start + (state.ranges == "wrong" and start > 0)
            if start:
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            length = len(body) - first if state.length == () else state.length
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            end = first + state.cut.pop(0) if state.cut else len(body)
            try:
                self.wfile.write(body[first:end])
            except OSError:  # They have had enough.
                return
            if state.drip:
                self.drip()

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    yield state
    state.over.set()
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


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    calls: list[tuple[int, int | None]] = []
    for _ in range(2):
        path = fetch(
            f"{server.url}/a",
            tmp_path / "new" / "a",
            sha256=sha256(CONTENT).upper(),
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
    assert fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT)).read_bytes() == CONTENT


def test_a_part_that_is_already_whole_needs_no_more_bytes(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / "a.part").write_bytes(CONTENT)
    assert fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "wrong",
    [
        {"md5": "0" * 32},
        {"sha256": "0" * 64},
        # The first eight digits are the file's, as one can make them be.
        {"sha256": f"{sha256(CONTENT)[:8]:0<64}"},
    ],
)
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
        fetch(f"{nobody()}/a", tmp_path / "a", md5=md5(b""))
    with pytest.raises(DownloadError, match="answered 404"):
        fetch(f"{server.url}/a", tmp_path / "a", md5=md5(b""))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "hashes", [{}, {"sha256": "f37072fd"}, {"sha256": "x" * 64}, {"md5": "5ea8"}]
)
def test_nothing_is_fetched_by_a_part_of_a_hash(
    server: Server, tmp_path: Path, hashes: dict
) -> None:
    with pytest.raises(SettingsError, match=r"64 hex|32 hex|sha256 is known"):
        fetch(f"{server.url}/a", tmp_path / "a", **hashes)
    assert not server.asked


ODD_ADDRESSES = {
    "plain http": ("http://example.org/a", "must begin with https://"),
    "this machine by another name": ("http://127.0.0.1.example.org/a", "must begin with https://"),
    "file": ("file:///etc/passwd", "must begin with https://"),
    "ftp": ("ftp://example.org/a", "must begin with https://"),
    "data": ("data:,a", "must begin with https://"),
    "no scheme": ("mirror.example.org/a", "must begin with https://"),
    "no host": ("https:///a", "names no host"),
    "empty label": ("https://a..example.org/a", "names no host"),
    "long label": (f"https://{'a' * 64}.org/a", "names no host"),
    "host not ASCII": ("https://b\u00fccher.example/a", "character"),
    "path not ASCII": ("https://example.org/\u00fc", "character"),
    "blank": ("https://example.org/a b", "character"),
    "line feed": ("https://example.org/a\r\nX: y", "character"),
    "port": ("https://example.org:port/a", "is not one"),
    "port beyond": ("https://example.org:99999/a", "is not one"),
    "bracket": ("https://[::1/a", "is not one"),
    "password": ("https://me:secret@example.org/a", "name and a password"),
}


@pytest.mark.parametrize("kind", ODD_ADDRESSES)
def test_an_odd_address_is_one_sentence(tmp_path: Path, kind: str) -> None:
    address, says = ODD_ADDRESSES[kind]
    with pytest.raises(SettingsError, match=says) as caught:
        fetch(address, tmp_path / "a", md5=md5(b""))
    assert "secret" not in str(caught.value)
    assert not names(tmp_path)


def test_this_machine_is_not_asked_by_a_proxy(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", nobody())
    server.files["/a"] = CONTENT
    fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT))


def test_a_file_that_has_moved_is_found(server: Server, tmp_path: Path) -> None:
    server.files["/b"] = CONTENT
    server.moved["/a"] = "/b"
    assert fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT)).read_bytes() == CONTENT


ODD_MOVES = {
    "http://example.org/a": "sends on to",
    "ftp://example.org/a": "sends on to",
    "file:///etc/passwd": "answered 302",
    "https://[a/b": "Invalid IPv6",
    "https://exam ple.org/a": "sends on to",
    "//b\u00fccher.example/a": "sends on to",
    "https://a..b/": "sends on to",
    "/a": "answered 302",
}


@pytest.mark.parametrize("to", ODD_MOVES)
def test_it_does_not_move_just_anywhere(server: Server, tmp_path: Path, to: str) -> None:
    server.moved["/a"] = to
    with pytest.raises(DownloadError, match=ODD_MOVES[to]):
        fetch(f"{server.url}/a", tmp_path / "a", md5=md5(b""))
    assert not names(tmp_path)
    assert len(server.asked) <= 1 + download.REDIRECTIONS


def test_nobody_elsewhere_sends_on_to_this_machine() -> None:
    """A service here may answer whoever asks from here."""
    from email.message import Message
    from io import BytesIO
    from urllib.request import Request

    with pytest.raises(DownloadError, match="sends on to this machine"):
        download._Redirections().redirect_request(
            Request("https://example.org/a"), BytesIO(), 302, "", Message(), "http://127.0.0.1/b"
        )


@pytest.mark.parametrize("length", [(), 10**15, None])
@pytest.mark.parametrize("bound", [{"size": 1000}, {"largest": 1000}])
def test_more_than_may_come_is_not_stored(
    server: Server, tmp_path: Path, length: Any, bound: dict
) -> None:
    server.files["/a"], server.length = CONTENT, length
    says = "announces|sends more" if length is None else "announces"
    with pytest.raises(DownloadError, match=rf"({says}) .*it is another file"):
        fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT), **bound)
    assert not names(tmp_path)


@pytest.mark.parametrize("length", ["abc", "-5"])
def test_a_length_that_is_none_is_not_believed(server: Server, tmp_path: Path, length: str) -> None:
    server.files["/a"], server.length = CONTENT, length
    assert fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT)).read_bytes() == CONTENT


@pytest.mark.parametrize("drip", ["head", "body"])
def test_a_server_that_drips_is_left(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drip: str
) -> None:
    """Each of its bytes comes in time, and the last one would come in years."""
    monkeypatch.setattr(download, "WINDOW", 0.3)
    server.files["/a"], server.drip, server.cut = CONTENT, drip, [300]
    with pytest.raises(DownloadError, match="fewer than 4096 bytes a second"):
        fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT))
    monkeypatch.undo()
    server.drip, server.cut = "", []
    assert fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT)).read_bytes() == CONTENT
    assert (server.asked[1][1] is not None) == (drip == "body")


def test_a_part_of_another_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / "a.part").write_bytes(b"?" * 5000)
    assert fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT)).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == ["bytes=5000-", None]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / "a.part").write_bytes(CONTENT + b"?")
    assert fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT)).read_bytes() == CONTENT


def test_a_server_that_goes_on_elsewhere_is_not_believed(server: Server, tmp_path: Path) -> None:
    server.files["/a"], server.ranges = CONTENT, "wrong"
    (tmp_path / "a.part").write_bytes(CONTENT[:5000])
    with pytest.raises(DownloadError, match="asked to go on from byte 5000"):
        fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT))
    assert fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT)).read_bytes() == CONTENT


def test_a_link_is_not_written_through(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("elsewhere")
    with pytest.raises(RobustMRIError, match="is a link"):
        fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT))
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    fetch(f"{server.url}/a", tmp_path / "a", md5=md5(CONTENT))
    assert not server.asked


RELEASE = {"part1.zip": CONTENT, "part2.zip": CONTENT[::-1], "cvind.mat": b"folds"}


def publish(server: Server) -> list[ReleaseFile]:
    """A release on this machine."""
    server.files |= {f"/files/{name}": content for name, content in RELEASE.items()}
    return [
        ReleaseFile(name, f"{server.url}/files/{name}", len(content), md5(content))
        for name, content in RELEASE.items()
    ]


def test_the_release_is_the_known_files(server: Server, tmp_path: Path) -> None:
    calls: dict[str, Any] = {}
    out = download_release(
        tmp_path / "release",
        known=publish(server),
        progress=lambda name, *bytes_: calls.__setitem__(name, bytes_),
    )
    assert {file.name: file.read_bytes() for file in out.iterdir()} == RELEASE
    assert calls["part1.zip"] == (len(CONTENT), len(CONTENT))
    assert server.asked == [(f"/files/{name}", None) for name in RELEASE]


def test_an_interrupted_release_goes_on(server: Server, tmp_path: Path) -> None:
    known = publish(server)
    server.cut = [10**9, 5000]  # The first zip arrives, the second breaks off.
    with pytest.raises(DownloadError, match=r"part2\.zip broke off after 5000"):
        download_release(tmp_path, known=known)
    server.asked.clear()
    download_release(tmp_path, known=known)
    assert server.asked == [("/files/part2.zip", "bytes=5000-"), ("/files/cvind.mat", None)]
    assert (tmp_path / "part2.zip").read_bytes() == RELEASE["part2.zip"]


def test_a_file_of_the_release_that_was_exchanged_is_refused(
    server: Server, tmp_path: Path
) -> None:
    known = publish(server)
    server.files["/files/part1.zip"] = CONTENT[1:] + b"?"
    with pytest.raises(DownloadError, match="md5"):
        download_release(tmp_path, known=known)
    assert not names(tmp_path)


def test_two_downloads_into_one_folder(server: Server, tmp_path: Path) -> None:
    with (
        locked(tmp_path / ".lock", tmp_path),
        pytest.raises(RobustMRIError, match="is being written by another process"),
    ):
        download_release(tmp_path, known=publish(server))
    assert not server.asked


def test_a_file_is_no_place_for_a_release(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(RobustMRIError, match="is no folder"):
        download_release(tmp_path / "a", known=[])


def test_offline_names_the_file_and_the_way_out(tmp_path: Path) -> None:
    known = [ReleaseFile("part1.zip", f"{nobody()}/part1.zip", 5, md5(b"folds"))]
    with pytest.raises(DownloadError, match="Is this machine offline"):
        download_release(tmp_path, known=known)


def test_the_known_release_is_four_zips_and_the_folds() -> None:
    names = [file.name for file in KNOWN_FILES]
    assert [name.endswith(".zip") for name in names] == [True] * 4 + [False]
    assert sum(file.size for file in KNOWN_FILES) == 879_499_062
    assert all(len(file.md5) == 32 for file in KNOWN_FILES)
    assert all(file.url.startswith("https://ndownloader.figshare.com/") for file in KNOWN_FILES)
