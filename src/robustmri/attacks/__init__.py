"""max: the search of S(x) for the image that the classifier gets most wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robustmri.attacks.carlini_wagner import CarliniWagnerL2, cw
from robustmri.attacks.noise import Noise
from robustmri.attacks.pgd import PGD, bim, fgsm
from robustmri.attacks.protocol import Attack
from robustmri.errors import SettingsError, did_you_mean

ATTACKS: dict[str, Callable[..., Attack]] = {
    "noise": Noise,
    "fgsm": fgsm,
    "bim": bim,
    "pgd": PGD,
    "cw": cw,
    "cw-l2": CarliniWagnerL2,
}
"""Name on the command line to attack, from the cheapest to the dearest."""

MINIMAL = {"cw-l2"}
"""Attacks that have no radius: they look for the nearest fooling image."""


def make_attack(name: str, **settings: Any) -> Attack:
    """The attack of that name, with `settings` in place of its defaults.

    Raises:
        SettingsError: no such attack, or a setting that it does not have.
    """
    if name not in ATTACKS:
        raise SettingsError(f"There is no attack {name!r}. {did_you_mean(name, ATTACKS)}")
    try:
        return ATTACKS[name](**settings)
    except TypeError as error:
        raise SettingsError(f"Attack {name!r}: {error}.") from error


__all__ = ["ATTACKS", "MINIMAL", "PGD", "Attack", "CarliniWagnerL2", "Noise", "bim", "cw", "fgsm", "make_attack"]
