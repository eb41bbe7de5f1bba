"""One process at a time: a lock that lives as long as the process that holds it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from robustmri.core.errors import RobustMRIError

# Some network disks cannot lock.
CANNOT_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)


@contextmanager
def locked(lock: Path | str, what: Path | str, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock file `lock` until the block ends, then remove it; a process that is killed lets
    go too.

    Args:
        lock: made if it is not there; its folder must be.
        what: is written meanwhile, for the message.
        wait: until whoever holds it lets go; refuse at once otherwise.

    Yields:
        Whether nobody else holds it; False where the disk or the system cannot lock.

    Raises:
        RobustMRIError: another process holds it.
    """
    descriptor = _open_locked(Path(lock), what, wait)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        with suppress(OSError):
            Path(lock).unlink()
        os.close(descriptor)


def _open_locked(lock: Path, what: Path | str, wait: bool) -> int | None:
    """The open file that holds the lock; None where there are no locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Who held it until now has removed the file that was waited for: whoever comes next
            # would lock another one.
            if _is_still(lock, descriptor):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise RobustMRIError(
                f"{what} is being written by another process. Wait until that one has ended, or "
                "choose another place."
            ) from error
        except OSError as error:
            os.close(descriptor)
            if error.errno in CANNOT_LOCK:
                with suppress(OSError):
                    Path(lock).unlink()
                return None
            raise
        except BaseException:  # Ctrl-C while it waits.
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextmanager
def marked(growing: Path) -> Iterator[None]:
    """Make a file that is written until the block ends; `clear_unmarked` leaves it alone meanwhile.

    It may be renamed in the block.
    """
    descriptor = _open_locked(growing, growing, wait=True)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def clear_unmarked(file: Path) -> None:
    """Remove a file whose writer was killed; none where that cannot be told."""
    if sys.platform == "win32":
        return
    import fcntl

    with suppress(OSError):  # Gone, somebody's, or on a disk that cannot lock.
        descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(file, descriptor):  # Else it is another one's by now.
                file.unlink()
        finally:
            os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the name still belongs to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
