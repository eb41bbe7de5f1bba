"""Who is in two sets or two cohorts, by the ids: the same one, or one that differs by a letter, a
zero or a capital.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations

from robustmri.data.inspection.slices import Slices, counted
from robustmri.data.leakage import Finding, Status

SHORT = 5
"""An id of fewer characters may be any person's in another cohort: slices are numbered 1, 2, 3."""
DIGITS = 3
"""Of an id, so that the rest may be a prefix that was typed otherwise."""


def check_people(slices: Slices) -> list[Finding]:
    """Patients in two sets, in two cohorts, and ids that may be of one person."""
    return [_check_sets(slices), *_check_cohorts(slices), _check_ids(slices)]


def _check_sets(slices: Slices) -> Finding:
    name = "patients in one set only"
    places: dict[tuple[int, str], set[str]] = defaultdict(set)
    for number, person in enumerate(slices.person):
        places[int(slices.cohort[number]), person].add(str(slices.set[number]))
    shared = {key for key, names in places.items() if len(names) > 1}
    guessed = [cohort for cohort in slices.cohorts if cohort.groups != "patient"]
    if not shared:
        if guessed:
            return Finding(
                name,
                "warn",
                "cannot be checked where the source has no patient ids: groups were inferred from "
                "near-duplicate slices",
            )
        if not any(slices.splits):
            return Finding(name, "pass", "there is no split")
        return Finding(name, "pass", f"none of {counted(len(places), 'patient')} is in two sets")
    return Finding(
        name,
        "fail",
        f"{len(shared)} of {counted(len(places), 'patient')} have slices in two sets or more: the "
        "accuracy is that for known patients",
        _cases_of(
            slices, (n for n, p in enumerate(slices.person) if (slices.cohort[n], p) in shared)
        ),
    )


def _check_cohorts(slices: Slices) -> list[Finding]:
    if len(slices.cohorts) == 1:
        return []
    owners: dict[str, set[int]] = defaultdict(set)
    for number, person in enumerate(slices.person):
        if slices.has_people(number):
            owners[person].add(int(slices.cohort[number]))
    shared = {person for person, cohorts in owners.items() if len(cohorts) > 1}
    name = "patients in one cohort only"
    if not shared:
        return [Finding(name, "pass", "no patient id is in two cohorts")]
    telling = {person for person in shared if len(person) >= SHORT}
    status: Status = "fail" if telling else "warn"
    said = f"in two cohorts or more: {counted(len(shared), 'patient id')}"
    if not telling:
        said += f"; ids of fewer than {SHORT} characters may be of different persons"
    found = (n for n, person in enumerate(slices.person) if person in shared)
    return [Finding(name, status, said, _cases_of(slices, found))]


def pair_ids(slices: Slices) -> list[tuple[str, str]]:
    """Ids that one person may have, though they are held to be two: each pair lies in different
    sets or cohorts.
    """
    return [(one, other) for one, other, apart in _pairs(slices) if apart]


def _pairs(slices: Slices) -> list[tuple[str, str, bool]]:
    """Alike ids, and whether they lie in different sets or cohorts without being one group."""
    places: dict[str, set[int]] = defaultdict(set)
    groups: dict[str, str] = {}
    for number, case in enumerate(slices.cases):
        if slices.has_people(number):
            places[case.patient_id].add(int(slices.place[number]))
            groups[case.patient_id] = case.group
    return [
        (one, other, len(places[one] | places[other]) > 1 and groups[one] != groups[other])
        for one, other in find_alike_ids(places)
    ]


def _check_ids(slices: Slices) -> Finding:
    pairs = _pairs(slices)
    apart = {one for pair in pairs if pair[2] for one in pair[:2]}
    found = (n for n, case in enumerate(slices.cases) if case.patient_id in apart)
    return Finding(
        "one id for each person",
        "warn" if apart else "pass",
        f"{counted(len(pairs), 'pair')} of ids differ by a letter, a zero, a sign or a capital "
        f"only; {sum(pair[2] for pair in pairs)} of them lie in different sets or cohorts as if "
        "they were two persons",
        _cases_of(slices, found),
    )


def find_alike_ids(ids: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of ids that may be of one person.

    Two are alike where they are the same once capitals, signs, leading zeros, a trailing letter and
    letters that look like digits are no longer told apart; or where they have all their digits in
    common, three or more, and their letters differ in one place.

    >>> list(find_alike_ids(["P017", "p-17", "P018", "MR040240B", "MR04024O", "HG_101", "LG_101"]))
    [('HG_101', 'LG_101'), ('MR040240B', 'MR04024O'), ('P017', 'p-17')]
    """
    known = sorted(set(ids))
    plain: dict[str, list[str]] = defaultdict(list)
    digits: dict[str, list[str]] = defaultdict(list)
    for one in known:
        plain[_plain(one)].append(one)
        number = "".join(re.findall(r"\d", one))
        if len(number) >= DIGITS:
            digits[number].append(one)
    pairs = {pair for group in plain.values() for pair in combinations(group, 2)}
    pairs |= {
        (one, other)
        for group in digits.values()
        for one, other in combinations(group, 2)
        if _one_letter_apart(one, other)
    }
    yield from sorted(pairs)


def _plain(one: str) -> str:
    """What is left of an id without what is easily typed otherwise."""
    text = re.sub(r"[\W_]+", "", one.casefold())
    for letter, digit in (("o", "0"), ("l", "1"), ("i", "1")):
        text = re.sub(rf"(?<=\d){letter}|{letter}(?=\d)", digit, text)
    text = re.sub(r"(?<=\d)[a-z]$", "", text)
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def _one_letter_apart(one: str, other: str) -> bool:
    """Whether one letter was changed, added or left out."""
    short, long = sorted((one, other), key=len)
    if len(long) - len(short) > 1:
        return False
    start = next((k for k, (a, b) in enumerate(zip(short, long)) if a != b), len(short))  # noqa: B905
    rest = long[start + 1 :]
    return long[start : start + 1].isalpha() and rest == short[start + len(short) - len(long) + 1 :]


def _cases_of(slices: Slices, numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(slices.cases[number].case_id for number in numbers)
