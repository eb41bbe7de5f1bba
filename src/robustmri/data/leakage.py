"""Slices that know each other: near-duplicates, groups inferred from them, and what a split lets through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from robustmri.data.intensity import resize
from robustmri.data.parallel import map_in_order

if TYPE_CHECKING:
    from robustmri.data.cohort import Case, Cohort
    from robustmri.data.split import Split

# Measured on the figshare set (docs/data.md): above 0.985 every pair is of one patient.
SAME_SLICE = 0.985
NEIGHBOUR = 0.9
DESCRIPTOR_SIZE = 32
BLOCK = 512

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Finding:
    """Outcome of one check of a split; `case_ids` are the cases concerned."""

    name: str
    status: Literal["pass", "warn", "fail"]
    detail: str
    case_ids: tuple[str, ...] = ()


def check_leakage(cohort: Cohort, split: Split) -> list[Finding]:
    """What the sets of a split have in common: patients, groups of patients, near-duplicate slices.

    An overlap fails a patient-wise split. It warns in a slice-wise one, which promises nothing else, and where patients
    were only inferred.
    """
    split.check(cohort)
    where = {index: name for name in ("train", "validation", "test") for index in getattr(split, name)}
    if cohort.groups == "inferred":
        patients = Finding(
            "patients in one set only",
            "warn",
            "cannot be checked: the source has no patient ids; groups were inferred from near-duplicate slices",
        )
    else:
        patients = _check_overlap(
            "patients in one set only", "patients", cohort, split, where, lambda case: case.patient_id
        )
    unit = "inferred groups" if cohort.groups == "inferred" else "patients (trailing letter ignored)"
    groups = _check_overlap("groups in one set only", unit, cohort, split, where, lambda case: case.group)
    pairs = [(a, b) for a, b in near_duplicates(cohort.images) if a in where and b in where and where[a] != where[b]]
    ids = tuple(sorted({cohort.cases[index].case_id for pair in pairs for index in pair}))
    detail = f"{len(pairs)} pairs of near-duplicate slices (correlation above {SAME_SLICE}) lie in different sets"
    return [patients, groups, Finding("near-duplicates in one set only", "warn" if pairs else "pass", detail, ids)]


def _check_overlap(
    name: str, unit: str, cohort: Cohort, split: Split, where: dict[int, str], key: Callable[[Case], str]
) -> Finding:
    sets: dict[str, set[str]] = {}
    for index, set_name in where.items():
        sets.setdefault(key(cohort.cases[index]), set()).add(set_name)
    shared = {value for value, names in sets.items() if len(names) > 1}
    if not shared:
        return Finding(name, "pass", f"none of {len(sets)} {unit} is in two sets")
    ids = tuple(cohort.cases[index].case_id for index in sorted(where) if key(cohort.cases[index]) in shared)
    detail = f"{len(shared)} of {len(sets)} {unit} are in two sets or more"
    if split.kind == "slice":
        return Finding(name, "warn", f"{detail}, as in any slice-wise split: accuracy is inflated", ids)
    return Finding(name, "fail", f"{detail}. Rebuild with: robustmri prepare SOURCE --split patient", ids)


def near_duplicates(images: npt.NDArray[np.uint16], threshold: float = SAME_SLICE) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of slices that look the same.

    Args:
        images: shape (n, size, size).
        threshold: least correlation of the square roots of the grey values at 32 x 32 pixels.
    """
    pairs: list[tuple[int, int]] = []
    for start, correlation in _correlations(_describe(images)):
        rows, columns = np.nonzero(correlation > threshold)
        rows += start
        pairs += [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if i < j]
    return pairs


def infer_groups(images: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """Group number of each slice, from the slices alone: a stand-in for patients where ids are missing.

    Near-duplicates are one slice. Two slices are linked if each is among the other's two most similar ones (a slice of
    a stack has two neighbours) and their correlation is at least 0.9; what is linked is a group.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    def components(pairs: list[tuple[int, int]], count: int) -> Array:
        rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        graph = coo_matrix((np.ones(len(pairs)), (rows, columns)), shape=(count, count))
        parts: Array = connected_components(graph, directed=False)[1]
        return parts

    copy_of = components(near_duplicates(images), len(images))
    _, first = np.unique(copy_of, return_index=True)
    nearest: dict[int, set[int]] = {}
    for start, correlation in _correlations(_describe(images[first])):
        order = np.argsort(-correlation, axis=1, kind="stable")[:, :2]
        for row, columns in enumerate(order):
            nearest[start + row] = {int(j) for j in columns if correlation[row, j] >= NEIGHBOUR}
    links = [(i, j) for i, near in nearest.items() for j in near if i < j and i in nearest[j]]
    groups: npt.NDArray[np.int64] = components(links, len(first))[copy_of].astype(np.int64)
    return groups


def _describe(images: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Unit vectors whose inner products are correlations; the root lifts brain tissue against bright fat."""
    small = map_in_order(lambda image: np.sqrt(resize(image, DESCRIPTOR_SIZE)).ravel(), images)
    vectors = np.stack(list(small))
    vectors -= vectors.mean(axis=1, keepdims=True)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = vectors / np.maximum(length, np.finfo(np.float32).tiny)
    return unit


def _correlations(vectors: npt.NDArray[np.float32]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Blocks of rows of the correlation matrix, with -1 where a slice meets itself."""
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK] @ vectors.T
        block[np.arange(len(block)), start + np.arange(len(block))] = -1.0
        yield start, block
