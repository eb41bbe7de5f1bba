"""One page about one or several evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustmri.report import Published


def write_report(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    images: bool = True,
    title: str | None = None,
    published: Sequence[Published] = (),
) -> Path:
    """Write one self-contained HTML page about one or several evaluations of the same test slices.

    Every number is counted again from the outcomes before it is shown.

    Args:
        folders: result folders, the one before repair first.
        out: the HTML file to write.
        images: False leaves out every picture of a patient and every patient and case id.
        title: replaces the title of the first result.
        published: figures from the literature to stand beside the measured ones.
    """
    from robustmri.evaluation.recount import refuse_contradictions
    from robustmri.report import write_page

    for folder in folders:
        refuse_contradictions(folder)
    return write_page(folders, out, images=images, title=title, published=published)
