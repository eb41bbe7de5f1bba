"""Files and folders that are either whole or not there, and their hashes."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from robustmri.core.errors import DataError, RobustMRIError, SettingsError
from robustmri.core.locks import clear_unmarked, locked, marked
from robustmri.core.stops import stop_if_asked

Kind = TypeVar("Kind")
MOST_JSON = 1 << 28
"""Bytes of a JSON file of ours: the split of a million slices has a twentieth."""


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
    """Remove what a process left in `folder` that was killed while it wrote `name`, or anything.

    Only for whoever holds the lock on what is written: it cannot be told from what still grows.
    """
    for path in _unfinished(Path(folder), name):
        _discard(path)


def _unfinished(folder: Path, name: str | None = None) -> list[Path]:
    whose = r".+" if name is None else re.escape(name)
    form = re.compile(rf"\.{whose}\.[0-9a-f]{{8}}\.partial")
    return [path for path in folder.glob(".*.partial") if form.fullmatch(path.name)]


MACHINE_FAULTS = {
    errno.ENOMEM: "Free some memory",
    errno.EMFILE: "Allow more open files (ulimit -n)",
    errno.ENFILE: "Close other programs: the system has no room for another open file",
    errno.EIO: "Look after the disk",
    errno.ESTALE: "Mount the network disk again",
    errno.ETIMEDOUT: "Look after the network disk",
    errno.EACCES: "Change its permissions",
    errno.EPERM: "Change its permissions",
}


def system_error(error: BaseException, path: Path | str) -> RobustMRIError | None:
    """What to raise in place of "damaged" where the machine failed and not the file.

    Args:
        error: that reading has raised.
        path: what was read.

    Returns:
        None if the file itself may be at fault.

    >>> system_error(MemoryError(), "split.json")
    RobustMRIError('split.json cannot be read (Cannot allocate memory). Free some memory, ...')
    >>> system_error(ValueError("no such column"), "cases.parquet")
    """
    number = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None)
    if number not in MACHINE_FAULTS:
        return None
    return RobustMRIError(
        f"{path} cannot be read ({os.strerror(number)}). {MACHINE_FAULTS[number]}, and run it "
        "again; the file itself may be whole."
    )


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn "no space left" and "no permission" into an error that names the place and the remedy;
    the place is `path`, unless the error names a file that has nothing to do with it.
    """
    try:
        yield
    except OSError as error:
        other = error.filename if _is_elsewhere(error.filename, path) else None
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RobustMRIError(
                f"The disk that holds {other or path} is full; nothing was changed there. Free "
                "some space and run it again."
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise RobustMRIError(
                f"{other} cannot be read ({error.strerror}). Change its permissions."
                if other
                else f"{path} cannot be written ({error.strerror}). Choose another place."
            ) from error
        raise


def _is_elsewhere(name: Any, path: Path) -> bool:
    """Whether a file that an error names is neither `path`, nor in it, nor above it, nor what is
    written for it.
    """
    if not isinstance(name, (str, bytes)):
        return False
    named, target = Path.cwd() / os.fsdecode(name), Path.cwd() / path
    within = (named, *named.parents)
    beside = rf"\.?{re.escape(target.name)}(\.[0-9a-f]{{8}})?\.(partial|old|part|lock)"
    written = any(
        part.parent == target.parent and re.fullmatch(beside, part.name) for part in within
    )
    return target not in within and named not in target.parents and not written


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the name only when the block ends without an
    error.

    Raises:
        DataError: `path` is a folder, a link or a device, or no name at all.
    """
    path = Path(path)
    refuse_odd_file(path)
    with explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in _unfinished(path.parent, path.name):
            clear_unmarked(left)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            with marked(partial):
                yield partial
                with open(partial, "rb") as written:
                    os.fsync(written.fileno())
                stop_if_asked()
                os.replace(partial, path)
        finally:
            _discard(partial)


def refuse_odd_file(path: Path) -> None:
    """Make sure that a file may be written under the name: there is none, or a plain one.

    Raises:
        DataError: it is a folder, a link or a device, or no name at all.
    """
    if path.is_symlink():
        raise DataError(f"{path} is a link. Name the file that it points to, or another one.")
    if path.name in ("", "..") or path.is_dir():
        raise DataError(f"{path} is a folder. Name the file to write.")
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is not a plain file. Name another one to write.")


@contextmanager
def atomic_folder(path: Path | str, *, replaces: str = "") -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes the name only when the block ends without an
    error.

    Args:
        path: folder to make; it must not exist yet, or be empty.
        replaces: a folder that holds a file of this name is replaced.

    Raises:
        DataError: `path` holds something already, or is a link.
        RobustMRIError: another process is writing it.
    """
    path = Path(path)
    lock = path.parent / f".{path.name}.lock"
    try:
        _refuse_taken(path, replaces)
    except DataError:
        clear_unmarked(lock)  # Of a process that was killed once the folder had its name.
        raise
    with explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock, path) as alone:
            _refuse_taken(path, replaces)  # Another process may have come first.
            if alone:
                _restore(path)
                discard_unfinished(path.parent, path.name)
            partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
            partial.mkdir()
            try:
                yield partial
                stop_if_asked()
                _take_name(partial, path, replaces)
            finally:
                _discard(partial)


