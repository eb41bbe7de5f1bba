"""What goes wrong while k-space is read: its edges, single points of it, or a head that moves."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from robustmri.data.corruptions.geometry import moved
from robustmri.data.corruptions.slices import Image, Random, as_array, coin

MOVES = 6
"""How often the head moves during a scan."""
GHOSTS = 4
"""Copies of the head along the phase-encoding axis."""
CENTRE = 0.02
"""Share of the lines in the middle of k-space that ghosting leaves as they are."""


def gibbs_ringing(image: Image, amount: float, random: Random) -> Image:
    """k-space cut off outside a disc: ringing beside edges. `amount` is the share of the largest
    radius that is cut.

    Reference: Morelli et al. 2011; MONAI GibbsNoise.
    """
    from monai.transforms import GibbsNoise

    return as_array(GibbsNoise(amount)(image))


def spikes(image: Image, amount: float, random: Random) -> Image:
    """One point of k-space far too strong: stripes over the slice, of that contrast. Its place is
    drawn at a tenth to a third of the largest frequency.

    Reference: Graves & Mitchell 2013 (herringbone); MONAI KSpaceSpikeNoise.
    """
    from monai.transforms import KSpaceSpikeNoise

    size = np.array(image.shape[-2:])
    radius, angle = random.uniform(0.1, 0.33), random.uniform(0, 2 * math.pi)
    step = radius / 2 * np.array([math.sin(angle), math.cos(angle)])
    place = tuple(int(at) for at in (size // 2 + np.round(step * size)))
    # A wave of amplitude a is a point of a n pixels, of which the real part keeps all.
    strength = math.log(max(amount * float(size.prod()), 1e-10))
    points = [(channel, *place) for channel in range(image.shape[0])]
    change = KSpaceSpikeNoise(points, [strength] * len(points))
    return as_array(change(image)) if amount else image


def motion(image: Image, amount: float, random: Random) -> Image:
    """The head moves six times while k-space is read line by line: turns by up to `amount`
    degrees, shifts by up to `amount` % of the width.

    Each part of k-space is that of the head where it lay then; it lies as in the image while the
    middle is read. Reference: Shaw et al. 2019; the simulation follows TorchIO's RandomMotion.
    """
    height = image.shape[-2]
    times = np.sort(random.uniform(0.0, 1.0, MOVES)) * height
    places = random.uniform(-1.0, 1.0, (MOVES + 1, 3)) * amount
    part = np.searchsorted(times, np.arange(height))
    places[part[height // 2]] = 0.0
    spectra = [_spectrum(moved(image, turn, (down, right))) for turn, down, right in places]
    lines = [spectra[number][:, line] for line, number in enumerate(part)]
    return _magnitude(np.stack(lines, axis=1))


def ghosting(image: Image, amount: float, random: Random) -> Image:
    """Every fourth line of k-space weaker by that share, but for the middle: copies of the head
    along the phase-encoding axis, which is drawn.

    Reference: TorchIO's RandomGhosting, after which it is made.
    """
    axis = -2 if coin(random) > 0 else -1
    spectrum = np.moveaxis(_spectrum(image), axis, -1).copy()
    lines = spectrum.shape[-1]
    weight = np.ones(lines)
    weight[random.randint(GHOSTS) :: GHOSTS] = 1 - amount
    half = max(1, round(lines * CENTRE / 2))
    weight[lines // 2 - half : lines // 2 + half] = 1.0
    return _magnitude(np.moveaxis(spectrum * weight, -1, axis))


def resolution(image: Image, amount: float, random: Random) -> Image:
    """A wider point spread, as of larger pixels: a Gaussian blur, its standard deviation that share
    of the width in %. Reference: MONAI GaussianSmooth.
    """
    from monai.transforms import GaussianSmooth

    return as_array(GaussianSmooth(amount / 100 * image.shape[-1])(image)) if amount else image


def _spectrum(image: Image) -> npt.NDArray[np.complex64]:
    """k-space, its middle in the middle; lines along the last but one axis are read in turn."""
    axes = (-2, -1)
    return np.asarray(np.fft.fftshift(np.fft.fft2(image), axes), dtype=np.complex64)


def _magnitude(spectrum: npt.NDArray[np.complex64]) -> Image:
    axes = (-2, -1)
    return np.abs(np.fft.ifft2(np.fft.ifftshift(spectrum, axes))).astype(np.float32)
