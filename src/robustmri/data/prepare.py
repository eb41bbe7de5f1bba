"""From scans to a cohort folder, whole or not at all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from robustmri.core.errors import DataError, SettingsError
from robustmri.core.files import atomic_folder, sha256_of, write_json
from robustmri.core.provenance import describe_run
from robustmri.data.cases import Case, write_cases
from robustmri.data.cohort import CASES, HEAD, SCHEMA_VERSION, SPLIT, Cohort, fingerprint_of
from robustmri.data.intensity import RULES, check_rule
from robustmri.data.leakage import infer_groups
from robustmri.data.limits import how_to_raise, max_pixels
from robustmri.data.readers.source import LeftOut, Source
from robustmri.data.split import Split
from robustmri.data.storage import IMAGES, Progress, Stored, store_slices

# The order of the labels 1, 2, 3 in the figshare release.
TUMOUR_ORDER = ("meningioma", "glioma", "pituitary")


def write_cohort(
    source: Source,
    out: str | Path,
    *,
    size: int = 224,
    intensity: str = "minmax",
    split: Callable[[Cohort], Split] | None = None,
    progress: Progress | None = None,
    notes: Sequence[str] = (),
) -> Cohort:
    """Write a cohort folder; it appears under its name only when it is whole.

    Args:
        source: what `open_source` found.
        out: folder to make; it must not exist yet, or be empty.
        size: height and width of the stored slices in pixels.
        intensity: rule that maps grey values to [0, 1], a key of `robustmri.data.intensity.RULES`.
        split: makes the split to store beside the cohort as split.json; where it fails, no cohort
            is left either.
        progress: called with (files done, files in all).
        notes: sentences to keep with those of the source.

    Raises:
        DataError: nothing could be read, there is one class only, or `out` is taken.
    """
    check_rule(intensity)
    if size < 8:
        raise SettingsError(f"size must be at least 8 pixels, got {size}.")
    if size**2 > max_pixels():
        raise SettingsError(
            f"size must be at most {math.isqrt(max_pixels())} pixels, got {size}; "
            f"{how_to_raise(max_pixels(), 'pixels a slice')}."
        )
    with atomic_folder(out) as folder:
        stored = store_slices(source, folder, size, intensity, progress)
        cases = stored.cases
        if not cases:
            raise DataError(_nothing_readable(source, stored.left_out))
        labels = sorted({case.label for case in cases})
        if len(labels) < 2:
            raise DataError(
                f"{source.name} has one class only ({labels[0]}); a classifier needs two or more."
            )
        if not source.patient_ids:
            cases = _infer_patients(folder, cases)
        known = [label for label in TUMOUR_ORDER if label in labels]
        classes = known + [label for label in labels if label not in known]
        cases = [replace(case, class_index=classes.index(case.label)) for case in cases]
        write_cases(folder / CASES, cases)
        said = [*getattr(source, "notes", ()), *notes, *stored.notes]
        stored = replace(stored, cases=cases, notes=said)
        _write_head(folder, source, classes, size, intensity, stored)
        if split:
            split(Cohort.open(folder)).save(folder / SPLIT)
    return Cohort.open(out)


def _nothing_readable(source: Source, left_out: list[LeftOut]) -> str:
    first = (
        f" First of {len(left_out)}: {left_out[0].source}: {left_out[0].reason}."
        if left_out
        else ""
    )
    return f"{source.name}: not one slice could be read.{first}"


def _infer_patients(folder: Path, cases: list[Case]) -> list[Case]:
    """Name each component of near-duplicates and slices of one file as if it were a patient."""
    last: dict[str, int] = {}
    one_file = []
    for case in cases:
        if case.source in last:
            one_file.append((last[case.source], case.index))
        last[case.source] = case.index
    groups = infer_groups(np.load(folder / IMAGES, mmap_mode="r"), one_file)
    names = [f"inferred-{group + 1:04d}" for group in groups]
    return [
        replace(case, patient_id=name, group=name) for case, name in zip(cases, names, strict=True)
    ]


def _write_head(
    folder: Path,
    source: Source,
    classes: list[str],
    size: int,
    intensity: str,
    stored: Stored,
) -> None:
    cases = stored.cases
    slices = Counter(case.label for case in cases)
    notes = []
    if source.synthetic:
        notes.append("Synthetic: these slices were computed; they show no person.")
    if not source.patient_ids:
        notes.append(
            "The source has no patient ids; groups were inferred from near-duplicate slices, so "
            "slices of one person may be in several groups."
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
        "notes": notes + stored.notes,
        "n_cases": len(cases),
        "n_patient_ids": len({case.patient_id for case in cases}),
        "n_groups": len({case.group for case in cases}),
        "slices": {label: slices[label] for label in classes},
        "left_out": [asdict(left) for left in stored.left_out],
        "files": {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for path in sorted(folder.iterdir())
        },
        "provenance": describe_run(),
    }
    head["fingerprint"] = fingerprint_of(head, cases)
    write_json(folder / HEAD, head)
