"""The report: one HTML file that opens without a network, a pure function of the result folders."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from robustmri.core.errors import ResultError
from robustmri.core.files import atomic_file
from robustmri.report import sections
from robustmri.report.figures import (
    COLOURS,
    TEMPLATES,
)
from robustmri.report.page import Page
from robustmri.report.pictures import load_examples, load_maps
from robustmri.report.redact import redact, redact_acceptance, redact_comparison
from robustmri.report.tables import Published, check_names
from robustmri.report.templating import make_templates
from robustmri.report.wording import (
    bounds,
    budget_words,
    grey_levels,
    interval,
    p_value,
    percent,
    points,
)
from robustmri.results.acceptance import Acceptance, Judged
from robustmri.results.budget import CLEAN, NO_BUDGET
from robustmri.results.certificate import load_certificate
from robustmri.results.comparison import Comparison
from robustmri.results.outcomes import Outcomes, load_outcomes
from robustmri.results.schema import RobustnessReport, load_result

GENERATOR = b'<meta name="generator" content="robustmri">'
"""By which a page is known to be ours."""


def write_page(
    folders: Sequence[Path | str],
    out: Path | str,
    *,
    images: bool = True,
    title: str | None = None,
    names: Sequence[str] = (),
    published: Sequence[Published] = (),
    comparison: Comparison | None = None,
    acceptance: Acceptance | None = None,
    judged: Sequence[Sequence[Judged]] = (),
    only: Collection[str] = (),
) -> Path:
    """Write the report of one or several evaluations.

    Args:
        folders: result folders (robustness.json, outcomes.parquet, examples.npz).
        out: the HTML file to write.
        images: False leaves out every picture of a patient and every patient and case id.
        title: replaces the title of the first result.
        names: of the classifiers, one for each folder; empty for those that tell them apart.
        published: figures from the literature to stand beside the measured ones.
        comparison: of two results, in the order of the folders; with it they may be of different
            slices, as long as some are the same.
        acceptance: what people decided of the classifier, for this page.
        judged: for each folder its numbers, held against the minima of it.
        only: names of the sections to show; empty for all.

    Raises:
        ResultError: a folder is missing or damaged, the results are not of the same test slices, or
            `out` is something else than a report.
        SettingsError: names that do not fit the folders.
    """
    out = Path(out)
    if not folders:
        raise ResultError(
            "A report needs at least one result folder. Make one with: robustmri evaluate."
        )
    refuse_other_page(out)
    results = [load_result(folder) for folder in folders]
    outcomes = [load_outcomes(folder) for folder in folders]
    certificates = [load_certificate(*one) for one in zip(folders, results, strict=True)]
    names = check_names(names, len(folders)) if names else []
    if comparison is None:
        refuse_different_tests(results, outcomes, [str(folder) for folder in folders])
    arrays = load_examples(folders[0], results[0]) if images else None
    maps = load_maps(folders[0], results[0]) if arrays else None
    if not images:
        identifiers = set().union(*(rows.identifiers for rows in outcomes))
        results = [redact(report, identifiers) for report in results]
        comparison = comparison and redact_comparison(comparison, identifiers)
        acceptance = acceptance and redact_acceptance(acceptance, identifiers)
    if title is not None:
        results[0] = msgspec.structs.replace(results[0], title=title)
    page = Page(
        results,
        outcomes,
        images,
        arrays,
        published,
        names,
        comparison,
        certificates,
        maps,
        acceptance,
        judged,
    )
    text = render(page, only)
    with atomic_file(out) as partial:
        partial.write_bytes(text.encode("utf-8"))
    return out


def refuse_other_page(out: Path | str) -> None:
    """A page replaces only a page of ours.

    Raises:
        ResultError: `out` is a folder or something else.
    """
    out = Path(out)
    if out.is_dir():
        raise ResultError(
            f"{out} is a folder. Name the file to write, as in {out / 'report.html'}."
        )
    if out.is_file() and out.stat().st_size:
        with open(out, "rb") as stream:
            if GENERATOR not in stream.read(4096):
                raise ResultError(
                    f"{out} is there, and no report of robustmri. Choose another --out, or remove "
                    "it first."
                )


def refuse_different_tests(
    results: Sequence[RobustnessReport], outcomes: Sequence[Outcomes], folders: Sequence[str]
) -> None:
    """Numbers stand side by side only if they were measured on the same slices."""
    cases = [set(rows.rows(CLEAN, NO_BUDGET)["case_id"]) for rows in outcomes]
    for report, ids, folder in zip(results, cases, folders, strict=True):
        if not ids:
            raise ResultError(
                f"{folder}/outcomes.parquet has no row for the clean slices. Evaluate again."
            )
        facts = {
            "classes": (results[0].cohort.classes, report.cohort.classes),
            "cohorts": (results[0].cohort.fingerprint, report.cohort.fingerprint),
            "splits": (results[0].split.fingerprint, report.split.fingerprint),
            "parts of the split": (results[0].split.evaluated_set, report.split.evaluated_set),
        }
        for what, (expected, came) in facts.items():
            if expected != came:
                raise ResultError(
                    f"{folders[0]} and {folder} were measured on different {what} ({expected} and "
                    f"{came}), so their numbers cannot be compared. Evaluate both on the same "
                    "cohort, or write two reports."
                )
        if ids != cases[0]:
            raise ResultError(
                f"{folders[0]} and {folder} were measured on different slices ({len(cases[0])} and "
                f"{len(ids)}, {len(cases[0] & ids)} in common). Evaluate both with the same "
                "--limit, or write two reports."
            )


def render(page: Page, only: Collection[str] = ()) -> str:
    """The page as HTML, with the sections of these names; empty for all."""
    from markupsafe import Markup

    templates = make_templates(
        TEMPLATES,
        Path(sections.__file__).parent,
        filters={
            "percent": percent,
            "interval": interval,
            "grey_levels": grey_levels,
            "points": points,
            "bounds": bounds,
            "p_value": p_value,
            "prose": lambda text: re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", str(text)),
            "plain": msgspec.to_builtins,
        },
        own={
            "budget_words": lambda budget: budget_words(budget, page.norms),
            "attack_name": lambda attack: page.titles.get(attack, attack),
        },
    )
    templates.globals["colours"] = COLOURS
    templates.globals |= {"gallery": page.arrays is not None}
    styles = [
        (TEMPLATES / name).read_text(encoding="utf-8")
        for name in ("colours.css", "figures.css", "type.css", "report.css")
    ]
    parts = []
    for section in sections.SECTIONS:
        if only and section.__name__ not in only:
            continue
        found = section(page)
        if found is not None:
            template = templates.get_template(f"{section.__name__}.html.j2")
            parts.append(Markup(template.render(page.shared, **found)))
    return templates.get_template("report.html.j2").render(
        page.shared, sections=parts, style=Markup("".join(styles))
    )
