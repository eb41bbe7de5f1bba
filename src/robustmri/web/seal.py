"""A job's command runs only if this user's workbench wrote it, in this place: a folder that came
from elsewhere may bring a queue of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec


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


def seal(place: Path, job: Mapping[str, Any]) -> str:
    """What only this user can say of a job in this folder, 64 hexadecimal digits."""
    facts = [str(place.resolve()), job["command"], job.get("guarded", False)]
    return hmac.new(_key(), msgspec.json.encode(facts), hashlib.sha256).hexdigest()


def is_sealed(place: Path, job: Mapping[str, Any]) -> bool:
    """Whether the job's seal is that."""
    given = job.get("seal")
    return isinstance(given, str) and hmac.compare_digest(given.encode(), seal(place, job).encode())
