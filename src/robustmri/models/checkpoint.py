"""Checkpoints: a folder of `classifier.json` and the network: `weights.safetensors`, with a
`graph.json` where no library builds it by name, or `model.onnx` where it only answers. Nothing in
it is ever unpickled, and no code of its author runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import nn

from robustmri.core.errors import CheckpointError
from robustmri.core.files import atomic_folder, fingerprint, kind_of_folder, read_json, sha256_of
from robustmri.core.sizes import Size, size_option, size_words
from robustmri.models.backbones import build_network
from robustmri.models.black_box import BlackBox, read_black_box
from robustmri.models.classifier import Classifier, ClassifierSpec, fault_of
from robustmri.models.graph import Graph, GraphNetwork
from robustmri.models.hub import HUB_NAME, is_hub

FORMAT_VERSION = 1
IMPORT_VERSION = 2
"""Of what releases before could not read, or would misread: a network of another shape or end."""
CUSTOM = "custom"
HEAD_FILE = "classifier.json"
WEIGHTS_FILE = "weights.safetensors"
SEEN_FILE = "seen.json"
GRAPH_FILE = "graph.json"
BLACK_BOX_FILE = "model.onnx"


class ModelCheck(msgspec.Struct, frozen=True):
    """What was found of an import on some slices; `status` is pass, warn or fail."""

    name: str
    status: Literal["pass", "warn", "fail"]
    detail: str


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says about itself.

    Attributes:
        spec: see `ClassifierSpec`.
        weights_sha256: of weights.safetensors, or of the model.onnx of a black box.
        graph_sha256: of graph.json; empty where there is none.
        training: settings that made it; empty where it was not trained here.
        provenance: what `provenance.describe_run` and the cohort and split fingerprints tell.
        imported: file that it was made from and how, in words; empty where it was trained here.
        checks: what was found of it at its import.
    """

    spec: ClassifierSpec
    weights_sha256: str
    graph_sha256: str = ""
    training: dict[str, Any] = {}
    provenance: dict[str, Any] = {}
    imported: str = ""
    checks: tuple[ModelCheck, ...] = ()
    format_version: int = FORMAT_VERSION

    @property
    def identity(self) -> str:
        """Hash of all that decides its answers. Two imports of one file may normalise
        differently; what was trained here is known by its weights, and by whether it is asked about
        mirror images too.
        """
        if not self.imported and not self.spec.mirrored:
            return self.weights_sha256
        return fingerprint([self.weights_sha256, self.graph_sha256, msgspec.to_builtins(self.spec)])


class _Version(msgspec.Struct, frozen=True):
    format_version: Any = None


def save_checkpoint(
    classifier: Classifier,
    folder: Path | str,
    *,
    training: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    seen: bytes | None = None,
    imported: str = "",
    checks: Sequence[ModelCheck] = (),
    black_box: bytes = b"",
) -> Checkpoint:
    """Write the classifier to `folder`, whole or not at all; a checkpoint that is there is
    replaced, anything else is not.

    A network of one's own is saved like any other, as long as its backbone has a name that says so:

        spec = ClassifierSpec(backbone="custom", classes=("ill", "well"), size=128)
        save_checkpoint(Classifier(my_network, spec), "checkpoint")
        classifier, checkpoint = load_checkpoint("checkpoint", network=MyNetwork())

    Args:
        classifier: to be saved.
        folder: where.
        training: see `Checkpoint`, as the following.
        provenance: likewise.
        seen: what `data.seen` says of the slices that it was trained on, as it is stored.
        imported: likewise.
        checks: likewise.
        black_box: of a black box the ONNX model, with all its weights within.

    Raises:
        CheckpointError: weights that are not finite, or a black box that is no ONNX model.
        DataError: the folder holds something that is no checkpoint.
    """
    from safetensors.torch import save

    if not isinstance(classifier, Classifier):
        raise CheckpointError(
            f"expected a Classifier, got {type(classifier).__name__}. Give Classifier(network, "
            "ClassifierSpec(...)), which knows the classes and the normalisation."
        )
    spec, network = classifier.spec, classifier.network
    if spec.format == "black-box":
        files = {BLACK_BOX_FILE: black_box}
        if not black_box:
            raise CheckpointError(
                "A black box that is a function cannot be saved. Export it to ONNX and import that."
            )
    else:
        files = {WEIGHTS_FILE: save(_state_of(network))}
    if isinstance(network, GraphNetwork):
        files[GRAPH_FILE] = msgspec.json.format(msgspec.json.encode(network.graph), indent=2)
    if seen is not None:
        files[SEEN_FILE] = seen
    with atomic_folder(folder, replaces=HEAD_FILE) as partial:
        for name, content in files.items():
            # Bytes: on a full disk safetensors' own writer raises an error that does not say so.
            (partial / name).write_bytes(content)
        hashes = {name: sha256_of(partial / name) for name in files}
        checkpoint = Checkpoint(
            spec=spec,
            weights_sha256=hashes.get(WEIGHTS_FILE) or hashes[BLACK_BOX_FILE],
            graph_sha256=hashes.get(GRAPH_FILE, ""),
            training=dict(training or {}),
            provenance=dict(provenance or {}),
            imported=imported,
            checks=tuple(checks),
            format_version=_version_for(spec),
        )
        head = msgspec.json.format(msgspec.json.encode(checkpoint), indent=2)
        (partial / HEAD_FILE).write_bytes(head + b"\n")
    return checkpoint


