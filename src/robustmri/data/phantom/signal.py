"""Spin-echo physics: tissues, scanner settings, signal levels, bias field and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from robustmri.data.phantom.shapes import Array


class Tissue(NamedTuple):
    """What the spin-echo equation needs to know; pairs are values at 1.5 T and 3 T.

    Attributes:
        density: protons per volume, water = 1.
        gadolinium_mm: concentration some minutes after 0.1 mmol/kg, mmol per litre of tissue.
    """

    density: float
    t1_ms: tuple[float, float]
    t2_ms: tuple[float, float]
    gadolinium_mm: float = 0.0


# T1, T2: white and grey matter, blood, muscle: Stanisz et al. 2005 (Magn Reson Med 54:507), but
# grey matter at 1.5 T from Rooney et al. 2007 (Magn Reson Med 57:308), in vivo; fat, marrow: de
# Bazelaire et al. 2004 (Radiology 230:652); CSF: subarachnoid space at 3 T, 4.3 s and 1.9 s, hardly
# a matter of field. Densities: about the water content. Oedema, tumours, mucosa and glands before
# contrast: our choice, between these. Gadolinium: T1 of an enhancing glioblastoma falls by 838 +-
# 210 ms at 3 T (Mueller et al. 2020), about 0.2 mmol/l from 1.4 s; ours is brighter, to stand out.
TISSUES = {
    "air": Tissue(0.0, (1000, 1000), (50, 50)),
    "bone": Tissue(0.12, (500, 550), (5, 5)),
    "marrow": Tissue(0.62, (549, 586), (49, 49)),
    "fat": Tissue(0.85, (343, 382), (58, 68)),
    "skin": Tissue(0.75, (700, 800), (30, 30), 0.05),
    "muscle": Tissue(0.80, (1008, 1412), (44, 50), 0.06),
    "mucosa": Tissue(0.80, (1000, 1300), (60, 60), 0.22),
    "csf": Tissue(1.0, (4300, 4300), (1900, 1900)),
    "vitreous": Tissue(1.0, (3900, 3900), (1000, 1000)),
    "grey": Tissue(0.80, (1188, 1820), (95, 99), 0.012),
    "white": Tissue(0.71, (884, 1084), (72, 69), 0.006),
    "dura": Tissue(0.65, (1000, 1200), (40, 40), 0.14),
    "blood": Tissue(0.85, (1441, 1932), (290, 275), 0.34),
    "flow void": Tissue(0.05, (1441, 1932), (290, 275)),
    "choroid": Tissue(0.85, (1300, 1700), (100, 100), 0.22),
    "gland": Tissue(0.80, (1000, 1300), (80, 80), 0.24),
    "meningioma": Tissue(0.84, (1100, 1450), (90, 90), 0.32),
    "glioma": Tissue(0.86, (1250, 1600), (110, 105), 0.32),
    "infiltrated": Tissue(0.86, (1350, 1750), (120, 115), 0.02),
    "necrosis": Tissue(0.93, (2400, 3000), (220, 200), 0.01),
    "oedema": Tissue(0.84, (1500, 2100), (140, 130), 0.005),
    "adenoma": Tissue(0.82, (1100, 1450), (85, 85), 0.28),
}

# l / (mmol s) at 1.5 T and 3 T, gadobutrol in plasma. r1: Szomolanyi et al. 2019 (Invest Radiol
# 54:559); r2: Rohrer et al. 2005 (Invest Radiol 40:715).
RELAXIVITY_1 = (4.78, 4.97)
RELAXIVITY_2 = (6.1, 7.1)

SHARE_AT_1_5_TESLA = 0.6
TR_MS = {1.5: (430, 650), 3.0: (520, 760)}
TE_MS = (8, 16)


def spin_echo(
    tissue: Tissue, *, tesla: float, tr_ms: float, te_ms: float, gadolinium_mm: float
) -> float:
    """Signal of a spin echo, `density * (1 - exp(-TR R1)) * exp(-TE R2)`, in units of fully relaxed
    water.

    Gadolinium adds to the rates: `R1 = 1 / T1 + r1 * concentration`, `R2` likewise.

    >>> settings = {"tesla": 1.5, "tr_ms": 500.0, "te_ms": 12.0}
    >>> round(spin_echo(TISSUES["white"], gadolinium_mm=0.0, **settings), 3)
    0.26
    >>> round(spin_echo(TISSUES["glioma"], gadolinium_mm=0.3, **settings), 3)
    0.507
    """
    column = 0 if tesla < 2 else 1
    rate_1 = 1000 / tissue.t1_ms[column] + RELAXIVITY_1[column] * gadolinium_mm
    rate_2 = 1000 / tissue.t2_ms[column] + RELAXIVITY_2[column] * gadolinium_mm
    return float(
        tissue.density * (1 - np.exp(-tr_ms * rate_1 / 1000)) * np.exp(-te_ms * rate_2 / 1000)
    )


@dataclass(frozen=True)
class Scanner:
    """One examination: sequence, contrast dose, coil and noise.

    Attributes:
        dose: factor on every gadolinium concentration (dose, and minutes since the injection).
        noise: standard deviation of the noise in each of the two channels, units of fully relaxed
            water.
        bias: coefficients of the logarithm of the bias field, for x, y, z, x^2, y^2, z^2, xy, xz,
            yz in units of 100 mm near the middle.
        gain: stored grey levels for the signal of fully relaxed water.
    """

    tesla: float
    tr_ms: float
    te_ms: float
    dose: float
    noise: float
    bias: tuple[float, ...]
    gain: float
    field_of_view_mm: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Scanner:
        """Settings as they vary from one examination to the next."""
        tesla = 1.5 if rng.random() < SHARE_AT_1_5_TESLA else 3.0
        coil = rng.uniform(0.0, 0.15)  # A coil array sees the surface brighter than the centre.
        bias = rng.normal(0, 0.06, size=9) + np.array([0, 0, 0, coil, coil, coil, 0, 0, 0])
        return cls(
            tesla=tesla,
            tr_ms=float(rng.uniform(*TR_MS[tesla])),
            te_ms=float(rng.uniform(*TE_MS)),
            dose=float(np.exp(rng.normal(0, 0.15))),
            noise=float(rng.uniform(0.006, 0.018)),
            bias=tuple(bias.tolist()),
            gain=float(rng.uniform(2200, 4200)),
            field_of_view_mm=float(rng.uniform(200, 224)),
        )

    def levels(self, rng: np.random.Generator) -> dict[str, float]:
        """Signal of every tissue; density and enhancement differ a little from patient to
        patient.
        """
        return {
            name: spin_echo(
                tissue._replace(density=tissue.density * float(np.exp(rng.normal(0, 0.02)))),
                tesla=self.tesla,
                tr_ms=self.tr_ms,
                te_ms=self.te_ms,
                gadolinium_mm=tissue.gadolinium_mm * self.dose * float(np.exp(rng.normal(0, 0.10))),
            )
            for name, tissue in TISSUES.items()
        }

    def acquire(
        self, signal: Array, points: Array, rng: np.random.Generator
    ) -> npt.NDArray[np.uint16]:
        """Stored 12-bit grey levels: bias field, noise in both channels, magnitude (hence Rician),
        rounding.

        Args:
            signal: shape (n,), units of fully relaxed water.
            points: where, mm in the scanner, shape (3, n).
            rng: draws the noise.
        """
        x, y, z = np.tanh(points / np.float32(100))  # Levels off outside the coil.
        terms = (x, y, z, x * x, y * y, z * z, x * y, x * z, y * z)
        shading = np.exp(
            sum(np.float32(weight) * term for weight, term in zip(self.bias, terms, strict=True))
        )
        real = signal * shading + rng.normal(0, self.noise, signal.shape).astype(np.float32)
        imaginary = rng.normal(0, self.noise, signal.shape).astype(np.float32)
        grey = np.rint(np.hypot(real, imaginary) * self.gain)
        stored: npt.NDArray[np.uint16] = np.clip(grey, 0, 4095).astype(np.uint16)
        return stored
