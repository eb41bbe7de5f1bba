"""What an evaluation can cost at most, known before it starts: for whoever has so many minutes and
no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import msgspec
import torch
from torch import nn

from robustmri.attacks import Attack
from robustmri.attacks.engine import by_backpropagation, loss_against
from robustmri.attacks.minimal_eps import SmallestEps
from robustmri.attacks.nearest import Nearest
from robustmri.attacks.protocol import Predictor
from robustmri.evaluation.attacked import quick
from robustmri.evaluation.cost import AttackCost, Metered
from robustmri.evaluation.plan import Plan
from robustmri.models.classifier import Classifier
from robustmri.models.optimised import OptimisedView, Precision, full_float32
from robustmri.threat.threat_model import ThreatModel

TINY = 1e-9
"""A radius within which no image is fooled: every attack then takes all its steps."""
STUBBORN = 1e3
"""By how many logits a toy is surer of a class than any change of an image can make up for."""
BESIDE = 1.3
"""What a step costs beside the network, such as projections, as a factor."""
PROBES = (8, 50, 120)
"""Slices that are attacked once more when the evaluation is done (see `probes`), and about how many
gradients and forwards alone each of them costs."""
FEWEST = 3
"""Slices that an evaluation is left with, however little time there is."""
ENOUGH_ON_CPU = 8
"""Images that are timed at once; on a CPU larger batches are no faster."""


class Work(msgspec.Struct, frozen=True):
    """What one trial asks of the classifier for an image that stands to the end."""

    name: str
    minimal: bool
    gradients: int
    forwards: int


class Pace(msgspec.Struct, frozen=True):
    """Seconds of a gradient and of a forward alone, for an image, in a batch of the evaluation's
    size.
    """

    gradient: float
    forward: float


class EvaluationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation that fits into a time.

    Attributes:
        limit: test slices to attack; 0: all.
        max_seconds: for an image and attack, where even the fewest slices would take too long; 0:
            any.
        seconds: that it takes at most, as expected.
    """

    limit: int
    max_seconds: float
    seconds: float


def work_of(plan: Plan, classes: int) -> list[Work]:
    """What every trial asks for at most, counted on linear classifiers."""
    counted: dict[tuple[str, str, int], tuple[int, int]] = {}  # It is the same at every radius.
    work = []
    for trial in plan.attacks:
        name, minimal = trial.name, trial.facts.minimal
        if trial.corruption:
            work.append(Work(name, False, 0, len(trial.curve)))
            continue
        key = (trial.facts.name, trial.norm, len(trial.curve))
        if key not in counted and trial.attack is not None:
            attack = trial.attack if minimal else quick(trial.attack)
            if trial.curve:
                radii = tuple(TINY * k for k in range(1, len(trial.curve) + 1))
                attack = SmallestEps(attack, radii)
            threat = ThreatModel(trial.threat.norm, torch.inf if minimal else TINY)
            count = _spent_at_any_distance if minimal else _spent
            counted[key] = count(attack, threat, classes)
        work.append(Work(name, minimal, *counted[key]))
    return work


