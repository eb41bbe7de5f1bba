"""Slices that know each other: near-duplicates, groups inferred from them, and what a split lets
through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from robustmri.data.cases import file_hashes
from robustmri.data.intensity import resize, to_grey
from robustmri.data.parallel import map_in_order
from robustmri.data.split import AUTHORS

if TYPE_CHECKING:
    from robustmri.data.cases import Case
    from robustmri.data.cohort import Cohort
    from robustmri.data.split import Split

# Measured on the figshare set (docs/data.md): above 0.985 every pair is of one patient.
SAME_SLICE = 0.985
COPY = 0.995
NEIGHBOUR = 0.9
MANY_DOUBLED = 0.1
"""Share of a set's patients who may look like another before their number cannot be believed."""
DESCRIPTOR_SIZE = 32
BLOCK = 512
ONE_SET = "patients in one set only"

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """Outcome of one check of a split; `case_ids` are the cases concerned."""

    name: str
    status: Status
    detail: str
    case_ids: tuple[str, ...] = ()


def check_leakage(cohort: Cohort, split: Split) -> list[Finding]:
    """What the sets of a split have in common: patients, groups of patients, copies of slices and
    files, near-duplicate slices; and within a set, patients who look like one.

    An overlap of patients fails a patient-wise split. In a slice-wise one, which promises nothing
    else, it warns; so do ids that differ by a trailing letter in the folds of the authors, who
    counted them as two patients.
    """
    split.check(cohort)
    where = {
        index: name for name in ("train", "validation", "test") for index in getattr(split, name)
    }
    alike_slices = near_duplicates(cohort.images)
    one_person = _check_names(cohort, where, alike_slices)
    if split.kind == "none":  # There is one set only.
        return [one_person]
    alike = (
        "inferred groups" if cohort.groups == "inferred" else "patients (trailing letter ignored)"
    )
    serious: Status = "warn" if split.kind == "slice" else "fail"
    lenient: Status = "warn" if split.folds_source == AUTHORS else serious
    if cohort.groups == "inferred":
        unknown = (
            "cannot be checked: the source has no patient ids; groups were inferred from "
            "near-duplicate slices"
        )
        patients = Finding(ONE_SET, "warn", unknown)
    else:
        patients = _check_overlap(
            ONE_SET, "patient ids", serious, cohort, where, lambda case: case.patient_id
        )
    groups = _check_overlap(
        "groups in one set only", alike, lenient, cohort, where, lambda case: case.group
    )
    return [
        patients,
        groups,
        _check_copies(cohort, where, serious),
        _check_duplicates(cohort, where, alike_slices),
        one_person,
    ]


def _check_overlap(
    name: str,
    unit: str,
    status: Status,
    cohort: Cohort,
    where: dict[int, str],
    key: Callable[[Case], str],
) -> Finding:
    sets: dict[str, set[str]] = {}
    for index, set_name in where.items():
        sets.setdefault(key(cohort.cases[index]), set()).add(set_name)
    shared = {value for value, names in sets.items() if len(names) > 1}
    if not shared:
        return Finding(name, "pass", f"none of {len(sets)} {unit} is in two sets")
    ids = tuple(
        cohort.cases[index].case_id for index in sorted(where) if key(cohort.cases[index]) in shared
    )
    detail = (
        f"{len(shared)} of {len(sets)} {unit} are in two sets or more, so the accuracy is inflated"
    )
    return Finding(name, status, detail, ids)


def _check_copies(cohort: Cohort, where: dict[int, str], serious: Status) -> Finding:
    """Slices with the same pixels, and source files, such as volumes, in two sets."""
    places: dict[bytes, set[str]] = {}
    keys: dict[int, tuple[bytes, bytes]] = {}
    files = file_hashes(cohort.cases)
    for index, name in where.items():
        pixels = blake2b(cohort.images[index].tobytes(), digest_size=16).digest()
        keys[index] = (pixels, files[index].encode())
        for key in keys[index]:
            places.setdefault(key, set()).add(name)
    shared = [index for index in sorted(keys) if any(len(places[key]) > 1 for key in keys[index])]
    return Finding(
        "copies in one set only",
        serious if shared else "pass",
        f"{len(shared)} slices have the same pixels as, or come from one file with, a slice of "
        "another set",
        tuple(cohort.cases[index].case_id for index in shared),
    )


def _check_names(
    cohort: Cohort, where: dict[int, str], alike: Sequence[tuple[int, int]]
) -> Finding:
    """Patients of one set of whom a slice looks like one of another patient: they count twice."""
    group = [case.group for case in cohort.cases]
    pairs = [
        (a, b) for a, b in alike if a in where and where[a] == where.get(b) and group[a] != group[b]
    ]
    doubled = {(where[index], group[index]) for pair in pairs for index in pair}
    sizes = {
        name: len({group[index] for index in where if where[index] == name})
        for name in {name for name, _ in doubled}
    }
    most = max((sum(one == name for one, _ in doubled) / sizes[name] for name in sizes), default=0)
    return Finding(
        "no patient under two names",
        "fail" if most > MANY_DOUBLED else "warn" if doubled else "pass",
        f"{len(doubled)} patients have a slice that looks like one of another patient of the same "
        f"set (correlation above {SAME_SLICE})"
        + (", so that there are fewer than are counted" if doubled else ""),
        tuple(sorted({cohort.cases[index].case_id for pair in pairs for index in pair})),
    )


