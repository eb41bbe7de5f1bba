"""The corruptions, and how strong each of their five severities is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robustmri.core.errors import DataError, did_you_mean
from robustmri.core.files import fingerprint
from robustmri.data.corruptions import acquisition, geometry, intensity
from robustmri.data.corruptions.slices import Image, Random

if TYPE_CHECKING:
    from robustmri.core.arrays import Images

SEVERITIES = (1, 2, 3, 4, 5)
IN_PLACE = (0.98, 0.95, 0.90, 0.82, 0.72)
"""Mean structural similarity (SSIM) of corrupted phantom slices with their originals at each
severity. No standard exists for MRI; these are ours."""
MOVED = (0.85, 0.65, 0.45, 0.30, 0.20)
"""The same where the head moves: SSIM compares pixel with pixel, and a shift by one is much."""
BENT = (0.95, 0.85, 0.72, 0.58, 0.45)
"""The same where it is deformed: with less no head would be like it."""


@dataclass(frozen=True)
class Corruption:
    """A change that occurs in scanners, at five severities.

    Attributes:
        name: on the command line.
        title: as a table has it.
        what: what its amount is, with the unit.
        source: where it comes from.
        apply: slice, amount and randomness to the changed slice.
        amounts: at severity 1 to 5, as `python -m benchmarks.severities` finds them.
        similarity: mean SSIM of phantoms at each: `IN_PLACE`, `MOVED` or `BENT`.
    """

    name: str
    title: str
    what: str
    source: str
    apply: Callable[[Image, float, Random], Image]
    amounts: tuple[float, ...]
    similarity: tuple[float, ...] = IN_PLACE


_ALL = (
    Corruption(
        "bias-field",
        "Bias field",
        "largest coefficient of the polynomial",
        "MONAI RandBiasField",
        intensity.bias_field,
        (0.154, 0.232, 0.324, 0.443, 0.587),
    ),
    Corruption(
        "gamma",
        "Gamma",
        "exponent, or its inverse, above 1",
        "MONAI AdjustContrast",
        intensity.gamma,
        (0.111, 0.19, 0.301, 0.485, 0.759),
    ),
    Corruption(
        "contrast",
        "Contrast",
        "change of differences from the mean",
        "MONAI ScaleIntensityFixedMean",
        intensity.contrast,
        (0.0417, 0.071, 0.127, 0.295, 0.527),
    ),
    Corruption(
        "rician-noise",
        "Rician noise",
        "standard deviation",
        "MONAI RandRicianNoise",
        intensity.rician_noise,
        (0.0085, 0.0139, 0.0209, 0.031, 0.0454),
    ),
    Corruption(
        "gibbs",
        "Gibbs ringing",
        "share of the radius of k-space that is cut",
        "MONAI GibbsNoise",
        acquisition.gibbs_ringing,
        (0.28, 0.365, 0.492, 0.618, 0.719),
    ),
    Corruption(
        "spikes",
        "Spike in k-space",
        "amplitude of the stripes",
        "MONAI KSpaceSpikeNoise",
        acquisition.spikes,
        (0.0161, 0.0247, 0.0373, 0.0571, 0.0844),
    ),
    Corruption(
        "motion",
        "Motion",
        "largest turn in degrees, and shift in % of the width",
        "Shaw et al. 2019",
        acquisition.motion,
        (0.242, 0.401, 0.601, 0.998, 1.98),
    ),
    Corruption(
        "ghosting",
        "Ghosting",
        "share by which every fourth line is weaker",
        "TorchIO RandomGhosting",
        acquisition.ghosting,
        (0.134, 0.241, 0.394, 0.632, 0.949),
    ),
    Corruption(
        "rotation",
        "Rotation",
        "degrees",
        "MONAI Affine",
        geometry.rotation,
        (0.879, 2.21, 4.86, 11.3, 24.5),
        MOVED,
    ),
    Corruption(
        "shift",
        "Shift",
        "% of the width",
        "MONAI Affine",
        geometry.shift,
        (0.464, 0.823, 1.51, 2.59, 7.3),
        MOVED,
    ),
    Corruption(
        "elastic",
        "Elastic deformation",
        "standard deviation of the displacements in % of the width",
        "Simard et al. 2003",
        geometry.elastic,
        (0.184, 0.359, 0.597, 0.946, 1.47),
        BENT,
    ),
    Corruption(
        "resolution",
        "Resolution",
        "standard deviation of the blur in % of the width",
        "MONAI GaussianSmooth",
        acquisition.resolution,
        (0.291, 0.369, 0.488, 0.696, 0.995),
    ),
)
CORRUPTIONS = {one.name: one for one in _ALL}
"""Name on the command line to corruption, in the order in which a report has them."""


def find_corruption(name: str) -> Corruption:
    """The corruption of that name.

    Raises:
        DataError: no such corruption.
    """
    if not isinstance(name, str) or name not in CORRUPTIONS:
        raise DataError(f"There is no corruption {name!r}. {did_you_mean(name, CORRUPTIONS)}")
    return CORRUPTIONS[name]


def corrupt_slice(image: Image, name: str, amount: float, key: Sequence[object]) -> Image:
    """One slice, shape (channels, height, width), changed by any amount and clipped to [0, 1].

    What is drawn depends on `key` alone: the same ghost grows from one amount to the next.
    """
    random = np.random.RandomState(int(fingerprint([name, *key])[:8], 16))
    changed = find_corruption(name).apply(np.asarray(image, dtype=np.float32), amount, random)
    return np.clip(changed, 0.0, 1.0).astype(np.float32)


def corrupt(
    images: Images, name: str, severity: int, *, seed: int = 0, keys: Sequence[object] | None = None
) -> Images:
    """Slices as another scan might have shown them.

    Args:
        images: in [0, 1], shape (n, c, h, w).
        name: a key of `CORRUPTIONS`: "bias-field", "motion" ...
        severity: 1 to 5, see `Corruption.similarity`.
        seed: of what is drawn; the same for all severities.
        keys: of each slice, so that it is changed alike in any company; None: its number.

    Raises:
        DataError: no such corruption or severity, or images of another shape or range.

    >>> import torch
    >>> corrupt(torch.zeros(2, 1, 32, 32), "rotation", 1).shape
    torch.Size([2, 1, 32, 32])
    """
    import torch

    if isinstance(severity, bool) or severity not in SEVERITIES:
        raise DataError(f"severity must be one of {SEVERITIES}, got {severity!r}.")
    shape = tuple(getattr(images, "shape", ()))
    real = isinstance(images, torch.Tensor) and images.is_floating_point()
    if len(shape) != 4 or min(shape[1:]) < 1 or not real:
        kind = str(images.dtype) if isinstance(images, torch.Tensor) else type(images).__name__
        raise DataError(
            "corrupt needs a tensor of floating-point images (n, channels, height, width), got "
            f"{kind} of shape {shape}."
        )
    inside = (images >= 0) & (images <= 1)  # NaN is neither.
    if not inside.all():
        raise DataError("corrupt needs images in [0, 1]. Scale them first.")
    amount = find_corruption(name).amounts[severity - 1]
    keys = list(range(len(images))) if keys is None else list(keys)
    if len(keys) != len(images):
        raise DataError(f"expected a key for each of {len(images)} slices, got {len(keys)}.")
    arrays = images.detach().cpu().float().numpy()
    changed = [
        torch.from_numpy(corrupt_slice(array, name, amount, (seed, key)))
        for array, key in zip(arrays, keys, strict=True)
    ]
    return torch.stack(changed).to(images) if changed else images.clone()
