"""Zip files: what one from elsewhere claims to hold is looked at before any of it is unpacked."""

from __future__ import annotations

import errno
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustmri.core.errors import DataError

SAME_TIME = (1980, 1, 1, 0, 0, 0)
"""Of every member that is written here, so that the same content gives the same file."""
OF_DAMAGE = (
    *(errno.EINVAL, errno.EOVERFLOW),  # A place before the file, or behind any.
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),  # A file that is a folder.
)


@contextmanager
def open_zip(path: Path | str, *, most_bytes: int) -> Iterator[zipfile.ZipFile]:
    """Open a zip for reading. What its members claim is also the most that reading them gives.

    Args:
        path: the file.
        most_bytes: that all members together may have once they are unpacked.

    Raises:
        DataError: not a zip, damaged, larger than that, or with a name that leads out of a folder.
    """
    try:
        with zipfile.ZipFile(path) as bag:
            _refuse_large(bag, path, most_bytes)
            _refuse_names(bag, path)
            _refuse_kinds(bag, path)
            yield bag
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, UnicodeError) as error:
        raise DataError(f"{path} is not a zip, or is damaged ({error}).") from error
    except OSError as error:
        if error.errno not in OF_DAMAGE:
            raise
        raise DataError(f"{path} is not a zip, or is damaged ({error.strerror}).") from error


def _refuse_large(bag: zipfile.ZipFile, path: Path | str, most_bytes: int) -> None:
    claimed = sum(member.file_size for member in bag.infolist())
    if claimed > most_bytes:
        raise DataError(
            f"{path} would take {claimed} bytes once it is unpacked, expected at most {most_bytes}."
        )


def _refuse_names(bag: zipfile.ZipFile, path: Path | str) -> None:
    names = bag.namelist()
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or name.startswith(("/", "\\")) or ":" in parts[0]:
            raise DataError(
                f"{path} holds {name!r}, which leads out of the folder. Do not trust this file."
            )
    if len(set(names)) < len(names):
        raise DataError(f"{path} holds two files of one name. Do not trust this file.")


def _refuse_kinds(bag: zipfile.ZipFile, path: Path | str) -> None:
    """Other ways to pack ask for memory of their own, or for a password."""
    for member in bag.infolist():
        plain = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if not plain or member.flag_bits & 1:
            raise DataError(f"{path} holds {member.filename!r} encrypted, or not deflated.")


def deflate(bag: zipfile.ZipFile, name: str, content: str | bytes) -> None:
    """Add a member that is the same whenever it is added, whatever the clock says."""
    member = zipfile.ZipInfo(name, SAME_TIME)
    member.compress_type = zipfile.ZIP_DEFLATED
    bag.writestr(member, content)
