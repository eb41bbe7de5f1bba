"""The report: one HTML file that opens without a network, a pure function of the result folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from robustmri.core.errors import ResultError
from robustmri.core.files import atomic_file
from robustmri.report.figures import (
    COLOURS,
    TEMPLATES,
    collect_plots,
    draw_accuracy,
    draw_intervals,
)
from robustmri.report.pictures import choose_examples, load_examples, make_picture
from robustmri.report.redact import redact
from robustmri.report.tables import (
    Published,
    Row,
    align,
    at_main_eps,
    headline,
    main_budget,
    published_for,
    repairs,
    stage_names,
)
from robustmri.report.verdict import failures, gather_checks, make_cards, write_verdict
from robustmri.report.wording import (
    attack_name,
    budget_words,
    grey_levels,
    interval,
    people,
    percent,
    points,
)
from robustmri.results.budget import CLEAN, Budget
from robustmri.results.outcomes import Outcomes, count_classes, count_patients, load_outcomes
from robustmri.results.schema import Check, Confusion, RobustnessReport, load_result

PAPERS = {
    "fgsm": ("FGSM", "Goodfellow et al. 2015", "10.48550/arXiv.1412.6572"),
    "bim": ("BIM", "Kurakin et al. 2017", "10.48550/arXiv.1607.02533"),
    "pgd": ("PGD", "Madry et al. 2018", "10.48550/arXiv.1706.06083"),
    "cw": ("CW", "Carlini and Wagner 2017", "10.1109/SP.2017.49"),
    "apgd": ("APGD", "Croce and Hein 2020", "10.48550/arXiv.2003.01690"),
    "square": ("Square", "Andriushchenko et al. 2020", "10.48550/arXiv.1912.00049"),
}


def write_report(
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
        ResultError: a folder is missing or damaged, or the results are not of the same test slices.
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
    results = [load_result(folder) for folder in folders]
    outcomes = [load_outcomes(folder) for folder in folders]
    _refuse_different_tests(results, outcomes, [str(folder) for folder in folders])
    arrays = load_examples(folders[0], results[0]) if images else None
    if title is not None:
        results[0] = msgspec.structs.replace(results[0], title=title)
    if not images:
        identifiers = set().union(*(rows.identifiers for rows in outcomes))
        results = [redact(report, identifiers) for report in results]
    page = _render(
        _describe(results, outcomes, published)
        | _show(results, outcomes, arrays)
        | {"images": images}
    )
    with atomic_file(out) as partial:
        partial.write_bytes(page.encode("utf-8"))
    return out


def _refuse_different_tests(
    results: Sequence[RobustnessReport], outcomes: Sequence[Outcomes], folders: Sequence[str]
) -> None:
    """Numbers stand side by side only if they were measured on the same slices."""
    cases = [set(rows.rows("none", CLEAN)["case_id"]) for rows in outcomes]
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


def _compare_attacks(results: Sequence[RobustnessReport]) -> list[Check]:
    """Before and after are comparable only under the same attacks with the same settings."""
    if len(results) == 1:
        return []

    def settings(report: RobustnessReport) -> list[tuple[Any, ...]]:
        ran = [
            tuple(attack.get(key) for key in ("attack", "eps", "settings"))
            for attack in report.attacks
        ]
        return [*ran, ("region", report.settings.get("evaluate", {}).get("region", "image"))]

    if all(settings(report) == settings(results[0]) for report in results):
        return [
            Check(
                name="Same attacks on both sides", status="pass", detail="Names and settings agree."
            )
        ]
    detail = (
        "The attacks or their settings differ between the results; rows may not be comparable. "
        "See the settings."
    )
    return [Check(name="Same attacks on both sides", status="warn", detail=detail)]


def _describe(
    results: Sequence[RobustnessReport],
    outcomes: Sequence[Outcomes],
    published: Sequence[Published],
) -> dict[str, Any]:
    """Everything on the page that is not a picture of a patient."""
    at = main_budget(results)
    checks = gather_checks(results, _compare_attacks(results))
    verdict, below = write_verdict(results, at)
    names = stage_names(results)
    rows = align(results)
    shown = at_main_eps(rows, at)
    quoted = [
        stage for stage in ("before", "after") if any(figure.stage == stage for figure in published)
    ]
    plots = collect_plots(results)
    n = len(results[0].cohort.classes)
    return {
        "results": results,
        "first": results[0],
        "names": names,
        "repairs": repairs(results),
        "at": at,
        "people": people(results[0].cohort),
        "reasons": failures(checks),
        "verdict": verdict,
        "below": below,
        "cards": make_cards(results, outcomes, at),
        "checks": checks,
        "rows": [_table_row(row, results, names, quoted, published, at) for row in shown],
        "every": [_table_row(row, results, names, quoted, published, at) for row in rows]
        if shown != rows
        else [],
        "quoted": quoted,
        "alone": any(number.only is not None for row in rows for number in row.slices if number),
        "suites": _say_who_broke(shown, names),
        "sources": list(dict.fromkeys(figure.source for figure in published)),
        "published": published,
        "intervals": list(
            dict.fromkeys(number.interval for report in results for number in report.results)
        ),
        "plots": [
            (plot, *(draw_accuracy(plot, classes=n, width=width) for width in (760, 360)))
            for plot in plots
        ],
        "strata": [
            _strata(report, rows, at) for report, rows in zip(results, outcomes, strict=True)
        ],
        "confusions": [_pick_confusions(report, at) for report in results],
        "papers": [
            paper for attack, paper in PAPERS.items() if any(row.attack == attack for row in rows)
        ],
    }


def _table_row(
    row: Row,
    results: Sequence[RobustnessReport],
    names: Sequence[str],
    quoted: Sequence[str],
    published: Sequence[Published],
    at: Budget | None,
) -> dict[str, Any]:
    first, last = row.slices[0], row.slices[-1]
    change = (
        points(last.accuracy - first.accuracy) if len(row.slices) > 1 and first and last else ""
    )
    return {
        "row": row,
        "detail": _row_detail(row, results),
        "forest": draw_intervals(row.slices, names),
        "change": change,
        "only": " / ".join(
            "-" if number is None or number.only is None else str(number.only)
            for number in row.slices
        )
        if any(number is not None and number.only is not None for number in row.slices)
        else "",
        "published": [published_for(row, stage, published, at) for stage in quoted],
    }


def _row_detail(row: Row, results: Sequence[RobustnessReport]) -> str:
    """What the attack did, in a few words."""
    if row.attack == "none":
        return "slices as they were scanned"
    if row.attack == "worst":
        return "right only if no attack fooled it"
    distances = [
        f"{number.median_distance:.3g}"
        for number in row.slices
        if number and number.median_distance
    ]
    if distances:
        words = [f"smallest change found, median {row.budget.norm} {' and '.join(distances)}"]
    else:
        ran = next(
            (attack for attack in results[0].attacks if attack.get("attack") == row.attack), {}
        )
        effort = {key: ran.get("settings", {}).get(key) for key in ("steps", "restarts")}
        words = [
            f"{n} {key[:-1] if n == 1 else key}" for key, n in effort.items() if isinstance(n, int)
        ]
    fewer = {number.n for number in row.slices if number} - {results[0].split.n_slices}
    return ", ".join(words + [f"on {n} slices" for n in sorted(fewer)])


def _say_who_broke(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """For each suite and classifier how many slices each member broke, in the order in which they
    ran.
    """
    said = []
    for row in rows:
        for number, name in zip(row.slices, names, strict=True):
            if number and number.broken_by:
                members = [
                    f"{attack_name(member)} {count}" for member, count in number.broken_by.items()
                ]
                where = ", ".join(
                    part
                    for part in (budget_words(row.budget), name if len(names) > 1 else "")
                    if part
                )
                said.append(f"{row.name}, {where}: broken by {', '.join(members)}")
    return said


def _strata(report: RobustnessReport, outcomes: Outcomes, at: Budget | None) -> dict[str, Any]:
    number = headline(report, at)
    attack = number.attack if number else "none"
    return {
        "attack": attack,
        "classes": count_classes(outcomes, report.cohort.classes, attack, at or CLEAN),
        "clean_patients": count_patients(outcomes.rows("none", CLEAN)),
        "attacked_patients": count_patients(outcomes.rows(attack, at or CLEAN)),
    }


def _pick_confusions(report: RobustnessReport, at: Budget | None) -> list[Confusion]:
    """The clean one and the headline's."""
    number = headline(report, at)
    wanted = [("none", None)] + ([(number.attack, at)] if number and at else [])
    return [
        table
        for attack, where in wanted
        for table in report.confusions
        if table.attack == attack
        and (
            where is None
            or (table.norm, table.eps, table.eps_units) == (where.norm, where.eps, where.eps_units)
        )
    ][:2]


