"""Fetching the figshare T1-CE brain tumour set: 3064 slices of 233 patients, about 880 MB.

Source: J. Cheng, "brain tumor dataset", figshare 1512427, CC BY 4.0; Cheng et al. 2015, PLoS ONE
10(10): e0140381.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from robustmri.core.download import fetch
from robustmri.core.errors import DataError
from robustmri.core.files import explain_full_disk
from robustmri.core.locks import locked

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class ReleaseFile:
    """One file of the release, as the publisher describes it."""

    name: str
    url: str
    size: int
    md5: str


def _known(name: str, number: int, size: int, md5: str) -> ReleaseFile:
    return ReleaseFile(name, f"https://ndownloader.figshare.com/files/{number}", size, md5)


# Version 8 of the article, as its publisher describes it; md5 is the only hash that it gives, and
# nobody knows how to make another file of a given one. Its API is not asked: an answer of today
# must not replace what was written down.
KNOWN_FILES = (
    _known(
        "brainTumorDataPublic_1-766.zip", 3381290, 214401279, "74b949ad33f042e6e103523091cd1428"
    ),
    _known(
        "brainTumorDataPublic_767-1532.zip", 3381296, 217848429, "7e8a875500d2c8a346f270538e29890e"
    ),
    _known(
        "brainTumorDataPublic_1533-2298.zip", 3381293, 215563856, "8227bf6080cb71f15a88be8d25c79ae7"
    ),
    _known(
        "brainTumorDataPublic_2299-3064.zip", 3381302, 231679762, "b378a80d6174e5317d59eb28430c6652"
    ),
    _known("cvind.mat", 7005344, 5736, "5ea82eb3212c9fcb84290ccf0beb486d"),
)


def download_release(
    out: str | Path,
    *,
    known: Sequence[ReleaseFile] = KNOWN_FILES,
    progress: Progress | None = None,
) -> Path:
    """Fetch the four zips and cvind.mat into `out`; run it again to go on after an interruption.

    Args:
        out: folder; a file that lies there already and fits its checksum is kept.
        known: the files.
        progress: called with (file name, bytes so far, bytes in all if known).

    Returns:
        The folder, which `robustmri prepare` reads as it is: the zips need not be unpacked.

    Raises:
        DownloadError: offline, broken off, or a checksum that does not fit.
        DataError: `out` is no folder.
        RobustMRIError: another process is at it.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is no folder. Choose another --out.")
    with ExitStack() as held:
        with explain_full_disk(out):
            out.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(out / ".lock", out))
        for file in known:

            def report(done: int, total: int | None, name: str = file.name) -> None:
                if progress:
                    progress(name, done, total)

            fetch(file.url, out / file.name, md5=file.md5, size=file.size, progress=report)
    return out
