"""Files of a run in progress, each behind the sha256 of its content: a damaged one is known before
it is used.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from robustmri.core.errors import DataError
from robustmri.core.files import atomic_file, system_error

SEAL = hashlib.sha256().digest_size


def write_sealed(path: Path | str, content: bytes | memoryview) -> None:
    """Write the content behind its hash, whole or not at all."""
    with atomic_file(path) as partial, open(partial, "wb") as stream:
        stream.write(hashlib.sha256(content).digest())
        stream.write(content)


def read_sealed(path: Path | str) -> bytes:
    """The content, as it was written.

    Raises:
        DataError: it is not.
        RobustMRIError: the machine cannot read it.
    """
    try:
        whole = Path(path).read_bytes()
    except (OSError, MemoryError) as error:
        raise system_error(error, path) or error from error
    content = whole[SEAL:]
    if not hmac.compare_digest(whole[:SEAL], hashlib.sha256(content).digest()):
        raise DataError(f"{path} was damaged after it was written (its sha256 differs).")
    return content
