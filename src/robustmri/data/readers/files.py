"""Files as they lie on a disk: which ones there are below a folder, and the bytes of one."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

from robustmri.core.errors import DataError
from robustmri.data.limits import check_bytes
from robustmri.data.readers.source import LeftOut, natural_order, readable_name, stop_on

# What systems and programs leave behind, beside all names with a leading dot.
NOT_DATA = ("__macosx", "__pycache__", "$recycle.bin", "system volume information", "@eadir")
KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read it; a link to one will do.

    Raises:
        DataError: a folder, or a pipe, socket or device, which might never answer.
        OSError: it is gone, or may not be read.
    """
    _check_regular(path.stat().st_mode)
    # What was a file a moment ago may be a pipe by now: do not wait for its other end.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        _check_regular(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise DataError(f"it is {KINDS.get(stat.S_IFMT(mode), 'no file')}, not a regular file")


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file that is not larger than the file of a slice may be.

    Raises:
        DataError: not a regular file, or a larger one.
        OSError: it is gone, or cannot be read.
    """
    with open_regular(path) as stream:
        return read_bounded(stream, os.fstat(stream.fileno()).st_size)


def read_bounded(stream: IO[bytes], claimed: int) -> bytes:
    """All bytes of a stream that claims to have so many, however many come.

    Raises:
        DataError: it claims more than the file of a slice may have, or gives more than it claims.
    """
    check_bytes(claimed)
    content = stream.read(claimed + 1)
    if len(content) > claimed:
        raise DataError(f"it has more bytes than the {claimed} that it claims")
    return content


@dataclass
class Found:
    """What lies below a folder, in natural order.

    Attributes:
        files: every file that is not hidden, whatever its kind.
        left_out: what is never looked into (hidden files and folders, links to folders), and
            folders without anything in them.
    """

    files: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def find_files(root: Path) -> Found:
    """Look through a folder. Links to folders are not followed: what they lead to is not part of
    the scans, and may be anything on this machine.

    Raises:
        RobustMRIError: a folder cannot be read; a part of the scans would be missing.
    """
    found = Found()
    folders = [root]
    while folders:
        folder = folders.pop()
        entries = _list(folder, name_below(root, folder))
        if not entries and folder != root:
            found.left_out.append(LeftOut(f"{name_below(root, folder)}/", "an empty folder"))
        for path, is_folder in entries:
            reason = _never_looked_into(path, is_folder)
            if reason:
                name = name_below(root, path) + "/" * is_folder
                found.left_out.append(LeftOut(name, reason))
            else:
                (folders if is_folder else found.files).append(path)
    found.files.sort(key=lambda file: natural_order(file.relative_to(root).as_posix()))
    found.left_out.sort(key=lambda left: natural_order(left.source))
    return found


def _never_looked_into(path: Path, is_folder: bool) -> str:
    if is_hidden(path.name):
        return f"a hidden {'folder' if is_folder else 'file'}, or one of the system's"
    if is_folder and path.is_symlink():
        return "a link to a folder, which is not followed: copy what it leads to"
    return ""


def _list(folder: Path, name: str) -> list[tuple[Path, bool]]:
    try:
        with os.scandir(folder) as entries:
            return [(Path(entry.path), entry.is_dir()) for entry in entries]
    except OSError as error:
        raise stop_on(error, name) from error


def is_hidden(name: str) -> bool:
    """Whether files and folders of this name are never scans."""
    return name.startswith(".") or name.lower() in NOT_DATA


def name_below(root: Path, path: Path) -> str:
    """Path from `root` on, as text that can be printed and stored."""
    return readable_name(path.relative_to(root).as_posix())
