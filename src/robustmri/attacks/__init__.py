"""max: the search of S(x) for the image that the classifier gets most wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, NamedTuple

from robustmri.attacks.apgd import APGD, apgd_ce, apgd_dlr, apgd_t
from robustmri.attacks.carlini_wagner import CarliniWagnerL2, cw
from robustmri.attacks.cascade import Cascade, standard
from robustmri.attacks.ddn import DDN
from robustmri.attacks.deepfool import DeepFool
from robustmri.attacks.elastic_net import ElasticNet
from robustmri.attacks.fmn import FMN
from robustmri.attacks.hop_skip_jump import HopSkipJump
from robustmri.attacks.noise import Noise
from robustmri.attacks.pgd import PGD, bim, fgsm
from robustmri.attacks.protocol import ALL_NORMS, Attack, Facts
from robustmri.attacks.settings import read_settings
from robustmri.attacks.sparse import SparsePGD
from robustmri.attacks.spsa import SPSA
from robustmri.attacks.square import Square
from robustmri.attacks.third_party import LIBRARIES, ThirdParty, find_own
from robustmri.attacks.transfer import RandomStep, Transfer, di_fgsm, ni_fgsm, ti_fgsm, vmi_fgsm
from robustmri.attacks.universal import Universal, add_universal, learn_universal
from robustmri.core.errors import SettingsError, did_you_mean

# From the cheapest to the most expensive.
_MAKERS: tuple[Any, ...] = (
    Noise,
    fgsm,
    bim,
    PGD,
    RandomStep,
    Transfer,
    ni_fgsm,
    di_fgsm,
    ti_fgsm,
    vmi_fgsm,
    cw,
    APGD,
    apgd_ce,
    apgd_dlr,
    apgd_t,
    Square,
    SPSA,
    Universal,
    DeepFool,
    FMN,
    DDN,
    SparsePGD,
    CarliniWagnerL2,
    ElasticNet,
    HopSkipJump,
    standard,
)


class Known(NamedTuple):
    """What is true of an attack, and how it is made from its settings."""

    facts: Facts
    make: Callable[..., Attack]


ATTACKS = {make.facts.name: Known(make.facts, make) for make in _MAKERS}
"""Name on the command line to attack."""


def find_attack(name: str) -> Known:
    """What is known of the attack of that name.

    Args:
        name: a key of `ATTACKS`; "torchattacks:NAME" or "foolbox:NAME"; or "MODULE:NAME", a class
            or function of one's own that makes an `Attack`. It has attributes `norms` and `minimal`
            if they are not the defaults of `Facts`.

    Raises:
        SettingsError: no such attack, or its library is not installed.
    """
    library, colon, kind = name.partition(":")
    if library in LIBRARIES:
        facts = ThirdParty(library, kind).facts
        return Known(facts, lambda **settings: ThirdParty(library, kind, settings))
    if colon:
        own = find_own(library, kind)
        norms, minimal = getattr(own, "norms", ALL_NORMS), getattr(own, "minimal", False)
        return Known(Facts(name, name, "one's own", norms=norms, minimal=minimal), own)
    if name not in ATTACKS:
        raise SettingsError(f"There is no attack {name!r}. {did_you_mean(name, ATTACKS)}")
    return ATTACKS[name]


def is_minimal(name: str) -> bool:
    """Whether the attack of that name has no radius."""
    return find_attack(name).facts.minimal


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
    "ALL_NORMS",
    "ATTACKS",
    "DDN",
    "LIBRARIES",
    "FMN",
    "PGD",
    "SPSA",
    "Attack",
    "Facts",
    "Known",
    "CarliniWagnerL2",
    "Cascade",
    "DeepFool",
    "ElasticNet",
    "HopSkipJump",
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
    "di_fgsm",
    "fgsm",
    "find_attack",
    "is_minimal",
    "learn_universal",
    "make_attack",
    "ni_fgsm",
    "ti_fgsm",
    "vmi_fgsm",
    "standard",
]
