"""A cohort: one folder with one image array, one table of cases and one header with the hashes of
both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError
from robustmri.core.files import fingerprint, read_json, sha256_of
from robustmri.data.cases import Case, read_cases
from robustmri.data.readers.source import LeftOut
from robustmri.data.storage import IMAGES, MASKS

SCHEMA_VERSION = 1
HEAD, CASES, SPLIT = "cohort.json", "cases.parquet", "split.json"
AGAIN = "Make the cohort again with robustmri prepare."


@dataclass(frozen=True)
class Cohort:
    """Slices of one size with their patients and labels; made by `write_cohort`, opened by
    `Cohort.open`.

    Attributes:
        classes: labels in the order of `class_index`.
        size: height and width of the images in pixels.
        intensity: rule that mapped grey values to [0, 1], a key of
            `robustmri.data.intensity.RULES`.
        groups: "patient" where ids came with the data, "inferred" where near-duplicates stand in
            for them.
        notes: sentences on what was guessed of the slices, and what is odd about them.
        fingerprint: of classes, cases and pixels; it goes into every later file.
    """

    root: Path
    name: str
    classes: tuple[str, ...]
    size: int
    intensity: str
    groups: Literal["patient", "inferred"]
    synthetic: bool
    cases: tuple[Case, ...]
    left_out: tuple[LeftOut, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def n_patients(self) -> int:
        """Number of groups: patients, ids that differ only by a trailing letter counted once."""
        return len({case.group for case in self.cases})

    @cached_property
    def images(self) -> npt.NDArray[np.uint16]:
        """All slices, shape (n, size, size), memory-mapped; 0 to 65535 stands for [0, 1]."""
        return self._map(IMAGES, (len(self), self.size, self.size), np.uint16)

    @cached_property
    def _packed_masks(self) -> npt.NDArray[np.uint8] | None:
        if not (self.root / MASKS).is_file():
            return None
        return self._map(MASKS, (len(self), self.size, (self.size + 7) // 8), np.uint8)

    def _map(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
        path = self.root / name
        try:
            array = np.lib.format.open_memmap(path, mode="r")
        except OSError:
            raise
        except Exception as error:  # The header is Python: numpy raises what its parser raises.
            raise DataError(f"{path} is damaged ({error}). {AGAIN}") from error
        if (array.shape, array.dtype) != (shape, np.dtype(dtype)):
            raise DataError(f"{path} is not an array of {dtype.__name__} of shape {shape}. {AGAIN}")
        return array

    def masks(self, indexes: Iterable[int]) -> npt.NDArray[np.bool_] | None:
        """Lesions of some cases, bool, shape (k, size, size); empty where a case has none, None if
        no case has one.
        """
        if self._packed_masks is None:
            return None
        packed = self._packed_masks[np.fromiter(indexes, dtype=np.int64)]
        return np.unpackbits(packed, axis=2, count=self.size).astype(bool)

    @classmethod
    def open(cls, root: str | Path) -> Cohort:
        """Open a cohort folder; sizes and the table of cases are checked now, pixels by `verify`.

        Raises:
            DataError: not a cohort, or files that are missing, truncated or changed.
        """
        root = Path(root)
        if not is_cohort(root):
            raise DataError(
                f"{root} is not a cohort: it has no {HEAD}. Make one: robustmri prepare SOURCE "
                f"--out {root}"
            )
        try:
            return cls._from_head(root, read_json(root / HEAD))
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise DataError(
                f"{root / HEAD} is damaged ({type(error).__name__}: {error}). {AGAIN}"
            ) from error

    @classmethod
    def _from_head(cls, root: Path, head: dict[str, Any]) -> Cohort:
        if head.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"{root} is a cohort of schema version {head.get('schema_version')}, expected "
                f"{SCHEMA_VERSION}. {AGAIN}"
            )
        for name in sorted({IMAGES, CASES, *head["files"]}):
            facts, path = head["files"][name], root / name
            if not path.is_file():
                raise DataError(f"{root} is incomplete: {name} is missing. {AGAIN}")
            if path.stat().st_size != facts["bytes"]:
                raise DataError(
                    f"{path} has {path.stat().st_size} bytes, expected {facts['bytes']}. {AGAIN}"
                )
        cases = read_cases(root / CASES)
        classes = tuple(head["classes"])
        if fingerprint_of(head, cases) != head["fingerprint"] or any(
            case.class_index < 0 or (case.index, case.label) != (row, classes[case.class_index])
            for row, case in enumerate(cases)
        ):
            raise DataError(
                f"{root} was changed after it was written: {CASES} and {HEAD} no longer agree. "
                f"{AGAIN}"
            )
        return cls(
            root=root,
            name=str(head["name"]),
            classes=classes,
            size=int(head["size"]),
            intensity=head["intensity"],
            groups=head["groups"],
            synthetic=head["synthetic"],
            cases=cases,
            left_out=tuple(LeftOut(**left) for left in head["left_out"]),
            fingerprint=head["fingerprint"],
            notes=tuple(head.get("notes", ())),
        )

    def verify(self) -> None:
        """Hash every file of the cohort and compare; seconds for a large one.

        Raises:
            DataError: a file is not the one that was written.
        """
        for name, facts in read_json(self.root / HEAD)["files"].items():
            if sha256_of(self.root / name) != facts["sha256"]:
                raise DataError(
                    f"{self.root / name} was changed after it was written (sha256 differs). {AGAIN}"
                )


def is_cohort(path: str | Path) -> bool:
    """Whether a folder is one that `prepare` made."""
    return (Path(path) / HEAD).is_file()


def fingerprint_of(head: dict[str, Any], cases: Iterable[Case]) -> str:
    """Fingerprint of a cohort: its head's facts, the hashes of its arrays, and its cases."""
    facts = {
        key: head[key]
        for key in ("schema_version", "classes", "size", "intensity", "groups", "synthetic")
    }
    pixels = {name: file["sha256"] for name, file in head["files"].items() if name != CASES}
    return fingerprint([facts, pixels, [asdict(case) for case in cases]])
