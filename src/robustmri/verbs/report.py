"""One page about one or several evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def report(
    folders: Sequence[str | Path], out: str | Path, *, images: bool = True, title: str | None = None
) -> Path:
    """Write one self-contained HTML page about one or several evaluations of the same test
    slices.
    """
    from robustmri.report import write_report

    return write_report(folders, out, images=images, title=title)
