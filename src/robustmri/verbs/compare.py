"""Two results of the same slices, paired by patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from robustmri.core.errors import ResultError
from robustmri.core.provenance import describe_run

if TYPE_CHECKING:
    from robustmri.results.comparison import Comparison

SECTIONS = ("masthead", "comparison", "checks", "threat", "limits", "provenance")
"""Of the page about a comparison."""


def compare(
    first: str | Path,
    second: str | Path,
    out: str | Path,
    *,
    names: Sequence[str] = (),
    images: bool = True,
    title: str | None = None,
) -> Comparison:
    """Write what sets two results apart: `out`, one HTML page, and beside it the same as JSON.

    Slices are paired, intervals are drawn by patient. A network and its repair are told by what the
    results say of them, and stand in that order.

    Args:
        first: result folder.
        second: result folder.
        out: the HTML file to write; the JSON gets its name with the ending .json.
        names: of the two classifiers, in the order of the folders.
        images: False leaves out every patient and case id, in both files.
        title: heading of the page.

    Raises:
        ResultError: a folder is missing, damaged or contradicts itself, the two share no slice, or
            something else than a page and a comparison of ours is where they would be written.
        SettingsError: names that do not fit.
    """
    from robustmri.report import write_page
    from robustmri.report.html import refuse_other_page
    from robustmri.report.redact import redact_comparison
    from robustmri.results.comparison import refuse_other_json, save_comparison
    from robustmri.results.outcomes import load_outcomes

    page = Path(out)
    if page.suffix == ".json":
        raise ResultError(f"{page} is the name of the JSON beside the page. Name the page: .html.")
    refuse_other_page(page)
    refuse_other_json(page.with_suffix(".json"))
    folders, names, comparison = pair_results([first, second], names, images=images)
    if not images:
        identifiers = set().union(*(load_outcomes(folder).identifiers for folder in folders))
        comparison = redact_comparison(comparison, identifiers)
    write_page(
        folders,
        page,
        images=images,
        title=title or f"{comparison.second.name} against {comparison.first.name}",
        names=names,
        comparison=comparison,
        only=SECTIONS,
    )
    save_comparison(comparison, page.with_suffix(".json"))
    return comparison


def pair_results(
    folders: Sequence[str | Path], names: Sequence[str], *, images: bool = True
) -> tuple[list[str | Path], list[str], Comparison]:
    """Two folders in the order in which they are shown, their names, and how they compare; every
    number was counted again before. Without `images` no file names a classifier.
    """
    from robustmri.evaluation.paired import compare_results
    from robustmri.evaluation.recount import refuse_contradictions
    from robustmri.report.redact import redact
    from robustmri.report.tables import check_names, stage_names
    from robustmri.report.wording import words_of
    from robustmri.results.lineage import put_repair_last
    from robustmri.results.outcomes import columns_of

    counted = [refuse_contradictions(folder) for folder in folders]
    given = check_names(names, len(folders)) if names else []
    order = put_repair_last([one.result for one in counted])
    folders, counted = [folders[k] for k in order], [counted[k] for k in order]
    results = [one.result for one in counted]
    outcomes = [columns_of(one.tables["outcomes"]) for one in counted]
    told = results
    if not images:
        told = [
            redact(result, rows.identifiers) for result, rows in zip(results, outcomes, strict=True)
        ]
    named = [given[k] for k in order] if given else stage_names(told)
    comparison = compare_results(
        results,
        outcomes,
        named,
        words=words_of(results),
    )
    made = msgspec.structs.replace(comparison, provenance=describe_run())
    return list(folders), named, made