def _spent(
    attack: Attack, threat: ThreatModel, classes: int, *, stubborn: bool = False
) -> tuple[int, int]:
    """Gradients and forwards of one image on a linear classifier; on a stubborn one nothing within
    the bounds is an example.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        linear = nn.Linear(64, classes).requires_grad_(False)
        images = torch.rand(1, 1, 8, 8)
    toy = nn.Sequential(nn.Flatten(), linear).eval()
    labels, cost = toy(images).argmax(1), AttackCost(1)
    if stubborn:
        linear.bias[labels] += STUBBORN
    generator = torch.Generator().manual_seed(0)
    attack(Metered(toy, cost), images, labels, threat, generator=generator)
    return cost.gradients, cost.forwards


def _spent_at_any_distance(attack: Attack, threat: ThreatModel, classes: int) -> tuple[int, int]:
    """Of an attack without a radius: some of these end early once they fool, and `Nearest` goes on
    from each point that fools. So what succeeds is counted, and what a search that fails spends
    beyond that.
    """
    gradients, forwards = whole = _spent(attack, threat, classes)
    parts = [(attack, threat)]
    if isinstance(attack, Nearest):
        parts = [
            (one, threat if threat.norm in one.facts.norms else replace(threat, norm="l2"))
            for one in attack.members(threat.norm)
        ]
    for part, here in parts:
        fools = whole if part is attack else _spent(part, here, classes)
        fails = _spent(part, here, classes, stubborn=True)
        gradients += max(0, fails[0] - fools[0])
        forwards += max(0, fails[1] - fools[1])
    return gradients, forwards


def pace_of(view: Predictor, shape: tuple[int, int, int], batch: int, device: torch.device) -> Pace:
    """Time a gradient and a forward; the first of each is not timed."""
    images = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    rows, labels = (
        torch.arange(batch, device=device),
        torch.zeros(batch, dtype=torch.long, device=device),
    )
    objective = loss_against("margin", labels, ThreatModel())

    def gradient() -> float:
        return float(by_backpropagation(view, images, rows, objective, {})[2].sum())

    def forward() -> float:
        with torch.no_grad():
            return float(view(images).sum())

    return Pace(_timed(gradient) / batch, _timed(forward) / batch)


def _timed(work: Callable[[], float]) -> float:
    work()
    started = time.monotonic()
    work()
    return time.monotonic() - started


def plan_evaluation(
    classifier: Classifier, plan: Plan, seconds: float, device: torch.device
) -> EvaluationPlan:
    """How many slices can be attacked in so many seconds, were every image to stand to the end.

    Args:
        classifier: a network of the kind that will be attacked; its weights do not matter.
        plan: of the evaluation, with all slices that may be attacked.
        seconds: for it.
        device: where it will be done.
    """
    settings, most = plan.settings, len(plan.trials[0].rows)
    at_once = settings.batch_size if device.type == "cuda" else ENOUGH_ON_CPU
    batch = min(settings.batch_size, most, at_once)
    classifier = classifier.to(device).eval().requires_grad_(False)
    shape = classifier.spec.shape
    example = torch.zeros(2, *shape, device=device)
    counted = work_of(plan, len(classifier.classes))
    precision: Precision | None = None if settings.precision == "auto" else settings.precision
    with full_float32():  # As in an evaluation.
        paces = {
            minimal: pace_of(
                OptimisedView(classifier, example, precision="fp32" if minimal else precision),
                shape,
                batch,
                device,
            )
            for minimal in {work.minimal for work in counted}
        }
    each: dict[bool, float] = dict.fromkeys(paces, 0.0)
    for work in counted:
        pace, alone = paces[work.minimal], max(work.forwards - work.gradients, 0)
        each[work.minimal] += BESIDE * (work.gradients * pace.gradient + alone * pace.forward)

    slices, gradients, forwards = PROBES
    pace = next(iter(paces.values()))
    probe = BESIDE * (gradients * pace.gradient + forwards * pace.forward)

    def cost(limit: int) -> float:
        few = min(limit, settings.minimal_limit or limit)
        attacks = each.get(False, 0.0) * limit + each.get(True, 0.0) * few
        return attacks + probe * min(limit, slices)

    fitting = [limit for limit in range(1, most + 1) if cost(limit) <= seconds]
    limit = max([min(FEWEST, most), *fitting])
    if cost(limit) <= seconds:
        limit_or_all = 0 if limit == most else limit
        return EvaluationPlan(limit=limit_or_all, max_seconds=0.0, seconds=cost(limit))
    seconds = max(seconds, 1e-3)
    return EvaluationPlan(limit=limit, max_seconds=seconds / limit / len(counted), seconds=seconds)
