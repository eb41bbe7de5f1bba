"""A checkpoint for other programs, and a model card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robustmri.core.errors import CheckpointError, DataError, SettingsError, did_you_mean
from robustmri.core.sizes import size_words

if TYPE_CHECKING:
    from robustmri.models.checkpoint import Checkpoint

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2"}
LIBRARIES = {"onnx": "onnx", "pt2": "pytorch", "huggingface": "transformers", "monai": "monai"}
"""What opens a layout, as Hugging Face names it."""
USAGE = {
    "huggingface": "from transformers import AutoModelForImageClassification\n\n"
    'model = AutoModelForImageClassification.from_pretrained("THIS FOLDER").eval()'
}


def export_model(
    checkpoint: str | Path,
    out: str | Path,
    *,
    to: str = "onnx",
    result: str | Path | None = None,
) -> Path:
    """Write a checkpoint's classifier as ONNX, as torch.export's program, in Hugging Face's layout
    or as a MONAI bundle.

    A folder gets a model card in Hugging Face's layout, README.md (of a bundle docs/README.md); a
    file only where there is a result, as NAME.md beside it. The card names no patient and no case.

    Args:
        checkpoint: checkpoint folder, or the run folder that holds it.
        out: file; for Hugging Face and MONAI a folder.
        to: a key of `robustmri.models.exporters.EXPORTERS`.
        result: result folder of an evaluation of this checkpoint, whose figures the card tells.

    Raises:
        SettingsError: no such layout, a name without its suffix, or a package is missing.
        ResultError: the result is damaged or contradicts itself.
        CheckpointError: no checkpoint, or it cannot be written so.
        DataError: `out` is there already.
    """
    from robustmri.models.checkpoint import load_checkpoint
    from robustmri.models.exporters import EXPORTERS

    if to not in EXPORTERS:
        raise SettingsError(f"--to cannot be {to!r}. {did_you_mean(to, EXPORTERS)}")
    suffix = SUFFIXES.get(to, "")
    if suffix and Path(out).suffix.lower() != suffix:
        raise SettingsError(
            f"--out {out} must end in {suffix}, by which others know the file: {out}{suffix}."
        )
    beside = Path(out).with_suffix(".md") if suffix and result is not None else Path(out)
    for path in (Path(out), beside):
        if path.exists():
            raise DataError(f"{path} exists already. Choose another --out, or remove it first.")
    classifier, stored = load_checkpoint(checkpoint)
    if result is not None:
        card = _measured(stored, result, to)
    else:
        card = "" if suffix else _bare(stored, to)
    EXPORTERS[to](classifier, Path(out), card)
    return Path(out)


def _measured(stored: Checkpoint, result: str | Path, to: str) -> str:
    from robustmri.evaluation.recount import refuse_contradictions
    from robustmri.report.card import card_of
    from robustmri.results.lineage import is_of

    found = refuse_contradictions(result).result.model
    if not is_of(found, stored.weights_sha256, stored.identity):
        one, other = found.checkpoint_sha256[:12], stored.weights_sha256[:12]
        what = f"other weights (sha256 {one}) than these ({other})"
        if one == other:
            what = "these weights with another normalisation, or other classes"
        raise CheckpointError(
            f"{result} is a result of {what}. Evaluate this checkpoint, and give that result."
        )
    return card_of(result, library=LIBRARIES[to], usage=USAGE.get(to, ""), facts=_facts(stored))


def _bare(stored: Checkpoint, to: str) -> str:
    from robustmri.report.card import bare_card
    from robustmri.training.objectives import OBJECTIVES
    from robustmri.verbs.evaluate import describe_model

    method = OBJECTIVES.get(str(stored.training.get("objective", "")))
    model = describe_model(stored, method.title if method else "")
    return bare_card(model, _facts(stored), library=LIBRARIES[to], usage=USAGE.get(to, ""))


def _facts(stored: Checkpoint) -> dict[str, str]:
    """What must be known to use it."""
    spec = stored.spec
    planes = "colour" if spec.channels == 3 else "grey"
    return {
        "Classes": ", ".join(spec.classes),
        "Images": f"{size_words(spec.size)}, {planes}, values from 0 to 1; the network takes them "
        f"less {spec.mean}, divided by {spec.std}",
    }
