"""What an evaluation is going to try: every attack, its threat and its slices, resolved once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch

from robustmri.attacks import LIBRARIES, Attack, Facts, ThirdParty, find_attack, make_attack
from robustmri.attacks.protocol import searches_parameters
from robustmri.core.errors import DataError, SettingsError, did_you_mean
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_region
from robustmri.data.regions import check_region
from robustmri.data.split import Split
from robustmri.evaluation.physics import physical_trial, plan_corruptions
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.evaluation.trial import NOTHING, Trial
from robustmri.models.classifier import Classifier
from robustmri.threat.eps import Eps, check_eps, parse_eps
from robustmri.threat.norms import NORMS
from robustmri.threat.physical import PhysicalThreat, check_amount
from robustmri.threat.physical_transforms import find_transform
from robustmri.threat.threat_model import ThreatModel

QUERY_ATTACKS = ("square", "spsa", "hop-skip-jump")
"""What is asked of a classifier that offers no gradient, unless other attacks are named."""


@dataclass(frozen=True)
class Plan:
    """The trials of an evaluation in the order in which they are run; the first is untouched."""

    settings: EvaluateSettings
    std: float
    trials: tuple[Trial, ...]

    @property
    def attacks(self) -> tuple[Trial, ...]:
        """The trials with an attack, and those with a corruption."""
        return self.trials[1:]

    def confine(
        self, threat: ThreatModel, cohort: Cohort, rows: Sequence[int], device: torch.device
    ) -> ThreatModel:
        """The threat to some slices, of which only the region may change."""
        region = load_region(cohort, rows, self.settings.region)
        return replace(threat, mask=None if region is None else region.to(device))


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
    if settings.threat:
        _refuse_beside_threat(settings)
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
        if settings.threat and (
            isinstance(attack, ThirdParty) or not searches_parameters(facts, attack)
        ):
            raise SettingsError(
                f"{name!r} cannot search over the parameters of {settings.threat}: that takes an "
                "attack of ours within eps, in l-infinity, for which images are no pictures. Name "
                "others: --attacks pgd,apgd, or square,spsa for one that only answers."
            )
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
    everyone = evaluated_slices(split, settings, cohort)
    # A slice that is of the target class already cannot be made so.
    attacked = [row for row in everyone if cohort.cases[row].label != settings.target]

    def trial(name: str, eps: Eps | None, curve: tuple[Eps, ...] = ()) -> Trial:
        facts, attack = made[name]
        if facts.minimal:
            norm = settings.norm if settings.norm in facts.norms else facts.norms[0]
            rows = spread_evenly(attacked, settings.minimal_limit)
            threat = ThreatModel(norm, torch.inf, target=target)
            return Trial(facts, attack, None, (), threat, tuple(rows))
        if settings.threat and eps is not None:
            amount = check_amount(eps, find_transform(settings.threat))
            physical = PhysicalThreat(settings.threat, amount, target)
            return physical_trial(facts, attack, physical, attacked)
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
        eps
        for eps in dict.fromkeys(map(parse_eps, settings.curve))
        if (settings.curve_attack, eps) not in limited
    )
    trials = [trial(name, eps) for name, eps in dict.fromkeys(limited)]
    trials += [trial(name, None) for name in dict.fromkeys(minimal)]
    trials += [trial(settings.curve_attack, None, curve)] if curve else []
    trials += plan_corruptions(settings, classifier, everyone, attacked, target)
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


def _refuse_beside_threat(settings: EvaluateSettings) -> None:
    """Refuse what has no meaning where attacks search over parameters."""
    find_transform(settings.threat)
    unlike = EvaluateSettings()
    for name, usual in (("curve", ()), ("region", unlike.region), ("norm", unlike.norm)):
        if getattr(settings, name) != usual:
            hint = " Name several eps instead: --eps 0.1,0.2,0.3." if name == "curve" else ""
            raise SettingsError(
                f"{name} has no meaning with the physical threat {settings.threat}, got "
                f"{getattr(settings, name)!r}.{hint}"
            )


def with_query_attacks(settings: EvaluateSettings) -> EvaluateSettings:
    """The settings with those of `QUERY_ATTACKS` that know the norm or the physical threat, the
    curve with the first of them.

    Raises:
        SettingsError: none does.
    """
    known = tuple(
        name
        for name in QUERY_ATTACKS
        if (
            searches_parameters(find_attack(name).facts, make_attack(name))
            if settings.threat
            else settings.norm in find_attack(name).facts.norms
        )
    )
    if not known:
        raise SettingsError(
            f"the classifier only answers, and no attack by queries knows {settings.norm}. Choose "
            "--norm linf or l2."
        )
    options = {name: given for name, given in settings.options.items() if name in known}
    return msgspec.structs.replace(settings, attacks=known, curve_attack=known[0], options=options)


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


def evaluated_slices(split: Split, settings: EvaluateSettings, cohort: Cohort) -> list[int]:
    """Slices to attack in the cohort's order: all, those that are named, or `limit` evenly spaced,
    so that many patients take part.

    Raises:
        DataError: a case or a patient is named that the set does not have.
    """
    rows = sorted(split.validation if settings.evaluated_set == "validation" else split.test)
    if settings.chosen:
        rows = _named(rows, settings, cohort)
    return spread_evenly(rows, settings.limit)


def _named(rows: Sequence[int], settings: EvaluateSettings, cohort: Cohort) -> list[int]:
    named = {"case": set(settings.cases), "patient": set(settings.patients)}
    known = {"case": {cohort.cases[row].case_id for row in rows}}
    known["patient"] = {cohort.cases[row].patient_id for row in rows}
    for what, names in named.items():
        if missing := names - known[what]:
            raise DataError(
                f"the {settings.evaluated_set} set has no {what} {min(missing)!r}. "
                f"{did_you_mean(min(missing), known[what])}"
            )
    return [
        row
        for row in rows
        if cohort.cases[row].case_id in named["case"]
        or cohort.cases[row].patient_id in named["patient"]
    ]


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
