"""What moves structures: the head lies otherwise, or the field is not straight."""

from __future__ import annotations

import math

import numpy as np

from robustmri.data.corruptions.slices import Image, Random, as_array, coin


def rotation(image: Image, amount: float, random: Random) -> Image:
    """Turned by that many degrees, one way or the other. Reference: MONAI Affine."""
    return moved(image, coin(random) * amount, (0.0, 0.0))


def shift(image: Image, amount: float, random: Random) -> Image:
    """Shifted by that share of the width in %, in a direction that is drawn. Reference: MONAI
    Affine.
    """
    angle = random.uniform(0, 2 * math.pi)
    return moved(image, 0.0, (amount * math.sin(angle), amount * math.cos(angle)))


def elastic(image: Image, amount: float, random: Random) -> Image:
    """A smooth random displacement whose standard deviation along each axis is that share of the
    width in %: noise blurred by a sixteenth of the width.

    Reference: Simard, Steinkraus & Platt 2003, Sec. 2.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    width = image.shape[-1]
    noise = random.standard_normal((2, *image.shape[-2:]))
    smooth = gaussian_filter(noise, (0, width / 16, width / 16), mode="wrap")
    places = np.indices(image.shape[-2:]) + amount / 100 * width * smooth / smooth.std()
    planes = [map_coordinates(plane, places, order=1) for plane in image]
    return np.stack(planes) if amount else image


def moved(image: Image, turn: float, shift: tuple[float, float]) -> Image:
    """The slice turned by degrees and shifted by % of the width down and right; black outside."""
    from monai.transforms import Affine

    if not turn and not any(shift):
        return image
    pixels = [-part / 100 * image.shape[-1] for part in shift]
    change = Affine(
        rotate_params=math.radians(turn),
        translate_params=pixels,
        padding_mode="zeros",
        image_only=True,
    )
    return as_array(change(np.ascontiguousarray(image)))
