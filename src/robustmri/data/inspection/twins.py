"""Slices that are one: copies and near-duplicates within and across sets and cohorts, by a hash of
how they look and by correlation.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from robustmri.core.progress import Progress, silent
from robustmri.data.cases import file_hashes
from robustmri.data.inspection.slices import Slices, counted
from robustmri.data.leakage import (
    BLOCK,
    DESCRIPTOR_SIZE,
    NEIGHBOUR,
    SAME_SLICE,
    Finding,
    Status,
)
from robustmri.data.seen import FEWEST_BITS, SAME_LOOK, different_bits, look_of_small, small_look

TURNS: dict[str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    "mirrored": lambda images: images[:, :, ::-1],
    "upside down": lambda images: images[:, ::-1],
    "turned by 180 degrees": lambda images: images[:, ::-1, ::-1],
    "turned by 90 degrees": lambda images: np.rot90(images, 1, (1, 2)),
    "turned by 270 degrees": lambda images: np.rot90(images, 3, (1, 2)),
    "transposed": lambda images: images.transpose(0, 2, 1),
    "mirrored and turned": lambda images: np.rot90(images, 2, (1, 2)).transpose(0, 2, 1),
}
"""How one slice may lie on another."""
IDENTICAL, SAME, ALIKE = "identical", "the same slice", "alike"
MOST_PAIRS = 100_000
"""Of those that mean the same; of more, the first are kept."""


@dataclass(frozen=True)
class Twins:
    """Two slices that look like one.

    Attributes:
        first: number of a slice; likewise `second`, which is larger.
        kind: "identical" (every pixel), "the same slice" (stored or prepared otherwise), a key of
            `TURNS`, or "alike" (it may also be a neighbour in a stack).
        correlation: of both at 32 x 32 pixels, the second turned back.
    """

    first: int
    second: int
    kind: str
    correlation: float


def find_twins(slices: Slices, progress: Progress = silent) -> list[Twins]:
    """Pairs of slices that look like one, in the order of the slices; n slices cost n * n
    comparisons. Of pairs that mean the same to every question, `MOST_PAIRS` are kept.
    """
    vectors = slices.descriptors
    small = np.stack(slices.each(small_look))
    looks = look_of_small(small)
    telling = looks.sum(axis=1) >= FEWEST_BITS
    identical = _identical(slices)
    pictures = vectors.reshape(-1, DESCRIPTOR_SIZE, DESCRIPTOR_SIZE)
    turned = {kind: (look_of_small(turn(small)), turn(pictures)) for kind, turn in TURNS.items()}
    found: list[Twins] = []
    alike = Counter[Hashable]()

    def keep(pair: Twins) -> None:
        meaning = _meaning_of(slices, pair)
        alike[meaning] += 1
        if alike[meaning] <= MOST_PAIRS:
            found.append(pair)

    for start in range(0, len(slices), BLOCK):
        rows = slice(start, start + BLOCK)
        progress("comparing", start, len(slices))
        correlation = vectors[rows] @ vectors.T
        same = different_bits(looks[rows], looks) <= SAME_LOOK
        same &= telling[rows, None] & telling & (correlation > NEIGHBOUR)
        known: set[tuple[int, int]] = set()
        for i, j in _above(same | (correlation > SAME_SLICE), start):
            kind = SAME if same[i - start, j] else ALIKE
            kind = IDENTICAL if identical[i] == identical[j] else kind
            known.add((i, j))
            keep(Twins(i, j, kind, float(correlation[i - start, j])))
        for kind, (others, pictures) in turned.items():
            same = different_bits(looks[rows], others) <= SAME_LOOK
            for i, j in _above(same & telling[rows, None] & telling, start):
                likeness = float(vectors[i] @ pictures[j].ravel())
                if likeness > NEIGHBOUR and (i, j) not in known:
                    known.add((i, j))
                    keep(Twins(i, j, kind, likeness))
    progress("comparing", len(slices), len(slices))
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def _above(pairs: npt.NDArray[np.bool_], start: int) -> Iterator[tuple[int, int]]:
    rows, columns = np.nonzero(pairs)
    for i, j in zip((rows + start).tolist(), columns.tolist(), strict=True):
        if i < j:
            yield i, j


def _identical(slices: Slices) -> list[bytes]:
    """A hash of every slice's pixels."""
    return slices.each(lambda image: blake2b(image.tobytes(), digest_size=16).digest())


def is_leak(slices: Slices, pair: Twins) -> bool:
    """Whether the two lie in different sets or cohorts."""
    return bool(slices.place[pair.first] != slices.place[pair.second])


