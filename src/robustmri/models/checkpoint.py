"""Checkpoints: a folder of `weights.safetensors` and `classifier.json`; nothing in it is ever
unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from robustmri.core.errors import CheckpointError
from robustmri.core.files import atomic_folder, read_json, sha256_of
from robustmri.models.backbones import build_network
from robustmri.models.classifier import Classifier, ClassifierSpec

FORMAT_VERSION = 1
CUSTOM = "custom"
HEAD_FILE = "classifier.json"
WEIGHTS_FILE = "weights.safetensors"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says about itself.

    `training` holds the settings that made it (empty where it was not trained here), `provenance`
    what `provenance.describe_run` and the cohort and split fingerprints tell.
    """

    spec: ClassifierSpec
    weights_sha256: str
    training: dict[str, Any] = {}
    provenance: dict[str, Any] = {}
    format_version: int = FORMAT_VERSION


class _Version(msgspec.Struct, frozen=True):
    format_version: Any = None


def save_checkpoint(
    classifier: Classifier,
    folder: Path | str,
    *,
    training: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Write the classifier to `folder`, whole or not at all; a checkpoint that is there is
    replaced.

    A network of one's own is saved like any other, as long as its backbone has a name that says so:

        spec = ClassifierSpec(backbone="custom", classes=("ill", "well"), size=128)
        save_checkpoint(Classifier(my_network, spec), "checkpoint")
        classifier, checkpoint = load_checkpoint("checkpoint", network=MyNetwork())

    Raises:
        CheckpointError: weights that are not finite.
    """
    from safetensors.torch import save

    # Clones: safetensors takes neither channels-last memory nor two names for one tensor.
    state = {
        name: value.detach().to("cpu", copy=True).clone(memory_format=torch.contiguous_format)
        for name, value in classifier.network.state_dict().items()
    }
    broken = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise CheckpointError(
            f"{len(broken)} of {len(state)} weights hold NaN or infinite numbers, the first is "
            f"{broken[0]!r}; they are not kept. Train again with a smaller learning rate."
        )
    with atomic_folder(folder, replace=True) as partial:
        # Bytes first: on a full disk safetensors' own writer raises an error that does not say so.
        (partial / WEIGHTS_FILE).write_bytes(save(state))
        checkpoint = Checkpoint(
            spec=classifier.spec,
            weights_sha256=sha256_of(partial / WEIGHTS_FILE),
            training=dict(training or {}),
            provenance=dict(provenance or {}),
        )
        head = msgspec.json.format(msgspec.json.encode(checkpoint), indent=2)
        (partial / HEAD_FILE).write_bytes(head + b"\n")
    return checkpoint


def load_checkpoint(
    path: Path | str, device: torch.device | str = "cpu", *, network: nn.Module | None = None
) -> tuple[Classifier, Checkpoint]:
    """Read a classifier back, in evaluation mode.

    Args:
        path: the checkpoint's folder, or the run folder that holds it as `checkpoint/`.
        device: where to put it.
        network: the architecture to load into; needed where the backbone is "custom", any weights
            will do.

    Raises:
        CheckpointError: nothing there, damaged, of another format version, or weights of another
            network.
    """
    folder = find_checkpoint(Path(path))
    checkpoint = read_checkpoint(folder)
    spec = checkpoint.spec
    if network is None:
        if spec.backbone == CUSTOM:
            raise CheckpointError(
                f"{folder} holds a network of one's own, which only its code can build. Load it "
                "from Python: load_checkpoint(path, network=MyNetwork())."
            )
        with torch.random.fork_rng(devices=[]):
            network = build_network(spec.backbone, len(spec.classes), spec.size)
    _load_into(network, folder / WEIGHTS_FILE, checkpoint)
    return Classifier(network, spec).to(device).eval(), checkpoint


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read what a checkpoint says about itself, without its weights.

    Raises:
        CheckpointError: nothing there, damaged, or of another format version.
    """
    head = find_checkpoint(Path(path)) / HEAD_FILE
    again = "Restore it from a copy, or train again."
    version = read_json(head, _Version, error=CheckpointError, again=again).format_version
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{head} has format version {str(version)[:20]}, this release reads {FORMAT_VERSION}. "
            "Load it with the release that wrote it, or train again."
        )
    checkpoint: Checkpoint = read_json(head, Checkpoint, error=CheckpointError, again=again)
    spec = checkpoint.spec
    if len(set(spec.classes)) < max(2, len(spec.classes)) or not spec.std > 0 or spec.size < 1:
        raise CheckpointError(
            f"{head} cannot be used: expected two classes or more, a std above 0 and a size of at "
            f"least 1, got {len(spec.classes)} classes, {spec.std:g} and {spec.size}. {again}"
        )
    return checkpoint


def check_fits(checkpoint: Checkpoint, classes: Sequence[str], size: int) -> None:
    """Refuse a cohort whose classes (also their order) or image size the checkpoint was not made
    for.

    Raises:
        CheckpointError: they disagree.
    """
    spec = checkpoint.spec
    if tuple(classes) != spec.classes:
        raise CheckpointError(
            f"The checkpoint tells apart {', '.join(spec.classes)}; the cohort has "
            f"{', '.join(classes)}. Take the cohort that it was trained on, or train on this one: "
            "robustmri train COHORT --out RUN."
        )
    if size != spec.size:
        raise CheckpointError(
            f"The checkpoint was made for images of {spec.size} px; the cohort has {size} px. "
            f"Prepare it again: robustmri prepare SOURCE --out COHORT --size {spec.size}."
        )


def find_checkpoint(path: Path) -> Path:
    """The folder of the checkpoint: the path itself, or what the run folder holds.

    Raises:
        CheckpointError: neither.
    """
    for folder in (path, path / "checkpoint"):
        if (folder / HEAD_FILE).is_file():
            return folder
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist. Give a run folder, or make one: robustmri train COHORT --out "
            "RUN."
        )
    if path.is_file():
        raise CheckpointError(
            f"{path} is a file, expected the folder of a run: weights alone do not say which "
            f"classes they tell apart. Go on from them with robustmri train COHORT --out RUN "
            f"--weights {path.name}; or from Python: save_checkpoint(Classifier(network, "
            "ClassifierSpec(...)), RUN), see docs/repair.md."
        )
    raise CheckpointError(
        f"{path} holds no checkpoint ({HEAD_FILE} is missing). If it is a run that was "
        "interrupted, start the same command again: it goes on where it stopped."
    )


def _load_into(network: nn.Module, file: Path, checkpoint: Checkpoint) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise CheckpointError(f"{file} is missing. Restore it from a copy, or train again.")
    found = sha256_of(file)
    if found != checkpoint.weights_sha256:
        raise CheckpointError(
            f"{file} is damaged or was exchanged: its sha256 begins with {found[:12]}, {HEAD_FILE} "
            f"says {checkpoint.weights_sha256[:12]}. Restore it from a copy, or train again."
        )
    try:
        network.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as error:
        fault = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{file} does not fit the network {checkpoint.spec.backbone!r} ({fault}). Build the "
            "network that was saved."
        ) from error
