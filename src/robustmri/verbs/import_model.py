"""Somebody else's classifier as a checkpoint, checked on a few slices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from robustmri.core.errors import SettingsError
from robustmri.core.files import sha256_of
from robustmri.core.provenance import describe_run
from robustmri.core.sizes import Size, parse_size, sides, size_option, size_words
from robustmri.data.cohort import Cohort

if TYPE_CHECKING:
    from robustmri.core.arrays import Images, Labels
    from robustmri.models.checkpoint import Checkpoint
    from robustmri.models.importers.found import Found

USUAL_SIZE = 224
PHANTOMS = 8


def import_model(
    model: str | Path,
    out: str | Path,
    *,
    arch: str = "",
    classes: Sequence[str] = (),
    size: Size | str = 0,
    channels: int = 0,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    ends_in: Literal["", "logits", "softmax", "sigmoid"] = "",
    weights: str | Path = "",
    check: str | Path | None = None,
    slices: int = 32,
    black_box: bool = False,
    trust: bool = False,
) -> Checkpoint:
    """Make a checkpoint of a network that was trained elsewhere; `evaluate` and `harden` take it
    like any other.

    Args:
        model: file of weights, ONNX, TorchScript or torch.export; a folder of Hugging Face or a
            MONAI bundle; or "package.module:function", which builds the network.
        out: checkpoint folder.
        arch: network of a file of weights: one of ours, timm:NAME, torchvision:NAME, hf:NAME.
        classes: their names, in the order of the network's outputs; empty: as the file says.
        size: height and width of its images in pixels, see `parse_size`; 0: as the file says, else
            the cohort's.
        channels: planes of its images, 1 (grey) or 3 (colour); 0: as the file says, or as many as
            it takes.
        mean: what its images are normalised with, in units of the [0, 1] range, one number or one
            for each of three planes; empty: as the file says, else ImageNet's.
        std: likewise.
        ends_in: what comes out of it; "" to look.
        weights: file of weights for what "package.module:function" builds.
        check: cohort whose slices it is tried on, and whose order of classes it gets.
        slices: how many of them, evenly spaced.
        black_box: whether an ONNX file is to be run by onnxruntime even if it could be a graph.
        trust: whether code and pickles of the author may be run, once, now.

    Returns:
        What the checkpoint says of itself: among it what was `spec.guessed`, and the `checks`.

    Raises:
        CheckpointError: the file is missing, damaged, or not to be made sense of.
        SettingsError: class names are missing or do not fit, or the author's code is not trusted.
        DataError: `check` is no cohort.
    """
    from robustmri.models.checkpoint import save_checkpoint
    from robustmri.models.classifier import Classifier
    from robustmri.models.importers.assemble import Wishes, assemble
    from robustmri.models.importers.checks import GRADIENT, check_model
    from robustmri.models.importers.routes import read_model

    if ends_in not in ("", "logits", "softmax", "sigmoid"):
        raise SettingsError(f"--ends-in cannot be {ends_in!r}: logits, softmax or sigmoid.")
    if isinstance(classes, str):
        raise SettingsError(f"expected a list of class names, got the text {classes!r}.")
    if channels not in (0, 1, 3):
        raise SettingsError(f"--channels must be 1 (grey) or 3 (colour), got {channels}.")
    size = 0 if size in (0, "0", "") else parse_size(size)
    cohort = None if check is None else Cohort.open(check)
    found = read_model(
        str(model),
        arch=arch,
        size=size,
        channels=channels,
        weights=str(weights),
        black_box=black_box,
        trust=trust,
    )
    _check_channels(found, channels, cohort)
    side, where = size or found.size, ""
    if side is None:
        side, where = (cohort.size, "the cohort's") if cohort else (USUAL_SIZE, "the usual one")
        found = replace(
            found,
            guessed=(
                *found.guessed,
                f"Its images have {size_words(side)}, {where}: the file does not say.",
            ),
        )
    if cohort and cohort.size != side:
        raise SettingsError(
            f"The network takes images of {size_words(side)}; the cohort has "
            f"{size_words(cohort.size)}. Prepare it again: robustmri prepare SOURCE --out COHORT "
            f"--size {size_option(side)}."
        )
    images, labels = _slices(cohort, slices) if cohort else (_phantoms(side), None)
    source, digest = Path(model).name, _hash_of(Path(model), Path(weights))
    classifier, notes = assemble(
        found,
        images,
        Wishes(tuple(classes), tuple(mean), tuple(std), ends_in or None),
        name=source,
        cohort_classes=cohort.classes if cohort else (),
        weights=f"{source} (sha256 {digest})" if digest else source,
    )
    checks = check_model(classifier, images, labels)
    if any(one.name == GRADIENT and one.status == "fail" for one in checks):
        spec = msgspec.structs.replace(classifier.spec, gradients=False)
        classifier = Classifier(classifier.network, spec).eval()
    return save_checkpoint(
        classifier,
        out,
        provenance=describe_run() | ({"checked_on": cohort.fingerprint} if cohort else {}),
        imported=" ".join([f"{source}: {found.how}.", *notes]),
        checks=checks,
        black_box=found.black_box,
    )


def _check_channels(found: Found, said: int, cohort: Cohort | None) -> None:
    """Refuse channels that the network does not take."""
    if said and said != found.channels:
        raise SettingsError(
            f"The network takes {found.channels} channel{'s' * (found.channels > 1)}; --channels "
            f"says {said}. Leave it out."
        )
    if cohort and cohort.channels > found.channels:
        raise SettingsError(
            "The network takes grey images of one channel; the cohort is in colour, with three. "
            "Prepare it again: robustmri prepare SOURCE --out COHORT --channels 1."
        )


def _slices(cohort: Cohort, count: int) -> tuple[Images, Labels]:
    """Slices of a cohort, evenly spaced, and their labels."""
    from robustmri.data.loaders import load_images, load_labels

    if count < 1:
        raise SettingsError(f"A check needs at least one slice, got {count}.")
    rows = np.unique(np.linspace(0, len(cohort) - 1, min(count, len(cohort))).round().astype(int))
    return load_images(cohort, rows.tolist()), load_labels(cohort, rows.tolist())


def _phantoms(size: Size) -> Images:
    """Synthetic slices, and noise, in [0, 1]."""
    import torch

    from robustmri.data.intensity import resize, scale
    from robustmri.data.phantom.source import PhantomSource
    from robustmri.data.readers.source import RawSlice

    source = PhantomSource(patients=PHANTOMS, slices_per_patient=1, size=max(*sides(size), 32))
    drawn = [item for item in source.read() if isinstance(item, RawSlice)]
    planes = [resize(scale(item.image, "minmax"), size) for item in drawn]
    noise = torch.rand(2, 1, *sides(size), generator=torch.Generator().manual_seed(0))
    heads = torch.from_numpy(np.stack(planes)).float().clamp(0, 1)[:, None]
    return torch.cat([heads, noise])


def _hash_of(model: Path, weights: Path) -> str:
    """The first digits of what was read; of a folder the hashes of its files; of code nothing."""
    for path in (model.expanduser(), weights.expanduser()):
        if path.is_file():
            return sha256_of(path)[:16]
        if path.is_dir() and str(path) != ".":
            digest = hashlib.sha256()
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    digest.update(
                        f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n".encode()
                    )
            return digest.hexdigest()[:16]
    return ""
