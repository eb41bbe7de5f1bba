"""What an evaluation says of patients rather than slices: endpoints, strata, and which confusion
costs what.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Endpoint = Literal["every slice", "majority", "mean probability"]
ENDPOINTS: dict[Endpoint, str] = {
    "every slice": "every slice is named rightly: one that is flipped is enough",
    "majority": "more than half of the slices are named rightly",
    "mean probability": "the class with the largest mean probability is the true one",
}
"""When a patient counts as right."""


class PatientShare(msgspec.Struct, frozen=True, kw_only=True):
    """Share of patients who are right by one endpoint.

    `of` patients were right untouched, and `turned` of them no longer are.
    """

    endpoint: Endpoint
    attack: str
    norm: str
    eps: float | None
    eps_units: str
    target: str
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    interval: str
    of: int
    turned: int


class Stratum(msgspec.Struct, frozen=True, kw_only=True):
    """Slices of one class, plane or size of the lesion, untouched and under the headline's
    attack: shares that are right, or, where the attack has a target, not named as it. The interval
    is that of `accuracy`.
    """

    by: Literal["class", "plane", "lesion size"]
    name: str
    n_slices: int
    n_patients: int
    clean: float
    accuracy: float
    ci_low: float
    ci_high: float
    interval: str


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a wrong answer costs, in the user's unit, and what follows from it in their words."""

    truth: str
    answer: str
    cost: float
    consequence: str = ""


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """Slices of one class that are named as another, untouched and under the headline's attack;
    `patients` have one or more of the latter.
    """

    truth: str
    answer: str
    clean: int
    attacked: int
    patients: int


class MeanCost(msgspec.Struct, frozen=True, kw_only=True):
    """Mean cost of a slice, with its interval by patient."""

    attack: str
    mean: float
    ci_low: float
    ci_high: float
    interval: str


class PatientFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Everything by patient.

    `level` is that of each stratum's interval, so that all of them together hold what one interval
    of 95 % does. The strata, mistakes and costs are under `attack` at the budget of the headline;
    both are empty where nothing was attacked within a radius.
    """

    shares: list[PatientShare]
    attack: str
    norm: str
    eps: float | None
    eps_units: str
    target: str
    level: float
    strata: list[Stratum]
    mistakes: list[Mistake]
    costs: list[Cost] = []
    mean_costs: list[MeanCost] = []
