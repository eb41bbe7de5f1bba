"""How little it takes to turn an answer, to what, and whether it can be seen."""

from __future__ import annotations

from typing import Any

from robustmri.report.page import Page
from robustmri.report.tables import Table
from robustmri.report.wording import grey_levels, percent
from robustmri.results.schema import Sensitivity

PLACE = 44


def sensitivity(page: Page) -> dict[str, Any] | None:
    """A table for each norm, and one of the nearest wrong answers; None in results without."""
    norms = dict.fromkeys(one.norm for report in page.results for one in report.sensitivity)
    parts = [
        (page.norms[norm].title if norm in page.norms else norm, *_tables(page, norm))
        for norm in norms
    ]
    return {"sensitivities": parts} if parts else None


def _tables(page: Page, norm: str) -> tuple[Table, Table]:
    found = [
        next((one for one in report.sensitivity if one.norm == norm), None)
        for report in page.results
    ]
    pixels = norm in page.norms and page.norms[norm].per_pixel
    known = [one for one in found if one is not None]
    rows = []
    for share in known[0].quantiles:
        said = f"{100 * float(share):g} % of the slices"
        rows.append(
            [said, *(_size(one.quantiles[share] if one else None, pixels) for one in found)]
        )
    rows.append(["Half: 95 % interval, by patient", *(_bounds(one) for one in found)])
    rows.append(["Half of the patients, of each the most fragile slice"])
    rows[-1] += [_size(one.patients["0.5"] if one else None, pixels) for one in found]
    rows.append(["Turned by no attack", *("-" if one is None else _never(one) for one in found)])
    for name, unit in (("ssim", ""), ("psnr", " dB"), ("grey_levels", " of 255")):
        rows.append([VISIBLE[name], *(_number(getattr(one, name, None), unit) for one in found)])
    notes = [
        "Of each slice that is right untouched, the smallest change that is known to turn its "
        "answer: an upper bound, as every attack gives. Visibility is the median over the slices "
        "that were turned."
    ]
    return Table(["A change of this size turns", *page.names], rows, notes), _nearest(page, found)


VISIBLE = {
    "ssim": "SSIM of the changed slice (1: the same)",
    "psnr": "PSNR",
    "grey_levels": "Largest change of a pixel",
}


def _nearest(page: Page, found: list[Sensitivity | None]) -> Table:
    classes = page.results[0].cohort.classes
    rows = []
    for truth in classes:
        told = [_called(one.nearest.get(truth, {})) if one else "-" for one in found]
        rows.append([truth, *told])
    return Table(["Nearest wrong answer", *page.names], rows)


def _called(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{name} {percent(n / total)}" for name, n in ranked) or "-"


def _size(size: float | None, pixels: bool) -> str:
    if size is None:
        return "not reached"
    return f"{size:.4g}" + (f" ({grey_levels(size)}/255)" if pixels else "")


def _bounds(one: Sensitivity | None) -> str:
    if one is None:
        return "-"
    low, high = (
        "beyond" if bound is None else f"{bound:.4g}" for bound in (one.ci_low, one.ci_high)
    )
    return f"{low} at both ends" if low == high else f"{low} to {high}"


def _never(one: Sensitivity) -> str:
    return f"{one.never} of {one.n}"


def _number(number: float | None, unit: str) -> str:
    return "-" if number is None else f"{number:.3g}{unit}"
