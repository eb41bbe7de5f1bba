"""Settings from a recipe: a wrong name or kind is one sentence, and an attack's own errors stay
what they are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_origin, get_type_hints

import numpy as np
import pytest

import robustmri.attacks
from robustmri.attacks import ATTACKS, Facts, KnownAttack, fgsm, make_attack
from robustmri.core.errors import SettingsError, ThreatModelError


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("pgd", {"step": 3}, "Attack 'pgd' has no setting 'step'. Did you mean 'steps'?"),
        ("bim", {"step": 3}, "Attack 'bim' has no setting 'step'. Did you mean 'steps'?"),
        ("pgd", {"steps": 2.5}, "Attack 'pgd': steps cannot be 2.5. Expected `int`, got `float`."),
        ("fgsm", {"steps": "many"}, "Attack 'fgsm': steps cannot be 'many'."),
        ("cw-l2", {"confidence": True}, "Attack 'cw-l2': confidence cannot be True."),
        ("pgd", {"loss": "hinge"}, "Attack 'pgd': loss cannot be 'hinge'."),
        ("gpd", {}, "Did you mean 'pgd'?"),
    ],
)
def test_wrong_settings_are_told_in_one_sentence(name, settings, message):
    with pytest.raises(SettingsError) as caught:
        make_attack(name, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG = {
    int: ("3", 2.5, None, True, float("nan")),
    float: ("3", None, True, float("nan"), 1j),
    bool: ("no", 1, None),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_takes_a_setting_of_another_kind(name):
    """From Python, where no recipe stands in between."""
    kind = type(make_attack(name))
    given = {field.name: getattr(make_attack(name), field.name) for field in fields(kind)}
    hints = get_type_hints(kind)
    for setting in given:
        words = (None, "hinge", ["a"]) if get_origin(hints[setting]) is Literal else ()
        for wrong in (*WRONG.get(hints[setting], ()), *words):
            with pytest.raises(ThreatModelError, match=f"{setting} must be "):
                kind(**{**given, setting: wrong})


def test_numbers_of_numpy_are_numbers():
    assert robustmri.attacks.PGD(steps=np.int64(3), step_size=np.float32(0.5)).steps == 3


def test_a_whole_number_may_stand_for_a_float():
    assert make_attack("pgd", step_size=1).step_size == 1.0


@dataclass(frozen=True)
class Spoilt:
    steps: int = 1
    kind: Literal["a", "b"] = "a"

    def __post_init__(self):
        if self.steps > 1:
            raise TypeError("a mistake in the attack itself")


def with_more(kind: Literal["a", "b"] = "b", more: float = 0.0) -> Spoilt:
    return Spoilt(kind=kind)


def test_a_mistake_of_the_attack_is_not_blamed_on_its_settings(monkeypatch):
    monkeypatch.setitem(ATTACKS, "spoilt", KnownAttack(Facts("spoilt", "Spoilt", ""), Spoilt))
    assert make_attack("spoilt", kind="b") == Spoilt(kind="b")
    with pytest.raises(TypeError, match="a mistake in the attack itself"):
        make_attack("spoilt", steps=2)


def test_a_function_has_its_own_settings_only(monkeypatch):
    monkeypatch.setitem(ATTACKS, "more", KnownAttack(Facts("more", "More", ""), with_more))
    assert make_attack("more", more=1) == Spoilt(kind="b")
    with pytest.raises(SettingsError, match=r"no setting 'steps'\. Choices: kind, more"):
        make_attack("more", steps=1)


class Odd:
    """A type that no recipe can name."""


@dataclass(frozen=True)
class OddlySet:
    odd: Odd | int | Any = None
    other: Odd | None = None


def test_a_setting_of_a_type_that_recipes_do_not_know_is_the_attack_s_to_check(monkeypatch):
    monkeypatch.setitem(ATTACKS, "odd", KnownAttack(Facts("odd", "Odd", ""), OddlySet))
    made = make_attack("odd", odd=3)
    assert made == OddlySet(odd=3)


def test_two_attacks_of_one_name_are_refused(monkeypatch):
    @dataclass(frozen=True)
    class Again:
        facts = Facts("fgsm", "Again", "")

    monkeypatch.setattr("robustmri.attacks.noise.Again", Again, raising=False)
    with pytest.raises(SettingsError, match="Two attacks are named 'fgsm'"):
        robustmri.attacks._read_folder()
    monkeypatch.undo()
    assert robustmri.attacks._read_folder()["fgsm"].make is fgsm
