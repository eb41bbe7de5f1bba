from __future__ import annotations

import inspect

from robustmri.core import errors


def test_every_error_is_one_that_the_command_line_prints():
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    ]
    assert len(kinds) > 5
    assert all(issubclass(kind, errors.RobustMRIError) for kind in kinds)
    assert all(kind.__doc__ for kind in kinds)


def test_nearest_choice_is_asked_for():
    assert errors.did_you_mean("pdg", ["pgd", "fgsm"]).startswith("Did you mean 'pgd'?")


def test_without_a_near_one_the_choices_are_listed():
    assert errors.did_you_mean("zzz", ("pgd", "fgsm")) == "Choices: fgsm, pgd."
