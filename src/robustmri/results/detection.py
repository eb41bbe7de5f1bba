"""What an evaluation says of detectors of attacked slices, and of attacks that know them."""

from __future__ import annotations

from typing import Literal

import msgspec


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A share of `n` slices of `n_patients` patients, with its 95 % interval by patient."""

    share: float
    ci_low: float
    ci_high: float
    interval: str
    n: int
    n_patients: int


class DetectorResult(msgspec.Struct, frozen=True, kw_only=True):
    """One detector: what it says of untouched slices, of an attack that knows nothing of it, and of
    one that does.

    Attributes:
        detector: its name, with `title` and `paper`.
        rate: share of false alarms that its threshold was set for.
        calibrated_on: slices, none of them attacked, that the threshold was set on, of
            `calibrated_patients` patients; of several evaluations pooled the fewest.
        attack: on the classifier alone, by name; norm, eps, eps_units, eps_image and target as in
            `Result`.
        false_alarms: share of the untouched slices about which there is alarm.
        turned: share of the slices, right untouched, that the attack turned.
        noticed: share of those about which there is alarm; None where it turned none.
        unnoticed: share of the slices, right untouched, that an attack on classifier and detector
            together turned without alarm.
    """

    detector: str
    title: str
    paper: str
    rate: float
    calibrated_on: int
    calibrated_patients: int
    attack: str
    norm: str
    eps: float
    eps_units: Literal["image", "normalised"]
    eps_image: float
    target: str = ""
    false_alarms: Share
    turned: Share
    noticed: Share | None
    unnoticed: Share
