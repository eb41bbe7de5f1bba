"""Where a network starts from: published weights by name, or a file of one's own, fitted to the
slices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from robustmri.core.download import Progress
from robustmri.core.errors import CheckpointError, SettingsError, did_you_mean
from robustmri.core.files import sha256_of
from robustmri.core.sizes import Size
from robustmri.models.classifier import Constant
from robustmri.models.hub import is_hub, pretrained_state
from robustmri.models.layouts import Published, read_published
from robustmri.models.starts import (
    STARTS,
    fetch_address,
    fetch_start,
    find_start,
    is_address,
    is_start,
)
from robustmri.models.stem import (
    GREY_MEAN,
    GREY_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    fold_planes,
    grey_constants,
    plane_constants,
)

# The first convolution, and what absorbs the constant that folding its three planes leaves.
STEMS = {
    "resnet18": ("conv1.weight", "bn1.running_mean"),
    "resnet50": ("conv1.weight", "bn1.running_mean"),
    "densenet121": ("features.conv0.weight", "features.norm0.running_mean"),
    "vit": (
        "vit.patch_embedding.patch_embeddings.weight",
        "vit.patch_embedding.patch_embeddings.bias",
    ),
    "efficientnet-lite0": ("stem.0.weight", "stem.1.running_mean"),
}
POSITIONS = "vit.patch_embedding.position_embeddings"
RENAMES = {  # From the published names to ours, in this order.
    "densenet121": (
        # Older files say norm.1 for norm1.
        (r"(denselayer\d+)\.(norm|conv)\.?([12])\.", r"\1.layers.\2\3."),
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
    "efficientnet-lite0": (
        (r"^_conv_stem\.", "stem.0."),
        (r"^_bn0\.", "stem.1."),
        (r"^_conv_head\.", "last.0."),
        (r"^_bn1\.", "last.1."),
        (r"^_fc\.", "fc."),
        (r"^_blocks\.", "blocks."),
        (r"\._expand_conv\.", ".widen.0."),
        (r"\._bn0\.", ".widen.1."),
        (r"\._depthwise_conv\.", ".filter.0."),
        (r"\._bn1\.", ".filter.1."),
        (r"\._project_conv\.", ".narrow.0."),
        (r"\._bn2\.", ".narrow.1."),
    ),
}


@dataclass(frozen=True)
class Loaded:
    """What a network starts from.

    Attributes:
        words: its source, its sha256 and what had to be changed; "none" for fresh weights.
        mean: what `Classifier` has to subtract for these weights, in units of the [0, 1] range.
        std: what it has to divide by.
    """

    words: str
    mean: Constant = GREY_MEAN
    std: Constant = GREY_STD


def load_weights(
    network: nn.Module,
    backbone: str,
    weights: str,
    *,
    size: Size = 224,
    channels: int = 1,
    progress: Progress | None = None,
) -> Loaded:
    """Load a start into `network`, in place.

    Names of torchvision are translated to MONAI's. For grey slices a first convolution over three
    planes is folded into one, see `stem.fold_planes`; what its planes were normalised with is known
    from the file's layout (see `layouts`), and is taken to be ImageNet's otherwise. The last layer
    keeps its fresh weights where the file has another number of classes, or none. Position
    embeddings of another image size are interpolated.

    Args:
        network: made by `build_network(backbone, ...)`.
        backbone: its name.
        weights: "none"; a name in `starts.STARTS` (fetched once into $ROBUSTMRI_CACHE or
            ~/.cache/robustmri and checked; `ROBUSTMRI_WEIGHTS_URL` names a mirror); "pretrained"
            (for timm:, torchvision: and hf: networks); `https://HOST/FILE#sha256=DIGITS`; or the
            path of a .pth, .pt, .ckpt or .safetensors file.
        size: height and width of the images in pixels; only "pretrained" asks for it.
        channels: planes of the images.
        progress: follows the download.

    Raises:
        CheckpointError: the file is missing, damaged, holds code, or belongs to another network.
        SettingsError: there are no such weights for this network.
        DownloadError: the file could not be fetched.
    """
    hub = is_hub(backbone)
    if weights == "none" and channels == 3 and not hub:
        return Loaded("none", IMAGENET_MEAN, IMAGENET_STD)
    if weights == "none":
        return Loaded("none")
    if weights == "pretrained":
        if not is_hub(backbone):
            raise SettingsError(
                f"{backbone} has no weights 'pretrained'. Use none, imagenet, or the path of a "
                "file."
            )
        state = Published(pretrained_state(backbone, size))
        return Loaded(
            "; ".join([f"pretrained ({backbone})", *fit_state(network, backbone, state, backbone)])
        )
    if is_start(weights):
        start = find_start(weights, backbone)
        source, path = f"{start.name}, ", fetch_start(start, progress)
    elif is_address(weights):
        source, path = f"{weights.partition('#')[0]}, ", fetch_address(weights, progress)
    else:
        source, path = "", Path(weights).expanduser()
        if not path.is_file():
            named = (
                ["pretrained"]
                if is_hub(backbone)
                else [name for name, fits in STARTS if fits == backbone]
            )
            raise CheckpointError(
                f"--weights {path} is not a file. {did_you_mean(weights, ['none', *named])} "
                "Or the path of a .pth, .pt, .ckpt or .safetensors file."
            )
    state = read_published(path)
    notes = fit_state(network, backbone, state, path.name)
    mean: Constant
    std: Constant
    if hub:  # Which normalises its planes by itself.
        mean, std = GREY_MEAN, GREY_STD
    elif channels == 3:
        mean, std = _three(state.mean), _three(state.std)
    else:
        mean, std = grey_constants(state.mean, state.std)
    return Loaded(
        "; ".join([f"{source}{path.name} (sha256 {sha256_of(path)[:16]})", *notes]), mean, std
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def fit_state(network: nn.Module, backbone: str, published: Published, file: str) -> list[str]:
    """Load the tensors, translated, and say what had to be changed."""
    own = network.state_dict()
    notes = [f"laid out and normalised as {published.layout}'s"] if published.layout else []
    state = translate(backbone, published, own)
    stem, absorber = STEMS.get(backbone, ("", ""))
    planes = (
        state[stem].shape[1] if stem in state and state[stem].dim() == 4 else 0,
        own[stem].shape[1] if stem in own else 0,
    )
    if absorber in state and planes == (3, 1):
        state[stem], constant = fold_planes(state[stem], published.mean, published.std)
        sign = -1 if absorber.endswith("running_mean") else 1  # A batch norm subtracts its mean.
        state[absorber] = state[absorber] + sign * constant
        notes.append("three colour planes folded into one")
    if POSITIONS in state and POSITIONS in own:
        state, before = (
            _resample_positions(state, own[POSITIONS].shape[1], getattr(network, "grid", None)),
            state[POSITIONS].shape[1],
        )
        if before not in (own[POSITIONS].shape[1], own[POSITIONS].shape[1] + 1):
            notes.append("position embeddings interpolated")
    head = head_of(network)
    if any(name not in state or state[name].shape != own[name].shape for name in head):
        state.update({name: own[name] for name in head})
        notes.append("last layer drawn anew")
    missing = [
        name for name in own if name not in state and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)}, here {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        faults = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        listed = "; ".join(
            f"{len(names)} {fault}: {_few(names)}" for fault, names in faults.items() if names
        )
        raise CheckpointError(
            f"{file} does not fit {backbone} ({listed}). Choose the network that it was saved from."
        )
    network.load_state_dict(state, strict=False)
    return notes


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def translate(backbone: str, published: Published, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names of the network whose state is `own`."""
    if is_hub(backbone):
        planes = {name: own[name] for name in ("scale", "shift")}
        if published.layout:
            scale, shift = plane_constants(published.mean, published.std)
            planes = {
                "scale": scale.float().view(1, 3, 1, 1),
                "shift": shift.float().view(1, 3, 1, 1),
            }
        named = {
            name if name in own else f"model.{name}": value
            for name, value in published.tensors.items()
        }
        return planes | named
    translated = {}
    for name, value in published.tensors.items():
        for pattern, replacement in RENAMES.get(backbone, ()):
            name = re.sub(pattern, replacement, name, count=1)
        translated[name] = value
    return translated


