"""Fetching one file: resumable, checksummed, atomic, and clear about being offline."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from robustmri.core.errors import DownloadError
from robustmri.core.files import explain_full_disk

Progress = Callable[[int, int | None], None]
BLOCK = 1 << 18


def fetch(
    url: str,
    path: Path | str,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    progress: Progress | None = None,
    timeout: float = 60.0,
) -> Path:
    """Bring `url` to `path`; what has arrived stays in `path`.part, and a later call goes on from
    there.

    Where several processes ask for the same file, as those of one training run do, one fetches it.

    Args:
        url: http or https address.
        path: where the whole file will lie; a file that is there already and fits the checksum is
            kept.
        sha256: expected hash, or its first digits (torchvision's file names carry eight).
        md5: expected hash, where the publisher gives only that.
        size: expected number of bytes.
        progress: called with (bytes so far, bytes in all if known).
        timeout: seconds without any answer before giving up.

    Raises:
        DownloadError: no connection, an answer other than the file, or a checksum that does not
            fit.
    """
    path = Path(path)
    if path.exists() and not _mismatch(path, sha256, md5, size):
        return path
    part = path.with_name(path.name + ".part")
    with explain_full_disk(path), _alone(path):
        if path.exists() and not _mismatch(path, sha256, md5, size):
            return path
        _transfer(url, part, size, progress, timeout)
        wrong = _mismatch(part, sha256, md5, size)
        if wrong:
            part.unlink()
            raise DownloadError(
                f"{url} is not the expected file: {wrong}. It was removed; try again, or tell us."
            )
        os.replace(part, path)
    return path


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process fetches the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":  # There, training is one process.
        yield
        return
    import fcntl

    lock = path.with_name(path.name + ".lock")
    with open(lock, "w") as held:
        with suppress(OSError):  # Some network disks cannot lock.
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _transfer(
    url: str, part: Path, size: int | None, progress: Progress | None, timeout: float
) -> None:
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have >= size:
        if have == size:
            return
        part.unlink()
        have = 0
    request = urllib.request.Request(url, headers={"User-Agent": "robustmri"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            if answer.status != 206:  # The server does not resume: start over.
                have = 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else size
            with open(part, "ab" if have else "wb") as out:
                while block := answer.read(BLOCK):
                    out.write(block)
                    have += len(block)
                    if progress:
                        progress(have, total)
            if total is not None and have < total:
                raise DownloadError(
                    f"{url} broke off after {have} of {total} bytes. Run it again: it goes on "
                    "where it stopped."
                )
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # Nothing is left to send: the checksum decides.
            return
        raise DownloadError(f"{url} answered {error.code} {error.reason}.") from error
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        reason = getattr(error, "reason", error)
        raise DownloadError(
            f"{url} cannot be reached ({reason}). Is this machine offline? Fetch the file "
            f"elsewhere and put it at {part.with_suffix('')}; what has arrived so far ({have} "
            "bytes) is kept."
        ) from error


def _mismatch(path: Path, sha256: str | None, md5: str | None, size: int | None) -> str:
    """What is wrong with the file, or an empty string."""
    if size is not None and path.stat().st_size != size:
        return f"it has {path.stat().st_size} bytes, expected {size}"
    for name, expected in (("sha256", sha256), ("md5", md5)):
        if expected:
            digest = hashlib.new(name)
            with open(path, "rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
            if not digest.hexdigest().startswith(expected.lower()):
                return f"its {name} is {digest.hexdigest()[: len(expected)]}, expected {expected}"
    return ""
