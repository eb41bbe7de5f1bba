"""What changes grey values and leaves every structure in its place."""

from __future__ import annotations

from robustmri.data.corruptions.slices import Image, Random, as_array, coin, within_one


def bias_field(image: Image, amount: float, random: Random) -> Image:
    """A smooth gain, as a receive coil's sensitivity: the exponential of Legendre polynomials up to
    degree 3 with coefficients in [-amount, amount]. What grows above 1 is scaled down as a whole.

    Reference: Sudre, Cardoso & Ourselin 2017; MONAI RandBiasField.
    """
    from monai.transforms import RandBiasField

    change = RandBiasField(degree=3, coeff_range=(-amount, amount), prob=1.0)
    return within_one(as_array(change.set_random_state(state=random)(image)))


def gamma(image: Image, amount: float, random: Random) -> Image:
    """Grey values to the power of 1 + amount, or of its inverse. Reference: MONAI
    AdjustContrast.
    """
    from monai.transforms import AdjustContrast

    return as_array(AdjustContrast((1 + amount) ** coin(random))(image))


def contrast(image: Image, amount: float, random: Random) -> Image:
    """Differences from the mean made larger or smaller by that share, clipped to the range.
    Reference: MONAI ScaleIntensityFixedMean.
    """
    from monai.transforms import ScaleIntensityFixedMean

    change = ScaleIntensityFixedMean(fixed_mean=True, preserve_range=True)
    return as_array(change(image, coin(random) * amount))


def rician_noise(image: Image, amount: float, random: Random) -> Image:
    """Noise of a magnitude image: Gaussian noise of that standard deviation in the real and in the
    imaginary part.

    Reference: Gudbjartsson & Patz 1995; MONAI RandRicianNoise.
    """
    from monai.transforms import RandRicianNoise

    change = RandRicianNoise(prob=1.0, std=amount, sample_std=False)
    return as_array(change.set_random_state(state=random)(image))
