"""Whether somebody has asked this process to stop.

Python tells it by an exception, which a library may take for a fault of its own and go on with what
it does then: a compiled module that was being loaded, an exporter that has another way.
"""

from __future__ import annotations

asked: list[int] = []
"""The signals that came."""


def stop_if_asked() -> None:
    """Nothing that is made after a stop gets its name, lest it be made of such a fault.

    Raises:
        KeyboardInterrupt: somebody has asked.
    """
    if asked:
        raise KeyboardInterrupt
