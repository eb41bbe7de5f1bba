"""Files and folders that are either whole or not there, and their hashes."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from robustmri.core.errors import DataError, RobustMRIError, SettingsError

Kind = TypeVar("Kind")


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_name(name: str, what: str) -> str:
    """A name that becomes a part of a path: `name`, if it stays in its folder.

    Args:
        name: from a file or a person.
        what: it is the name of, for the message.

    Raises:
        SettingsError: it is empty, hidden, or holds a separator or a control character.
    """
    if not name or name.startswith(".") or not name.isprintable() or set(name) & set('/\\:*?"<>|'):
        raise SettingsError(
            f"the name of {what} becomes a folder, so it must be printable, without separators and "
            f"without a leading dot, got {name!r}."
        )
    return name


def discard_unfinished(folder: Path | str, name: str | None = None) -> None:
    """Remove what a process left in `folder` that was killed while it wrote `name`, or anything."""
    for path in Path(folder).glob(f".{'*' if name is None else glob.escape(name)}.*.partial"):
        _discard(path)


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn "no space left" and "no permission" into an error that names the place and the
    remedy.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RobustMRIError(
                f"The disk that holds {path} is full; nothing was changed there. Free some space "
                "and run it again."
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise RobustMRIError(
                f"{path} cannot be written ({error.strerror}). Choose another place."
            ) from error
        raise


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the name only when the block ends without an
    error.
    """
    path = Path(path)
    with explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            yield partial
            with open(partial, "rb") as written:
                os.fsync(written.fileno())
            os.replace(partial, path)
        finally:
            _discard(partial)


@contextmanager
def atomic_folder(path: Path | str, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes the name only when the block ends without an
    error.

    Raises:
        DataError: `path` holds something already and `replace` is False.
    """
    path = Path(path)
    if path.exists() and not replace and (not path.is_dir() or any(path.iterdir())):
        raise DataError(
            f"{path} exists already and is not empty. Choose another --out, or remove it first."
        )
    with explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        discard_unfinished(path.parent, path.name)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
        partial.mkdir()
        try:
            yield partial
            # Move the old folder aside before the new one takes its name: a kill in between leaves
            # both on the disk.
            old = partial.with_suffix(".old")
            if path.exists():
                os.replace(path, old)
            os.replace(partial, path)
            _discard(old)
        finally:
            _discard(partial)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_file(path) as partial:
        partial.write_text(
            json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def read_json(
    path: Path | str,
    kind: type[Kind] | Any = Any,
    *,
    error: type[RobustMRIError] = DataError,
    again: str = "Make it again with the step that wrote it.",
) -> Any:
    """Read a JSON file of ours.

    Args:
        path: the file.
        kind: what it holds: a struct, a dataclass, or a type such as dict[str, float].
        error: raised where it does not.
        again: how it is made anew, for the message.

    Raises:
        RobustMRIError: of the given kind, names the file: it is missing, damaged, or holds
            something else.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as missing:
        raise error(f"{path} does not exist. {again}") from missing
    except IsADirectoryError as missing:
        raise error(f"{path} is a folder. {again}") from missing
    return decode_json(content, kind, str(path), error=error, again=again)


def decode_json(
    content: bytes,
    kind: type[Kind] | Any = Any,
    name: str = "",
    *,
    error: type[RobustMRIError] = DataError,
    again: str = "Make it again with the step that wrote it.",
) -> Any:
    """What JSON text of ours holds; see `read_json`."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as wrong:
        raise error(f"{name} does not hold what it should ({wrong}). {again}") from wrong
    # Also texts that are no Unicode, numbers of thousands of digits, lists in lists in lists.
    except (msgspec.DecodeError, ValueError, RecursionError) as wrong:
        raise error(f"{name} is not valid JSON ({wrong}). {again}") from wrong


def sha256_of(path: Path | str) -> str:
    """Hash of a file's bytes, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(value: Any) -> str:
    """Hash of a JSON-able value that does not depend on the order of keys, 16 hexadecimal digits.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
