"""Detectors: their squeezers and distances against other libraries, their thresholds by counting,
and that an attack on both is the stronger one.
"""

from __future__ import annotations

import shutil

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.ndimage
import torch
from torch import nn

from robustmri.attacks import PGD
from robustmri.core.errors import DataError, ResultError, SettingsError
from robustmri.evaluation.detection import detection_plan, summarise_detection
from robustmri.evaluation.detectors import (
    DETECTORS,
    FeatureSqueezing,
    Judged,
    calibrate,
    features_at,
    fit_distance,
    last_linear,
    reduce_depth,
    shrunk_covariance,
    smooth_median,
)
from robustmri.evaluation.joint_attack import Unnoticed, search_unnoticed
from robustmri.evaluation.recount import refuse_contradictions
from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.report import write_page
from robustmri.results.outcomes import Outcomes
from robustmri.results.schema import load_result, save_result
from robustmri.threat.threat_model import ThreatModel
from robustmri.verbs.evaluate import evaluate
from robustmri.verbs.pool import pool


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 6), nn.Tanh(), nn.Linear(6, 3)
    )
    spec = ClassifierSpec(backbone="own", classes=("a", "b", "c"), size=8, mean=0.0, std=1.0)
    return Classifier(network, spec).eval().requires_grad_(False)


@pytest.mark.parametrize("window", [2, 3])
def test_the_median_is_scipys(window):
    images = torch.rand(2, 3, 9, 7, generator=seeded())
    theirs = scipy.ndimage.median_filter(images.numpy(), size=(1, 1, window, window))
    assert np.array_equal(smooth_median(images, window).numpy(), theirs)


def test_rounding_passes_its_gradient():
    images = torch.rand(1, 1, 4, 4, generator=seeded()).requires_grad_()
    squeezed = reduce_depth(images, 3)
    assert torch.allclose(squeezed * 7, (squeezed * 7).round(), atol=1e-5)
    (gradient,) = torch.autograd.grad(squeezed.sum(), images)
    assert (gradient == 1).all()


@pytest.mark.parametrize(("n", "d"), [(40, 5), (20, 60)])
def test_the_covariance_is_sklearns(n, d):
    from sklearn.covariance import ledoit_wolf

    features = torch.randn(n, d, generator=seeded()).double() * torch.linspace(0.2, 3, d)
    centred = features - features.mean(0)
    theirs, _ = ledoit_wolf(centred.numpy(), assume_centered=True)
    assert np.allclose(shrunk_covariance(centred).numpy(), theirs, rtol=1e-5, atol=1e-5)


def test_the_distance_is_mahalanobis(classifier):
    images, labels = torch.rand(60, 1, 8, 8, generator=seeded()), torch.arange(60) % 3
    fitted = fit_distance(classifier, [(images[:30], labels[:30]), (images[30:], labels[30:])])
    features = features_at(classifier, fitted.layer, images)[1].double()
    assert features.shape == (60, 6)
    means = torch.stack([features[labels == k].mean(0) for k in range(3)])
    inverse = torch.linalg.inv(shrunk_covariance(features - means[labels]))
    away = features[:, None] - means[None]
    wanted = torch.einsum("nkd,de,nke->nk", away, inverse, away).amin(1)
    assert torch.allclose(fitted(images).score.double(), wanted, rtol=1e-3)


def test_squeezing_is_the_largest_distance_of_the_answers(classifier):
    images = torch.rand(5, 1, 8, 8, generator=seeded())
    judged = FeatureSqueezing(classifier, bits=2)(images)
    before = classifier(images).softmax(1)
    apart = [
        (classifier(squeezed).softmax(1) - before).abs().sum(1)
        for squeezed in (reduce_depth(images, 2), smooth_median(images, 2))
    ]
    assert torch.allclose(judged.score, torch.maximum(*apart), atol=1e-6)
    assert judged.others.shape == (5, 2, 3)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("n", [19, 20, 101])
def test_so_many_scores_and_no_more_raise_alarm(n, rate):
    scores = torch.rand(n, generator=seeded())
    alarms = int((scores > calibrate(scores, rate)).sum())
    assert alarms <= rate * n < alarms + 2
    with pytest.raises(DataError, match="is set by 19 slices or more, the validation set has 18"):
        calibrate(scores[:18], 0.05)


