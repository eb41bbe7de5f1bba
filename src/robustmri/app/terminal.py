"""Words of others on a terminal, output that nobody takes any more, and a polite end."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

from robustmri.core import processes, stops

TERMINATED = 128 + signal.SIGTERM
"""Exit status after SIGTERM."""
CTRL_C = signal.default_int_handler
"""What Python does by itself."""


def printable(words: object) -> str:
    """Text that only shows: what would move a cursor, colour or turn a line is written out.

    >>> printable("P017\\x1b[2J\\n")
    'P017\\\\x1b[2J\\\\n'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in str(words)
    )


def say(*lines: object, error: bool = False) -> None:
    """Print each of them as one line, whatever names it holds."""
    for line in lines:
        print(printable(line), file=sys.stderr if error else sys.stdout)


class _Steady:
    """A stream that goes on where it cannot be written any more, and writes out what its encoding
    lacks.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            known = text.encode(error.encoding, "backslashreplace").decode(error.encoding)
            self.write(known)
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = self.lost or error
        with suppress(OSError):  # What is in the buffer needs a place when Python ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def steady_output() -> Iterator[None]:
    """No work is lost because nobody reads what is printed.

    Raises:
        SystemExit: always, at the end; with status 1 where what was printed could not be written,
            though someone wanted it.
    """
    with ExitStack() as open_files:
        out, err = (
            _Steady(stream or open_files.enter_context(open(os.devnull, "w")))
            for stream in (sys.stdout, sys.stderr)
        )
        with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, err)):
            status: Any = 0
            try:
                yield
            except SystemExit as end:  # As the parser of the command line ends everything.
                status = end.code
            finally:
                out.flush()
            if not status and out.lost and out.lost.errno != errno.EPIPE:
                status = 1
                say(
                    f"robustmri: what it printed could not be written ({out.lost.strerror}). Its "
                    "files are whole.",
                    error=True,
                )
            err.flush()
            sys.exit(status)


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """SIGTERM, as batch systems send it, ends the first process as Ctrl-C does: nothing stays
    half-written, and nothing is made of what either interrupted.

    Yields:
        The signals that came, in the end.
    """
    came = stops.asked
    came.clear()
    usual: dict[int, Any] = {
        number: before
        for number, before in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, CTRL_C))
        if signal.getsignal(number) == before
    }
    if not (
        signal.SIGTERM in usual
        and processes.is_main_process()
        and threading.current_thread() is threading.main_thread()
    ):
        yield came
        return
    owner = os.getpid()

    def stop(number: int, _: object) -> None:
        if os.getpid() != owner:  # A worker that was forked off.
            signal.signal(number, usual[number])
            signal.raise_signal(number)
            return
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
        came.append(number)
        raise KeyboardInterrupt

    for number in usual:
        signal.signal(number, stop)
    try:
        yield came
    finally:
        for number, before in usual.items():
            signal.signal(number, before)
        came.clear()
