"""A job's command runs only if this user's workbench wrote it, in this place: a folder that came
from elsewhere may bring a queue of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

from robustmri.core.files import read_json


def _key() -> bytes:
    """The user's own, which never lies in a folder that is served."""
    path = Path("~/.local/state/robustmri/workbench.key").expanduser()
    with suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(secrets.token_bytes(32))
    with suppress(FileExistsError):  # Another server was faster.
        os.link(written, path)
    written.unlink()
    return path.read_bytes()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, as job.json keeps it.

    Attributes:
        verb: first word of the command.
        title: what it is called.
        command: all its words, program first.
        guarded: whether it may have so much memory and time and no more.
        out: what it makes, relative to the folder.
        asked: when.
        seal: see `seal`.
    """

    verb: str
    title: str
    command: tuple[str, ...]
    guarded: bool = False
    out: str = ""
    asked: str = ""
    seal: str | None = None


def read_asked(place: Path) -> Asked:
    """What was asked for in a job's folder.

    Raises:
        DataError: the file is missing or damaged.
    """
    asked: Asked = read_json(place / "job.json", Asked, again="Ask for the job anew.")
    return asked


def seal(place: Path, job: Asked) -> str:
    """What only this user can say of a job in this folder, 64 hexadecimal digits."""
    facts = [str(place.resolve()), job.command, job.guarded]
    return hmac.new(_key(), msgspec.json.encode(facts), hashlib.sha256).hexdigest()


def is_sealed(place: Path, job: Asked) -> bool:
    """Whether the job's seal is that."""
    return hmac.compare_digest((job.seal or "").encode(), seal(place, job).encode())