def test_a_network_without_a_last_linear_layer_is_refused(classifier):
    assert last_linear(classifier) is classifier.network[-1]
    odd = Classifier(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), classifier.spec)
    with pytest.raises(SettingsError, match="--detectors feature-squeezing"):
        last_linear(odd)


def run(judge, threshold, images, labels, eps=0.3, **threat):
    """What an attack on both finds, from what PGD finds alone, and how many it turns unnoticed."""
    at = ThreatModel(eps=eps, **threat)
    start = PGD(steps=10)(lambda points: judge(points).logits, images, labels, at)
    found = search_unnoticed(
        judge,
        threshold,
        images,
        labels,
        at,
        classes=3,
        units=(1.0, 1.0),
        start=start,
        generator=seeded(),
        steps=20,
    )
    assert (found - images).abs().max() <= eps + 1e-6

    def unnoticed(points):
        logits, _, score = judge(points)
        wrong = at.fooled(logits, labels)
        return int((wrong & (score <= threshold)).sum()), int(wrong.sum())

    return unnoticed(start), unnoticed(found)


@pytest.fixture(scope="module")
def slices(classifier):
    images = torch.rand(24, 1, 8, 8, generator=seeded(3))
    return images, classifier(images).argmax(1)


@pytest.mark.parametrize("name", list(DETECTORS))
def test_who_knows_the_detector_passes_where_who_does_not_is_noticed(name, classifier, slices):
    """By construction never less; here, within a wide eps, far more."""
    images, labels = slices
    training = torch.rand(90, 1, 8, 8, generator=seeded(1))
    judge = DETECTORS[name].fit(classifier, [(training, classifier(training).argmax(1))])
    threshold = calibrate(judge(torch.rand(60, 1, 8, 8, generator=seeded(2))).score, 0.05)
    (plain, turned), (both, _) = run(judge, threshold, images, labels)
    assert turned == 24
    assert plain <= 12
    assert both >= 20


def test_a_detector_that_says_always_or_never(classifier, slices):
    def saying(value):
        def judge(images):
            logits = classifier(images)
            return Judged(logits, logits.new_empty(len(images), 0, 3), 0 * logits[:, 0] + value)

        return judge

    assert run(saying(0.0), 1.0, *slices)[1] == (24, 24)
    assert run(saying(2.0), 1.0, *slices)[1][0] == 0
    assert run(saying(torch.nan), 1.0, *slices)[1][0] == 0


def test_saturated_answers_do_not_hide_the_gradient(classifier, slices):
    """Where the probabilities are 0 and 1 the score has no gradient left; its logits do."""
    sure = Classifier(nn.Sequential(classifier.network, Times(1e4)), classifier.spec).eval()
    judge = FeatureSqueezing(sure)
    points = slices[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(judge(points).score.sum(), points)
    assert (gradient.flatten(1).abs().amax(1) < 1e-6).sum() > 12
    _, (both, _) = run(judge, 0.01, *slices)
    assert both >= 20


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, logits):
        return self.factor * logits


def test_success_is_a_wrong_answer_without_alarm():
    goal = Unnoticed(classes=2, threshold=0.5)
    #        right        wrong, alarm   wrong          wrong, no number
    columns = [[1, 0, 9, 0, 0.1], [0, 1, 9, 0, 0.6], [0, 1, 9, 0, 0.5], [0, 1, 9, 0, np.nan]]
    won = goal.fooled(torch.tensor(columns), torch.zeros(4, dtype=torch.int64))
    assert won.tolist() == [False, False, True, False]
    assert isinstance(goal.at(torch.tensor([0])), Unnoticed)


