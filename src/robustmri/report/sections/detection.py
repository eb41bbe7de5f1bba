"""Whether an attack is noticed, by detectors that it does not know and by those that it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from robustmri.report.page import Page, same_attack
from robustmri.report.tables import Table
from robustmri.report.wording import budget_words, percent, with_interval
from robustmri.results.budget import Budget
from robustmri.results.detection import DetectorResult, Share

PLACE = 57


def detection(page: Page) -> dict[str, Any] | None:
    """A row for each detector and classifier; None where nobody asked."""
    found = [one for report in page.results for one in report.detection]
    if not found:
        return None
    first = found[0]
    at = Budget(first.norm, first.eps, first.eps_units, first.eps_image, first.target)
    return {
        "detection_table": detection_table(page),
        "detection_attack": page.titles.get(first.attack, first.attack.upper()),
        "detection_budget": budget_words(at, page.norms) if first.norm in page.norms else "",
        "noticed": list(find_sentences(page)),
    }


def detection_table(page: Page) -> Table:
    """False alarms, what is noticed of an attack on the classifier alone, and what passes."""
    heads = [
        "Detector",
        "Classifier",
        "False alarms",
        "Turned by the attack",
        "Of these noticed",
        "Turned unnoticed by one that knows the detector",
    ]
    rows = [
        [
            one.title,
            name,
            _share(one.false_alarms),
            _share(one.turned),
            _share(one.noticed),
            _share(one.unnoticed),
        ]
        for name, one in _shown(page)
    ]
    rows.sort(key=lambda row: row[0])
    first = next(one for report in page.results for one in report.detection)
    turned = dict.fromkeys(f"{one.turned.n} ({name})" for name, one in _shown(page))
    papers = {one.title: one.paper for report in page.results for one in report.detection}
    notes = [
        f"False alarms: share of the {first.false_alarms.n} untouched slices of "
        f"{first.false_alarms.n_patients} patients. The threshold was set on "
        f"{first.calibrated_on} validation slices of {first.calibrated_patients} patients, for "
        f"{percent(first.rate)} of them. Turned: of the slices that are right untouched: "
        f"{', '.join(turned)}. In brackets: 95 % intervals, by patient ({first.turned.interval}).",
        "; ".join(f"{title}: {paper}" for title, paper in papers.items()) + ".",
    ]
    shown = {name for name, _ in _shown(page)}
    notes += [
        f"{name} met another attack or radius: a report of it alone shows that."
        for name, report in zip(page.names, page.results, strict=True)
        if report.detection and name not in shown
    ]
    return Table(heads, rows, notes)


def _shown(page: Page) -> Iterator[tuple[str, DetectorResult]]:
    """Those of one attack alone, the heading's, with the classifier's name."""
    first = next(one for report in page.results for one in report.detection)
    for name, report in zip(page.names, page.results, strict=True):
        for one in report.detection:
            if same_attack(one, first):
                yield name, one


def find_sentences(page: Page) -> Iterator[str]:
    """What a reader is to take away of each detector."""
    for name, one in _shown(page):
        prefix = f"{name}: " if len(page.results) > 1 else ""
        yield f"{prefix}{one.title}: {_verdict(one)}"


def _verdict(one: DetectorResult) -> str:
    if one.noticed is None:
        return "the attack turned no answer, so there was nothing to notice."
    return (
        f"notices {percent(one.noticed.share)} of the turned answers while the attacker does not "
        f"know of it. An attacker who does turns {_share(one.unnoticed)} of the right answers "
        f"without an alarm, against {percent(one.turned.share)} where nobody watches."
    )


def _share(one: Share | None) -> str:
    return "-" if one is None else with_interval(one.share, one)