def _state_of(network: nn.Module) -> dict[str, torch.Tensor]:
    sound: Callable[[torch.Tensor], bool]
    if isinstance(network, GraphNetwork):  # Its constants may be infinite: masks are.
        named, sound = network.tensors(), lambda value: not bool(value.isnan().any())
    else:
        named, sound = network.state_dict(), lambda value: bool(value.isfinite().all())
    # Clones: safetensors takes neither channels-last memory nor two names for one tensor.
    state = {
        name: value.detach().to("cpu", copy=True).clone(memory_format=torch.contiguous_format)
        for name, value in named.items()
    }
    broken = [name for name, value in state.items() if not sound(value)]
    if broken:
        raise CheckpointError(
            f"{len(broken)} of {len(state)} weights hold NaN or infinite numbers, the first is "
            f"{broken[0]!r}; they are not kept. Train again with a smaller learning rate."
        )
    return state


def _version_for(spec: ClassifierSpec) -> int:
    plain = ClassifierSpec(backbone="", classes=(), size=0)
    new = ("format", "channels", "ends_in", "one_logit", "order", "mirrored")
    told = any(getattr(spec, name) != getattr(plain, name) for name in new)
    told = told or isinstance(spec.mean, tuple) or not isinstance(spec.size, int)
    return IMPORT_VERSION if told else FORMAT_VERSION


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
        SettingsError: a black box, and onnxruntime is missing.
    """
    folder = find_checkpoint(Path(path))
    checkpoint = read_checkpoint(folder)
    spec = checkpoint.spec
    if spec.format == "black-box":
        model = _intact(folder / BLACK_BOX_FILE, checkpoint.weights_sha256)
        return BlackBox(read_black_box(model).answer, spec).to(device).eval(), checkpoint
    weights = _intact(folder / WEIGHTS_FILE, checkpoint.weights_sha256)
    if spec.format == "graph":
        network = _read_graph(_intact(folder / GRAPH_FILE, checkpoint.graph_sha256), weights)
        network.refuse_growth(spec.shape)
        return Classifier(network, spec).to(device).eval(), checkpoint
    if network is not None and not isinstance(network, nn.Module):
        raise CheckpointError(f"expected the network as a torch.nn.Module, got {network!r:.80}.")
    if network is None:
        if is_hub(spec.backbone) and not HUB_NAME.fullmatch(spec.backbone):
            raise CheckpointError(
                f"{folder} names the network {spec.backbone!r}, which is none of a library's by "
                "its name: a file must not lead to other folders or servers."
            )
        if spec.backbone == CUSTOM:
            raise CheckpointError(
                f"{folder} holds a network of one's own, which only its code can build. Load it "
                "from Python: load_checkpoint(path, network=MyNetwork())."
            )
        with torch.random.fork_rng(devices=[]):
            network = build_network(
                spec.backbone,
                len(spec.classes),
                spec.size,
                channels=spec.channels,
                one_logit=spec.one_logit,
            )
    _load_into(network, weights, checkpoint)
    return Classifier(network, spec).to(device).eval(), checkpoint


def describe_classifier(classifier: Classifier) -> Checkpoint:
    """What a checkpoint of a classifier that was given from Python would say of itself.

    It is known by its weights; a function, which has none, by its answers to a few fixed images.
    """
    spec = classifier.spec
    known = classifier.network.state_dict()
    if not known:
        images = torch.rand(4, 1, *spec.shape[1:], generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            known = {"answers": classifier(images)}
    digest = hashlib.sha256()
    for name, value in sorted(known.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return Checkpoint(spec=spec, weights_sha256=digest.hexdigest(), imported="given from Python")


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read what a checkpoint says about itself, without its weights.

    Raises:
        CheckpointError: nothing there, damaged, or of another format version.
    """
    head = find_checkpoint(Path(path)) / HEAD_FILE
    again = "Restore it from a copy, or train again."
    version = read_json(head, _Version, error=CheckpointError, again=again).format_version
    if version not in (FORMAT_VERSION, IMPORT_VERSION):
        raise CheckpointError(
            f"{head} has format version {str(version)[:20]}, this release reads {FORMAT_VERSION} "
            f"and {IMPORT_VERSION}. Load it with the release that wrote it, or train again."
        )
    checkpoint: Checkpoint = read_json(head, Checkpoint, error=CheckpointError, again=again)
    if fault := fault_of(checkpoint.spec):
        raise CheckpointError(f"{head} cannot be used: {fault}. {again}")
    return checkpoint


