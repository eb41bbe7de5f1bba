"""Fetch the figshare brain tumour release."""

from __future__ import annotations

from pathlib import Path

from robustmri.core.progress import Progress, silent


def download(out: str | Path, *, progress: Progress = silent) -> Path:
    """Fetch the figshare release (about 880 MB) into a folder that `prepare` reads."""
    from robustmri.data.fetch_figshare import download_release

    return download_release(
        out, progress=lambda name, done, total: progress(name, done, total or 0)
    )
