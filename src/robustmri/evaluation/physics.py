"""What a scanner does, beside what an attacker does: corruptions at five severities, and physical
threats of which an average and the worst are sought.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from robustmri.attacks import APGD, SPSA, Attack, Facts, Noise
from robustmri.core.errors import SettingsError, did_you_mean
from robustmri.data.corruptions import CORRUPTIONS, SEVERITIES
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.evaluation.trial import Trial
from robustmri.models.classifier import Classifier
from robustmri.results.budget import RANDOM, RANDOM_SEARCH
from robustmri.threat.eps import Eps
from robustmri.threat.physical import PhysicalThreat
from robustmri.threat.physical_transforms import TRANSFORMS
from robustmri.threat.threat_model import ThreatModel

DRAWS = 20
"""Random parameters of which the worst is taken, beside the search."""
CONTROL = "the control arm"
SEARCHES: tuple[tuple[Facts, Attack], ...] = (
    (Facts(RANDOM, "One random draw", CONTROL, knowledge="nothing"), Noise()),
    (
        Facts(RANDOM_SEARCH, f"Worst of {DRAWS} random draws", CONTROL, knowledge="decisions"),
        Noise(draws=DRAWS),
    ),
)
CLIMB = APGD(steps=30, restarts=3, stop_when_fooled=True)
ASK = SPSA(steps=20, samples=8)
"""In place of it, where the classifier offers no gradient."""


def plan_corruptions(
    settings: EvaluateSettings,
    classifier: Classifier,
    everyone: Sequence[int],
    attacked: Sequence[int],
    target: int | None,
) -> list[Trial]:
    """Trials for everything that `settings.corruptions` names.

    Args:
        settings: of the evaluation.
        classifier: that is asked.
        everyone: slices that are corrupted.
        attacked: slices whose parameters are searched.
        target: class that an attacker wants to see.

    Raises:
        SettingsError: a name that is neither a corruption nor a physical threat.
    """
    known = list(dict.fromkeys([*CORRUPTIONS, *TRANSFORMS]))
    named = known if settings.corruptions == ("all",) else list(dict.fromkeys(settings.corruptions))
    for name in named:
        if name not in known:
            raise SettingsError(
                f"There is no corruption {name!r}. {did_you_mean(name, known)} 'all' alone names "
                "all of them."
            )
    trials = [corruption_trial(name, everyone) for name in named if name in CORRUPTIONS]
    climb = CLIMB if classifier.spec.gradients else ASK
    searches = (*SEARCHES, (climb.facts, climb))
    # What the whole evaluation is about needs no second look.
    for name in [name for name in named if name in TRANSFORMS and name != settings.threat]:
        threat = PhysicalThreat(name, target=target)
        trials += [physical_trial(facts, attack, threat, attacked) for facts, attack in searches]
    return trials


def corruption_trial(name: str, rows: Sequence[int]) -> Trial:
    """All severities of one corruption."""
    one = CORRUPTIONS[name]
    severities = tuple(Eps(float(severity)) for severity in SEVERITIES)
    return Trial(
        Facts(name, one.title, one.source, knowledge="nothing"),
        None,
        None,
        severities,
        ThreatModel("linf", torch.inf),
        tuple(rows),
        corruption=name,
    )


def physical_trial(
    facts: Facts, attack: Attack, threat: PhysicalThreat, rows: Sequence[int]
) -> Trial:
    """One search over the parameters of a threat. Its radius says nothing of pixels."""
    pixels = ThreatModel("linf", torch.inf, target=threat.target)
    return Trial(facts, attack, Eps(threat.amount), (), pixels, tuple(rows), physical=threat)