def _resample_positions(
    state: dict[str, Tensor], patches: int, grid: tuple[int, int] | None
) -> dict[str, Tensor]:
    """Position embeddings for another number of patches, by bicubic interpolation on the grid,
    which is square if none is given; the file's is.

    torchvision has one embedding more, of the class token, which is always the same sum: it moves
    into the token.
    """
    positions = state[POSITIONS]
    if (
        round((positions.shape[1] - 1) ** 0.5) ** 2 == positions.shape[1] - 1
        and "vit.cls_token" in state
    ):
        state = state | {"vit.cls_token": state["vit.cls_token"] + positions[:, :1]}
        positions = positions[:, 1:]
    side = round(positions.shape[1] ** 0.5)
    after = grid or (round(patches**0.5),) * 2
    if positions.shape[1] != patches and side**2 == positions.shape[1]:
        before = positions.transpose(1, 2).unflatten(2, (side, side))
        resampled = F.interpolate(
            before, after, mode="bicubic", antialias=True, align_corners=False
        )
        positions = resampled.flatten(2).transpose(1, 2)
    return state | {POSITIONS: positions}


def head_of(network: nn.Module) -> list[str]:
    """Names of the last linear layer's parameters."""
    linear = [
        (name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)
    ]
    return [
        f"{name}.{parameter}"
        for name, module in linear[-1:]
        for parameter, _ in module.named_parameters()
    ]