def _show(
    results: Sequence[RobustnessReport], outcomes: Sequence[Outcomes], arrays: dict[str, Any] | None
) -> dict[str, Any]:
    """The pictures, and how the last classifier answers on the same slices."""
    if arrays is None:
        return {"gallery": []}
    gallery = []
    for label, examples in choose_examples(results[0].examples, results[0].cohort.classes):
        shown = []
        for example in examples:
            later = None
            if len(results) > 1:
                where = Budget(example.norm, example.eps, example.eps_units, None)
                rows = outcomes[-1].rows(example.attack, where)
                same = rows["case_id"] == example.case_id
                if same.any():
                    place = int(same.argmax())
                    later = (str(rows["prediction"][place]), float(rows["confidence"][place]))
            shown.append((make_picture(example, arrays), later))
        gallery.append((label, shown))
    return {"gallery": gallery}


def _render(context: dict[str, Any]) -> str:
    import jinja2
    from markupsafe import Markup

    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page.filters |= {
        "budget_words": budget_words,
        "percent": percent,
        "interval": interval,
        "attack_name": attack_name,
        "grey_levels": grey_levels,
        "prose": lambda text: re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", str(text)),
    }
    page.filters["plain"] = msgspec.to_builtins
    page.globals["colours"] = COLOURS
    styles = [
        (TEMPLATES / name).read_text(encoding="utf-8")
        for name in ("colours.css", "figures.css", "report.css")
    ]
    return page.get_template("report.html.j2").render(context, style=Markup("".join(styles)))
