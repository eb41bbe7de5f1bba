"""What a request brings: a few words in JSON, or a file."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from robustmri.core.errors import SettingsError
from robustmri.core.files import explain_full_disk
from robustmri.web.folder import UPLOADS, uploads_of

MOST_BYTES = 64_000
"""Of words."""
PATIENCE = 30.0
"""Seconds without a byte after which a request is given up."""
SLOWEST = 1000.0
"""Bytes a second; who brings fewer than that for longer than `PATIENCE` is given up, too."""
MOST_FILES, MOST_AT_ONCE = 200, 4
MOST = {"slice": 64 * 2**20, "model": 2 * 2**30}
"""Bytes of a file of that kind."""
ZIP, PICKLE = (0, b"PK\x03\x04"), (0, b"\x80")
# What a file of that name begins with: place and bytes. Nothing is decoded here.
BEGINNINGS: dict[str, dict[str, tuple[tuple[int, bytes], ...]]] = {
    "slice": {
        ".png": ((0, b"\x89PNG\r\n\x1a\n"),),
        ".jpg": ((0, b"\xff\xd8\xff"),),
        ".tif": ((0, b"II*\0"), (0, b"MM\0*")),
        ".bmp": ((0, b"BM"),),
        ".gif": ((0, b"GIF8"),),
        ".webp": ((8, b"WEBP"),),
        ".jp2": ((4, b"jP  "),),
        ".dcm": ((128, b"DICM"),),
    },
    "model": {
        ".onnx": ((0, b"\x08"),),
        ".safetensors": ((8, b"{"),),
        ".pth": (ZIP, PICKLE),
        ".pt": (ZIP, PICKLE),
        ".ckpt": (ZIP, PICKLE),
        ".pt2": (ZIP,),
    },
}
TWINS = {".jpeg": ".jpg", ".tiff": ".tif", ".dicom": ".dcm", "": ".dcm"}


async def read_words(request: Request) -> Mapping[str, Any]:
    """JSON of a request.

    Raises:
        SettingsError: too large, too slow, or no JSON object.
    """
    body = b""
    async for part in _parts(request):
        body += part
        if len(body) > MOST_BYTES:
            raise SettingsError(f"a request may have at most {MOST_BYTES} bytes.")
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    # Also numbers of thousands of digits, and lists in lists in lists.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SettingsError(f"expected JSON ({error}).") from error


class Uploads:
    """Files that were given to the page, in a hidden folder and under names of our own: what a file
    is called may name a person.

    Args:
        root: the folder of the workbench.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / UPLOADS
        self._receiving = 0

    async def receive(self, request: Request, kind: str, suffix: str) -> str:
        """Store the body of a request; returns the name of the file.

        Args:
            request: its body is the file.
            kind: a key of `MOST`.
            suffix: what its name ended in.

        Raises:
            SettingsError: not of that kind, too large, too slow, or too many of them.
        """
        if kind not in MOST:
            raise SettingsError(f"expected a file of the kind {' or '.join(MOST)}.")
        suffix = _known(kind, suffix)
        if self._receiving >= MOST_AT_ONCE:
            raise SettingsError(f"{MOST_AT_ONCE} files are being received. Wait for one of them.")
        if len(uploads_of(self.root)) >= MOST_FILES:
            raise SettingsError(f"{MOST_FILES} files were uploaded. Remove some of them first.")
        if self.folder.is_symlink():
            raise SettingsError(f"{UPLOADS} is a link. Remove it.")
        self._receiving += 1
        partial = self.folder / f"part-{secrets.token_hex(8)}"
        try:
            with explain_full_disk(partial):
                self.folder.mkdir(mode=0o700, exist_ok=True)
                descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as stream:
                    await _store(request, stream, kind, suffix)
                return self._name(partial, kind, suffix)
        finally:
            self._receiving -= 1
            partial.unlink(missing_ok=True)

    def _name(self, partial: Path, kind: str, suffix: str) -> str:
        ends = [path.stem.rpartition("-")[2] for _, path in uploads_of(self.root)]
        numbers = [int(end) for end in ends if re.fullmatch("[0-9]{4,6}", end)]
        for number in range(max(numbers, default=0) + 1, 10**6):
            path = self.folder / f"{kind}-{number:04d}{suffix}"
            try:
                os.link(partial, path)  # Unlike a renaming it never replaces anything.
            except FileExistsError:
                continue
            return path.name
        raise SettingsError("there are no more names for uploads.")


def _known(kind: str, suffix: str) -> str:
    suffix = suffix.lower()
    suffix = TWINS.get(suffix, suffix)
    if suffix not in BEGINNINGS[kind]:
        known = ", ".join(BEGINNINGS[kind])
        raise SettingsError(f"a {kind} must be one of {known}, got {suffix[:12]!r}.")
    return suffix


async def _store(request: Request, stream: BinaryIO, kind: str, suffix: str) -> None:
    waiting, size = bytearray(), 0
    async for part in _parts(request):
        waiting += part
        size += len(part)
        if size > MOST[kind]:
            raise SettingsError(f"a {kind} may have at most {MOST[kind] // 2**20} MB.")
        if len(waiting) >= 2**20:
            if size == len(waiting):
                _check_beginning(bytes(waiting[:256]), kind, suffix)
            await run_in_threadpool(stream.write, bytes(waiting))
            waiting.clear()
    if size == len(waiting):
        _check_beginning(bytes(waiting[:256]), kind, suffix)
    await run_in_threadpool(stream.write, bytes(waiting))


def _check_beginning(beginning: bytes, kind: str, suffix: str) -> None:
    known = BEGINNINGS[kind][suffix]
    if not any(beginning[at : at + len(word)] == word for at, word in known):
        raise SettingsError(f"this is no {suffix} file: it begins otherwise.")


async def _parts(request: Request) -> AsyncIterator[bytes]:
    stream, began, size = request.stream(), time.monotonic(), 0
    while True:
        try:
            part = await asyncio.wait_for(anext(stream), PATIENCE)
        except StopAsyncIteration:
            return
        except (asyncio.TimeoutError, ClientDisconnect) as error:
            raise SettingsError("the request broke off before its end.") from error
        size, took = size + len(part), time.monotonic() - began
        if took > PATIENCE and size < SLOWEST * took:
            raise SettingsError(f"the request is slower than {SLOWEST:.0f} bytes a second.")
        yield part
