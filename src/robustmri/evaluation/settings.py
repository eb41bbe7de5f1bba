"""Everything that decides what an evaluation measures."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from robustmri.attacks import ThirdParty, find_entry, is_minimal, make_attack
from robustmri.core.errors import SettingsError
from robustmri.data.regions import Region
from robustmri.evaluation.cost import Limits
from robustmri.threat.eps import Eps, parse_eps


class EvaluateSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one evaluation; the result folder keeps them.

    Attributes:
        attacks: names from `robustmri.attacks.ATTACKS`, or of other libraries
            (`robustmri.attacks.find_entry`).
        eps: radii for every attack, as text with units ("0.04", "8/255", "0.04@normalised"); the
            first is the headline.
        curve: further radii for the curve of accuracy against eps, with the `curve_attack` alone:
            one search for the smallest that fools each image (see `robustmri.attacks.minimal_eps`).
        curve_attack: attack of the curve.
        norm: "linf", "l2" or "l1"; attacks that look for the nearest fooling image in another norm
            keep their own.
        target: class that the attacker wants to see; "" for any wrong one.
        region: where pixels may change, a key of `robustmri.data.regions.REGIONS`.
        options: settings of single attacks, by name, in place of their defaults.
        evaluated_set: "test", or "validation" to compare settings without a look at the test
            patients.
        limit: slices of that set, evenly spaced; 0: all.
        minimal_limit: the same for attacks that look for the nearest fooling image, which cost far
            more; 0: all.
        examples_per_class: pictures of each class in the report.
        examples: case ids of the pictures; empty: chosen by a stated rule.
        max_seconds: time that an attack may take for an image, on average over its batch; 0: any.
            It then ends with what it has, and the result depends on the machine.
        max_gradients: gradients that it may take of an image; 0: any.
        max_forwards: how often it may ask the classifier about an image, or one in its place; 0:
            any.
        batch_size: slices attacked together; they are also the unit that a rerun after a kill does
            not repeat.
        precision: arithmetic of the search; every success is confirmed in float32 whatever it says.
        compile: whether `torch.compile` makes the search's view; pays, if at all, in long runs on a
            GPU.
        seed: of the attacks and of the bootstrap.
    """

    attacks: tuple[str, ...] = ("fgsm", "bim", "pgd", "cw")
    eps: tuple[str, ...] = ("0.04",)
    curve: tuple[str, ...] = ()
    curve_attack: str = "pgd"
    norm: Literal["linf", "l2", "l1"] = "linf"
    target: str = ""
    region: Region = "image"
    options: dict[str, dict[str, Any]] = {}
    evaluated_set: Literal["test", "validation"] = "test"
    limit: int = 0
    minimal_limit: int = 0
    examples_per_class: int = 2
    examples: tuple[str, ...] = ()
    max_seconds: float = 0.0
    max_gradients: int = 0
    max_forwards: int = 0
    batch_size: int = 64
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.attacks or not self.eps:
            raise SettingsError("an evaluation needs at least one attack and one eps.")
        if self.batch_size < 1 or min(self.limit, self.minimal_limit, self.examples_per_class) < 0:
            raise SettingsError(
                "batch_size must be at least 1; limits and examples_per_class at least 0."
            )
        if min(self.limits) < 0:
            raise SettingsError(
                "max_seconds, max_gradients and max_forwards must be at least 0; 0 is no limit."
            )
        for name in {*self.attacks, *self.options, *((self.curve_attack,) if self.curve else ())}:
            attack, entry = make_attack(name, **self.options.get(name, {})), find_entry(name)
            if not entry.minimal and self.norm not in entry.norms:
                raise SettingsError(
                    f"{name!r} knows the norms {', '.join(entry.norms)}, not {self.norm}."
                )
            if isinstance(attack, ThirdParty) and self.region != "image":
                raise SettingsError(
                    f"{name!r} cannot be confined to the region {self.region!r}. Use our own "
                    "attacks."
                )
            if (
                isinstance(attack, ThirdParty)
                and self.curve
                and name == self.curve_attack
                and not entry.minimal
            ):
                raise SettingsError(
                    f"{name!r} knows one radius for all images and cannot draw a curve. Use pgd."
                )
        for text in (*self.eps, *self.curve):
            parse_eps(text)
        if self.curve and is_minimal(self.curve_attack):
            raise SettingsError(
                f"{self.curve_attack!r} has no radius and cannot draw a curve. Use pgd."
            )

    @property
    def limits(self) -> Limits:
        """What an attack may spend on each image."""
        return Limits(self.max_seconds, self.max_gradients, self.max_forwards)


class Job(msgspec.Struct, frozen=True):
    """One attack at one radius; `eps` is None for attacks that have none, and for a `curve` of
    several at once.
    """

    attack: str
    eps: Eps | None
    curve: tuple[Eps, ...] = ()

    @property
    def radii(self) -> tuple[Eps, ...]:
        """The radii of its rows; none where it looks for the nearest fooling image."""
        return self.curve or (() if self.eps is None else (self.eps,))

    @property
    def name(self) -> str:
        """Short and fit for a file name."""
        attack = self.attack.replace(":", "-")
        if self.curve:
            return f"{attack}-curve"
        # All digits: 8/255 and 0.0313725 are two radii.
        return attack if self.eps is None else f"{attack}-{self.eps.value}-{self.eps.units}"


def jobs_of(settings: EvaluateSettings) -> list[Job]:
    """Every attack at every radius, the curve's radii, no job twice."""
    jobs = [
        Job(name, parse_eps(eps))
        for eps in settings.eps
        for name in settings.attacks
        if not is_minimal(name)
    ]
    jobs += [Job(name, None) for name in settings.attacks if is_minimal(name)]
    radii = tuple(
        parse_eps(eps)
        for eps in settings.curve
        if Job(settings.curve_attack, parse_eps(eps)) not in jobs
    )
    return list(
        dict.fromkeys([*jobs, *([Job(settings.curve_attack, None, radii)] if radii else [])])
    )
