"""max: the search of S(x) for the image that the classifier gets most wrong.

An attack is a file of this folder that says in its `facts` what is true of it; no list names them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from typing import Any, NamedTuple

from robustmri.attacks.apgd import APGD, apgd_ce, apgd_dlr, apgd_t
from robustmri.attacks.carlini_wagner import CarliniWagnerL2, cw
from robustmri.attacks.cascade import Cascade, standard
from robustmri.attacks.ddn import DDN
from robustmri.attacks.deepfool import DeepFool
from robustmri.attacks.elastic_net import ElasticNet
from robustmri.attacks.fmn import FMN
from robustmri.attacks.hop_skip_jump import HopSkipJump
from robustmri.attacks.nearest import Nearest
from robustmri.attacks.noise import Noise
from robustmri.attacks.pgd import PGD, bim, fgsm
from robustmri.attacks.protocol import Attack, CheckedAttack, Facts, described
from robustmri.attacks.settings import read_settings
from robustmri.attacks.sparse import SparsePGD
from robustmri.attacks.spsa import SPSA
from robustmri.attacks.square import Square
from robustmri.attacks.third_party import LIBRARIES, ThirdParty, find_own
from robustmri.attacks.transfer import RandomStep, Transfer, di_fgsm, ni_fgsm, ti_fgsm, vmi_fgsm
from robustmri.attacks.universal import Universal, add_universal, learn_universal
from robustmri.core.errors import SettingsError, did_you_mean


class KnownAttack(NamedTuple):
    """What is true of an attack, and how it is made from its settings."""

    facts: Facts
    make: Callable[..., Attack]


def _read_folder() -> dict[str, KnownAttack]:
    """Every attack of this folder's files: what is written there and has facts with a name.

    Those with a radius first, then those that look for the nearest image, then suites.
    """
    found: dict[str, KnownAttack] = {}
    for file in pkgutil.iter_modules(__path__):
        for made in vars(importlib.import_module(f"{__name__}.{file.name}")).values():
            facts = getattr(made, "facts", None)
            if not isinstance(facts, Facts) or not facts.name:
                continue
            if found.setdefault(facts.name, KnownAttack(facts, made)).make is not made:
                raise SettingsError(f"Two attacks are named {facts.name!r}. Rename one of them.")
    kinds = {name: (bool(facts.members), facts.minimal) for name, (facts, _) in found.items()}
    return {name: found[name] for name in sorted(found, key=lambda name: (kinds[name], name))}


ATTACKS = _read_folder()
"""Name on the command line to attack."""


def find_attack(name: str) -> KnownAttack:
    """What is known of the attack of that name.

    Args:
        name: a key of `ATTACKS`; "torchattacks:NAME" or "foolbox:NAME"; or "MODULE:NAME", a class
            or function of one's own that makes an `Attack`. Its attribute `facts` is a `Facts`,
            unless the defaults of that are true of it.

    Raises:
        SettingsError: no such attack, or its library is not installed.
    """
    library, colon, kind = name.partition(":")
    if library in LIBRARIES:
        facts = ThirdParty(library, kind).facts
        return KnownAttack(facts, lambda **settings: ThirdParty(library, kind, settings))
    if colon:
        own = find_own(library, kind)
        facts = getattr(own, "facts", Facts(name, name, "one's own"))
        return KnownAttack(replace(facts, name=name), own)
    if name not in ATTACKS:
        raise SettingsError(f"There is no attack {name!r}. {did_you_mean(name, ATTACKS)}")
    return ATTACKS[name]


def make_attack(name: str, **settings: Any) -> Attack:
    """The attack of that name (see `find_attack`), with `settings` in place of its defaults.

    Raises:
        SettingsError: no such attack, a setting that it does not have, or a value of another kind.
    """
    make = find_attack(name).make
    checked = is_dataclass(make) or ":" not in name
    return make(**read_settings(name, make, settings) if checked else settings)


__all__ = [
    "APGD",
    "ATTACKS",
    "DDN",
    "LIBRARIES",
    "FMN",
    "PGD",
    "SPSA",
    "Attack",
    "Facts",
    "CheckedAttack",
    "KnownAttack",
    "CarliniWagnerL2",
    "Cascade",
    "DeepFool",
    "ElasticNet",
    "HopSkipJump",
    "Nearest",
    "Noise",
    "RandomStep",
    "SparsePGD",
    "Square",
    "ThirdParty",
    "Transfer",
    "Universal",
    "add_universal",
    "apgd_ce",
    "apgd_dlr",
    "apgd_t",
    "bim",
    "cw",
    "described",
    "di_fgsm",
    "fgsm",
    "find_attack",
    "learn_universal",
    "make_attack",
    "ni_fgsm",
    "ti_fgsm",
    "vmi_fgsm",
    "standard",
]