def _take_name(partial: Path, path: Path, replaces: str) -> None:
    if replaces and path.is_dir() and any(path.iterdir()):
        # Move the old folder aside before the new one takes its name: a kill in between leaves both
        # on the disk.
        old = partial.with_suffix(".old")
        os.replace(path, old)
        os.replace(partial, path)
        _discard(old)
        return
    with suppress(OSError):  # Not empty: it is somebody's, where disks cannot lock.
        path.rmdir()
    _refuse_taken(path, replaces)
    os.replace(partial, path)


def _restore(path: Path) -> None:
    """Give a folder its name back that a process had moved aside when it was killed."""
    for old in sorted(path.parent.glob(f".{glob.escape(path.name)}.????????.old")):
        if path.exists():
            _discard(old)
        else:
            os.replace(old, path)


def _refuse_taken(path: Path, replaces: str) -> None:
    if path.is_symlink():
        raise DataError(f"{path} is a link. Name the folder that it points to, or another one.")
    taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if taken and not (replaces and (path / replaces).is_file()):
        raise DataError(
            f"{path} exists already and is not empty. Choose another --out, or remove it first."
        )
    if path.name in ("", ".."):
        raise DataError(f"{path} has no name of its own. Name the folder to make.")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_file(path) as partial:
        partial.write_text(
            json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def write_struct(path: Path | str, value: msgspec.Struct) -> None:
    """Write a struct of ours as indented JSON, atomically."""
    with atomic_file(path) as partial:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


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
        _refuse_endless(Path(path), error, again)
        content = Path(path).read_bytes()
    except FileNotFoundError as missing:
        raise error(f"{path} does not exist. {again}") from missing
    except IsADirectoryError as missing:
        raise error(f"{path} is a folder. {again}") from missing
    except (OSError, MemoryError) as fault:
        raise system_error(fault, path) or error(f"{path} is no file ({fault}).") from fault
    return decode_json(content, kind, str(path), error=error, again=again)


def _refuse_endless(path: Path, error: type[RobustMRIError], again: str) -> None:
    """A link may lead to a device or a pipe, which have no end."""
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise error(f"{path} is not a plain file. {again}")
    if found.st_size > MOST_JSON:
        raise error(f"{path} has {found.st_size} bytes, expected at most {MOST_JSON}. {again}")


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
        raise error(f"{name} is damaged or another file ({wrong}). {again}") from wrong
    # Also texts that are no Unicode, numbers of thousands of digits, lists in lists in lists.
    except (msgspec.DecodeError, ValueError, RecursionError) as wrong:
        raise error(f"{name} is damaged: it is not valid JSON ({wrong}). {again}") from wrong
    except MemoryError as fault:
        raise system_error(fault, name) or fault from fault


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


def as_folders(given: Sequence[Path | str] | Path | str) -> Sequence[Path | str]:
    """One folder or several, as several: a text would pass for a list of its letters.

    >>> as_folders("result"), as_folders(["one", "other"])
    (['result'], ['one', 'other'])
    """
    return [given] if isinstance(given, (str, Path)) else given


SIGNS = {
    "cohort.json": "a cohort",
    "robustness.json": "a result",
    "classifier.json": "a checkpoint",
    "checkpoint/classifier.json": "a run",
    "epochs.csv": "a run that has not ended",
    "case.json": "an answer about one slice",
    "bundle.json": "a bundle",
    "summary.zip": "what came home of a bundle",
}
"""A file to what a folder is that holds it."""


def kind_of_folder(path: Path | str) -> str:
    """What a folder of ours is, in words; "" where it is none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "robustness.json").write_text("{}")
    ...     kind_of_folder(folder)
    'a result'
    """
    return next((kind for sign, kind in SIGNS.items() if (Path(path) / sign).is_file()), "")
