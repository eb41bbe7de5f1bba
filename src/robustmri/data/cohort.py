"""A cohort: one folder with one image array, one table of cases and one header with the hashes of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError, SettingsError
from robustmri.core.files import atomic_folder, fingerprint, read_json, sha256_of, write_json
from robustmri.core.provenance import describe_run
from robustmri.data.cases import Case, read_cases, write_cases
from robustmri.data.intensity import RULES, check_rule
from robustmri.data.readers.source import LeftOut, Source
from robustmri.data.split import Split
from robustmri.data.storage import IMAGES, MASKS, Progress, store_slices

__all__ = ["Case", "Cohort", "write_cohort"]

SCHEMA_VERSION = 1
HEAD, CASES, SPLIT = "cohort.json", "cases.parquet", "split.json"
TUMOUR_ORDER = ("meningioma", "glioma", "pituitary")  # The order of the labels 1, 2, 3 in the figshare release.
AGAIN = "Make the cohort again with robustmri prepare."


@dataclass(frozen=True)
class Cohort:
    """Slices of one size with their patients and labels; made by `write_cohort`, opened by `Cohort.open`.

    Attributes:
        classes: labels in the order of `class_index`.
        size: height and width of the images in pixels.
        intensity: rule that mapped grey values to [0, 1], a key of `robustmri.data.intensity.RULES`.
        groups: "patient" where ids came with the data, "inferred" where near-duplicates stand in for them.
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

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def n_patients(self) -> int:
        """Number of groups: patients, ids that differ only by a trailing letter counted once."""
        return len({case.group for case in self.cases})

    @cached_property
    def images(self) -> npt.NDArray[np.uint16]:
        """All slices, shape (n, size, size), memory-mapped; 0 to 65535 stands for [0, 1]."""
        images: npt.NDArray[np.uint16] = np.load(self.root / IMAGES, mmap_mode="r")
        return images

    @cached_property
    def _packed_masks(self) -> npt.NDArray[np.uint8] | None:
        path = self.root / MASKS
        return np.load(path, mmap_mode="r") if path.exists() else None

    def masks(self, indexes: Iterable[int]) -> npt.NDArray[np.bool_] | None:
        """Lesions of some cases, bool, shape (k, size, size); empty where a case has none, None if no case has one."""
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
        if not (root / HEAD).is_file():
            raise DataError(
                f"{root} is not a cohort: it has no {HEAD}. Make one: robustmri prepare SOURCE --out {root}"
            )
        head = read_json(root / HEAD)
        if head.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"{root} is a cohort of schema version {head.get('schema_version')}, expected {SCHEMA_VERSION}. {AGAIN}"
            )
        for name, facts in head["files"].items():
            path = root / name
            if not path.is_file():
                raise DataError(f"{root} is incomplete: {name} is missing. {AGAIN}")
            if path.stat().st_size != facts["bytes"]:
                raise DataError(f"{path} has {path.stat().st_size} bytes, expected {facts['bytes']}. {AGAIN}")
        cases = read_cases(root / CASES)
        if fingerprint_of(head, cases) != head["fingerprint"]:
            raise DataError(f"{root} was changed after it was written: {CASES} and {HEAD} no longer agree. {AGAIN}")
        return cls(
            root=root,
            name=head["name"],
            classes=tuple(head["classes"]),
            size=head["size"],
            intensity=head["intensity"],
            groups=head["groups"],
            synthetic=head["synthetic"],
            cases=cases,
            left_out=tuple(LeftOut(**left) for left in head["left_out"]),
            fingerprint=head["fingerprint"],
        )

    def verify(self) -> None:
        """Hash every file of the cohort and compare; seconds for a large one.

        Raises:
            DataError: a file is not the one that was written.
        """
        for name, facts in read_json(self.root / HEAD)["files"].items():
            if sha256_of(self.root / name) != facts["sha256"]:
                raise DataError(f"{self.root / name} was changed after it was written (sha256 differs). {AGAIN}")


