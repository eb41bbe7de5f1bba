"""What an evaluation is going to try: every attack, its threat and its slices, resolved once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch

from robustmri.attacks import LIBRARIES, Attack, Facts, ThirdParty, find_attack, make_attack
from robustmri.core.errors import DataError, SettingsError, did_you_mean
from robustmri.core.files import check_name
from robustmri.data.cohort import Cohort
from robustmri.data.regions import check_region
from robustmri.data.split import Split
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.models.classifier import Classifier
from robustmri.results.budget import CLEAN, TITLES
from robustmri.threat.eps import Eps, check_eps, parse_eps
from robustmri.threat.norms import NORMS
from robustmri.threat.threat_model import ThreatModel

QUERY_ATTACKS = ("square", "spsa", "hop-skip-jump")
"""What is asked of a classifier that offers no gradient, unless other attacks are named."""
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
    """

    facts: Facts
    attack: Attack | None
    eps: Eps | None
    curve: tuple[Eps, ...]
    threat: ThreatModel
    rows: tuple[int, ...]

    @property
    def radii(self) -> tuple[Eps, ...]:
        """The radii of its outcomes; none where it looks for the nearest fooling image."""
        return self.curve or (() if self.eps is None else (self.eps,))

    @property
    def clean(self) -> bool:
        """Whether the slices stay as they are."""
        return self.attack is None

    @property
    def name(self) -> str:
        """Short and fit for a file name."""
        attack = check_name(self.facts.name.replace(":", "-"), "an attack")
        if self.curve:
            return f"{attack}-curve"
        # All digits: 8/255 and 0.0313725 are two radii.
        return attack if self.eps is None else f"{attack}-{self.eps.value}-{self.eps.units}"

    def at(self, eps: Eps, std: float) -> Trial:
        """The trial at one radius of its curve."""
        threat = replace(self.threat, eps=eps.in_image_units(std))
        return replace(self, eps=eps, curve=(), threat=threat)


@dataclass(frozen=True)
class Plan:
    """The trials of an evaluation in the order in which they are run; the first is untouched."""

    settings: EvaluateSettings
    std: float
    trials: tuple[Trial, ...]

    @property
    def attacks(self) -> tuple[Trial, ...]:
        """The trials with an attack."""
        return self.trials[1:]


def resolve_attacks(
    settings: EvaluateSettings, *, trusted: Collection[str] = ()
) -> dict[str, tuple[Facts, Attack]]:
    """Name to facts and attack, of all that the settings name.

    Args:
        settings: may come from a file of somebody else; nothing that it names is imported but
            attacks of ours, torchattacks' and foolbox's.
        trusted: names "MODULE:NAME" whose module may be imported, which runs its code.

    Raises:
        SettingsError: a norm, an attack, or a setting of one, that cannot be used.
    """
    named = [
        *settings.attacks,
        *settings.options,
        *([settings.curve_attack] if settings.curve else []),
    ]
    if settings.norm not in NORMS:
        raise SettingsError(
            f"norm cannot be {settings.norm!r}. {did_you_mean(settings.norm, NORMS)}"
        )
    made = {}
    for name in dict.fromkeys(named):
        if ":" in name and name.partition(":")[0] not in LIBRARIES and name not in trusted:
            raise SettingsError(
                f"{name!r} is code of its author's. To run it, name it on the command line with "
                "--attacks and add --trust (in Python: trusted=[...]); a file is not believed."
            )
        facts = find_attack(name).facts
        attack = make_attack(name, **settings.options.get(name, {}))
        made[name] = (facts, attack)
        if not facts.minimal and settings.norm not in facts.norms:
            raise SettingsError(
                f"{name!r} knows the norms {', '.join(facts.norms)}, not {settings.norm}."
            )
        if isinstance(attack, ThirdParty) and settings.region != "image":
            raise SettingsError(
                f"{name!r} cannot be confined to the region {settings.region!r}. Use our own "
                "attacks."
            )
        if settings.curve and name == settings.curve_attack:
            if facts.minimal:
                raise SettingsError(f"{name!r} has no radius and cannot draw a curve. Use pgd.")
            if isinstance(attack, ThirdParty):
                raise SettingsError(
                    f"{name!r} knows one radius for all images and cannot draw a curve. Use pgd."
                )
    return made


