"""The report: one HTML file that opens without a network, a pure function of the result folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
from robustmri.report.redact import redact
from robustmri.report.tables import (
    Published,
)
from robustmri.report.wording import (
    budget_words,
    grey_levels,
    interval,
    percent,
)
from robustmri.results.budget import CLEAN, NO_BUDGET
from robustmri.results.certificate import load_certificate
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
    published: Sequence[Published] = (),
) -> Path:
    """Write the report of one or several evaluations of the same test slices.

    Args:
        folders: result folders (robustness.json, outcomes.parquet, examples.npz), the one before
            repair first.
        out: the HTML file to write.
        images: False leaves out every picture of a patient and every patient and case id.
        title: replaces the title of the first result.
        published: figures from the literature to stand beside the measured ones.

    Raises:
        ResultError: a folder is missing or damaged, the results are not of the same test slices, or
            `out` is something else than a report.
    """
    out = Path(out)
    if not folders:
        raise ResultError(
            "A report needs at least one result folder. Make one with: robustmri evaluate."
        )
    if out.is_dir():
        raise ResultError(
            f"{out} is a folder. Name the file to write, as in {out / 'report.html'}."
        )
    if out.is_file() and out.stat().st_size and not _is_report(out):
        raise ResultError(
            f"{out} is there, and no report of robustmri. Choose another --out, or remove it first."
        )
    results = [load_result(folder) for folder in folders]
    outcomes = [load_outcomes(folder) for folder in folders]
    certificates = [load_certificate(*one) for one in zip(folders, results, strict=True)]
    refuse_different_tests(results, outcomes, [str(folder) for folder in folders])
    arrays = load_examples(folders[0], results[0]) if images else None
    maps = load_maps(folders[0], results[0]) if arrays else None
    if not images:
        identifiers = set().union(*(rows.identifiers for rows in outcomes))
        results = [redact(report, identifiers) for report in results]
    if title is not None:
        results[0] = msgspec.structs.replace(results[0], title=title)
    text = render(Page(results, outcomes, images, arrays, published, certificates, maps))
    with atomic_file(out) as partial:
        partial.write_bytes(text.encode("utf-8"))
    return out


def _is_report(path: Path) -> bool:
    """Whether the file is a page that was written here."""
    with open(path, "rb") as stream:
        return GENERATOR in stream.read(4096)


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


def render(page: Page) -> str:
    """The page as HTML."""
    import jinja2
    from markupsafe import Markup

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, Path(sections.__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "budget_words": lambda budget: budget_words(budget, page.norms),
        "percent": percent,
        "interval": interval,
        "attack_name": lambda attack: page.titles.get(attack, attack),
        "grey_levels": grey_levels,
        "prose": lambda text: re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", str(text)),
    }
    templates.filters["plain"] = msgspec.to_builtins
    templates.globals["colours"] = COLOURS
    templates.globals |= {"gallery": page.arrays is not None}
    styles = [
        (TEMPLATES / name).read_text(encoding="utf-8")
        for name in ("colours.css", "figures.css", "type.css", "report.css")
    ]
    parts = []
    for section in sections.SECTIONS:
        found = section(page)
        if found is not None:
            template = templates.get_template(f"{section.__name__}.html.j2")
            parts.append(Markup(template.render(page.shared, **found)))
    return templates.get_template("report.html.j2").render(
        page.shared, sections=parts, style=Markup("".join(styles))
    )