def test_shares_are_counted_by_hand():
    """Four slices of two patients: one is wrong untouched, one is turned and noticed, one turned
    by both attacks, one turned only by the attack that knows.
    """
    rows = {
        "group": ["p", "p", "q", "q"],
        "attacked": [False, True, True, True],
        "score": [0.1, 0.9, np.nan, 0.2],
        "turned": [False, True, True, False],
        "score_attacked": [0.1, 0.9, 0.2, 0.2],
        "turned_jointly": [False, False, True, True],
        "score_jointly": [0.1, 0.9, 0.2, 0.4],
    }
    alike = {
        "detector": "mahalanobis",
        "attack": "pgd",
        "norm": "linf",
        "eps_units": "image",
        "target": "",
        "eps": 0.1,
        "eps_image": 0.1,
        "rate": 0.05,
        "threshold": 0.5,
        "calibrated_on": 30,
        "calibrated_patients": 10,
    }
    columns = {name: np.array(values, dtype=object) for name, values in rows.items()}
    columns |= {name: np.array([value] * 4, dtype=object) for name, value in alike.items()}
    (found,) = summarise_detection(Outcomes(columns))
    assert found.false_alarms.share == 0.5, "a score that is no number is an alarm"
    assert found.turned.share == pytest.approx(2 / 3)
    assert (found.noticed.share, found.noticed.n) == (0.5, 2)
    assert found.unnoticed.share == pytest.approx(2 / 3)
    assert (found.unnoticed.n, found.unnoticed.n_patients) == (3, 2)


@pytest.mark.usefixtures("tiny_networks")
def test_from_file_to_page(tiny_run, tiny_cohort, tmp_path):
    folder = tmp_path / "result"
    given = {"attacks": ("fgsm",), "eps": ("0.15",), "options": {"pgd": {"steps": 5}}, "limit": 9}
    given |= {"detectors": ("all",), "false_alarms": 0.1}
    result = evaluate(tiny_run, tiny_cohort, folder, **given)
    assert [one.detector for one in result.detection] == list(DETECTORS)
    for one in result.detection:
        assert one.false_alarms.n == 9
        assert one.turned.n == one.unnoticed.n <= 9
        assert one.unnoticed.share >= one.turned.share * (1 - one.noticed.share) - 1e-9
        assert one.calibrated_on >= 9
    refuse_contradictions(folder)
    shown = write_page([folder], tmp_path / "page.html", images=False).read_text()
    assert "Whether it is noticed" in shown
    assert "without an alarm" in shown
    pooled = pool([folder], tmp_path / "pooled", title="All")
    assert pooled.detection == result.detection
    table = pq.read_table(tmp_path / "pooled" / "detection.parquet").drop_columns(["score"])
    pq.write_table(table, tmp_path / "pooled" / "detection.parquet")
    save_result(msgspec.structs.replace(pooled, files={}), tmp_path / "pooled")
    with pytest.raises(ResultError, match="lacks the columns score"):
        refuse_contradictions(tmp_path / "pooled")
    assert (
        "Whether it is noticed"
        not in write_page(
            [without(folder, tmp_path)], tmp_path / "old.html", images=False
        ).read_text()
    )


def without(folder, tmp_path):
    """The same result, as of an earlier release."""
    old = shutil.copytree(folder, tmp_path / "old")
    save_result(msgspec.structs.replace(load_result(old), detection=[]), old)
    return old


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"detectors": ("mahalonobis",)}, SettingsError, "mahalanobis"),
        ({"detectors": ("all",), "gradients": False}, SettingsError, "only answers"),
        ({"detectors": ("all",), "threat": "gamma", "eps": ("0.3",)}, SettingsError, "--threat"),
        ({"detectors": ("all",), "evaluated_set": "validation"}, SettingsError, "threshold is set"),
        ({"detectors": ("all",)}, DataError, "2 validation slices, and it takes 19"),
    ],
)
def test_what_cannot_be_told_is_refused_before_the_work(guarded, settings, error, said):
    with pytest.raises(error, match=said):
        guarded(**settings)


@pytest.fixture
def guarded():
    from types import SimpleNamespace

    from robustmri.evaluation.settings import EvaluateSettings

    def plan(*, gradients=True, **settings):
        spec = ClassifierSpec(backbone="theirs", classes=("a", "b"), size=8, gradients=gradients)
        split = SimpleNamespace(train=(0,), validation=(1, 2), test=(3,))
        asked = SimpleNamespace(spec=spec, classes=spec.classes)
        return detection_plan(EvaluateSettings(**settings), asked, SimpleNamespace(), split)

    return plan