def write_cohort(
    source: Source,
    out: str | Path,
    *,
    size: int = 224,
    intensity: str = "minmax",
    split: Callable[[Cohort], Split] | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Write a cohort folder; it appears under its name only when it is whole.

    Args:
        source: what `open_source` found.
        out: folder to make; it must not exist yet, or be empty.
        size: height and width of the stored slices in pixels.
        intensity: rule that maps grey values to [0, 1], a key of `robustmri.data.intensity.RULES`.
        split: makes the split to store beside the cohort as split.json; where it fails, no cohort is left either.
        progress: called with (files done, files in all).

    Raises:
        DataError: nothing could be read, there is one class only, or `out` is taken.
    """
    check_rule(intensity)
    if size < 8:
        raise SettingsError(f"size must be at least 8 pixels, got {size}.")
    with atomic_folder(out) as folder:
        cases, left_out = store_slices(source, folder, size, intensity, progress)
        if not cases:
            raise DataError(_nothing_readable(source, left_out))
        labels = sorted({case.label for case in cases})
        if len(labels) < 2:
            raise DataError(f"{source.name} has one class only ({labels[0]}); a classifier needs two or more.")
        if not source.patient_ids:
            cases = _infer_patients(folder, cases)
        known = [label for label in TUMOUR_ORDER if label in labels]
        classes = known + [label for label in labels if label not in known]
        cases = [replace(case, class_index=classes.index(case.label)) for case in cases]
        write_cases(folder / CASES, cases)
        _write_head(folder, source, classes, size, intensity, cases, left_out)
        if split:
            split(Cohort.open(folder)).save(folder / SPLIT)
    return Cohort.open(out)


def _nothing_readable(source: Source, left_out: list[LeftOut]) -> str:
    first = f" First of {len(left_out)}: {left_out[0].source}: {left_out[0].reason}." if left_out else ""
    return f"{source.name}: not one slice could be read.{first}"


def _infer_patients(folder: Path, cases: list[Case]) -> list[Case]:
    """Name each component of near-duplicates as if it were a patient."""
    from robustmri.data.leakage import infer_groups

    names = [f"inferred-{group + 1:04d}" for group in infer_groups(np.load(folder / IMAGES, mmap_mode="r"))]
    return [replace(case, patient_id=name, group=name) for case, name in zip(cases, names, strict=True)]


def fingerprint_of(head: dict[str, Any], cases: Iterable[Case]) -> str:
    """Fingerprint of a cohort: its head's facts, the hashes of its arrays, and its cases."""
    facts = {key: head[key] for key in ("schema_version", "classes", "size", "intensity", "groups", "synthetic")}
    pixels = {name: file["sha256"] for name, file in head["files"].items() if name != CASES}
    return fingerprint([facts, pixels, [asdict(case) for case in cases]])


def _write_head(
    folder: Path,
    source: Source,
    classes: list[str],
    size: int,
    intensity: str,
    cases: list[Case],
    left_out: list[LeftOut],
) -> None:
    slices = Counter(case.label for case in cases)
    notes = []
    if source.synthetic:
        notes.append("Synthetic: these slices were computed; they show no person.")
    if not source.patient_ids:
        notes.append(
            "The source has no patient ids; groups were inferred from near-duplicate slices, so slices of one person "
            "may be in several groups."
        )
    head: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": source.name,
        "fingerprint": "",
        "classes": classes,
        "size": size,
        "intensity": intensity,
        "intensity_rule": RULES[intensity],
        "groups": "patient" if source.patient_ids else "inferred",
        "synthetic": source.synthetic,
        "notes": notes,
        "n_cases": len(cases),
        "n_patient_ids": len({case.patient_id for case in cases}),
        "n_groups": len({case.group for case in cases}),
        "slices": {label: slices[label] for label in classes},
        "left_out": [asdict(left) for left in left_out],
        "files": {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in sorted(folder.iterdir())
        },
        "provenance": describe_run(),
    }
    head["fingerprint"] = fingerprint_of(head, cases)
    write_json(folder / HEAD, head)