def make_plan(
    settings: EvaluateSettings,
    classifier: Classifier,
    cohort: Cohort,
    split: Split,
    *,
    trusted: Collection[str] = (),
) -> Plan:
    """Every attack at every radius, then those without one, then the curve; no trial twice.

    Raises:
        DataError: there is no slice to attack, or one without the region.
        SettingsError: see `resolve_attacks`; a target that is no class; or an attack that asks for
            gradients, of a classifier that offers none.
    """
    made = resolve_attacks(settings, trusted=trusted)
    if not classifier.spec.gradients:
        _refuse_gradients(settings, {name: facts for name, (facts, _) in made.items()}, classifier)
    for _, attack in made.values():
        if isinstance(attack, ThirdParty):
            attack.refuse_classes(len(classifier.classes), targeted=bool(settings.target))
    target = _target_of(settings, classifier)
    std = classifier.spec.grey_std
    everyone = evaluated_slices(split, settings)
    # A slice that is of the target class already cannot be made so.
    attacked = [row for row in everyone if cohort.cases[row].label != settings.target]

    def trial(name: str, eps: Eps | None, curve: tuple[Eps, ...] = ()) -> Trial:
        facts, attack = made[name]
        if facts.minimal:
            norm = settings.norm if settings.norm in facts.norms else facts.norms[0]
            rows = spread_evenly(attacked, settings.minimal_limit)
            threat = ThreatModel(norm, torch.inf, target=target)
            return Trial(facts, attack, None, (), threat, tuple(rows))
        for one in curve or (eps,):
            if one is not None:
                check_eps(one, settings.norm, std=std, shape=cohort.shape)
        largest = max(one.in_image_units(std) for one in (curve or (eps,)) if one is not None)
        threat = ThreatModel(settings.norm, largest, target=target)
        return Trial(facts, attack, eps, curve, threat, tuple(attacked))

    radii = [(name, parse_eps(eps)) for eps in settings.eps for name in settings.attacks]
    limited = [(name, eps) for name, eps in radii if not made[name][0].minimal]
    minimal = [name for name in settings.attacks if made[name][0].minimal]
    curve = tuple(
        parse_eps(eps)
        for eps in settings.curve
        if (settings.curve_attack, parse_eps(eps)) not in limited
    )
    trials = [trial(name, eps) for name, eps in dict.fromkeys(limited)]
    trials += [trial(name, None) for name in dict.fromkeys(minimal)]
    trials += [trial(settings.curve_attack, None, curve)] if curve else []
    clean = Trial(NOTHING, None, None, (), ThreatModel(settings.norm, 0.0), tuple(everyone))
    plan = Plan(settings, std, (clean, *trials))
    for one in plan.trials:
        check_region(cohort, one.rows, settings.region)
        if not one.rows:
            wanted = f" of another class than the target {settings.target!r}"
            raise DataError(
                f"the {settings.evaluated_set} set has no slice"
                f"{wanted if settings.target else ''}. Split again: robustmri prepare, or raise "
                "--limit."
            )
    return plan


def with_query_attacks(settings: EvaluateSettings) -> EvaluateSettings:
    """The settings with `QUERY_ATTACKS`, the curve with the first of them."""
    options = {name: given for name, given in settings.options.items() if name in QUERY_ATTACKS}
    return msgspec.structs.replace(
        settings, attacks=QUERY_ATTACKS, curve_attack=QUERY_ATTACKS[0], options=options
    )


def _refuse_gradients(
    settings: EvaluateSettings, facts: dict[str, Facts], classifier: Classifier
) -> None:
    named = [*settings.attacks, *([settings.curve_attack] if settings.curve else [])]
    climbing = [name for name in named if facts[name].knowledge == "gradients"]
    if climbing:
        raise SettingsError(
            f"{classifier.spec.backbone} only answers, it offers no gradient, and "
            f"{', '.join(dict.fromkeys(climbing))} asks for gradients. Name attacks that ask for "
            f"answers alone: {', '.join(QUERY_ATTACKS)}."
        )


def evaluated_slices(split: Split, settings: EvaluateSettings) -> list[int]:
    """Slices to attack in the cohort's order: all, or `limit` evenly spaced, so that many patients
    take part.
    """
    rows = sorted(split.validation if settings.evaluated_set == "validation" else split.test)
    return spread_evenly(rows, settings.limit)


def spread_evenly(rows: Sequence[int], limit: int) -> list[int]:
    """All of `rows`, or `limit` of them, evenly spaced; 0 is no limit.

    >>> spread_evenly([3, 4, 5, 6, 7], 3)
    [3, 5, 7]
    """
    if not limit or limit >= len(rows):
        return list(rows)
    return [rows[int(position)] for position in np.linspace(0, len(rows) - 1, limit).round()]


def _target_of(settings: EvaluateSettings, classifier: Classifier) -> int | None:
    if not settings.target:
        return None
    if settings.target not in classifier.classes:
        raise SettingsError(
            f"target {settings.target!r} is no class. "
            f"{did_you_mean(settings.target, classifier.classes)}"
        )
    return classifier.classes.index(settings.target)
