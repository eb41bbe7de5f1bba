"""From scans to a cohort folder, whole or not at all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from robustmri.core.errors import DataError, SettingsError
from robustmri.core.files import atomic_folder, sha256_of, write_json
from robustmri.core.provenance import describe_run
from robustmri.core.sizes import LARGEST, Size, parse_size, sides, size_option
from robustmri.data.cases import Case, write_cases
from robustmri.data.cohort import CASES, HEAD, SPLIT, Cohort, fingerprint_of, version_for
from robustmri.data.intensity import AUTO, RULES, check_rule, is_colour, rule_for
from robustmri.data.leakage import infer_groups
from robustmri.data.limits import how_to_raise, max_pixels
from robustmri.data.readers.source import LeftOut, RawSlice, Source
from robustmri.data.split import Split
from robustmri.data.storage import IMAGES, Form, Progress, Stored, store_slices

# The order of the labels 1, 2, 3 in the figshare release.
TUMOUR_ORDER = ("meningioma", "glioma", "pituitary")
LOOKED = 16
"""Slices that are looked at to see whether a source is in colour."""
COLOURED = 0.1
"""Share of a slice's pixels that have a colour where it is a picture in colour; a mark or a scale
in a grey one has fewer."""
APART = 8
"""Of 255 levels: by how much the channels of a pixel with a colour differ."""


def write_cohort(
    source: Source,
    out: str | Path,
    *,
    size: Size | str = 224,
    channels: int | None = None,
    intensity: str = AUTO,
    pad: bool = True,
    split: Callable[[Cohort], Split] | None = None,
    progress: Progress | None = None,
    notes: Sequence[str] = (),
) -> Cohort:
    """Write a cohort folder; it appears under its name only when it is whole.

    Args:
        source: what `open_source` found.
        out: folder to make; it must not exist yet, or be empty.
        size: height and width of the stored slices in pixels, see `parse_size`.
        channels: 1 (grey) or 3 (colour); None: 3 where most of the first slices are in colour,
            which is then told.
        intensity: rule that maps values to [0, 1], a key of `robustmri.data.intensity.RULES`;
            "auto": minmax for grey, full for colour. The slices of a cohort were mapped before and
            keep its rule, its channels if none are said, and whether they were padded.
        pad: whether slices of another aspect ratio are padded with black; else they are stretched.
        split: makes the split to store beside the cohort as split.json; where it fails, no cohort
            is left either.
        progress: called with (files done, files in all).
        notes: sentences to keep with those of the source.

    Raises:
        DataError: nothing could be read, there is one class only, or `out` is taken.
        SettingsError: a size, a number of channels or a rule that there is not, or another rule or
            padding than the cohort has that is prepared again.
    """
    size = _check(size, channels, intensity)
    before: Form | None = getattr(source, "form", None)
    if before:
        _refuse_second(before, intensity, pad)
        channels = channels or before.channels
    with atomic_folder(out) as folder:
        items, found, guess = _guess_channels(source.read(), channels)
        if before:
            form = replace(before, size=size, channels=found)
        else:
            form = Form(size, found, rule_for(found, intensity), pad)
        stored = store_slices(source, items, folder, form, progress)
        cases = stored.cases
        if not cases:
            raise DataError(_nothing_readable(source, stored.left_out))
        labels = sorted({case.label for case in cases})
        if len(labels) < 2:
            raise DataError(
                f"{source.name} has one class only ({labels[0]}); a classifier needs two or more."
                f"{_first_of(stored.left_out)}"
            )
        if not source.patient_ids:
            cases = _infer_patients(folder, cases)
        known = [label for label in TUMOUR_ORDER if label in labels]
        classes = known + [label for label in labels if label not in known]
        cases = [replace(case, class_index=classes.index(case.label)) for case in cases]
        write_cases(folder / CASES, cases)
        said = [*getattr(source, "notes", ()), *notes, *guess, *stored.notes]
        stored = replace(stored, cases=cases, notes=said)
        _write_head(folder, source, classes, form, stored)
        if split:
            split(Cohort.open(folder)).save(folder / SPLIT)
    return Cohort.open(out)


def _check(size: Size | str, channels: int | None, intensity: str) -> Size:
    """The size, if all three can be.

    Raises:
        SettingsError: one cannot.
    """
    longest = math.isqrt(max_pixels())
    size = parse_size(size, at_most=max(LARGEST, longest))
    if max(sides(size)) > longest:
        raise SettingsError(
            f"size must have sides of at most {longest} pixels, got {size_option(size)}; "
            f"{how_to_raise(max_pixels(), 'pixels a slice')}."
        )
    if channels not in (None, 1, 3):
        raise SettingsError(f"channels must be 1 (grey) or 3 (colour), got {channels}.")
    if intensity != AUTO:
        check_rule(intensity)
        rule_for(channels or 1, intensity)
    return size


def _refuse_second(before: Form, intensity: str, pad: bool) -> None:
    """Refuse another rule, or another padding, for slices that went through one.

    Raises:
        SettingsError: it is asked for.
    """
    if intensity not in (AUTO, before.intensity):
        raise SettingsError(
            f"this cohort's grey values were mapped by {before.intensity!r}, which cannot be "
            f"undone; got intensity {intensity!r}. Leave it out, or prepare the scans themselves."
        )
    if before.pad and not pad:
        raise SettingsError(
            "this cohort's slices were padded with black, which cannot be undone; got --stretch. "
            "Leave it out, or prepare the scans themselves."
        )


Items = Iterator[RawSlice | LeftOut]


def _guess_channels(items: Items, said: int | None) -> tuple[Items, int, list[str]]:
    """The items, the channels of their cohort, and the sentence that says a guess."""
    if said is not None:
        return items, said, []
    first: list[RawSlice | LeftOut] = []
    looked: list[bool] = []
    for item in items:
        first.append(item)
        if isinstance(item, RawSlice):
            looked.append(_in_colour(item.image))
        if len(looked) == LOOKED:
            break
    coloured = sum(looked)
    items = chain(first, items)
    if 2 * coloured <= len(looked):
        return items, 1, []
    return (
        items,
        3,
        [
            f"channels: 3, a guess: {coloured} of the first {len(looked)} slices are in colour; "
            "--channels 1 makes all grey"
        ],
    )


def _in_colour(image: np.ndarray[Any, Any]) -> bool:
    """Whether so many pixels have a colour that the slice is a picture in colour.

    >>> _in_colour(np.full((4, 4, 3), [200, 40, 40])), _in_colour(np.full((4, 4, 3), 200))
    (True, False)
    """
    if not is_colour(image):
        return False
    few = image[:: 1 + image.shape[0] // 256, :: 1 + image.shape[1] // 256].astype(np.float64)
    white = max(float(few.max()), 1e-9)
    return bool((np.ptp(few, axis=2) > APART / 255 * white).mean() >= COLOURED)


def _nothing_readable(source: Source, left_out: list[LeftOut]) -> str:
    return f"{source.name}: not one slice could be read.{_first_of(left_out)}"


def _first_of(left_out: list[LeftOut]) -> str:
    """How many were left out, and the first of them; "" where none was."""
    if not left_out:
        return ""
    return f" Left out: {len(left_out)}, first {left_out[0].source}: {left_out[0].reason}."


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
    form: Form,
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
        "schema_version": version_for(form.size, form.channels, form.pad),
        "name": source.name,
        "fingerprint": "",
        "classes": classes,
        "size": form.size,
        "channels": form.channels,
        "pad": form.pad,
        "intensity": form.intensity,
        "intensity_rule": RULES[form.intensity],
        "groups": "patient" if source.patient_ids else "inferred",
        "synthetic": source.synthetic,
        "notes": list(dict.fromkeys(notes + stored.notes)),  # A cohort brings its own.
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
