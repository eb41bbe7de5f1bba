from __future__ import annotations

import pytest

from robustmri.core.errors import RobustMRIError, SettingsError, ThreatModelError
from robustmri.evaluation.settings import EvaluateSettings, Job, jobs_of
from robustmri.threat.eps import Eps


def test_jobs_are_every_attack_at_every_radius_once():
    settings = EvaluateSettings(
        attacks=("fgsm", "pgd", "cw-l2"),
        eps=("0.04", "0.04@normalised"),
        curve=("0.02", "0.04"),
        curve_attack="pgd",
    )
    pixels, normalised = Eps(0.04), Eps(0.04, "normalised")
    assert jobs_of(settings) == [
        Job("fgsm", pixels),
        Job("pgd", pixels),
        Job("fgsm", normalised),
        Job("pgd", normalised),
        Job("cw-l2", None),
        Job("pgd", None, (Eps(0.02),)),
    ]


def test_jobs_that_differ_have_names_that_differ():
    settings = EvaluateSettings(
        attacks=("pgd", "cw-l2"), eps=("8/255", "0.0313725", "0.0313725@normalised")
    )
    names = [job.name for job in jobs_of(settings)]
    assert len(set(names)) == 4
    assert all(name.isascii() and not set(name) & set("/@ ") for name in names)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"attacks": ()}, "at least one attack"),
        ({"eps": ()}, "one eps"),
        ({"attacks": ("pdg",)}, "no attack 'pdg'. Did you mean 'pgd'"),
        ({"options": {"pgdd": {}}}, "no attack 'pgdd'"),
        ({"options": {"pgd": {"step": 3}}}, "Attack 'pgd'.*step"),
        ({"options": {"pgd": {"steps": "many"}}}, "Attack 'pgd': steps cannot be 'many'"),
        ({"options": {"pgd": {"steps": 2.5}}}, "Attack 'pgd': steps cannot be 2.5"),
        ({"options": {"pgd": {"steps": 0}}}, "steps"),
        ({"curve": ("0.1",), "curve_attack": "cw-l2"}, "no radius"),
        ({"curve": ("0.1",), "curve_attack": "x"}, "no attack 'x'"),
        ({"attacks": ("nowhere:PGD",)}, "'nowhere' cannot be imported"),
        ({"batch_size": 0}, "batch_size"),
        ({"limit": -1}, "limits"),
        ({"max_seconds": -1.0}, "max_seconds, max_gradients and max_forwards must be at least 0"),
        ({"examples_per_class": -1}, "examples_per_class"),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_refused_at_once(wrong, message):
    with pytest.raises(RobustMRIError, match=message) as caught:
        EvaluateSettings(**wrong)
    assert isinstance(caught.value, (SettingsError, ThreatModelError))


@pytest.mark.parametrize("place", ["eps", "curve"])
def test_every_radius_is_read_at_once(place):
    with pytest.raises(ThreatModelError, match=r"eps '8/0' is not a number"):
        EvaluateSettings(**{place: ("0.04", "8/0")})
