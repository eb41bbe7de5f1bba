"""A cohort: one folder with one image array, one table of cases and one header with the hashes of
both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from robustmri.core.errors import CheckpointError, DataError
from robustmri.core.files import check_name, fingerprint, kind_of_folder, read_json, sha256_of
from robustmri.core.sizes import Size, sides, size_words
from robustmri.data.cases import Case, read_cases
from robustmri.data.readers.source import LeftOut
from robustmri.data.storage import IMAGES, MASKS

SCHEMA_VERSION = 1
SHAPES_VERSION = 2
"""Of cohorts in colour, not square or stretched, which releases before cannot read."""
NEW_FACTS = {"channels": 1, "pad": True}
"""What only such a cohort says of itself, with its value in all others."""
HEAD, CASES, SPLIT = "cohort.json", "cases.parquet", "split.json"
AGAIN = "Make the cohort again with robustmri prepare."


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """Size and hash of a file of a cohort."""

    bytes: int
    sha256: str


class CohortHead(msgspec.Struct, frozen=True, kw_only=True):
    """What cohort.json must hold; there may be more."""

    schema_version: int
    name: str
    classes: tuple[str, ...]
    size: int | tuple[int, int]  # No bounds here: msgspec 0.22 crashes on them in a union.
    channels: Literal[1, 3] = 1
    pad: bool = True
    intensity: str
    groups: Literal["patient", "inferred"]
    synthetic: bool
    files: dict[str, StoredFile]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...] = ()
    n_cases: Annotated[int, msgspec.Meta(ge=0)]
    fingerprint: str


class _Version(msgspec.Struct, frozen=True):
    schema_version: Any = None


@dataclass(frozen=True, repr=False)
class Cohort:
    """Slices of one size with their patients and labels; made by `write_cohort`, opened by
    `Cohort.open`.

    Attributes:
        classes: labels in the order of `class_index`.
        size: height and width of the images in pixels, one number where they are equal.
        intensity: rule that mapped values to [0, 1], a key of `robustmri.data.intensity.RULES`.
        groups: "patient" where ids came with the data, "inferred" where near-duplicates stand in
            for them.
        notes: sentences on what was guessed of the slices, and what is odd about them.
        fingerprint: of classes, cases and pixels; it goes into every later file.
        channels: 1 (grey) or 3 (colour).
        pad: whether slices of another aspect ratio were padded; else they were stretched.
    """

    root: Path
    name: str
    classes: tuple[str, ...]
    size: Size
    intensity: str
    groups: Literal["patient", "inferred"]
    synthetic: bool
    cases: tuple[Case, ...]
    left_out: tuple[LeftOut, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    channels: Literal[1, 3] = 1
    pad: bool = True

    def __len__(self) -> int:
        return len(self.cases)

    def __repr__(self) -> str:
        return (
            f"Cohort {self.name!r}: {len(self)} slices of {self.n_patients} "
            f"{'patients' if self.groups == 'patient' else 'inferred groups'}, "
            f"{size_words(self.size)}{' in colour' if self.channels == 3 else ''}, "
            f"classes {', '.join(self.classes)}, in {self.root}"
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, *sides(self.size)

    @property
    def n_patients(self) -> int:
        """Number of groups: patients, ids that differ only by a trailing letter counted once."""
        return len({case.group for case in self.cases})

    @cached_property
    def images(self) -> npt.NDArray[np.uint16]:
        """All slices, shape (n, h, w), or (n, h, w, 3) in colour, memory-mapped; 0 to 65535 stands
        for [0, 1].

        Raises:
            DataError: they are not those that were written; the file is hashed when it is first
                asked for.
        """
        colours = (3,) * (self.channels == 3)
        return self._map(IMAGES, "<u2", (len(self), *sides(self.size), *colours))

    @cached_property
    def _packed_masks(self) -> npt.NDArray[np.uint8] | None:
        if not (self.root / MASKS).exists():
            return None
        height, width = sides(self.size)
        return self._map(MASKS, "|u1", (len(self), height, (width + 7) // 8))

    def _map(self, name: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        path = self.root / name
        self._verify(name)
        try:
            array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        except OSError:
            raise
        except Exception as error:  # The header is Python: numpy raises what its parser raises.
            raise DataError(f"{path} is damaged ({error}). {AGAIN}") from error
        if array.dtype != np.dtype(dtype) or array.shape != shape:
            raise DataError(
                f"{path} holds {array.dtype} of shape {array.shape}, expected {np.dtype(dtype)} of "
                f"shape {shape}. {AGAIN}"
            )
        return array

    def masks(self, indexes: Iterable[int]) -> npt.NDArray[np.bool_] | None:
        """Lesions of some cases, bool, shape (k, h, w); empty where a case has none, None if
        no case has one.
        """
        if self._packed_masks is None:
            return None
        packed = self._packed_masks[np.fromiter(indexes, dtype=np.int64)]
        return np.unpackbits(packed, axis=2, count=sides(self.size)[1]).astype(bool)

    def with_classes(self, classes: Sequence[str], names: Mapping[str, str]) -> Cohort:
        """The same slices with the classes of a classifier, in its order.

        Args:
            classes: what the classifier tells apart.
            names: class of this cohort to class of the classifier, where they differ; several may
                be merged into one.

        Raises:
            CheckpointError: a class of the cohort is none of the classifier's.
            DataError: `names` speaks of a class that the cohort has not.
        """
        unknown = sorted({*names} - {*self.classes})
        if unknown:
            raise DataError(
                f"--classes names {unknown[0]!r}, which is no class of the cohort. It has "
                f"{', '.join(self.classes)}."
            )
        named = {label: names.get(label, label) for label in self.classes}
        strange = [label for label in self.classes if named[label] not in classes]
        if strange:
            raise CheckpointError(
                f"The classifier tells apart {', '.join(classes)}; the cohort has "
                f"{', '.join(self.classes)}. Say which is which: --classes "
                f"'{','.join(f'{label}=...' for label in strange)}'."
            )
        place = {label: number for number, label in enumerate(classes)}
        cases = (
            replace(case, label=named[case.label], class_index=place[named[case.label]])
            for case in self.cases
        )
        return replace(self, classes=tuple(classes), cases=tuple(cases))

    @classmethod
    def open(cls, root: str | Path) -> Cohort:
        """Open a cohort folder; sizes and the table of cases are checked now, pixels when they are
        first asked for.

        Raises:
            DataError: not a cohort, or files that are missing, truncated or changed.
        """
        root = Path(root)
        if not is_cohort(root):
            if kind := kind_of_folder(root):
                raise DataError(
                    f"{root} is {kind}, not a cohort. Name the folder that `prepare` made."
                )
            raise DataError(
                f"{root} is not a cohort: it has no {HEAD}. Make one: robustmri prepare SOURCE "
                f"--out {root}"
            )
        head = read_head(root)
        for name, facts in sorted(head.files.items()):
            path = root / check_name(name, "a file of a cohort")
            if not path.is_file():
                raise DataError(f"{root} is incomplete: {name} is missing. {AGAIN}")
            if path.stat().st_size != facts.bytes:
                raise DataError(
                    f"{path} has {path.stat().st_size} bytes, expected {facts.bytes}. {AGAIN}"
                )
        cases = read_cases(root / CASES, head.n_cases)
        if (
            fingerprint_of(msgspec.to_builtins(head), cases) != head.fingerprint
            or not {IMAGES, CASES} <= head.files.keys()
            or any(
                not 0 <= case.class_index < len(head.classes)
                or (case.index, case.label) != (row, head.classes[case.class_index])
                for row, case in enumerate(cases)
            )
        ):
            raise DataError(
                f"{root} was changed after it was written: {CASES} and {HEAD} no longer agree. "
                f"{AGAIN}"
            )
        return cls(
            root=root,
            name=head.name,
            classes=head.classes,
            size=head.size,
            intensity=head.intensity,
            groups=head.groups,
            synthetic=head.synthetic,
            cases=cases,
            left_out=head.left_out,
            fingerprint=head.fingerprint,
            notes=head.notes,
            channels=head.channels,
            pad=head.pad,
        )

    def verify(self) -> None:
        """Hash every file of the cohort and compare; seconds for a large one.

        Raises:
            DataError: a file is not the one that was written.
        """
        for name in read_head(self.root).files:
            self._verify(name)

    def _verify(self, name: str) -> None:
        facts = read_head(self.root).files.get(name)
        if facts is None:
            raise DataError(f"{self.root / name} does not belong to the cohort. {AGAIN}")
        if sha256_of(self.root / name) != facts.sha256:
            raise DataError(
                f"{self.root / name} was changed after it was written (sha256 differs). {AGAIN}"
            )


def read_head(root: Path) -> CohortHead:
    """What cohort.json says.

    Raises:
        DataError: it is damaged, or of another release.
    """
    version = read_json(root / HEAD, _Version, again=AGAIN).schema_version
    if version not in (SCHEMA_VERSION, SHAPES_VERSION):
        raise DataError(
            f"{root} is a cohort of schema version {str(version)[:20]}, expected {SCHEMA_VERSION} "
            f"or {SHAPES_VERSION}. {AGAIN}"
        )
    head: CohortHead = read_json(root / HEAD, CohortHead, again=AGAIN)
    if min(sides(head.size)) < 1:
        raise DataError(f"{root / HEAD} is damaged: a size of {head.size}. {AGAIN}")
    return head


def version_for(size: Size, channels: int, pad: bool) -> int:
    """Schema version of a cohort with these slices: the first where earlier releases can read it.

    >>> version_for(224, 1, True), version_for(224, 3, True)
    (1, 2)
    """
    told = not isinstance(size, int) or (channels, pad) != tuple(NEW_FACTS.values())
    return SHAPES_VERSION if told else SCHEMA_VERSION


def is_cohort(path: str | Path) -> bool:
    """Whether a folder is one that `prepare` made."""
    return (Path(path) / HEAD).is_file()


def fingerprint_of(head: dict[str, Any], cases: Iterable[Case]) -> str:
    """Fingerprint of a cohort: its head's facts, the hashes of its arrays, and its cases."""
    facts = {
        key: head[key]
        for key in ("schema_version", "classes", "size", "intensity", "groups", "synthetic")
    }
    if head["schema_version"] != SCHEMA_VERSION:
        facts |= {key: head.get(key, usual) for key, usual in NEW_FACTS.items()}
    pixels = {name: file["sha256"] for name, file in head["files"].items() if name != CASES}
    return fingerprint([facts, pixels, [vars(case) for case in cases]])