def _check_duplicates(
    cohort: Cohort, where: dict[int, str], alike: Sequence[tuple[int, int]]
) -> Finding:
    pairs = [(a, b) for a, b in alike if where.get(a) != where.get(b)]
    ids = tuple(sorted({cohort.cases[index].case_id for pair in pairs for index in pair}))
    detail = (
        f"{len(pairs)} pairs of near-duplicate slices (correlation above {SAME_SLICE}) lie in "
        "different sets"
    )
    return Finding("near-duplicates in one set only", "warn" if pairs else "pass", detail, ids)


def near_duplicates(
    images: npt.NDArray[np.uint16], threshold: float = SAME_SLICE
) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of slices that look the same.

    Args:
        images: shape (n, h, w) or (n, h, w, 3).
        threshold: least correlation of the square roots of the grey values at 32 x 32 pixels.
    """
    (pairs,) = _alike(describe_slices(images), threshold)
    return pairs


def _alike(vectors: npt.NDArray[np.float32], *thresholds: float) -> list[list[tuple[int, int]]]:
    """For each threshold the pairs (i, j), i < j, whose correlation is above it."""
    pairs: list[list[tuple[int, int]]] = [[] for _ in thresholds]
    for start, correlation in _correlations(vectors, once=True):
        for found, threshold in zip(pairs, thresholds, strict=True):
            rows, columns = np.nonzero(correlation > threshold)
            first = rows < columns
            rows, columns = start + rows[first], start + columns[first]
            found += zip(rows.tolist(), columns.tolist(), strict=True)
    return pairs


def infer_groups(
    images: npt.NDArray[np.uint16], together: Iterable[tuple[int, int]] = ()
) -> npt.NDArray[np.int64]:
    """Group number of each slice, from the slices alone: a stand-in for patients where ids are
    missing.

    Two slices are linked if they are near-duplicates, or if each is among the other's two most
    similar ones (a slice of a stack has two neighbours) and their correlation is at least 0.9; what
    is linked is a group. So are the pairs `together`, which are known to be of one scan. Copies of
    a slice count once among the most similar ones, or they would hide its neighbours.
    """
    vectors = describe_slices(images)
    alike, copies = _alike(vectors, SAME_SLICE, COPY)
    copy_of = _components(copies, len(images))
    _, originals = np.unique(copy_of, return_index=True)
    nearest: list[set[int]] = []
    for _, correlation in _correlations(vectors[originals]):
        order = np.argsort(-correlation, axis=1, kind="stable")[:, :2]
        for row, columns in enumerate(order):
            nearest.append({int(j) for j in columns if correlation[row, j] >= NEIGHBOUR})
    mutual = [(i, j) for i, near in enumerate(nearest) for j in near if i < j and i in nearest[j]]
    alike += [(int(originals[i]), int(originals[j])) for i, j in mutual]
    return _components([*alike, *together], len(images))


def _components(pairs: list[tuple[int, int]], count: int) -> npt.NDArray[np.int64]:
    """Number of the connected component of each of `count` nodes."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(pairs)), (rows, columns)), shape=(count, count))
    components: npt.NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(
        np.int64
    )
    return components


def describe_slices(images: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Unit vectors whose inner products are correlations; the root lifts brain tissue against
    bright fat.
    """
    small = map_in_order(lambda image: resize(to_grey(image), DESCRIPTOR_SIZE).ravel(), images)
    # In place: of a hundred thousand slices each copy is 400 MB.
    unit = np.empty((len(images), DESCRIPTOR_SIZE**2), dtype=np.float32)
    for row, vector in zip(unit, small, strict=True):
        row[:] = vector
    np.sqrt(unit, out=unit)
    unit -= unit.mean(axis=1, keepdims=True)
    for start in range(0, len(unit), BLOCK):
        part = unit[start : start + BLOCK]
        length = np.linalg.norm(part, axis=1, keepdims=True)
        part /= np.maximum(length, np.finfo(np.float32).tiny)
    return unit


def _correlations(
    vectors: npt.NDArray[np.float32], *, once: bool = False
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Blocks of rows of the correlation matrix, with -1 where a slice meets itself; each is
    overwritten by the next.

    With `once` the columns begin where the rows do: each pair is there once, or in one block
    twice.
    """
    room = np.empty((min(BLOCK, len(vectors)), len(vectors)), dtype=np.float32)
    for start in range(0, len(vectors), BLOCK):
        rows = vectors[start : start + BLOCK]
        others = vectors[start:] if once else vectors
        block = np.matmul(
            rows,
            others.T,
            out=room.ravel()[: len(rows) * len(others)].reshape(len(rows), len(others)),
        )
        own = np.arange(len(rows))
        block[own, own if once else start + own] = -1.0
        yield start, block
