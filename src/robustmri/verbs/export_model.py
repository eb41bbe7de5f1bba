"""A checkpoint for other programs."""

from __future__ import annotations

from pathlib import Path

from robustmri.core.errors import DataError, SettingsError, did_you_mean

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2"}


def export_model(checkpoint: str | Path, out: str | Path, *, to: str = "onnx") -> Path:
    """Write a checkpoint's classifier as ONNX, as torch.export's program, in Hugging Face's layout
    or as a MONAI bundle.

    Args:
        checkpoint: checkpoint folder, or the run folder that holds it.
        out: file; for Hugging Face and MONAI a folder.
        to: a key of `robustmri.models.exporters.EXPORTERS`.

    Raises:
        SettingsError: no such layout, a name without its suffix, or a package is missing.
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
    if Path(out).exists():
        raise DataError(f"{out} exists already. Choose another --out, or remove it first.")
    classifier, _ = load_checkpoint(checkpoint)
    EXPORTERS[to](classifier, Path(out))
    return Path(out)
