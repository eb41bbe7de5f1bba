"""Fetching one file: over https, checked, resumable, whole or not at all, and clear about being
offline.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import os
import re
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from robustmri.core.errors import DownloadError, SettingsError
from robustmri.core.files import explain_full_disk, refuse_odd_file
from robustmri.core.locks import locked

Progress = Callable[[int, int | None], None]
BLOCK = 1 << 18
LARGEST = 8 << 30
"""Bytes of a file whose size nobody has said."""
WINDOW = 60.0
"""Seconds in which something must have come."""
SLOWEST = 4096
"""Bytes a second below which a server counts as silent; with a bound on the size this is one on
the time.
"""
REDIRECTIONS = 5


def fetch(
    url: str,
    path: Path | str,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    largest: int = LARGEST,
    progress: Progress | None = None,
) -> Path:
    """Bring `url` to `path`; what has arrived stays in `path`.part, and a later call goes on from
    there.

    Where several processes ask for the same file, as those of one training run do, one fetches it.

    Args:
        url: https address; http only on this very machine.
        path: where the whole file will lie; a file that is there already and fits the checksum is
            kept.
        sha256: expected hash, all 64 digits.
        md5: expected hash, where the publisher gives only that.
        size: expected number of bytes.
        largest: number of bytes that is refused where `size` is not known.
        progress: called with (bytes so far, bytes in all if known).

    Raises:
        DownloadError: no connection, one that is too slow, an answer other than the file, or a
            checksum that does not fit.
        SettingsError: an address or a checksum that cannot be used.
    """
    path = Path(path)
    check_address(url)
    _check_digits(sha256, md5)
    if path.is_file() and not _mismatch(path, sha256, md5, size):
        return path
    refuse_odd_file(path)
    part = path.with_name(path.name + ".part")
    lock = path.with_name(f".{path.name}.lock")
    with explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock, path, wait=True):
            if path.is_file() and not _mismatch(path, sha256, md5, size):
                return path
            resumed = part.exists()
            _transfer(url, part, size, largest, progress)
            wrong = _mismatch(part, sha256, md5, size)
            if wrong and resumed:  # Its beginning may be of another file.
                part.unlink()
                _transfer(url, part, size, largest, progress)
                wrong = _mismatch(part, sha256, md5, size)
            if wrong:
                part.unlink()
                raise DownloadError(
                    f"{url} is not the expected file: {wrong}. It was removed; try again, or tell "
                    "us."
                )
            os.replace(part, path)
    return path


def check_address(url: str, what: str = "The address") -> None:
    """Make sure that an address is one that may be fetched from.

    Args:
        url: the address.
        what: it is, for the message.

    Raises:
        SettingsError: it is not https, and not http on this machine, or not an address.

    >>> check_address("file:///etc/passwd")
    Traceback (most recent call last):
    robustmri.core.errors.SettingsError: The address 'file:///etc/passwd' must begin with https://.
    """
    if not re.fullmatch(r"[!-~]+", url):
        raise SettingsError(
            f"{what} {url!r} holds a character that an address must not: write blanks and letters "
            "beyond ASCII as %XX, and a host as xn--..."
        )
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise SettingsError(f"{what} {url!r} is not one ({error}).") from error
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise SettingsError(f"{what} {url!r} must begin with https://.")
    if "@" in parts.netloc:
        raise SettingsError(f"{what} must not hold a name and a password.")
    if not _is_address(host) and not re.fullmatch(r"([\w-]{1,63}\.)*[\w-]{1,63}\.?", host):
        raise SettingsError(f"{what} {url!r} names no host.")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that host.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("10.0.0.7")
    (True, True, False)
    """
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _check_digits(sha256: str | None, md5: str | None) -> None:
    """A few digits of a hash are soon forged, and none at all prove nothing."""
    for name, digits, length in (("sha256", sha256, 64), ("md5", md5, 32)):
        if digits is not None and not re.fullmatch(rf"[0-9a-fA-F]{{{length}}}", digits):
            raise SettingsError(f"A {name} has {length} hexadecimal digits, got {digits!r}.")
    if sha256 is None and md5 is None:
        raise SettingsError("A file is only fetched if its sha256 is known.")


def _transfer(
    url: str, part: Path, size: int | None, largest: int, progress: Progress | None
) -> None:
    """Append to `part` what is missing of the file."""
    most = largest if size is None else size
    have = part.stat().st_size if part.exists() else 0
    if have >= most:
        if have == size:
            return
        part.unlink()
        have = 0
    pace = _Pace(have, size)
    with _explained(url, part, pace), pace.watched(), _open(url, have, pace) as answer:
        if answer is None:  # Nothing is left to send: the checksum decides.
            return
        goes_on = answer.status == 206
        if goes_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise ConnectionError(f"asked to go on from byte {have}, it sent other ones")
        pace.have = have if goes_on else 0
        if answer.length is not None:
            pace.total = pace.have + answer.length
        if pace.total is not None and (pace.total > most or size not in (None, pace.total)):
            raise DownloadError(
                f"{url} announces {pace.total} bytes, expected {'' if size else 'at most '}{most}: "
                "it is another file."
            )
        with open(part, "ab" if goes_on else "wb") as out:
            while block := answer.read1(BLOCK):
                _write(out, block)
                pace.add(len(block))
                if pace.have > most:
                    break
                if progress:
                    progress(pace.have, pace.total)
        if pace.have > most:
            part.unlink()
            raise DownloadError(f"{url} sends more than {most} bytes: it is another file.")
        if pace.stopped or (pace.total is not None and pace.have < pace.total):
            raise ConnectionError("the connection has ended")


