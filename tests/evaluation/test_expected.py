from __future__ import annotations

import pytest
import torch

from robustmri.data.cohort import Cohort
from robustmri.data.split import Split
from robustmri.evaluation import expected
from robustmri.evaluation.expected import FEWEST, Pace, plan_evaluation, work_of
from robustmri.evaluation.plan import make_plan
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.models.backbones import build_classifier

OPTIONS = {"pgd": {"restarts": 3, "steps": 10}, "cw-l2": {"steps": 5, "searches": 2}}
SETTINGS = EvaluateSettings(
    attacks=("fgsm", "pgd", "cw-l2"), eps=("0.04",), options=OPTIONS, minimal_limit=4
)
CPU = torch.device("cpu")


@pytest.fixture
def classifier(tiny_cohort):
    return build_classifier("resnet18-half", Cohort.open(tiny_cohort).classes, 32).eval()


@pytest.fixture
def plan(classifier, tiny_cohort):
    def make(settings=SETTINGS):
        return make_plan(settings, classifier, Cohort.open(tiny_cohort), Split.load(tiny_cohort))

    return make


def test_work_is_counted_as_if_every_image_stood(plan):
    work = [(one.minimal, one.gradients) for one in work_of(plan(), 3)]
    assert work == [(False, 1), (False, 30), (True, 10)]


@pytest.mark.parametrize(
    ("attack", "norm", "gradients"),
    [
        ("deepfool", "linf", 100),
        ("nearest", "linf", 500),
        ("nearest", "l2", 1000),
        ("nearest", "l1", 1000),
    ],
)
def test_a_search_without_a_radius_may_take_all_its_steps(attack, norm, gradients, plan):
    """As many gradients as docs/attacks.md says of three classes, at most."""
    settings = EvaluateSettings(attacks=(attack,), norm=norm)
    (work,) = work_of(plan(settings), 3)
    assert work.gradients == gradients
    assert work.forwards > gradients / 2


def test_an_attack_is_counted_alike_at_every_radius(plan):
    both = EvaluateSettings(attacks=("pgd",), eps=("0.04", "0.01"), options={"pgd": {"steps": 4}})
    assert [one.gradients for one in work_of(plan(both), 3)] == [4, 4]


def test_corruptions_are_counted_and_physical_threats_apart(plan):
    both = EvaluateSettings(
        attacks=("apgd",), options={"apgd": {"steps": 4}}, corruptions=("rotation", "patch")
    )
    work = [(one.gradients, one.forwards) for one in work_of(plan(both), 3)]
    assert work[:4] == [(4, 5), (0, 5), (0, 1), (0, 20)]
    assert work[4][0] == 3 * 30


def test_as_many_slices_as_fit(monkeypatch, classifier, plan):
    monkeypatch.setattr(expected, "pace_of", lambda *given: Pace(0.01, 0.003))
    slices = len(plan().trials[0].rows)
    assert slices > 10
    everything = plan_evaluation(classifier, plan(), 1000.0, CPU)
    assert (everything.limit, everything.max_seconds) == (0, 0.0)
    some = plan_evaluation(classifier, plan(), everything.seconds / 2, CPU)
    assert FEWEST < some.limit < slices
    assert some.seconds <= everything.seconds / 2
    none = plan_evaluation(classifier, plan(), 0.1, CPU)
    assert none.limit == FEWEST
    assert none.max_seconds > 0


def test_what_is_asked_afterwards_is_counted(monkeypatch, classifier, plan):
    monkeypatch.setattr(expected, "pace_of", lambda *given: Pace(0.01, 0.003))
    with_probes = plan_evaluation(classifier, plan(), 1000.0, CPU).seconds
    monkeypatch.setattr(expected, "PROBES", (0, 0, 0))
    alone = plan_evaluation(classifier, plan(), 1000.0, CPU).seconds
    assert with_probes - alone == pytest.approx(8 * 1.3 * (50 * 0.01 + 120 * 0.003))


def test_it_is_measured(classifier, plan):
    found = plan_evaluation(classifier, plan(), 600.0, CPU)
    assert found.limit == 0
    assert 0 < found.seconds < 600
