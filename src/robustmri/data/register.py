"""Which slices a cohort has already, and what is to be told of them as a whole."""

from __future__ import annotations

import unicodedata

from robustmri.core.errors import DataError
from robustmri.data.cases import Case
from robustmri.data.readers.source import LeftOut

NAMED = 3  # Examples of what a sentence counts.


class Register:
    """Cases as they come, one by one."""

    def __init__(self) -> None:
        self._sources: dict[str, str] = {}
        self._labels: dict[str, str] = {}
        self._first: dict[tuple[str, str], Case] = {}
        self._told: dict[str, list[str]] = {}

    def admit(self, case: Case, pixels: str, notes: tuple[str, ...]) -> LeftOut | None:
        """Enter a case; the reason for it to be left out if its id is taken.

        Args:
            case: its row and class may still be unknown.
            pixels: hash of the slice as it came; a file may hold many slices.
            notes: what its reader has to say.

        Raises:
            DataError: its label is that of another class but for case or spelling.
        """
        if case.case_id in self._sources:
            other = self._sources[case.case_id]
            return LeftOut(case.source, f"case id {case.case_id!r} was already read from {other}")
        self._sources[case.case_id] = case.source
        self._check_label(case.label)
        for note in notes:
            self._told.setdefault(note, []).append(case.source)
        first = self._first.setdefault((case.sha256, pixels), case)
        if first.source != case.source:
            self._tell_copy(case, first)
        return None

    def _check_label(self, label: str) -> None:
        known = self._labels.setdefault(_bare(label), label)
        if known != label:
            raise DataError(
                f"the classes {known!a} and {label!a} differ by capitals, spaces or the way that a "
                "letter is written only. Give both one name if they are one class, and names that "
                "differ if they are two."
            )

    def _tell_copy(self, case: Case, first: Case) -> None:
        if case.label != first.label:
            what = "the same bytes as another file, under another label"
        elif case.patient_id != first.patient_id:
            what = "the same bytes as another file, under another patient id"
        else:
            what = "the same bytes as another file of its class"
        self._told.setdefault(f"has {what}", []).append(f"{case.source} as {first.source}")

    def notes(self) -> list[str]:
        """A sentence for each thing to be told, with the number of slices and the first of them."""
        return [_sentence(what, names) for what, names in self._told.items()]


def _sentence(what: str, names: list[str]) -> str:
    """
    >>> _sentence("has a gamma", ["1.png", "2.png"])
    '2 slices, each of which has a gamma: 1.png, 2.png.'
    """
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    count = "1 slice" if len(names) == 1 else f"{len(names)} slices, each of which"
    return f"{count} {what}: {', '.join(names[:NAMED])}{more}."


def _bare(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())
