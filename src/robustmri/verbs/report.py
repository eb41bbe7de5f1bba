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
    names: Sequence[str] = (),
    published: Sequence[Published] = (),
) -> Path:
    """Write one self-contained HTML page about one or several evaluations.

    Every number is counted again from the outcomes before it is shown. Two results are paired: a
    network and its repair are told by what the results say of them, others are two classifiers of
    which one may be the more robust.

    Args:
        folders: result folders.
        out: the HTML file to write.
        images: False leaves out every picture of a patient and every patient and case id.
        title: replaces the title of the first result.
        names: of the classifiers, one for each folder; empty for those that tell them apart.
        published: figures from the literature to stand beside the measured ones.

    Raises:
        ResultError: a folder is missing, damaged or contradicts itself, or two share no slice.
        SettingsError: names that do not fit the folders.
    """
    from robustmri.evaluation.recount import refuse_contradictions
    from robustmri.report import write_page
    from robustmri.verbs.compare import pair_results

    comparison = None
    if len(folders) == 2:
        folders, names, comparison = pair_results(folders, names)
    else:
        for folder in folders:
            refuse_contradictions(folder)
    return write_page(
        folders,
        out,
        images=images,
        title=title,
        names=names,
        published=published,
        comparison=comparison,
    )
