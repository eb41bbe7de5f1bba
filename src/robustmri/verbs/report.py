"""One page about one or several evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustmri.core.files import as_folders

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
    criteria: str | Path | None = None,
    minimum: Mapping[str, float] | None = None,
    card: str | Path | None = None,
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
        criteria: TOML file with intended use, version, minima and who decided them, as `check`'s.
        minimum: single minima, in place of those of the file.
        card: file for a model card of the last classifier, in the layout of Hugging Face; it names
            no patient, no case and no file, whatever `images` says.

    Raises:
        ResultError: a folder is missing, damaged or contradicts itself, or two share no slice.
        SettingsError: names that do not fit the folders, or criteria that cannot be understood.
    """
    from robustmri.evaluation.criteria import judge
    from robustmri.evaluation.recount import refuse_contradictions
    from robustmri.report import write_page
    from robustmri.report.card import write_card
    from robustmri.results.acceptance import join_acceptance
    from robustmri.results.headline import main_budget
    from robustmri.results.schema import load_result
    from robustmri.verbs.compare import pair_results

    folders, comparison = as_folders(folders), None
    if len(folders) == 2:
        folders, names, comparison = pair_results(folders, names, images=images)
    else:
        for folder in folders:
            refuse_contradictions(folder)
    accepted = join_acceptance(criteria, minimum) if criteria or minimum else None
    judged = []
    if accepted:
        results = [load_result(folder) for folder in folders]
        at = main_budget(results)
        judged = [judge(result, accepted.minimum, at) for result in results]
    if card is not None:
        write_card(folders[-1], card, acceptance=accepted, judged=judged[-1] if judged else ())
    return write_page(
        folders,
        out,
        images=images,
        title=title,
        names=names,
        published=published,
        comparison=comparison,
        acceptance=accepted,
        judged=judged,
    )
