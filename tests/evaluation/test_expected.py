from __future__ import annotations

import pytest
import torch

from robustmri.evaluation import expected
from robustmri.evaluation.expected import FEWEST, Pace, plan_evaluation, work_of
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.models.backbones import build_classifier

OPTIONS = {"pgd": {"restarts": 3, "steps": 10}, "cw-l2": {"steps": 5, "searches": 2}}
SETTINGS = EvaluateSettings(
    attacks=("fgsm", "pgd", "cw-l2"), eps=("0.04",), options=OPTIONS, minimal_limit=4
)


@pytest.fixture
def classifier():
    return build_classifier("resnet18-half", ("a", "b", "c"), 32).eval()


def test_work_is_counted_as_if_every_image_stood():
    work = {one.job.attack: one for one in work_of(SETTINGS, 3)}
    assert work["fgsm"].gradients == 1
    assert work["pgd"].gradients == 30
    assert work["cw-l2"].gradients == 10


def test_an_attack_is_counted_alike_at_every_radius():
    both = EvaluateSettings(attacks=("pgd",), eps=("0.04", "0.01"), options={"pgd": {"steps": 4}})
    assert [one.gradients for one in work_of(both, 3)] == [4, 4]


def paced(monkeypatch, gradient):
    monkeypatch.setattr(expected, "pace_of", lambda *given: Pace(gradient, gradient / 3))


def test_as_many_slices_as_fit(monkeypatch, classifier):
    paced(monkeypatch, 0.01)
    device = torch.device("cpu")
    all_of_them = plan_evaluation(classifier, 50, SETTINGS, 1000.0, device)
    assert (all_of_them.limit, all_of_them.max_seconds) == (0, 0.0)
    some = plan_evaluation(classifier, 50, SETTINGS, all_of_them.seconds / 2, device)
    assert FEWEST < some.limit < 50
    assert some.seconds <= all_of_them.seconds / 2
    none = plan_evaluation(classifier, 50, SETTINGS, 0.1, device)
    assert none.limit == FEWEST
    assert none.max_seconds > 0


def test_it_is_measured(classifier):
    plan = plan_evaluation(classifier, 6, SETTINGS, 600.0, torch.device("cpu"))
    assert plan.limit == 0
    assert 0 < plan.seconds < 600
