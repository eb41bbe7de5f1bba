"""Files of weights in their published layouts, read without running code: torchvision's,
robustness', RadImageNet's, EfficientNet-Lite's.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robustmri.core.errors import CheckpointError
from robustmri.models.stem import IMAGENET_MEAN, IMAGENET_STD

NESTS = ("state_dict", "model_state_dict", "model", "network", "net")
# Of DataParallel and AveragedModel, torch.compile, Classifier, Lightning, feature extractors.
PREFIXES = ("module.", "_orig_mod.", "network.", "model.", "net.", "backbone.", "encoder.")
# Stands beside a network's tensors and is not of it: a loss, metrics, AveragedModel's count.
BESIDE = re.compile(r"n_averaged$|(\w+_)?(criterion|loss|loss_fn|metrics?|acc|accuracy|auroc|f1)\.")
# Followed by mean or std: of the robustness library's AttackerModel.
NORMALISER = "normalizer.new_"
# Its authors' PyTorch code maps [0, 1] to [-1, 1].
RADIMAGENET_MEAN = RADIMAGENET_STD = (0.5, 0.5, 0.5)
# Its authors' TensorFlow code maps 8-bit grey values g to (g - 127) / 128; the page of the PyPI
# package, which says ImageNet's, is that of another network. On photographs the first batch-norm
# meets its own variances with these, and six times those with ImageNet's.
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
RESNET_CHILDREN = {
    "0": "conv1",
    "1": "bn1",
    "4": "layer1",
    "5": "layer2",
    "6": "layer3",
    "7": "layer4",
}


@dataclass(frozen=True)
class Published:
    """Tensors of a file, and what they are to be fed with.

    Attributes:
        tensors: by torchvision's names, or by the network's own.
        mean: of each plane, in units of the [0, 1] range, that the network was trained with.
        std: likewise.
        layout: whose it is, in words; empty if nothing but names and tensors was to be seen. Only
            then `mean` and `std` are an assumption: ImageNet's.
    """

    tensors: dict[str, Tensor]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    layout: str = ""


def read_published(path: Path, *, trust: bool = False) -> Published:
    """Read a .pth, .pt, .ckpt or .safetensors file out of any nesting, without prefixes that all
    names share.

    Args:
        path: the file.
        trust: whether Python objects besides tensors may be made of it, which can run code.

    Raises:
        CheckpointError: it is missing, damaged, holds code, or no named tensors.
    """
    content: object
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was not opened: it is damaged, or holds Python objects besides tensors, which "
            "could run code. Where you trust it, load it with the code that wrote it and save its "
            "tensors alone: torch.save(model.state_dict(), FILE), or as .safetensors."
        ) from error
    # The two readers raise a dozen kinds for damaged bytes, none of them common to all.
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as weights ({type(error).__name__}): it is damaged or not such "
            "a file."
        ) from error
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    while isinstance(content, Mapping):
        inner = next(
            (content[nest] for nest in NESTS if isinstance(content.get(nest), Mapping)), None
        )
        if inner is None:
            break
        content = inner
    pairs = content.items() if isinstance(content, Mapping) else ()
    state = {str(name): value for name, value in pairs if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(
            f"{path} holds no named tensors. Save a network's state_dict() there."
        )
    odd = {str(value.dtype) for value in state.values() if _is_quantised(value)}
    if odd:
        raise CheckpointError(
            f"{path} holds weights in {', '.join(sorted(odd))}, without their scales. Save the "
            "network before it was quantised."
        )
    known = _robustness(state) or _radimagenet(state)
    if known is not None:
        return known
    state = _without_prefixes(state, path)
    return _efficientnet_lite(state) or Published(state)


def _is_quantised(value: Tensor) -> bool:
    """Whether it is a kernel or a matrix of whole numbers."""
    return value.dim() >= 2 and not value.is_floating_point() and not value.is_complex()


def _without_prefixes(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    own = {name: value for name, value in state.items() if not BESIDE.match(name)}
    if any(name.startswith(PREFIXES) for name in own):
        state = own
    while shared := next(
        (prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in state)), None
    ):
        state = {name.removeprefix(shared): value for name, value in state.items()}
    if "layer1.0.conv1.bias" in state:
        raise CheckpointError(
            f"{path} was converted from Keras: its convolutions have biases, and halve the image "
            "at another place than torchvision's. It would compute something else here; take "
            "RadImageNet's own ResNet50.pt (radimagenet)."
        )
    return state


def _robustness(state: dict[str, Tensor]) -> Published | None:
    """A checkpoint of MadryLab's robustness: the classifier twice, once inside of the attacker, and
    its normalisation.

    Names: [module.]model.conv1.weight, [module.]normalizer.new_mean,
    [module.]attacker.model.conv1.weight.
    """
    before = next((name.rpartition(NORMALISER)[0] for name in state if NORMALISER in name), None)
    constants = [
        state.get(f"{before}{NORMALISER}{what}", torch.empty(0)).flatten()
        for what in ("mean", "std")
    ]
    if before is None or any(values.numel() not in (1, 3) for values in constants):
        return None
    mean, std = (tuple(values.double().expand(3).tolist()) for values in constants)
    model = f"{before}model."
    tensors = {
        name.removeprefix(model): value for name, value in state.items() if name.startswith(model)
    }
    return Published(tensors, mean, std, "robustness")


def _radimagenet(state: dict[str, Tensor]) -> Published | None:
    """torchvision's children in a row without the head: backbone.4.0.conv1.weight, or
    backbone.0.conv0.weight.
    """
    if "backbone.0.weight" in state and "backbone.4.0.conv1.weight" in state:
        tensors = {
            re.sub(
                r"^backbone\.(\d+)", lambda child: RESNET_CHILDREN.get(child[1], child[0]), name
            ): value
            for name, value in state.items()
        }
    elif "backbone.0.conv0.weight" in state:
        tensors = {
            re.sub(r"^backbone\.0\.", "features.", name): value for name, value in state.items()
        }
    else:
        return None
    return Published(tensors, RADIMAGENET_MEAN, RADIMAGENET_STD, "RadImageNet")


def _efficientnet_lite(state: dict[str, Tensor]) -> Published | None:
    """Of EfficientNet's names in PyTorch; the larger kin has squeeze-and-excitation besides."""
    if "_conv_stem.weight" not in state or any("._se_reduce." in name for name in state):
        return None
    return Published(state, LITE_MEAN, LITE_STD, "EfficientNet-Lite")
