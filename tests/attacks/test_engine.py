"""The one loop, step by step, on classifiers so small that each point can be told by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from robustmri.attacks import engine
from robustmri.attacks.engine import (
    Found,
    SeededGenerator,
    by_backpropagation,
    by_forward,
    checked,
    climb,
    draw_seeds,
    exhausted,
    frozen,
    keep_worse,
    loss_against,
    loss_towards,
    random_points,
    worse_of,
)
from robustmri.attacks.step_rules import Rule, steepest
from robustmri.core.errors import ThreatModelError
from robustmri.losses import difference_of_logits_ratio, log_odds, margin, targeted_ratio
from robustmri.threat.threat_model import ThreatModel


def grey(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


@dataclass
class Ramp:
    """Two classes told by the grey value: class 1 where it is above `threshold`; it notes what it
    was asked.
    """

    threshold: float = 0.5
    asked: list[list[float]] = field(default_factory=list)

    def __call__(self, images: Tensor) -> Tensor:
        values = images.flatten(1).mean(1)
        self.asked.append([round(value, 6) for value in values.tolist()])
        return torch.stack([torch.zeros_like(values), values - self.threshold], 1)


def climbed(classifier, *starts: float, steps: int = 3, eps: float = 0.5, **settings) -> Found:
    """Steps of 0.1 upwards from `starts`."""
    images, labels = grey(*starts), torch.zeros(len(starts), dtype=torch.long)
    threat = ThreatModel(eps=eps)
    given = {
        "start": images,
        "rule": steepest(0.1 / eps),
        "objective": loss_against("margin", labels, threat),
    }
    return climb(classifier, images, labels, threat, steps=steps, **{**given, **settings})


def test_each_point_is_asked_once_and_the_best_is_kept():
    ramp = Ramp()
    found = climbed(ramp, 0.3, 0.45)
    assert ramp.asked == [[0.3, 0.45], [0.4, 0.55], [0.5, 0.65], [0.6, 0.75]]
    torch.testing.assert_close(found.images, grey(0.6, 0.75))
    assert found.fooled.tolist() == [True, True]
    torch.testing.assert_close(found.merit, torch.tensor([0.1, 0.25], dtype=torch.float64))


def test_images_that_fool_leave_and_the_rest_goes_on():
    ramp = Ramp()
    found = climbed(ramp, 0.45, 0.25, 0.35, stop_when_fooled=True)
    assert ramp.asked == [[0.45, 0.25, 0.35], [0.55, 0.35, 0.45], [0.45, 0.55], [0.55]]
    torch.testing.assert_close(found.images, grey(0.55, 0.55, 0.55))
    assert found.fooled.all()
    ramp = Ramp()
    climbed(ramp, 0.55, 0.6, stop_when_fooled=True)
    assert ramp.asked == [[0.55, 0.6]]  # Nobody is left: the search ends.


def test_a_minimal_search_keeps_the_nearest_and_values_its_distance():
    found = climbed(Ramp(), 0.45, 0.05, minimal=True)
    torch.testing.assert_close(found.images, grey(0.55, 0.05))
    assert found.fooled.tolist() == [True, False]
    torch.testing.assert_close(found.merit, torch.tensor([-0.1, 0.0], dtype=torch.float64))


def test_of_equal_points_the_first_is_kept():
    """At the rim of the set the steps go nowhere: a later look is no better."""
    assert climbed(Ramp(), 0.3, eps=0.1, steps=4).images.item() == pytest.approx(0.4)
    flat = climbed(lambda images: 0 * images.flatten(1).repeat(1, 2), 0.3)
    assert flat.images.item() == 0.3


@pytest.mark.parametrize(("judged", "looks"), [(True, 4), (False, 3)])
def test_the_last_point_costs_a_look_only_if_it_is_judged(judged, looks):
    ramp = Ramp()
    found = climbed(ramp, 0.1, keep="last", judged=judged)
    assert len(ramp.asked) == looks
    torch.testing.assert_close(found.images, grey(0.4))
    assert found.fooled.tolist() == [False]
    assert (found.merit > -math.inf).tolist() == [judged]


def test_whoever_differentiates_outside_is_left_alone():
    """A start and images with a history of their own get no more of it."""
    images = grey(0.3, 0.45).requires_grad_()
    labels, threat = torch.zeros(2, dtype=torch.long), ThreatModel(eps=0.5)
    objective = loss_against("margin", labels, threat)
    start = images + 0.01
    found = climb(
        Ramp(),
        images,
        labels,
        threat,
        start=start,
        steps=2,
        rule=steepest(0.2),
        objective=objective,
    )
    assert not any(part.requires_grad for part in found)
    assert start.requires_grad
    assert images.grad is None
    torch.testing.assert_close(found.images, grey(0.51, 0.66))


def test_the_last_is_kept_though_another_was_better():
    """Class 1 lies within 0.1 of 0.5: of 0.3 to 0.7, the point in the middle fools."""

    def hump(images: Tensor) -> Tensor:
        far = (images.flatten(1) - 0.5).abs()
        return torch.cat([torch.zeros_like(far), 0.1 - far], 1)

    # A rule that goes straight on, whatever the slope.
    onwards = Rule(lambda start: {}, lambda seen, state: (seen.points + 0.2, state))
    best, last = (climbed(hump, 0.3, rule=onwards, steps=2, keep=keep) for keep in ("best", "last"))
    assert (best.images.item(), best.fooled.item()) == (pytest.approx(0.5), True)
    assert (last.images.item(), last.fooled.item()) == (pytest.approx(0.7), False)


def test_confidence_asks_for_more():
    found = climbed(Ramp(), 0.45, minimal=True, confidence=0.12)
    torch.testing.assert_close(found.images, grey(0.65))


def test_a_spent_budget_ends_the_search_with_a_look_at_where_it_is():
    @dataclass
    class Budgeted(Ramp):
        @property
        def exhausted(self) -> bool:
            return len(self.asked) >= 2

    ramp = Budgeted()
    assert not exhausted(ramp)
    found = climbed(ramp, 0.1, steps=9)
    assert ramp.asked == [[0.1], [0.2], [0.3]]
    torch.testing.assert_close(found.images, grey(0.3))
    assert exhausted(ramp)
    assert not exhausted(Ramp())


def test_the_original_judges_the_last_point_of_a_faster_view():
    original, view = Ramp(threshold=0.9), Ramp()
    view.exact = original
    found = climbed(view, 0.45)
    assert view.asked == [[0.45], [0.55], [0.65]]
    assert original.asked == [[0.75]]
    # The view was fooled at 0.55; nothing afterwards counts more.
    torch.testing.assert_close(found.images, grey(0.65))
    assert climbed(view, 0.2, steps=1).fooled.tolist() == [False]


def test_values_that_are_not_finite_are_no_progress():
    def broken(images: Tensor) -> Tensor:
        values = images.flatten(1)
        return torch.cat(
            [torch.zeros_like(values), torch.where(values > 0.35, torch.nan, values)], 1
        )

    found = climbed(broken, 0.1, steps=5, objective=lambda points, logits, rows: logits[:, 1])
    torch.testing.assert_close(found.images, grey(0.3))
    assert found.merit.item() == pytest.approx(0.3)


def test_the_masked_pixels_have_no_slope_and_no_change():
    images = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    labels, seen = torch.zeros(1, dtype=torch.long), []
    threat = ThreatModel(eps=0.2, mask=torch.tensor([[[True, False]]]))

    def onwards(step, state):
        seen.append(step)
        return step.points + 1, state

    found = climb(
        lambda points: torch.cat(
            [0 * points.flatten(1)[:, :1], points.flatten(1).sum(1)[:, None]], 1
        ),
        images,
        labels,
        threat,
        start=images,
        steps=1,
        rule=Rule(lambda start: {}, onwards),
        objective=loss_against("margin", labels, threat),
    )
    assert found.images.flatten().tolist() == [pytest.approx(0.7), 0.5]
    assert seen[0].gradient.flatten().tolist() == [1.0, 0.0]
    assert seen[0].step == 0
    assert seen[0].fooled.tolist() == [True]
    assert seen[0].values.tolist() == [1.0]


def test_states_leave_with_their_images():
    """Each image counts its own steps, from a number of its own."""
    seen = []

    def onwards(step, state):
        seen.append(state["own"].tolist())
        return step.points + 0.1, {"own": state["own"] + 1}

    rule = Rule(lambda start: {"own": torch.tensor([10.0, 20.0])[: len(start)]}, onwards)
    climbed(Ramp(), 0.45, 0.1, rule=rule, stop_when_fooled=True)
    assert seen == [[10, 20], [21], [22]]


LOGITS = torch.tensor([[2.0, 0.5, 1.0], [0.1, 0.5, 1.0]])
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("name", "away", "towards"),
    [
        ("cross_entropy", log_odds, log_odds),
        ("margin", margin, margin),
        ("dlr", difference_of_logits_ratio, targeted_ratio),
    ],
)
def test_losses_climb_away_from_the_label_or_towards_the_target(name, away, towards):
    """`rows` says which images of the batch are there."""
    rows, points = torch.tensor([1]), torch.zeros(1, 1, 1, 1)
    found = loss_against(name, LABELS, ThreatModel())(points, LOGITS[:1], rows)
    assert torch.equal(found, away(LOGITS[:1], torch.tensor([1])))
    found = loss_against(name, LABELS, ThreatModel(target=2))(points, LOGITS[:1], rows)
    assert torch.equal(found, -towards(LOGITS[:1], torch.tensor([2])))
    found = loss_towards(name, torch.tensor([2, 0]))(points, LOGITS[:1], rows)
    assert torch.equal(found, -towards(LOGITS[:1], torch.tensor([0])))


@pytest.mark.parametrize(
    ("labels", "target", "logits", "said"),
    [
        ([0, 2], None, torch.zeros(2, 3), None),
        ([0, 3], None, torch.zeros(2, 3), "more than 3 classes"),
        ([0, 1], 2, torch.zeros(2, 3), None),
        ([0, 1], 3, torch.zeros(2, 3), "more than 3 classes"),
        ([0, 1], None, torch.zeros(1, 3), r"\(2, classes\).* got \(1, 3\)"),
        ([0, 1], None, torch.zeros(2, 3, 1), r"got \(2, 3, 1\)"),
        ([], None, torch.zeros(2, 1), "a column for each class, got one column"),
        ([], None, torch.zeros(2, 0), "more than 0 classes"),
    ],
)
def test_logits_have_a_column_for_each_class_that_is_asked_for(labels, target, logits, said):
    threat = ThreatModel(target=target)
    labels = torch.tensor(labels, dtype=torch.long)
    predict = checked(lambda points: logits, labels, threat)
    if said is None:
        assert predict(torch.zeros(2, 1, 1, 1)) is logits
    else:
        with pytest.raises(ThreatModelError, match=said):
            predict(torch.zeros(2, 1, 1, 1))


def test_frozen_sets_every_flag_and_puts_each_back():
    network = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    network[0].weight.requires_grad_(False)
    network[1].eval()
    with frozen(network):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert [module.training for module in network.modules()] == [True, True, False]
    assert [p.requires_grad for p in network.parameters()] == [False, True, True, True]
    with frozen(Ramp()):
        pass  # Whatever is callable may be attacked.


def test_a_gradient_is_each_image_s_own_and_finite():
    """The sum is differentiated, not the mean; a slope that is not a number leads nowhere."""
    points, rows = grey(0.25, 0.0), torch.arange(2)

    def root(images: Tensor) -> Tensor:
        values = images.flatten(1)
        return torch.cat([values.sqrt() * values, (0 * values).sqrt()], 1)

    def objective(points: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        return logits.sum(1)

    with torch.no_grad():
        values, logits, gradient = by_backpropagation(root, points, rows, objective, {})
    assert values.tolist() == [0.125, 0.0]
    assert not any(one.requires_grad for one in (values, logits, points))
    assert torch.isfinite(gradient).all()

    def square(images: Tensor) -> Tensor:
        return images.flatten(1).square()

    _, _, gradient = by_backpropagation(square, points + 1, rows, objective, {})
    assert gradient.flatten().tolist() == [2.5, 2.0]
    asked = points.clone().requires_grad_()
    values, logits, gradient = by_forward(square, asked, rows, objective, {})
    assert values.tolist() == [0.0625, 0.0]
    assert not any(one.requires_grad for one in (values, logits, gradient))
    assert not gradient.any()


def test_each_image_has_seeds_of_its_own():
    whole = draw_seeds(torch.Generator().manual_seed(0), n=300, each=2)
    assert len({seed for seeds in whole for seed in seeds}) == 600
    # What an image would draw can be laid ready.
    own = torch.randint(2**62, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    ready = SeededGenerator([own[7], own[3]])
    assert draw_seeds(ready, n=2, each=2) == [whole[7], whole[3]]
    assert isinstance(ready, torch.Generator)


def test_random_points_depend_on_the_seed_of_their_image_alone():
    images = torch.full((3, 1, 2, 2), 0.5)
    for mask in (None, torch.tensor([[True, True], [True, False]])):
        for norm in ("linf", "l2", "l1"):
            threat = ThreatModel(norm, torch.tensor([0.1, 0.2, 0.3]), mask=mask)
            together = random_points(images, threat, [7, 8, 7])
            for row, seed in enumerate([7, 8, 7]):
                alone = random_points(images[:1], threat.at(torch.tensor([row])), [seed])
                torch.testing.assert_close(together[[row]], alone)
            changes = together - 0.5
            assert (threat.measure.size(changes) > 0).all()
            torch.testing.assert_close(changes[2], 3 * changes[0])
    nobody = ThreatModel(mask=torch.zeros(2, 2))
    assert torch.equal(random_points(images, nobody, [7, 8, 7]), images)
    assert random_points(images[:0], ThreatModel(), []).shape == (0, 1, 2, 2)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_random_point_is_the_norm_s_own_start_times_eps(norm, masked):
    """Of the pixels that may change."""
    images, mask = torch.full((1, 1, 2, 2), 0.5), torch.tensor([[True, True], [True, False]])
    threat = ThreatModel(norm, 0.2, mask=mask if masked else None)
    pixels = torch.zeros(3 if masked else 4)
    start = threat.measure.random_start(pixels, torch.Generator().manual_seed(7))
    found = random_points(images, threat, [7]).flatten()
    torch.testing.assert_close(found[: len(pixels)], 0.5 + 0.2 * start)
    assert found[3] == 0.5 or not masked


def test_threads_draw_the_same_points(monkeypatch):
    images, threat = torch.full((3, 1, 2, 2), 0.5), ThreatModel("l2", 0.2)
    one_by_one = random_points(images, threat, [1, 2, 3])
    monkeypatch.setattr(engine, "IN_THREADS", 12)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    drawn = []
    threads = engine._threads()

    class Noted:
        def map(self, work, seeds):
            drawn.extend(seeds)
            return threads.map(work, seeds)

    monkeypatch.setattr(engine, "_threads", Noted)
    assert torch.equal(random_points(images, threat, [1, 2, 3]), one_by_one)
    assert drawn == [1, 2, 3]
    monkeypatch.setattr(engine, "IN_THREADS", 13)
    random_points(images, threat, [4, 5, 6])
    assert drawn == [1, 2, 3]
    # Nothing waits for a CPU that draws for itself.
    monkeypatch.setattr(engine, "IN_THREADS", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    random_points(images, threat, [4, 5, 6])
    assert drawn == [1, 2, 3]


def test_the_worse_of_two_points_is_kept_for_the_rows_that_have_one():
    def found(*parts: tuple[float, bool, float]) -> Found:
        images, fooled, merit = zip(*parts, strict=True)
        return Found(grey(*images), torch.tensor(fooled), torch.tensor(merit))

    one = found((0.1, True, 0.0), (0.1, False, 9.0), (0.1, True, 1.0), (0.1, False, 2.0))
    two = found((0.2, False, 9.0), (0.2, True, 0.0), (0.2, True, 1.0), (0.2, False, 3.0))
    worse = worse_of(one, two)
    torch.testing.assert_close(worse.images, grey(0.1, 0.2, 0.1, 0.2))  # Of equals, the first.
    assert worse.fooled.tolist() == [True, True, True, False]
    assert worse.merit.tolist() == [0, 0, 1, 3]
    again = found((0.3, True, 5.0), (0.3, True, 0.5))
    keep_worse(one, torch.tensor([3, 2]), again)
    torch.testing.assert_close(one.images, grey(0.1, 0.1, 0.1, 0.3))
    assert one.fooled.tolist() == [True, False, True, True]
    assert one.merit.tolist() == [0, 9, 1, 5]