def _write(out: BinaryIO, block: bytes) -> None:
    try:
        out.write(block)
        out.flush()
    except OSError as error:
        error.filename = out.name  # So that it is not taken for one of the network.
        raise


@contextmanager
def _open(url: str, have: int, pace: _Pace) -> Iterator[http.client.HTTPResponse | None]:
    """The answer; None where the server says that nothing lies beyond `have`."""
    request = urllib.request.Request(url, headers={"User-Agent": "robustmri"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    here = is_loopback(urllib.parse.urlsplit(url).hostname or "")
    opener = urllib.request.OpenerDirector()  # The usual one reads file: and ftp: too.
    for handler in (
        urllib.request.ProxyHandler({} if here else None),  # No proxy knows this machine.
        _Http(pace),
        _Https(pace),
        _Redirections(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    try:
        with opener.open(request, timeout=WINDOW) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            yield None
            return
        raise DownloadError(f"{url} answered {error.code} {error.reason}.") from error


@contextmanager
def _explained(url: str, part: Path, pace: _Pace) -> Iterator[None]:
    """Say what kept the file from coming, and what to do."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # Of the disk here.
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        if pace.stopped:
            reason = f"fewer than {SLOWEST} bytes a second came"
        if pace.came:
            of = "" if pace.total is None else f" of {pace.total}"
            raise DownloadError(
                f"{url} broke off after {pace.have}{of} bytes ({reason}). Run it again: it goes on "
                "where it stopped."
            ) from error
        raise DownloadError(
            f"{url} cannot be reached ({reason}). Is this machine offline? Fetch the file "
            f"elsewhere and put it at {part.with_suffix('')}; what has arrived so far "
            f"({pace.have} bytes) is kept."
        ) from error


class _Redirections(urllib.request.HTTPRedirectHandler):
    """A few, and never from https to anything else, nor from elsewhere to this machine."""

    max_redirections = REDIRECTIONS
    max_repeats = REDIRECTIONS

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        fp.close()  # Its words, which may be endless, are not read.
        here = req.full_url
        try:
            check_address(newurl)
        except SettingsError as error:
            raise DownloadError(f"{here} sends on to {newurl!r}, which is not followed.") from error
        hosts = [urllib.parse.urlsplit(address).hostname or "" for address in (here, newurl)]
        if is_loopback(hosts[1]) and not is_loopback(hosts[0]):
            raise DownloadError(f"{here} sends on to this machine; that is not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Pace:
    """How far a transfer is; where too little comes in a window of time, its connection is cut."""

    def __init__(self, have: int, total: int | None) -> None:
        self.have, self.total, self.came = have, total, 0
        self.stopped = False
        self.connections: list[http.client.HTTPConnection] = []

    def add(self, count: int) -> None:
        self.have += count
        self.came += count

    @contextmanager
    def watched(self) -> Iterator[None]:
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(over,), daemon=True)
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()

    def _watch(self, over: threading.Event) -> None:
        before = 0
        while not over.wait(WINDOW):
            if self.came - before < SLOWEST * WINDOW:
                self.stopped = True
                for one in self.connections:
                    self._cut(one)
                return
            before = self.came

    @staticmethod
    def _cut(connection: http.client.HTTPConnection) -> None:
        line = getattr(connection, "line", None) or connection.sock
        with suppress(OSError):
            # The plain one: that of TLS would let the reader fall over what it has left.
            socket.socket.shutdown(line, socket.SHUT_RDWR)


def _watched(kind: type[http.client.HTTPConnection], pace: _Pace) -> Any:
    """Connections whose sockets `pace` can reach, also once urllib has let go of them."""

    class Watched(kind):  # type: ignore[valid-type, misc]
        line: Any = None

        def connect(self) -> None:
            pace.connections.append(self)
            super().connect()
            self.line = self.sock

    return Watched


class _Http(urllib.request.HTTPHandler):
    def __init__(self, pace: _Pace) -> None:
        super().__init__()
        self.kind = _watched(http.client.HTTPConnection, pace)

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self.kind, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, pace: _Pace) -> None:
        super().__init__()
        self.kind = _watched(http.client.HTTPSConnection, pace)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self.kind, req)


def _mismatch(path: Path, sha256: str | None, md5: str | None, size: int | None) -> str:
    """What is wrong with the file, or an empty string."""
    if size is not None and path.stat().st_size != size:
        return f"it has {path.stat().st_size} bytes, expected {size}"
    for name, expected in (("sha256", sha256), ("md5", md5)):
        if expected:
            digest = hashlib.new(name, usedforsecurity=False)
            with open(path, "rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
            if digest.hexdigest() != expected.lower():
                return f"its {name} is {digest.hexdigest()}, expected {expected}"
    return ""
