"""Fetching the figshare T1-CE brain tumour set: 3064 slices of 233 patients, about 880 MB.

Source: J. Cheng, "brain tumor dataset", figshare 1512427, CC BY 4.0; Cheng et al. 2015, PLoS ONE
10(10): e0140381.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from robustmri.core.download import fetch

ARTICLE = "https://api.figshare.com/v2/articles/1512427"
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class ReleaseFile:
    """One file of the release, as the publisher describes it."""

    name: str
    url: str
    size: int | None
    md5: str | None


def _known(name: str, number: int, size: int, md5: str) -> ReleaseFile:
    return ReleaseFile(name, f"https://ndownloader.figshare.com/files/{number}", size, md5)


# Version 8 of the article; used where its API does not answer (it refuses some networks that may
# download).
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


def list_release(article: str = ARTICLE, *, timeout: float = 30.0) -> tuple[ReleaseFile, ...]:
    """Data files of the article with sizes and md5 sums, or an empty tuple where the API gives no
    usable answer.
    """
    try:
        request = urllib.request.Request(article, headers={"User-Agent": "robustmri"})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            files = json.load(answer)["files"]
        listed = (
            ReleaseFile(
                Path(file["name"]).name, file["download_url"], file["size"], file["computed_md5"]
            )
            for file in files
        )
        return tuple(file for file in listed if file.name.lower().endswith((".zip", ".mat")))
    # OSError: no connection, or an error status.
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return ()


def download_release(
    out: str | Path,
    *,
    article: str = ARTICLE,
    known: Sequence[ReleaseFile] = KNOWN_FILES,
    progress: Progress | None = None,
) -> Path:
    """Fetch the four zips and cvind.mat into `out`; run it again to go on after an interruption.

    Args:
        out: folder; a file that lies there already and fits its checksum is kept.
        article: address of the article in the figshare API.
        known: files to ask for where the API does not answer.
        progress: called with (file name, bytes so far, bytes in all if known).

    Returns:
        The folder, which `robustmri prepare` reads as it is: the zips need not be unpacked.

    Raises:
        DownloadError: offline, broken off, or a checksum that does not fit.
    """
    out = Path(out)
    for file in list_release(article) or known:

        def report(done: int, total: int | None, name: str = file.name) -> None:
            if progress:
                progress(name, done, total)

        fetch(file.url, out / file.name, md5=file.md5, size=file.size, progress=report)
    return out
