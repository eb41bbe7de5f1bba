"""The page of an inspection: findings, pairs of slices that look like one, classes, odd slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from robustmri.core.files import atomic_file
from robustmri.data.inspection.found import Inspection
from robustmri.data.inspection.twins import ALIKE, IDENTICAL, Twins, is_leak, is_one_person
from robustmri.report.figures import TEMPLATES
from robustmri.report.pictures import encode_png
from robustmri.report.tables import Table
from robustmri.report.templating import make_templates
from robustmri.report.verdict import SEVERITY
from robustmri.report.wording import percent

MOST_PAIRS, MOST_ODD = 24, 24
"""Shown with pictures; the JSON file has all."""
PIXELS = 160


class Shown(msgspec.Struct, frozen=True):
    """A slice on the page; `image` is a `data:` address."""

    image: str
    name: str
    patient: str
    label: str
    where: str


class Pair(msgspec.Struct, frozen=True):
    """Two slices that look like one, and what is wrong with that."""

    first: Shown
    second: Shown
    what: str
    said: list[str]


def write_inspection(found: Inspection, out: Path | str, *, images: bool = True) -> Path:
    """Write the page; without `images` it shows no slice, id or name of a folder."""
    path = Path(out)
    text = render(found, images=images)
    with atomic_file(path) as partial:
        partial.write_bytes(text.encode("utf-8"))
    return path


def render(found: Inspection, *, images: bool) -> str:
    """The page as HTML."""
    from markupsafe import Markup

    templates = make_templates(TEMPLATES, filters={"percent": percent})
    styles = [
        (TEMPLATES / name).read_text(encoding="utf-8")
        for name in ("colours.css", "type.css", "report.css", "inspection.css")
    ]
    slices = found.slices
    return templates.get_template("inspection.html.j2").render(
        style=Markup("".join(styles)),
        images=images,
        synthetic=all(cohort.synthetic for cohort in slices.cohorts),
        verdict=say_verdict(found),
        cohorts=list(zip(slices.names, slices.cohorts, slices.splits, strict=True)),
        findings=sorted(found.findings, key=lambda one: SEVERITY[one.status]),
        gaps=found.gaps,
        counts=found.counts,
        names=slices.names,
        pairs=[_show_pair(found, pair) for pair in choose_pairs(found)] if images else [],
        n_pairs=len(found.twins),
        alike_ids=found.alike_ids if images else [],
        odd=_show_odd(found) if images else [],
        n_odd=len({one.number for one in found.oddities}),
    )


def say_verdict(found: Inspection) -> str:
    """What matters most, in one sentence."""
    slices = found.slices
    of = f"{len(slices)} slices of " + (
        "one cohort" if len(slices.cohorts) == 1 else f"{len(slices.cohorts)} cohorts"
    )
    failed, warned = (
        [one.name for one in found.findings if one.status == status] for status in ("fail", "warn")
    )
    if failed:
        return f"Leakage among {of}: {len(failed)} of {len(found.findings)} questions failed."
    also = f", {len(warned)} of them worth a look" if warned else ""
    return f"No leakage was found among {of}, by {len(found.findings)} questions{also}."


def choose_pairs(found: Inspection, most: int = MOST_PAIRS) -> list[Twins]:
    """The pairs that matter most: across sets or cohorts, of two persons, copies before those that
    are only alike; neighbours within one patient and set are left out.
    """
    slices = found.slices

    def rank(pair: Twins) -> tuple[bool, bool, bool, float]:
        leak, person = is_leak(slices, pair), is_one_person(slices, pair)
        return (not leak, person, pair.kind == ALIKE, -pair.correlation)

    telling = [
        pair
        for pair in found.twins
        if pair.kind != ALIKE or is_leak(slices, pair) or not is_one_person(slices, pair)
    ]
    return sorted(telling, key=rank)[:most]


def _show_pair(found: Inspection, pair: Twins) -> Pair:
    slices, said = found.slices, []
    if is_leak(slices, pair):
        said.append("in different sets or cohorts")
    if not is_one_person(slices, pair):
        said.append("under two patient ids or cohorts")
    if slices.label[pair.first] != slices.label[pair.second]:
        said.append("under two classes")
    what = "every pixel the same" if pair.kind == IDENTICAL else pair.kind
    said.append(f"correlation {pair.correlation:.4f}")
    first, second = (_show(found, number) for number in (pair.first, pair.second))
    return Pair(first, second, what, said)


def _show(found: Inspection, number: int) -> Shown:
    slices = found.slices
    case, image = slices.cases[number], slices.image(number)
    step = max(1, len(image) // PIXELS)
    return Shown(
        image=encode_png(image[::step, ::step] >> 8),
        name=case.case_id,
        patient=case.patient_id,
        label=case.label,
        where=slices.where(number),
    )


def _show_odd(found: Inspection) -> list[tuple[Shown, list[str]]]:
    reasons: dict[int, list[str]] = {}
    for one in found.oddities:
        reasons.setdefault(one.number, []).append(f"{one.kind}: {one.reason}")
    return [(_show(found, number), said) for number, said in list(reasons.items())[:MOST_ODD]]


def tabulate_findings(found: Inspection) -> Table:
    """A row for each finding, the failed ones first, with the verdict and the gaps below."""
    findings = sorted(found.findings, key=lambda one: SEVERITY[one.status])
    rows = [[one.status, one.name, one.detail] for one in findings]
    return Table(["", "Question", "Found"], rows, [*_say_gaps(found), say_verdict(found)])


def _say_gaps(found: Inspection) -> Sequence[str]:
    names: Any = found.slices.names
    many = len(names) > 1
    return [f"{names[gap.cohort]}: {gap.sentence}" if many else gap.sentence for gap in found.gaps]
