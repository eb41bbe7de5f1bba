"""One thing that an evaluation tries on some slices: an attack within a radius, or a corruption."""

from __future__ import annotations

from dataclasses import dataclass, replace

from robustmri.attacks import Attack, Facts
from robustmri.core.files import check_name
from robustmri.results.budget import CLEAN, CORRUPTION, TITLES
from robustmri.threat.eps import Eps
from robustmri.threat.physical import PhysicalThreat
from robustmri.threat.threat_model import ThreatModel

NOTHING = Facts(CLEAN, TITLES[CLEAN], "", knowledge="nothing")


@dataclass(frozen=True)
class Trial:
    """One attack at one radius, or along a curve of several at once, on some slices.

    Attributes:
        facts: of the attack; those of `NOTHING` for the clean slices.
        attack: what is run; None for the clean slices.
        eps: as the user gave it; None for attacks that have no radius, for a curve, and untouched.
        curve: radii that one search answers for; empty where it is no curve.
        threat: in image units, without the mask of the region, at the largest of the radii.
        rows: indexes of the slices in the cohort.
        physical: whose parameters the attack searches, in place of the pixels.
        corruption: what a scanner does, in place of an attack; the curve are its severities.
    """

    facts: Facts
    attack: Attack | None
    eps: Eps | None
    curve: tuple[Eps, ...]
    threat: ThreatModel
    rows: tuple[int, ...]
    physical: PhysicalThreat | None = None
    corruption: str = ""

    @property
    def norm(self) -> str:
        """In what its radii are: a norm, a physical threat, or `CORRUPTION`; untouched: nothing."""
        if self.corruption:
            return CORRUPTION
        return "" if self.clean else self.physical.kind if self.physical else self.threat.norm

    @property
    def radii(self) -> tuple[Eps, ...]:
        """The radii of its outcomes; none where it looks for the nearest fooling image."""
        return self.curve or (() if self.eps is None else (self.eps,))

    @property
    def clean(self) -> bool:
        """Whether the slices stay as they are."""
        return self.attack is None and not self.corruption

    @property
    def name(self) -> str:
        """Short and fit for a file name."""
        attack = check_name(self.facts.name.replace(":", "-"), "an attack")
        if self.physical or self.corruption:
            attack = f"{attack}-{self.norm}"
        if self.curve:
            return f"{attack}-curve"
        # All digits: 8/255 and 0.0313725 are two radii.
        return attack if self.eps is None else f"{attack}-{self.eps.value}-{self.eps.units}"

    def at(self, eps: Eps, std: float) -> Trial:
        """The trial at one radius of its curve."""
        if self.corruption:
            return replace(self, eps=eps, curve=())
        threat = replace(self.threat, eps=eps.in_image_units(std))
        return replace(self, eps=eps, curve=(), threat=threat)
