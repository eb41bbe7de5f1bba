"""What holds for whatever number someone gives a setting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmri.core.errors import RobustMRIError, SettingsError
from robustmri.core.settings import check_bounds, choices_of, help_of
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.recipes import PrepareSettings, change_settings, load_recipe
from robustmri.training.settings import TrainSettings

STAGES: dict[str, type[msgspec.Struct]] = {
    "prepare": PrepareSettings,
    "train": TrainSettings,
    "evaluate": EvaluateSettings,
}
FIELDS = [(stage, field) for stage, kind in STAGES.items() for field in kind.__struct_fields__]
NUMBERS = [
    (stage, name)
    for stage, name in FIELDS
    if isinstance(getattr(STAGES[stage](), name), (int, float))
    and not isinstance(getattr(STAGES[stage](), name), bool)
]
CHOICES = [(stage, name) for stage, name in FIELDS if choices_of(STAGES[stage], name)]


def number_for(where: tuple[str, str]) -> st.SearchStrategy[tuple[str, str, float]]:
    """A setting, and a number of its kind: near its bounds, or anywhere."""
    stage, name = where
    whole = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))
    broken = st.one_of(st.floats(-3, 3), st.floats())
    kind = whole if isinstance(getattr(STAGES[stage](), name), int) else broken
    return st.tuples(st.just(stage), st.just(name), kind)


numbers = st.sampled_from(NUMBERS).flatmap(number_for)


def refusal(make: Callable[[], Any]) -> str:
    """What our error says, or nothing where there is none."""
    try:
        make()
    except RobustMRIError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("stage", "name"), FIELDS, ids=".".join)
def test_a_setting_says_what_it_is(stage, name):
    assert len(help_of(STAGES[stage], name)) > 3


@given(numbers)
def test_a_number_is_within_the_bounds_or_named(drawn):
    stage, name, value = drawn
    said = refusal(lambda: STAGES[stage](**{name: value}))
    if said:
        assert said.startswith((f"{name} must be ", f"{name} must have "))
        assert said.endswith(f"got {value}.")
    else:
        assert math.isfinite(value)
        settings = STAGES[stage](**{name: value})
        assert change_settings(settings, {}) == settings


@given(st.sampled_from(CHOICES), st.one_of(st.text(max_size=8), st.just("linf")))
def test_a_word_is_one_of_the_choices_or_refused(where, value):
    stage, name = where
    known = value in choices_of(STAGES[stage], name)
    if known:
        assert getattr(STAGES[stage](**{name: value}), name) == value
    else:
        with pytest.raises(SettingsError, match=f"^{name} cannot be"):
            STAGES[stage](**{name: value})


@given(numbers)
def test_a_text_from_the_command_line_is_as_good_as_the_number(drawn):
    stage, name, value = drawn
    recipe = load_recipe("demo")

    def by_text() -> msgspec.Struct:
        return getattr(load_recipe("demo", [f"{stage}.{name}={value}"]), stage)

    def by_number() -> msgspec.Struct:
        return change_settings(getattr(recipe, stage), {name: value})

    assert bool(refusal(by_text)) == bool(refusal(by_number))
    if not refusal(by_text):
        assert by_text() == by_number()


class Plain(msgspec.Struct):
    """A setting of which nothing is said."""

    number: float = 1.0


def test_a_number_without_bounds_is_at_least_finite():
    check_bounds(Plain(-1e9))
    with pytest.raises(SettingsError, match="number must be a finite number, got nan"):
        check_bounds(Plain(math.nan))
