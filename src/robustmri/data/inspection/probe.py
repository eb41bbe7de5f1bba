"""How much a slice-wise split flatters: a nearest neighbour that may look up other slices of the
same patient, and one that may not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustmri.data.inspection.slices import Slices
from robustmri.data.leakage import BLOCK

MOST_SLICES = 20_000
"""Of a cohort; of a larger one as many are drawn, patients whole."""
FEWEST_PEOPLE = 5


@dataclass(frozen=True)
class Probe:
    """Whether the nearest other slice has the same class, per slice of one cohort.

    Attributes:
        cohort: its number.
        slice_wise: the nearest of all other slices, bool, shape (n,).
        patient_wise: the nearest of all other patients' slices, bool, shape (n,).
        people: the patient of each slice, shape (n,).
    """

    cohort: int
    slice_wise: npt.NDArray[np.bool_]
    patient_wise: npt.NDArray[np.bool_]
    people: npt.NDArray[np.object_]


def probe_gap(slices: Slices) -> list[Probe]:
    """A probe of each cohort with two classes and five patients or more."""
    probes = []
    for number, cohort in enumerate(slices.cohorts):
        rows = np.flatnonzero(slices.cohort == number)
        rows = _draw_people(rows, slices.person, np.random.default_rng(0))
        people, labels = slices.person[rows], slices.label[rows]
        if len(cohort.classes) < 2 or len(set(people)) < FEWEST_PEOPLE or len(set(labels)) < 2:
            continue
        vectors = slices.descriptors[rows]
        near = {True: np.empty(len(rows), int), False: np.empty(len(rows), int)}
        for start in range(0, len(rows), BLOCK):
            here = slice(start, start + BLOCK)
            likeness = vectors[here] @ vectors.T
            likeness[np.arange(len(likeness)), start + np.arange(len(likeness))] = -np.inf
            near[True][here] = likeness.argmax(axis=1)
            likeness[people[here, None] == people] = -np.inf
            near[False][here] = likeness.argmax(axis=1)
        right = {own: labels[near[own]] == labels for own in near}
        probes.append(Probe(number, right[True], right[False], people))
    return probes


def _draw_people(
    rows: npt.NDArray[np.intp], person: npt.NDArray[np.object_], rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    """All slices of as many patients as fit."""
    if len(rows) <= MOST_SLICES:
        return rows
    names = rng.permutation(np.unique(person[rows].astype(str)))
    sizes = {name: int(np.sum(person[rows] == name)) for name in names}
    kept = names[np.cumsum([sizes[name] for name in names]) <= MOST_SLICES]
    return rows[np.isin(person[rows].astype(str), kept)]