def check_fits(
    checkpoint: Checkpoint, classes: Sequence[str], size: Size, channels: int = 1
) -> None:
    """Refuse a cohort whose classes (also their order), image size or colours the checkpoint was
    not made for. A network of three channels takes grey slices too.

    Raises:
        CheckpointError: they disagree.
    """
    spec = checkpoint.spec
    if tuple(classes) != spec.classes:
        raise CheckpointError(
            f"The checkpoint tells apart {', '.join(spec.classes)}; the cohort has "
            f"{', '.join(classes)}. Take the cohort that it was trained on, or train on this one: "
            "robustmri train COHORT --out RUN; an import with --check COHORT puts its outputs in "
            "the cohort's order."
        )
    if size != spec.size:
        raise CheckpointError(
            f"The checkpoint was made for images of {size_words(spec.size)}; the cohort has "
            f"{size_words(size)}. Prepare it again: robustmri prepare SOURCE --out COHORT --size "
            f"{size_option(spec.size)}."
        )
    if channels == 3 and spec.channels == 1:
        raise CheckpointError(
            "The checkpoint was made for grey images of one channel; the cohort is in colour, with "
            "three. Prepare it again: robustmri prepare SOURCE --out COHORT --channels 1."
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
    kind = kind_of_folder(path)
    if kind and "not ended" not in kind:
        raise CheckpointError(
            f"{path} is {kind}, not a run: it holds no checkpoint. Name the folder that `train`, "
            "`harden` or `import` made."
        )
    raise CheckpointError(
        f"{path} holds no checkpoint ({HEAD_FILE} is missing). If it is a run that was "
        "interrupted, start the same command again: it goes on where it stopped."
    )


def _intact(file: Path, expected: str) -> Path:
    """The file, if it is the one that was saved."""
    if not file.is_file():
        raise CheckpointError(f"{file} is missing. Restore it from a copy, or train again.")
    found = sha256_of(file)
    if found != expected:
        raise CheckpointError(
            f"{file} is damaged or was exchanged: its sha256 begins with {found[:12]}, {HEAD_FILE} "
            f"says {expected[:12] or 'nothing'}. Restore it from a copy, or train again."
        )
    return file


def _read_graph(file: Path, weights: Path) -> GraphNetwork:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    again = "Restore it from a copy, or import it again."
    graph: Graph = read_json(file, Graph, error=CheckpointError, again=again)
    try:
        return GraphNetwork(graph, load_file(weights))
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{file} is damaged ({error!r}). {again}") from error


def _load_into(network: nn.Module, file: Path, checkpoint: Checkpoint) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        network.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as error:
        fault = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{file} does not fit the network {checkpoint.spec.backbone!r} ({fault}). Build the "
            "network that was saved."
        ) from error
