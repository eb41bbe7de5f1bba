"""Where a change is needed: the same attack, confined to one part of the slices after the other."""

from __future__ import annotations

from typing import Any

from robustmri.report.page import Page, same_attack
from robustmri.report.tables import Table
from robustmri.report.wording import budget_words, percent, with_interval
from robustmri.results.budget import Budget
from robustmri.results.schema import RegionResult

PLACE = 54
NAMES = {
    "image": "Everywhere",
    "brain": "The head",
    "lesion": "The lesion",
    "outside-lesion": "All but the lesion",
    "border": "A ring around its outline",
    "background": "The background",
}
SHORT_OF = {
    "outside-lesion": "may not touch the lesion",
    "background": "may not touch the head",
    "lesion": "may change nothing but the lesion",
}


def regions(page: Page) -> dict[str, Any] | None:
    """A row for each region; None where nobody asked."""
    if not any(report.regions for report in page.results):
        return None
    first = next(one for report in page.results for one in report.regions)
    at = Budget(first.norm, first.eps, first.eps_units, first.eps_image, first.target)
    return {
        "region_table": region_table(page),
        "region_attack": page.titles.get(first.attack, first.attack.upper()),
        "region_budget": budget_words(at, page.norms) if first.norm in page.norms else "",
        "findings": list(find_sentences(page)),
    }


def region_table(page: Page) -> Table:
    """Answers turned, of those that were right, and where the change's energy went."""
    first = next(one for report in page.results for one in report.regions)
    # Under its heading stand those of one attack alone.
    found = [
        {one.region: one for one in report.regions if same_attack(one, first)}
        for report in page.results
    ]
    several = len(found) > 1

    def head(said: str, name: str) -> str:
        return f"{said}, {name.lower()}" if several else said

    heads = ["May change", "Of the pixels"]
    heads += [head("Answers turned", name) for name in page.names]
    heads += [head("Patients with one", name) for name in page.names]
    outlined = any(one.lesion_energy is not None for part in found for one in part.values())
    heads += [head("Of the change in the lesion", name) for name in page.names] if outlined else []
    rows = []
    for region in dict.fromkeys(region for part in found for region in part):
        ones = [part.get(region) for part in found]
        area = next(one.area for one in ones if one)
        cells = [NAMES.get(region, region), percent(area), *map(_turned, ones)]
        cells += ["-" if one is None else percent(one.patients_turned) for one in ones]
        cells += [*map(_energy, ones)] if outlined else []
        rows.append(cells)
    notes = [
        f"Of the slices that are right untouched ({', '.join(_counts(part) for part in found)}). "
        f"In brackets: 95 % intervals, by patient ({first.interval})."
    ]
    if outlined and first.lesion_area is not None:
        notes.append(
            "Of the change in the lesion: share of its energy, the squares of the pixels' changes. "
            f"The lesion has {percent(first.lesion_area)} of the pixels, which is what chance "
            "would give."
        )
    notes += [
        f"{name} was confined under another attack or radius: a report of it alone shows that."
        for name, report, part in zip(page.names, page.results, found, strict=True)
        if report.regions and not part
    ]
    return Table(heads, rows, notes)


def find_sentences(page: Page) -> Any:
    """What a reader is to take away, one sentence a result and region."""
    first = next(one for report in page.results for one in report.regions)
    for name, report in zip(page.names, page.results, strict=True):
        prefix = f"{name}: an" if len(page.results) > 1 else "An"
        for one in report.regions:
            if one.region in SHORT_OF and same_attack(one, first):
                yield (
                    f"{prefix} attack that {SHORT_OF[one.region]} turns {_turned(one)} of the "
                    "answers."
                )


def _turned(one: RegionResult | None) -> str:
    return "-" if one is None else with_interval(one.turned, one)


def _energy(one: RegionResult | None) -> str:
    return "-" if one is None or one.lesion_energy is None else percent(one.lesion_energy)


def _counts(part: dict[str, RegionResult]) -> str:
    one = next(iter(part.values()), None)
    return "none" if one is None else f"{one.n} of {one.n_patients} patients"
