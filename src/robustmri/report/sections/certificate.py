"""What holds for certain, and how near an attack comes to it."""

from __future__ import annotations

from typing import Any

from robustmri.report.figures import Curve, Plot, draw_accuracy
from robustmri.report.page import Page
from robustmri.report.tables import Table
from robustmri.report.wording import with_interval
from robustmri.results.certificate import Certificate
from robustmri.results.schema import NormFacts, Result, RobustnessReport

PLACE = 42
L2 = NormFacts(title="l2", meaning="l2 size of the change", per_pixel=False)


def certificate(page: Page) -> dict[str, Any] | None:
    """A plot and a table for each result with a certificate; None where there is none."""
    shown = []
    for place, found in enumerate(page.certificates):
        if found is None:
            continue
        plot = plot_of(found, page.results[place])
        drawings = [
            draw_accuracy(plot, classes=len(page.results[place].cohort.classes), width=width)
            for width in (760, 360)
        ]
        shown.append((place, found, drawings, certificate_table(found)))
    return {"certificates": shown} if shown else None


def plot_of(found: Certificate, report: RobustnessReport) -> Plot:
    """Below, what is certified; above, what an attack left; and what the classifier itself, without
    noise, has left under its strongest l2 attack.
    """
    plain = [
        number
        for number in report.results
        if (number.norm, number.unit, number.eps_units) == ("l2", "slice", "image")
        and number.eps
        and number.eps <= (found.certified[-1].eps or 0.0)
        and not number.target
    ]
    lowest: dict[float, Result] = {}
    for number in plain:
        eps = number.eps or 0.0
        if eps not in lowest or number.accuracy < lowest[eps].accuracy:
            lowest[eps] = number
    clean = [one for one in report.results if (one.attack, one.unit) == ("none", "slice")]
    lines = [
        Curve("Certified", "certificate", *_line(found.certified)),
        Curve("Attacked", "smoothed", *_line(found.attacked)),
        Curve(
            "Without noise",
            "worst",
            [0.0, *sorted(lowest)],
            [*clean[:1], *(lowest[eps] for eps in sorted(lowest))],
        ),
    ]
    shown = [line for line in lines if len(line.eps) > 1 and len(line.eps) == len(line.results)]
    return Plot("the smoothed classifier", L2, "image", shown)


def _line(numbers: list[Result]) -> tuple[list[float], list[Result]]:
    slices = [number for number in numbers if number.unit == "slice"]
    return [number.eps or 0.0 for number in slices], slices


def certificate_table(found: Certificate) -> Table:
    """A row for each radius: certified and attacked by slice, certified by patient."""

    def cells(numbers: list[Result], unit: str) -> dict[float, str]:
        return {
            number.eps or 0.0: with_interval(number.accuracy, number)
            for number in numbers
            if number.unit == unit
        }

    certified, patients = (cells(found.certified, unit) for unit in ("slice", "patient"))
    attacked = cells(found.attacked, "slice")
    heads = ["l2 radius", "Certified", *(["Left by the attack"] if attacked else [])]
    rows = [
        [
            f"{radius:.3g}",
            said,
            *([attacked[radius]] if attacked else []),
            patients[radius],
        ]
        for radius, said in certified.items()
    ]
    median = "none" if found.median_radius is None else f"{found.median_radius:.3g}"
    notes = [
        f"Noise of {found.sigma:g}; {found.samples} copies a slice; {found.n_slices} slices of "
        f"{found.n_patients} patients. Abstained: {found.abstained}. Median radius of the slices "
        f"that are answered rightly: {median}.",
        f"All certificates hold together with probability {1 - found.alpha:.4g}: each slice gets "
        f"{found.alpha_each:.2g}, an equal part of {found.alpha:g}. In brackets: 95 % intervals, "
        "by patient.",
    ]
    return Table([*heads, "Certified, by patient"], rows, notes)
