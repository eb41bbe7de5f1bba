"""The networks: ResNets as MONAI has them, its DenseNet-121 and ViT-B/16, and EfficientNet-Lite0;
slices in and logits out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from robustmri.core.arrays import Images, Logits
from robustmri.core.download import Progress
from robustmri.core.errors import SettingsError, did_you_mean
from robustmri.core.sizes import Size, sides, size_of, size_option, size_words
from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.models.hub import PACKAGES, build_hub_network, is_hub
from robustmri.models.resnet import ResNet
from robustmri.models.weights import load_weights

BACKBONES = ("resnet18", "resnet18-half", "resnet50", "densenet121", "vit", "efficientnet-lite0")
MONAI_BACKBONES = ("resnet18", "resnet18-half", "resnet50", "densenet121")
"""Those that MONAI builds by plain settings."""
SMALLEST_SIZE = 32  # Five halvings leave one pixel.
PATCH_SIZE = 16


def build_network(
    name: str, classes: int, size: Size, *, channels: int = 1, one_logit: bool = False
) -> nn.Module:
    """Build a network with fresh weights, drawn from torch's global generator.

    Args:
        name: one of `BACKBONES`, or "timm:NAME", "torchvision:NAME", "hf:NAME" where that library
            is installed.
        classes: number of logits.
        size: height and width of the images in pixels; the networks take any size from 32, "vit"
            multiples of 16.
        channels: planes of the images; another library's network takes grey and colour alike.
        one_logit: one output for two classes, as some networks of other authors have it.

    Returns:
        Maps normalised images of shape (n, channels, h, w) to logits of shape (n, classes).

    Raises:
        SettingsError: unknown name, or a size that the network cannot take.
    """
    if name not in BACKBONES and not is_hub(name):
        hubs = ", ".join(f"{hub}:NAME" for hub in PACKAGES)
        raise SettingsError(
            f"There is no network {name!r}. {did_you_mean(name, BACKBONES)} Or {hubs}."
        )
    if classes < 2:
        raise SettingsError(f"A classifier needs at least 2 classes, got {classes}.")
    if min(sides(size)) < SMALLEST_SIZE:
        raise SettingsError(
            f"{name} needs images of at least {SMALLEST_SIZE} px, got {size_words(size)}. Prepare "
            "the cohort with a larger --size."
        )
    outputs = 1 if one_logit else classes
    if is_hub(name):
        return build_hub_network(name, classes=outputs, size=size)
    if name == "vit":
        return VisionTransformer(outputs, size, channels)
    if name == "efficientnet-lite0":
        from robustmri.models.efficientnet_lite import EfficientNetLite0

        return EfficientNetLite0(outputs, channels)
    kind, settings = monai_settings(name, outputs, channels)
    if kind == "ResNet":
        return ResNet(
            settings["layers"],
            bottleneck=settings["block"] == "bottleneck",
            classes=outputs,
            channels=channels,
            width=settings["widen_factor"],
        )
    import monai.networks.nets

    network: nn.Module = getattr(monai.networks.nets, kind)(**settings)
    return network


def build_classifier(
    backbone: str,
    classes: Sequence[str],
    size: Size,
    *,
    channels: Literal[1, 3] = 1,
    weights: str = "none",
    seed: int = 0,
    progress: Progress | None = None,
) -> Classifier:
    """Build a classifier that is ready to be trained.

    Args:
        backbone: see `build_network`.
        classes: names of the classes, in the order of the logits.
        size: height and width of the images in pixels.
        channels: planes of the images: 1 (grey) or 3 (colour).
        weights: where to start from, see `weights.load_weights`.
        seed: draws what `weights` leaves open; torch's global generator is left as it was.
        progress: follows a download of the weights, in bytes.

    Returns:
        In training mode, on the CPU; `spec` says what it started from, and normalises as that
        expects.
    """
    if len(set(classes)) != len(classes):
        raise SettingsError(
            f"The class names must differ from each other, got {', '.join(classes)}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = build_network(backbone, len(classes), size, channels=channels)
    start = load_weights(
        network, backbone, weights, size=size, channels=channels, progress=progress
    )
    spec = ClassifierSpec(
        backbone=backbone,
        classes=tuple(classes),
        size=size,
        mean=start.mean,
        std=start.std,
        weights=start.words,
        channels=channels,
    )
    return Classifier(network, spec)


class VisionTransformer(nn.Module):
    """MONAI's ViT in the shape of torchvision's `vit_b_16`, logits only.

    Args:
        classes: number of logits.
        size: height and width of the images in pixels, multiples of 16.
        channels: planes of the images.
    """

    def __init__(self, classes: int, size: Size, channels: int = 1) -> None:
        super().__init__()
        from monai.networks.nets.vit import ViT

        if any(side % PATCH_SIZE for side in sides(size)):
            near = [
                max(SMALLEST_SIZE, round(side / PATCH_SIZE) * PATCH_SIZE) for side in sides(size)
            ]
            raise SettingsError(
                f"vit cuts images into patches of {PATCH_SIZE} px, got a size of "
                f"{size_option(size)}. Prepare the cohort with --size "
                f"{size_option(size_of(*near))}, or take another network."
            )
        self.grid = tuple(side // PATCH_SIZE for side in sides(size))
        self.vit = ViT(
            in_channels=channels,
            img_size=sides(size),
            patch_size=PATCH_SIZE,
            num_classes=classes,
            spatial_dims=2,
            classification=True,
            post_activation=None,
            qkv_bias=True,
        )
        for block in self.vit.blocks:
            _trim(block)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-6  # The paper's and torchvision's; torch's own default is 1e-5.

    def forward(self, images: Images) -> Logits:
        """Logits; MONAI returns the hidden states of every block besides, which nobody here
        reads.
        """
        logits: Logits = self.vit(images)[0]
        return logits


def _trim(block: Any) -> None:
    """Leave out what a plain transformer block does without."""
    # The same numbers without the attention matrix in memory.
    block.attn.use_flash_attention = True
    # Unused without a second input; as parameters without gradients they would stop distributed
    # training.
    block.norm_cross_attn = block.cross_attn = nn.Identity()


def monai_settings(name: str, outputs: int, channels: int) -> tuple[str, dict[str, Any]]:
    """Name and settings by which MONAI builds the network.

    ResNets have torchvision's stem (7 x 7, stride 2), shortcuts and parameter names;
    "resnet18-half" has half the channels of ResNet-18 in every layer: a quarter of the work, for
    CPUs.

    Args:
        name: one of `MONAI_BACKBONES`.
        outputs: number of logits.
        channels: planes of the images.
    """
    if name == "densenet121":
        return "DenseNet121", {
            "spatial_dims": 2,
            "in_channels": channels,
            "out_channels": outputs,
        }
    depth, _, width = name.partition("-")
    block, layers = {"resnet18": ("basic", [2, 2, 2, 2]), "resnet50": ("bottleneck", [3, 4, 6, 3])}[
        depth
    ]
    return "ResNet", {
        "block": block,
        "layers": layers,
        "block_inplanes": [64, 128, 256, 512],
        "spatial_dims": 2,
        "n_input_channels": channels,
        "conv1_t_size": 7,
        "conv1_t_stride": 2,
        "shortcut_type": "B",
        "bias_downsample": False,
        "num_classes": outputs,
        "widen_factor": 0.5 if width else 1.0,
    }
