"""How strong the five severities of each corruption are: amounts at which phantom slices have the
mean SSIM with their originals that `Corruption.similarity` states.

    python -m benchmarks.severities             prints the amounts (minutes)
    python -m benchmarks.severities PICTURE.png draws phantoms at severity 1, 3 and 5
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import robustmri
from robustmri.core.arrays import Images
from robustmri.data.corruptions import CORRUPTIONS, corrupt_slice
from robustmri.data.loaders import load_images

SLICES, SIZE = 24, 128
HALVINGS = 9
MOST = {
    "bias-field": 2.0,
    "gamma": 2.0,
    "contrast": 0.95,
    "rician-noise": 0.3,
    "gibbs": 0.98,
    "spikes": 0.3,
    "motion": 8.0,
    "ghosting": 1.0,
    "rotation": 60.0,
    "shift": 25.0,
    "elastic": 4.0,
    "resolution": 2.0,
}
"""More than severity 5 needs."""


def phantom_slices(count: int = SLICES, size: int = SIZE) -> Images:
    """Evenly spaced slices of a phantom cohort, shape (count, 1, size, size)."""
    with tempfile.TemporaryDirectory() as folder:
        source = f"phantom:patients=12,slices=6,size={size},seed=0"
        cohort = robustmri.prepare(source, Path(folder) / "cohort", size=size)
        rows = np.linspace(0, len(cohort) - 1, count).round().astype(int).tolist()
        return load_images(cohort, rows)


def mean_similarity(images: Images, name: str, amount: float) -> float:
    """Mean SSIM (Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5) of the slices with
    themselves corrupted.
    """
    from monai.metrics.regression import SSIMMetric

    changed = torch.stack(
        [
            torch.from_numpy(corrupt_slice(image.numpy(), name, amount, (0, number)))
            for number, image in enumerate(images)
        ]
    )
    measure = SSIMMetric(spatial_dims=2, data_range=1.0, win_size=11, kernel_sigma=1.5)
    return float(torch.as_tensor(measure(changed, images)).mean())


def calibrate(images: Images, name: str) -> tuple[float, ...]:
    """The amount of each severity, to three digits."""
    amounts = [0.0]
    for target in CORRUPTIONS[name].similarity:
        low, high = amounts[-1], MOST[name]
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if mean_similarity(images, name, middle) > target:
                low = middle
            else:
                high = middle
        amounts.append(float(f"{(low + high) / 2:.3g}"))
    return tuple(amounts[1:])


def draw(images: Images, path: Path, severities: Sequence[int] = (1, 3, 5)) -> None:
    """A row for each corruption: the phantom, and the same at some severities."""
    from PIL import Image, ImageDraw

    side, head, names = images.shape[-1], 14, list(CORRUPTIONS)
    columns, half = 1 + len(severities), (len(names) + 1) // 2
    gap = 8
    sheet = Image.new("L", (2 * columns * side + gap, half * (side + head)), 255)
    write = ImageDraw.Draw(sheet)
    for number, name in enumerate(names):
        one = CORRUPTIONS[name]
        left, top = (number // half) * (columns * side + gap), (number % half) * (side + head)
        original = images[number % len(images)].numpy()
        amounts = [0.0, *(one.amounts[severity - 1] for severity in severities)]
        said = ["original", *(f"severity {severity}" for severity in severities)]
        for column, (amount, words) in enumerate(zip(amounts, said, strict=True)):
            shown = original if not column else corrupt_slice(original, name, amount, (0, number))
            place = (left + column * side, top + head)
            sheet.paste(Image.fromarray((shown[0] * 255).round().astype(np.uint8)), place)
            write.text((place[0] + 2, top + 1), one.title if not column else words, fill=0)
    sheet.save(path, optimize=True)


def main() -> None:
    """See above."""
    images = phantom_slices()
    if len(sys.argv) > 1:
        draw(images, Path(sys.argv[1]))
        return
    for name in CORRUPTIONS:
        print(name, calibrate(images, name), flush=True)


if __name__ == "__main__":
    main()
