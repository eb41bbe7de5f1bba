"""Which files can be imported, and by which importer."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from robustmri.core.errors import CheckpointError, RobustMRIError, SettingsError
from robustmri.core.files import system_error
from robustmri.core.sizes import Size
from robustmri.models.importers.found import Found
from robustmri.models.importers.hugging_face import is_hugging_face, read_hugging_face
from robustmri.models.importers.monai_bundle import is_monai_bundle, read_monai_bundle
from robustmri.models.importers.onnx_import import read_onnx_model
from robustmri.models.importers.programs import (
    is_factory,
    kind_of,
    read_factory,
    read_pickled,
    read_program,
)
from robustmri.models.importers.weights_file import read_weights


class Route(NamedTuple):
    """A kind of file that can be imported, for people to read."""

    what: str
    becomes: str
    needs: str
    trust: bool


ROUTES = (
    Route(".safetensors, .pth, .pt, .ckpt: weights by name", "one of our networks", "", False),
    Route("the same with --arch timm:NAME ...", "that library's network", "timm ...", False),
    Route(".onnx", "a graph of known operators, or a black box", "onnx, onnxruntime", False),
    Route("Hugging Face folder", "one of our networks, or a graph", "transformers", False),
    Route("MONAI bundle", "one of our networks, or a graph", "onnx, onnxscript", False),
    Route(".pt2 of torch.export", "a graph", "onnx, onnxscript", True),
    Route(".pt of TorchScript", "a graph", "onnx", True),
    Route(".pt of a whole pickled network", "a graph", "onnx, onnxscript", True),
    Route("package.module:function, with --weights FILE", "a graph", "onnx, onnxscript", True),
)


def read_model(
    model: str,
    *,
    arch: str = "",
    size: Size = 0,
    channels: int = 0,
    weights: str = "",
    black_box: bool = False,
    trust: bool = False,
) -> Found:
    """The network of a file, of a folder, or of a function that builds one.

    Args:
        model: path, or "package.module:function".
        arch: network that a file of weights belongs to, see `weights_file.read_weights`.
        size: height and width of its images in pixels; 0: as the file says, or any.
        channels: planes of its images; 0: as the file says, or as many as it takes.
        weights: file of weights for what a function builds.
        black_box: whether an ONNX file is to be run by onnxruntime even if it could be a graph.
        trust: whether the author's code and pickles may be run.

    Raises:
        CheckpointError: missing, damaged, or not to be made sense of.
        SettingsError: not trusted, options that do not belong to it, or a package is missing.
    """
    try:
        return _read(model, arch, size, channels, weights, black_box, trust)
    # What lies in a file of somebody else's may make the libraries that read it raise anything.
    except Exception as error:
        if isinstance(error, RobustMRIError):
            raise
        said = " ".join(str(error).split())[:200]
        raise system_error(error, model) or CheckpointError(
            f"{model} cannot be imported: it is damaged, or holds what is not understood "
            f"({type(error).__name__}: {said}). Export it to ONNX where it was made, and import "
            "that."
        ) from error


def _read(
    model: str,
    arch: str,
    size: Size,
    channels: int,
    weights: str,
    black_box: bool,
    trust: bool,
) -> Found:
    path = Path(model).expanduser()
    if not path.exists():
        if is_factory(model):
            given = Path(weights).expanduser() if weights else None
            return read_factory(model, weights=given, size=size, channels=channels, trust=trust)
        raise CheckpointError(
            f"{model} does not exist. Expected a file, a folder or package.module:function; "
            "robustmri models lists what can be imported."
        )
    if weights:
        raise SettingsError(f"--weights belongs to package.module:function; {path.name} is a file.")
    if path.is_dir():
        return _read_folder(path, size, trust)
    if not path.is_file():
        raise CheckpointError(f"{model} is neither a plain file nor a folder.")
    if path.suffix == ".onnx":
        _no_arch(arch, path)
        return read_onnx_model(path, size=size, channels=channels, black_box=black_box)
    if black_box:
        raise SettingsError(f"--black-box belongs to ONNX files; {path.name} is another.")
    kind = kind_of(path)
    if kind != "state":
        _no_arch(arch, path)
        return read_program(path, kind, size=size, channels=channels, trust=trust)
    if not arch and path.suffix != ".safetensors":
        pickled = read_pickled(path, size=size, channels=channels, trust=trust)
        if pickled is not None:
            return pickled
    return read_weights(path, arch=arch, size=size, trust=trust)


def _read_folder(path: Path, size: Size, trust: bool) -> Found:
    if (path / "classifier.json").is_file() or (path / "checkpoint").is_dir():
        raise SettingsError(
            f"{path.name} is a checkpoint of ours already: evaluate takes it as it is."
        )
    if is_monai_bundle(path):
        return read_monai_bundle(path, size=size, trust=trust)
    if is_hugging_face(path):
        return read_hugging_face(path, size=size)
    raise CheckpointError(
        f"{path.name} is a folder in no known layout: expected Hugging Face's (config.json and "
        "model.safetensors) or a MONAI bundle (configs/, models/)."
    )


def _no_arch(arch: str, path: Path) -> None:
    if arch:
        raise SettingsError(f"--arch belongs to files of weights; {path.name} holds its network.")
