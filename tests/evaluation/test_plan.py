"""What is going to be tried: every attack at every radius once, and nothing that cannot be run."""

from __future__ import annotations

import pytest

from robustmri.core.errors import DataError, RobustMRIError, SettingsError, ThreatModelError
from robustmri.evaluation.plan import QUERY_ATTACKS, resolve_attacks, with_query_attacks
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.threat.eps import Eps


def test_every_attack_at_every_radius_once(planned):
    plan = planned(
        attacks=("fgsm", "pgd", "cw-l2", "fgsm"),
        eps=("0.04", "0.04@normalised"),
        curve=("0.02", "0.04", "0.020"),
        curve_attack="pgd",
    )
    pixels, normalised = Eps(0.04), Eps(0.04, "normalised")
    assert [(one.facts.name, one.eps, one.curve) for one in plan.trials] == [
        ("none", None, ()),
        ("fgsm", pixels, ()),
        ("pgd", pixels, ()),
        ("fgsm", normalised, ()),
        ("pgd", normalised, ()),
        ("cw-l2", None, ()),
        ("pgd", None, (Eps(0.02),)),
    ]
    radii = [one.threat.eps for one in plan.trials]
    assert radii == [0, 0.04, 0.04, 0.01, 0.01, float("inf"), 0.02]
    assert [one.threat.norm for one in plan.trials][5] == "l2"
    assert plan.trials[6].at(Eps(0.02), plan.std).name == "pgd-0.02-image"


def test_trials_that_differ_have_names_that_differ(planned):
    plan = planned(attacks=("pgd", "cw-l2"), eps=("8/255", "0.0313725", "0.0313725@normalised"))
    names = [trial.name for trial in plan.trials]
    assert len(set(names)) == 5
    assert all(name.isascii() and not set(name) & set("/@ ") for name in names)


def test_slices_are_evenly_spaced_and_none_is_of_the_target_class(planned):
    plan = planned(attacks=("pgd", "cw-l2"), limit=7, minimal_limit=2, target="glioma")
    clean, pgd, nearest = plan.trials
    assert clean.rows == (0, 2, 4, 6, 7, 9, 11)
    assert pgd.rows == (7, 9, 11), "those of another class than the target"
    assert nearest.rows == (7, 11)
    assert (clean.threat.target, pgd.threat.target) == (None, 0)
    with pytest.raises(DataError, match="no slice of another class than the target 'glioma'"):
        planned(limit=1, target="glioma")
    with pytest.raises(SettingsError, match="Did you mean 'glioma'"):
        planned(target="gliona")


def test_code_of_others_runs_only_where_it_is_trusted(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "theirs.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "from robustmri.attacks import PGD as Mine\n"
    )
    for settings in (
        EvaluateSettings(attacks=("theirs:Mine",)),
        EvaluateSettings(attacks=("pgd",), options={"theirs:Mine": {"steps": 2}}),
        EvaluateSettings(curve=("0.1",), curve_attack="theirs:Mine"),
    ):
        with pytest.raises(SettingsError, match="'theirs:Mine' is code of its author's"):
            resolve_attacks(settings)
    assert not (tmp_path / "ran").exists()
    made = resolve_attacks(EvaluateSettings(attacks=("theirs:Mine",)), trusted=("theirs:Mine",))
    assert made["theirs:Mine"][1].steps == 20
    assert (tmp_path / "ran").exists()


def test_a_classifier_without_gradients_meets_queries_alone(planned):
    for settings in (
        {"attacks": ("square", "pgd", "standard")},
        {"attacks": ("square",), "curve": ("0.1",), "curve_attack": "pgd"},
    ):
        planned(**settings)
        with pytest.raises(SettingsError, match=r"theirs only answers, .*pgd.* asks for gradients"):
            planned(gradients=False, **settings)
    assert len(planned(gradients=False, attacks=QUERY_ATTACKS).trials) == 4
    settings = EvaluateSettings(
        attacks=("pgd",), curve=("0.1",), options={"pgd": {"steps": 2}, "square": {"queries": 5}}
    )
    asking = with_query_attacks(settings)
    assert (asking.attacks, asking.curve_attack) == (QUERY_ATTACKS, "square")
    assert asking.options == {"square": {"queries": 5}}
    for other, known in (
        ({"threat": "gamma"}, ("square", "spsa")),
        ({"norm": "l2"}, QUERY_ATTACKS),
    ):
        asking = with_query_attacks(EvaluateSettings(eps=("0.3",), **other))
        assert asking.attacks == known
        resolve_attacks(asking)
    made = resolve_attacks(asking)
    assert {facts.knowledge for facts, _ in made.values()} <= {"scores", "decisions"}


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
        ({"attacks": ("nowhere:PGD",)}, "'nowhere:PGD' is code of its author's"),
        ({"batch_size": 0}, "batch_size"),
        ({"limit": -1}, "limit must be at least 0"),
        ({"max_seconds": -1.0}, "max_seconds must be at least 0"),
        ({"max_seconds": float("nan")}, "max_seconds must be at least 0"),
        ({"examples_per_class": -1}, "examples_per_class"),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_refused_at_once(wrong, message):
    with pytest.raises(RobustMRIError, match=message) as caught:
        resolve_attacks(EvaluateSettings(**wrong))
    assert isinstance(caught.value, (SettingsError, ThreatModelError))


@pytest.mark.parametrize("place", ["eps", "curve"])
def test_every_radius_is_read_at_once(place):
    with pytest.raises(ThreatModelError, match=r"eps '8/0' is not a number"):
        EvaluateSettings(**{place: ("0.04", "8/0")})