def is_one_person(slices: Slices, pair: Twins) -> bool:
    """Whether both have one id in one cohort."""
    a, b = pair.first, pair.second
    return bool(slices.cohort[a] == slices.cohort[b] and slices.person[a] == slices.person[b])


def are_strangers(slices: Slices, pair: Twins) -> bool:
    """Whether the two have two ids, each of which its cohort knows."""
    return (
        slices.has_people(pair.first)
        and slices.has_people(pair.second)
        and bool(slices.person[pair.first] != slices.person[pair.second])
    )


def have_two_classes(slices: Slices, pair: Twins) -> bool:
    """Whether the two have two classes; cohorts of different classes name them by their own
    lights.
    """
    one, other = (slices.cohorts[slices.cohort[number]] for number in (pair.first, pair.second))
    differ = bool(slices.label[pair.first] != slices.label[pair.second])
    return differ and set(one.classes) == set(other.classes)


def _meaning_of(slices: Slices, pair: Twins) -> Hashable:
    """All that `check_twins` asks of a pair."""
    asked = (is_leak, is_one_person, are_strangers, have_two_classes)
    return (pair.kind, *(question(slices, pair) for question in asked))


def check_twins(slices: Slices, twins: list[Twins]) -> list[Finding]:
    """Copies, near-duplicates and source files in two sets or cohorts; copies within a set; one
    slice under two ids or two classes.
    """
    copies = [pair for pair in twins if pair.kind != ALIKE]
    leaks = [pair for pair in twins if is_leak(slices, pair)]
    exact = [pair for pair in leaks if pair.kind == IDENTICAL]
    near = [pair for pair in leaks if pair.kind != IDENTICAL]
    known = [pair for pair in near if pair.kind != ALIKE or is_one_person(slices, pair)]
    within = [pair for pair in copies if not is_leak(slices, pair)]
    strangers = [pair for pair in twins if are_strangers(slices, pair)]
    torn = [pair for pair in copies if have_two_classes(slices, pair)]
    where = "in one set only" if len(slices.cohorts) == 1 else "in one set and cohort only"
    apart = "lie in different sets" + (" or cohorts" if len(slices.cohorts) > 1 else "")
    return [
        _check_files(slices, where),
        _finding(
            slices,
            f"copies {where}",
            exact,
            "fail",
            f"{counted(len(exact), 'pair')} of slices with the same pixels {apart}",
        ),
        _finding(
            slices,
            f"near-duplicates {where}",
            near,
            "fail" if known else "warn",
            f"{counted(len(near), 'pair')} of slices that look like one {apart}: "
            f"{_count_kinds(near)}",
        ),
        _finding(
            slices,
            "one slice, one patient",
            strangers,
            "fail" if any(pair.kind != ALIKE for pair in strangers) else "warn",
            f"{counted(len(strangers), 'pair')} of slices that look like one have two patient "
            f"ids: {_count_kinds(strangers)}",
        ),
        _finding(
            slices,
            "no copies within a set",
            within,
            "warn",
            f"{counted(len(within), 'pair')} of one set show one slice: it counts twice, and its "
            f"errors too: {_count_kinds(within)}",
        ),
        _finding(
            slices,
            "one slice, one class",
            torn,
            "fail",
            f"{counted(len(torn), 'pair')} of copies have two classes: one of them is wrong",
        ),
    ]


def _check_files(slices: Slices, where: str) -> Finding:
    """A file of several slices, such as a volume, may be shared without two equal slices."""
    places: dict[str, set[int]] = defaultdict(set)
    files = [digest for cohort in slices.cohorts for digest in file_hashes(cohort.cases)]
    for digest, place in zip(files, slices.place.tolist(), strict=True):
        places[digest].add(place)
    shared = {digest for digest, found in places.items() if len(found) > 1}
    cases = zip(slices.cases, files, strict=True)
    ids = tuple(case.case_id for case, digest in cases if digest in shared)
    return Finding(
        f"source files {where}",
        "fail" if shared else "pass",
        f"{len(shared)} of {counted(len(places), 'source file')} gave slices to more than one set"
        + (" or cohort" if len(slices.cohorts) > 1 else ""),
        ids,
    )


def _count_kinds(pairs: Iterable[Twins]) -> str:
    counts: dict[str, int] = defaultdict(int)
    for pair in pairs:
        counts[pair.kind] += 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def _finding(slices: Slices, name: str, pairs: list[Twins], status: Status, told: str) -> Finding:
    numbers = sorted({number for pair in pairs for number in (pair.first, pair.second)})
    ids = tuple(slices.cases[number].case_id for number in numbers)
    if not pairs:
        return Finding(name, "pass", told.partition(": ")[0])
    return Finding(name, status, f"at least {told}" if len(pairs) >= MOST_PAIRS else told, ids)
