"""How many slices and patients of each class are in each set."""

from __future__ import annotations

from dataclasses import dataclass

from robustmri.data.inspection.slices import UNSPLIT, Slices
from robustmri.data.leakage import Finding
from robustmri.data.split import SETS

APART = 0.1
"""Difference of a class's share in two sets that is told."""
RARE = 10
"""How many times as many slices the commonest class may have as the rarest."""
FEW = 5
"""Patients of a class, below which its test says little."""


@dataclass(frozen=True)
class Count:
    """Slices and patients of one class in one set."""

    cohort: int
    set: str
    label: str
    slices: int
    patients: int


def count_classes(slices: Slices) -> list[Count]:
    """A count for each cohort, set and class; 0 where a set lacks a class."""
    counts = []
    for number, (cohort, split) in enumerate(zip(slices.cohorts, slices.splits, strict=True)):
        for name in [name for name in SETS if getattr(split, name)] if split else [UNSPLIT]:
            rows = (slices.cohort == number) & (slices.set == name)
            for label in cohort.classes:
                here = rows & (slices.label == label)
                people = len(set(slices.person[here]))
                counts.append(Count(number, name, label, int(here.sum()), people))
    return counts


def check_balance(slices: Slices, counts: list[Count]) -> Finding:
    """Whether each class is in each set, in about the same share, and none is rare."""
    said = []
    for number, name in enumerate(slices.names):
        here = [count for count in counts if count.cohort == number]
        where = f"{name}: " if len(slices.names) > 1 else ""
        sets = list(dict.fromkeys(count.set for count in here))
        total = {one: sum(count.slices for count in here if count.set == one) for one in sets}
        for label in dict.fromkeys(count.label for count in here):
            of = {count.set: count for count in here if count.label == label}
            shares = {one: of[one].slices / max(1, total[one]) for one in sets}
            if missing := [one for one in sets if not of[one].slices]:
                said.append(f"{where}no {label} in {', '.join(missing)}")
            elif max(shares.values()) - min(shares.values()) > APART:
                parts = ", ".join(f"{share:.0%} of {one}" for one, share in shares.items())
                said.append(f"{where}{label} is {parts}")
            if "test" in of and 0 < of["test"].patients < FEW:
                said.append(f"{where}{label} has {of['test'].patients} test patients")
        sums = [
            sum(count.slices for count in here if count.label == label)
            for label in dict.fromkeys(count.label for count in here)
        ]
        if sums and max(sums) > RARE * max(1, min(sums)):
            said.append(
                f"{where}the commonest class has {max(sums)} slices, the rarest {min(sums)}"
            )
        if len(sums) < 2:
            said.append(f"{where}one class only")
    detail = "; ".join(said) or "each class is in each set in about the same share"
    return Finding("classes in balance", "warn" if said else "pass", detail)
