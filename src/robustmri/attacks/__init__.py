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
from robustmri.attacks.protocol import Attack
from robustmri.attacks.settings import read_settings
from robustmri.attacks.sparse import SparsePGD
from robustmri.attacks.spsa import SPSA
from robustmri.attacks.square import Square
from robustmri.attacks.third_party import LIBRARIES, ThirdParty, find_own
from robustmri.attacks.transfer import RandomStep, Transfer, di_fgsm, ni_fgsm, ti_fgsm, vmi_fgsm
from robustmri.attacks.universal import Universal, add_universal, learn_universal
from robustmri.core.errors import SettingsError, did_you_mean

ALL_NORMS = ("linf", "l2", "l1")


class Entry(NamedTuple):
    """How an attack is made, the norms that it knows, and whether it looks for the nearest fooling
    image.
    """

    make: Callable[..., Attack]
    norms: tuple[str, ...] = ALL_NORMS
    minimal: bool = False


ATTACKS: dict[str, Entry] = {
    "noise": Entry(Noise),
    "fgsm": Entry(fgsm),
    "bim": Entry(bim),
    "pgd": Entry(PGD),
    "r-fgsm": Entry(RandomStep),
    "mi-fgsm": Entry(Transfer),
    "ni-fgsm": Entry(ni_fgsm),
    "di-fgsm": Entry(di_fgsm),
    "ti-fgsm": Entry(ti_fgsm),
    "vmi-fgsm": Entry(vmi_fgsm),
    "cw": Entry(cw),
    "apgd": Entry(APGD),
    "apgd-ce": Entry(apgd_ce),
    "apgd-dlr": Entry(apgd_dlr),
    "apgd-t": Entry(apgd_t),
    "square": Entry(Square, ("linf", "l2")),
    "spsa": Entry(SPSA),
    "universal": Entry(Universal, ("linf", "l2")),
    "deepfool": Entry(DeepFool, ("linf", "l2"), minimal=True),
    "fmn": Entry(FMN, minimal=True),
    "ddn": Entry(DDN, ("l2",), minimal=True),
    "pgd-l0": Entry(SparsePGD, ("l0",), minimal=True),
    "cw-l2": Entry(CarliniWagnerL2, ("l2",), minimal=True),
    "ead": Entry(ElasticNet, ("l1",), minimal=True),
    "hop-skip-jump": Entry(HopSkipJump, ("linf", "l2"), minimal=True),
    "standard": Entry(standard),
}
"""Name on the command line to attack, from the cheapest to the most expensive."""

MINIMAL = {name for name, entry in ATTACKS.items() if entry.minimal}
"""Attacks that have no radius: they look for the nearest fooling image."""


def find_entry(name: str) -> Entry:
    """What is known of the attack of that name.

    Args:
        name: a key of `ATTACKS`; "torchattacks:NAME" or "foolbox:NAME"; or "MODULE:NAME", a class
            or function of one's own that makes an `Attack`. It has attributes `norms` and `minimal`
            if they are not those of `Entry`.

    Raises:
        SettingsError: no such attack, or its library is not installed.
    """
    library, colon, kind = name.partition(":")
    if library in LIBRARIES:
        peer = ThirdParty(library, kind)
        return Entry(
            lambda **settings: ThirdParty(library, kind, settings), peer.norms, peer.minimal
        )
    if colon:
        own = find_own(library, kind)
        return Entry(own, getattr(own, "norms", ALL_NORMS), getattr(own, "minimal", False))
    if name not in ATTACKS:
        raise SettingsError(f"There is no attack {name!r}. {did_you_mean(name, ATTACKS)}")
    return ATTACKS[name]


def is_minimal(name: str) -> bool:
    """Whether the attack of that name has no radius."""
    return name in MINIMAL or (":" in name and find_entry(name).minimal)


def make_attack(name: str, **settings: Any) -> Attack:
    """The attack of that name (see `find_entry`), with `settings` in place of its defaults.

    Raises:
        SettingsError: no such attack, a setting that it does not have, or a value of another kind.
    """
    make = find_entry(name).make
    return make(
        **read_settings(name, make, settings) if is_dataclass(make) or ":" not in name else settings
    )


__all__ = [
    "APGD",
    "ALL_NORMS",
    "ATTACKS",
    "DDN",
    "FMN",
    "MINIMAL",
    "PGD",
    "SPSA",
    "Attack",
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
    "find_entry",
    "is_minimal",
    "learn_universal",
    "make_attack",
    "ni_fgsm",
    "ti_fgsm",
    "vmi_fgsm",
    "standard",
]
