"""One slice: how little it takes to change the answer, and to what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError
from robustmri.core.files import atomic_folder, write_json
from robustmri.core.provenance import describe_run
from robustmri.data.intensity import AUTO
from robustmri.data.storage import MADE_COLOUR, MADE_GREY

if TYPE_CHECKING:
    from robustmri.results.one_case import CaseFacts

HEAD, DERIVED = "case.json", "attacked.dcm"


def case(
    image: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    *,
    norm: str = "linf",
    intensity: str = AUTO,
    pad: bool = True,
    window: str = "",
    mask: str | Path | None = None,
    result: str | Path | None = None,
    seed: int = 0,
) -> CaseFacts:
    """Look at one slice; writes case.json, picture.png, attacked.png and, for a DICOM file,
    attacked.dcm.

    Args:
        image: an image file, or a DICOM file (its first frame).
        checkpoint: checkpoint folder, or the run folder that holds it.
        out: folder to make; one that an earlier call made is replaced.
        norm: "linf", "l2" or "l1".
        intensity: rule that maps values to [0, 1], as the classifier's cohort was prepared; "auto":
            minmax for grey, full for colour.
        pad: whether a slice of another aspect ratio is padded, likewise; else it is stretched.
        window: "file" clips a DICOM file's grey values to its own window, likewise.
        mask: image of the same size in which the lesion is not black.
        result: result folder of the same classifier, to say how many of its slices are more
            fragile.
        seed: of the attacks.

    Raises:
        DataError: the scan or the mask cannot be read.
        SettingsError: a window for what is no DICOM file.
        CheckpointError: the checkpoint cannot.
    """
    from robustmri.data.derived import write_derived
    from robustmri.data.intensity import is_colour, resize, rule_for, scale, to_grey
    from robustmri.data.one_scan import read_mask, read_scan
    from robustmri.evaluation.case import examine_case
    from robustmri.models.checkpoint import load_checkpoint
    from robustmri.models.optimised import full_float32
    from robustmri.results.cases import load_cases
    from robustmri.threat.norms import find_norm

    find_norm(norm)
    scan = read_scan(image, window=window)
    classifier, stored = load_checkpoint(checkpoint)
    size, colour = classifier.spec.size, is_colour(scan.image)
    notes = list(scan.notes)
    shown = scan.image
    if colour and classifier.spec.channels == 1:
        shown, colour = to_grey(scan.image), False
        notes.append(MADE_GREY)
    elif not colour and classifier.spec.channels == 3:
        notes.append(MADE_COLOUR)
    rule = rule_for(3 if colour else 1, intensity)
    try:
        native = scale(shown, rule)
    except DataError as error:
        raise DataError(f"{image}: {error}.") from error
    lesion = None
    if mask is not None:
        lesion = resize(read_mask(mask, scan.image.shape), size, pad=pad) >= 0.5
    outcomes = None if result is None else load_cases(result)
    small = resize(native, size, pad=pad)
    with full_float32():
        facts, attacked = examine_case(
            classifier, small, norm=norm, mask=lesion, outcomes=outcomes, seed=seed
        )
    with atomic_folder(out, replaces=HEAD) as folder:
        written = _write_pictures(folder, small, attacked, facts)
        if scan.dicom:
            try:
                write_derived(folder / DERIVED, scan, attacked - small, native, pad=pad)
                written.append(DERIVED)
            except DataError as error:  # The answer holds without it.
                notes.append(f"no {DERIVED}: {error}")
        told: dict[str, Any] = {
            "case": facts,
            "source": {
                "name": Path(image).name,
                "sha256": scan.sha256,
                "height": scan.image.shape[0],
                "width": scan.image.shape[1],
                "notes": notes,
            },
            "classifier": {
                "backbone": stored.spec.backbone,
                "size": size,
                "weights_sha256": stored.weights_sha256,
            },
            "intensity": rule,
            "pad": pad,
            "window": window,
            "files": written,
            "provenance": describe_run(seed),
        }
        write_json(folder / HEAD, msgspec.to_builtins(told))
    return facts


def _write_pictures(
    folder: Path,
    small: npt.NDArray[np.float32],
    attacked: npt.NDArray[np.float32],
    facts: CaseFacts,
) -> list[str]:
    from robustmri.data.derived import write_png
    from robustmri.report.case_picture import draw_case

    write_png(folder / "attacked.png", attacked)
    draw_case(small, attacked, before=facts.answer, after=facts.nearest).save(
        folder / "picture.png"
    )
    return ["picture.png", "attacked.png"]
