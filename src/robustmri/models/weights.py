"""Where a network starts from: torchvision's ImageNet files, or a file of one's own, without unpickling code."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustmri.download import Progress, fetch
from robustmri.errors import CheckpointError, SettingsError
from robustmri.models.hub import is_hub, pretrained_state
from robustmri.models.stem import fold_planes
from robustmri.provenance import sha256_of

IMAGENET_URL = "https://download.pytorch.org/models"
IMAGENET_FILES = {  # The digits in a name are the first of the file's sha256.
    "resnet18": "resnet18-f37072fd.pth",
    "resnet50": "resnet50-11ad3fa6.pth",
    "densenet121": "densenet121-a639ec97.pth",
    "vit": "vit_b_16-c867db91.pth",
}
NESTS = ("state_dict", "model_state_dict", "model", "network")
PREFIXES = ("module.", "_orig_mod.", "network.", "model.")  # Of DataParallel, torch.compile, Classifier, Lightning.
STEMS = {  # The first convolution, and what absorbs the constant that folding its three planes leaves.
    "resnet18": ("conv1.weight", "bn1.running_mean"),
    "resnet50": ("conv1.weight", "bn1.running_mean"),
    "densenet121": ("features.conv0.weight", "features.norm0.running_mean"),
    "vit": ("vit.patch_embedding.patch_embeddings.weight", "vit.patch_embedding.patch_embeddings.bias"),
}
POSITIONS = "vit.patch_embedding.position_embeddings"
RENAMES = {  # From torchvision's names to MONAI's, in this order.
    "densenet121": (
        (r"(denselayer\d+)\.(norm|conv)\.?([12])\.", r"\1.layers.\2\3."),  # Older files say norm.1 for norm1.
        (r"^classifier\.", "class_layers.out."),
    ),
    "vit": (
        (r"^(?:vit\.)?", "vit."),
        (r"^vit\.class_token$", "vit.cls_token"),
        (r"^vit\.conv_proj\.", "vit.patch_embedding.patch_embeddings."),
        (r"^vit\.encoder\.pos_embedding$", POSITIONS),
        (r"^vit\.encoder\.layers\.encoder_layer_(\d+)\.", r"vit.blocks.\1."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attn.qkv."),
        (r"\.self_attention\.out_proj\.", ".attn.out_proj."),
        (r"\.mlp\.(?:linear_1|0)\.", ".mlp.linear1."),
        (r"\.mlp\.(?:linear_2|3)\.", ".mlp.linear2."),
        (r"^vit\.encoder\.ln\.", "vit.norm."),
        (r"^vit\.heads\.head\.", "vit.classification_head."),
    ),
}


def load_weights(
    network: nn.Module, backbone: str, weights: str, *, size: int = 224, progress: Progress | None = None
) -> str:
    """Load a start into `network`, in place.

    Names of torchvision are translated to MONAI's. A first convolution over three planes is folded into one, see
    `stem.fold_planes`; such a file is taken to expect ImageNet's normalisation. The last layer keeps its fresh weights
    where the file has another number of classes, or none. Position embeddings of another image size are interpolated.

    Args:
        network: made by `build_network(backbone, ...)`.
        backbone: its name.
        weights: "none", "imagenet" (torchvision's file, fetched once into $ROBUSTMRI_CACHE or ~/.cache/robustmri and
            checked; `ROBUSTMRI_WEIGHTS_URL` names a mirror), "pretrained" (for timm:, torchvision: and hf: networks),
            or the path of a .pth, .pt or .safetensors file.
        size: height and width of the images in pixels; only "pretrained" asks for it.
        progress: follows the download.

    Returns:
        What was loaded, in words, with the file's sha256.

    Raises:
        CheckpointError: the file is missing, damaged, holds code, or belongs to another network.
        SettingsError: there are no such weights for this network.
        DownloadError: the file could not be fetched.
    """
    if weights == "none":
        return "none"
    if weights == "pretrained" and is_hub(backbone):
        notes = _fit(network, backbone, pretrained_state(backbone, size), backbone)
        return "; ".join([f"pretrained ({backbone})", *notes])
    if weights in ("imagenet", "pretrained"):
        if backbone not in IMAGENET_FILES or weights == "pretrained":
            word = "pretrained" if is_hub(backbone) else "imagenet"
            raise SettingsError(f"{backbone} has no weights {weights!r}. Use none, {word}, or the path of a file.")
        path = _fetch_imagenet(backbone, progress)
    else:
        path = Path(weights).expanduser()
    notes = _fit(network, backbone, _read(path), path.name)
    source = "imagenet, " if weights == "imagenet" else ""
    return "; ".join([f"{source}{path.name} (sha256 {sha256_of(path)[:16]})", *notes])


def _fetch_imagenet(backbone: str, progress: Progress | None) -> Path:
    file = IMAGENET_FILES[backbone]
    base = os.environ.get("ROBUSTMRI_WEIGHTS_URL", IMAGENET_URL).rstrip("/")
    cache = Path(os.environ.get("ROBUSTMRI_CACHE", "~/.cache/robustmri")).expanduser() / "weights"
    digits = file.rpartition("-")[2].removesuffix(".pth")
    return fetch(f"{base}/{file}", cache / file, sha256=digits, progress=progress)


def _read(path: Path) -> dict[str, Tensor]:
    """Named tensors of a file, out of any nesting and without prefixes that all of them share."""
    if not path.is_file():
        raise CheckpointError(f"--weights {path} is not a file. Give none, imagenet, or a .pth, .pt or .safetensors.")
    content: object
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was not opened: it is damaged, or holds Python objects besides tensors, which could run code. "
            "Where you trust it, save it again with torch.save(model.state_dict(), FILE), or as .safetensors."
        ) from error
    except Exception as error:  # The two readers raise a dozen kinds for damaged bytes, none of them common to all.
        raise CheckpointError(
            f"{path} cannot be read as weights ({type(error).__name__}): it is damaged or not such a file."
        ) from error
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        content = next((content[nest] for nest in NESTS if nest in content), None)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds no named tensors. Save a network's state_dict() there.")
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    while shared := next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in state)), None):
        state = {name.removeprefix(shared): value for name, value in state.items()}
    return state


def _fit(network: nn.Module, backbone: str, state: dict[str, Tensor], file: str) -> list[str]:
    """Load `state`, translated, and say what had to be changed."""
    own = network.state_dict()
    notes: list[str] = []
    state = _translate(backbone, state, own)
    stem, absorber = STEMS.get(backbone, ("", ""))
    if stem in state and absorber in state and state[stem].dim() == 4 and state[stem].shape[1] == 3:
        state[stem], constant = fold_planes(state[stem])
        sign = -1 if absorber.endswith("running_mean") else 1  # A batch norm subtracts its mean.
        state[absorber] = state[absorber] + sign * constant
        notes.append("three colour planes folded into one")
    if POSITIONS in state and POSITIONS in own:
        state, before = _resample_positions(state, own[POSITIONS].shape[1]), state[POSITIONS].shape[1]
        if before not in (own[POSITIONS].shape[1], own[POSITIONS].shape[1] + 1):
            notes.append("position embeddings interpolated")
    head = _head(network)
    if any(name not in state or state[name].shape != own[name].shape for name in head):
        state.update({name: own[name] for name in head})
        notes.append("last layer drawn anew")
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)}, here {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        faults = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        listed = "; ".join(f"{len(names)} {fault}: {_few(names)}" for fault, names in faults.items() if names)
        raise CheckpointError(f"{file} does not fit {backbone} ({listed}). Choose the network that it was saved from.")
    network.load_state_dict(state, strict=False)
    return notes


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _translate(backbone: str, state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if is_hub(backbone):
        kept = {name: own[name] for name in ("scale", "shift")}
        return kept | {name if name in own else f"model.{name}": value for name, value in state.items()}
    translated = {}
    for name, value in state.items():
        for pattern, replacement in RENAMES.get(backbone, ()):
            name = re.sub(pattern, replacement, name, count=1)
        translated[name] = value
    return translated


def _resample_positions(state: dict[str, Tensor], patches: int) -> dict[str, Tensor]:
    """Position embeddings for another number of patches, by bicubic interpolation on the grid.

    torchvision has one embedding more, of the class token, which is always the same sum: it moves into the token.
    """
    positions = state[POSITIONS]
    if round((positions.shape[1] - 1) ** 0.5) ** 2 == positions.shape[1] - 1 and "vit.cls_token" in state:
        state = state | {"vit.cls_token": state["vit.cls_token"] + positions[:, :1]}
        positions = positions[:, 1:]
    before, after = round(positions.shape[1] ** 0.5), round(patches**0.5)
    if before != after and before**2 == positions.shape[1]:
        grid = positions.transpose(1, 2).unflatten(2, (before, before))
        grid = F.interpolate(grid, (after, after), mode="bicubic", antialias=True, align_corners=False)
        positions = grid.flatten(2).transpose(1, 2)
    return state | {POSITIONS: positions}


def _head(network: nn.Module) -> list[str]:
    """Names of the last linear layer's parameters."""
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return [f"{name}.{parameter}" for name, module in linear[-1:] for parameter, _ in module.named_parameters()]
