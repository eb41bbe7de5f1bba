"""Active questions to a classifier on a few slices, once an evaluation is done: whether its figures
can be believed. What they find is read by `masking_checks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from robustmri.attacks import PGD, Attack, Noise, Square
from robustmri.attacks.protocol import Predictor
from robustmri.core.arrays import Images, Labels, Logits
from robustmri.core.errors import CheckpointError
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_images, load_labels, load_region
from robustmri.evaluation.attacked import Attacked, loss_gradient, quick, verify
from robustmri.evaluation.backward import Expected, StraightThrough
from robustmri.evaluation.exact import logits_of
from robustmri.evaluation.masking_checks import (
    ALIKE,
    APART,
    FEWEST,
    SAME,
    UNLIKE,
    Outputs,
    Probed,
    Tried,
    off_slope,
)
from robustmri.evaluation.metrics import Rows
from robustmri.evaluation.plan import Plan, spread_evenly
from robustmri.evaluation.planted import Planted
from robustmri.evaluation.shortcuts import Forgetful, keeps_something, moved, right_of_margin
from robustmri.evaluation.slope import (
    gradient_in_company,
    measure_directions,
    measure_followed,
    measure_slope,
    unlike,
)
from robustmri.evaluation.trial import Trial
from robustmri.models.classifier import Classifier, device_of
from robustmri.models.optimised import OptimisedView
from robustmri.results.budget import CLEAN, WORST
from robustmri.results.outcomes import Outcomes, find_right
from robustmri.threat.eps import Eps, parse_eps
from robustmri.threat.norms import GRADIENT_NORMS
from robustmri.threat.threat_model import ThreatModel

SLICES = 16
"""Asked about."""
STANDING = 8
"""Of those that were left standing, attacked further."""
FEW = 8
"""Enough where each one is either right or wrong by construction."""
FEWER = 5
"""Where each is measured in many directions."""
QUERIES, MANY_QUERIES = 100, 400
"""For each image; more of them where something else is doubtful already."""
DRAWS = 8
"""Answers averaged for each step against a classifier that draws them."""
MANY_DRAWS = 32
"""Answers averaged to say what it answers in expectation."""
PLENTY = PGD(steps=100, step_size=0.025, restarts=2, loss="margin", stop_when_fooled=True)
USUAL = PGD(loss="margin", stop_when_fooled=True)
GREY = 0.5
AT_ONCE = 64


def refuse_unanswering(classifier: Classifier) -> None:
    """Refuse a classifier that cannot say something of one image, or of two.

    Raises:
        CheckpointError: it raises an error, or its answer is of another shape.
    """
    shape_in, classes = classifier.spec.shape, len(classifier.classes)
    for n in (1, 2):
        device = device_of(classifier)
        images = torch.rand(n, *shape_in, generator=torch.Generator().manual_seed(n)).to(device)
        try:
            shape = tuple(logits_of(classifier, images).shape)
        except Exception as error:  # Whatever the code of a network raises.
            raise CheckpointError(
                f"the classifier cannot answer a batch of {n} ({type(error).__name__}: {error}). "
                "An attack asks about any number of images; see whether a batch-norm is left in "
                "training mode."
            ) from error
        if shape != (n, classes):
            raise CheckpointError(
                f"the classifier answers {n} images with a tensor of shape {shape}; expected "
                f"({n}, {classes}), a logit for each class."
            )


def probe_classifier(
    classifier: Classifier,
    cohort: Cohort,
    plan: Plan,
    outcomes: Outcomes,
    *,
    validation: Sequence[int] = (),
    noted: float | None = None,
) -> Probed:
    """Ask and attack the classifier on a few slices; seconds.

    Args:
        classifier: that was evaluated.
        cohort: where the slices are.
        plan: of the evaluation.
        outcomes: of it, with the rows of "worst".
        validation: slices on which its training measured its accuracy.
        noted: what it measured; None if that is not known.
    """
    probes = Probes(classifier.eval().requires_grad_(False), cohort, plan, outcomes)
    found = probes.ask()
    if noted is not None and len(validation):
        record = (len(validation), probes.accuracy(validation), noted)
        found = msgspec.structs.replace(found, validation=record)
    return probes.attack_further(found)


@dataclass(frozen=True)
class Probes:
    """The slices, and what is asked about them."""

    classifier: Classifier
    cohort: Cohort
    plan: Plan
    outcomes: Outcomes

    @cached_property
    def few(self) -> list[int]:
        """Slices of the evaluation, evenly spaced."""
        return spread_evenly(self.plan.trials[0].rows, SLICES)

    @cached_property
    def device(self) -> torch.device:
        """Where the classifier is."""
        return device_of(self.classifier)

    @cached_property
    def view(self) -> OptimisedView:
        """The classifier, faster, for searches."""
        return OptimisedView(self.classifier, self.load(self.few[:1])[0], precision="fp32")

    def load(self, rows: Sequence[int]) -> tuple[Images, Labels]:
        """Images and labels of slices."""
        images, labels = load_images(self.cohort, rows), load_labels(self.cohort, rows)
        return images.to(self.device), labels.to(self.device)

    def accuracy(self, rows: Sequence[int]) -> float:
        """Share of untouched slices that are right."""
        right = 0
        for start in range(0, len(rows), AT_ONCE):
            images, labels = self.load(rows[start : start + AT_ONCE])
            right += int((logits_of(self.classifier, images).argmax(1) == labels).sum())
        return right / len(rows)

    def ask(self) -> Probed:
        """The same question again, in other company; what answers look like; the slope."""
        images, labels = self.load(self.few)
        first = logits_of(self.classifier, images)
        repeat = max(unlike(first, logits_of(self.classifier, images)) for _ in range(3))
        backwards = logits_of(self.classifier, images.flip(0)).flip(0)
        alone = torch.cat([logits_of(self.classifier, one) for one in images[:FEW].split(1)])
        other = max(unlike(first, backwards), unlike(first[:FEW], alone))
        if other <= ALIKE:
            repeat = max(repeat, self._since_the_evaluation(first))
        found = Probed(
            slices=len(self.few),
            repeat=repeat,
            alone=other,
            outputs=outputs_of(self.classifier, images),
            keeps=keeps_something(self.classifier, moved(images[:FEWER])),
            margin=self._margin(images, labels, first),
        )
        if not repeat <= SAME:
            return found
        few, fewer = ((self.classifier, images[:n], labels[:n]) for n in (FEW, FEWER))
        slope, directions = measure_slope(*few), measure_directions(*fewer)
        apart = 2 * off_slope(slope) > len(slope) or median(directions or [0.0]) > UNLIKE
        return msgspec.structs.replace(
            found,
            company=gradient_in_company(*few),
            slope=slope,
            directions=directions,
            followed=measure_followed(*fewer) if apart else [],
        )

    def _margin(self, images: Images, labels: Labels, logits: Logits) -> tuple[int, int, int, int]:
        """How many slices are right, and by their margin alone."""
        right = logits.argmax(1) == labels
        if not bool(right.any()):
            return len(labels), 0, 0, 0
        by_margin = right_of_margin(self.classifier, images[right], labels[right])
        return len(labels), int(right.sum()), by_margin, int(torch.bincount(labels[right]).max())

    def _since_the_evaluation(self, now: Logits) -> float:
        """How far the confidences are from those that the evaluation began with."""
        clean = np.flatnonzero(self.outcomes["attack"] == CLEAN)
        place = {int(self.outcomes["index"][row]): row for row in clean}
        then = torch.tensor(
            [float(self.outcomes["clean_confidence"][place[row]]) for row in self.few]
        )
        shift = (now.softmax(1).amax(1).cpu() - then).abs().nan_to_num()
        return float(shift.max()) if bool((shift > ALIKE).any()) else 0.0

    @cached_property
    def trial(self) -> Trial | None:
        """The first attack at the headline's radius, for its threat; a physical one has none."""
        headline = parse_eps(self.plan.settings.eps[0])
        alike = [
            trial for trial in self.plan.attacks if trial.eps == headline and not trial.physical
        ]
        return alike[0] if alike else None

    @cached_property
    def _right(self) -> npt.NDArray[np.bool_]:
        return find_right(self.outcomes)

    def _worst(self, eps: Eps, norm: str) -> Rows:
        """Rows of the worst case at a radius."""
        return np.flatnonzero(
            (self.outcomes["attack"] == WORST)
            & (self.outcomes["norm"] == norm)
            & np.isclose(self.outcomes["eps"].astype(float), eps.value)
            & (self.outcomes["eps_units"] == eps.units)
        )

    def _headline(self, trial: Trial) -> tuple[float, list[int], list[int]]:
        """Worst-case accuracy at that radius; slices that stood, and those that fell."""
        rows = self._worst(trial.eps or Eps(0.0), trial.norm)
        right, index = self._right[rows], self.outcomes["index"][rows]
        truly = (self.outcomes["clean_prediction"] == self.outcomes["label"])[rows]
        stood, fell = sorted(index[right].tolist()), sorted(index[~right & truly].tolist())
        return float(np.mean(right)) if len(rows) else 0.0, stood, fell

    def _most_robust(self, norm: str) -> float:
        """The most that is right in the worst case at any radius that was asked for."""
        worst = [self._worst(parse_eps(eps), norm) for eps in self.plan.settings.eps]
        return max(float(np.mean(self._right[rows])) if len(rows) else 1.0 for rows in worst)

    def attack_further(self, found: Probed) -> Probed:
        """What falls of what was left standing, and what else an attack must be able to do."""
        trial = self.trial
        if trial is None or not trial.threat.eps:
            return found
        robust, stood, fell = self._headline(trial)
        rows = spread_evenly(stood, STANDING)
        found = msgspec.structs.replace(
            found,
            robust=robust,
            most_robust=self._most_robust(trial.norm),
            standing=self._ids(rows),
        )
        if not self.classifier.spec.gradients or trial.threat.norm not in GRADIENT_NORMS:
            return found
        if not found.repeat <= SAME:
            return self._in_expectation(found)
        found = self._what_must_work(found, trial, fell)
        return self._on_what_stands(found, trial, rows) if rows else found

    def _in_expectation(self, found: Probed) -> Probed:
        """Attack the average of many answers, and judge by it."""
        rows = spread_evenly(cast(Trial, self.trial).rows, SLICES)
        search = Expected(StraightThrough(self.classifier), DRAWS)
        judge = Expected(self.classifier, MANY_DRAWS)
        images, labels = self.load(rows)
        clean = ~cast(Trial, self.trial).threat.fooled(logits_of(judge, images), labels)
        stood = ~self._run(quick(PGD()), rows, search, judge).fooled & clean
        expected = (len(rows), int(clean.sum()), int(stood.sum()))
        return msgspec.structs.replace(found, expected=expected)

    def _on_what_stands(self, found: Probed, trial: Trial, rows: Sequence[int]) -> Probed:
        """More steps, queries, another backward pass."""
        through, backward = StraightThrough(self.classifier), []
        images, labels = self.load(rows[:FEW])
        # Also says what was replaced.
        gradient = loss_gradient(through, images, labels, ThreatModel())
        if replaced := through.replaced:
            title = f"PGD with {', '.join(replaced)} as the identity on the way back (BPDA)"
            backward.append(self._try(title, USUAL, rows, through))
        doubtful = 2 * off_slope(found.slope) >= max(len(found.slope), 1) or bool(replaced)
        doubtful |= median(found.directions or [1.0]) > APART
        doubtful |= len(found.slope) < min(FEW, len(self.few))
        doubtful |= not bool(torch.isfinite(gradient).all())
        queries = [self._try("Random noise, 5 draws", Noise(draws=5), rows)]
        if trial.threat.norm in Square.facts.norms:
            many = MANY_QUERIES if doubtful else QUERIES
            queries.append(self._try(f"Square, {many} queries", Square(queries=many), rows))
        longer = self._longer(trial, rows)
        return msgspec.structs.replace(
            found,
            longer=longer,
            moved=self._moved(found, rows, longer),
            queries=queries,
            backward=backward,
            replaced=replaced,
        )

    def _what_must_work(self, found: Probed, trial: Trial, fell: Sequence[int]) -> Probed:
        """Where an attack has to succeed: a planted weakness, flat grey, 8 bits."""
        threat, grey, stored = trial.threat, None, None
        planted, rows = None, [row for row in spread_evenly(trial.rows, FEW) if self._open(row)]
        if rows:
            here = self.plan.confine(threat, self.cohort, rows, self.device)
            weakened = Planted(self.classifier, *self.load(rows), here)
            weak = self._run(USUAL, rows, weakened, weakened)
            planted = (len(weak.fooled), int(weak.fooled.sum()))
        if threat.measure.per_pixel and self._anywhere and threat.target is None:
            right = ~self._run(USUAL, self.few, threat=replace(threat, eps=GREY)).fooled
            chance = int(torch.bincount(self.load(self.few)[1]).max())
            grey = (len(self.few), int(right.sum()), chance)
        if rows := spread_evenly(fell, FEW):
            labels = self.load(rows)[1]
            attacked = self._run(quick(PGD()), rows)
            bits = logits_of(self.classifier, (attacked.images * 255).round() / 255)
            fooled = int(attacked.fooled.sum())
            kept = int((threat.fooled(bits, labels) & attacked.fooled).sum())
            stored = (fooled, kept) if fooled else None
        return msgspec.structs.replace(found, planted=planted, grey=grey, stored=stored)

    def _open(self, row: int) -> bool:
        """Whether any pixel of the slice may change: one may have no background."""
        mask = load_region(self.cohort, [row], self.plan.settings.region)
        return mask is None or bool(mask.any())

    @property
    def _anywhere(self) -> bool:
        return self.plan.settings.region == "image"

    def _longer(self, trial: Trial, rows: Sequence[int]) -> Tried:
        """The evaluation's PGD of the most steps, with twice as many."""
        made = [one.attack for one in self.plan.attacks if one.eps == trial.eps]
        # Exactly: what somebody has made of PGD may do anything.
        climbing = [one for one in made if type(one) is PGD and one.steps > 1]
        most = max(climbing, key=lambda one: one.steps, default=PGD())
        steps = 2 * most.steps
        size = max(most.step_size / 2, 2.5 / steps)
        attack = replace(most, steps=steps, step_size=size, restarts=1, random_start=True)
        return self._try(f"PGD of {steps} steps", quick(replace(attack, keep="best")), rows)

    def _moved(self, found: Probed, rows: Sequence[int], longer: Tried) -> Tried:
        """PGD on neighbours of the slices that stood, which nobody has asked about; those count
        that fall there alone.
        """
        title, search, judge = "PGD on these slices moved by a pixel or two", None, None
        if found.keeps:
            title += ", what was kept wiped before each answer"
            search = judge = Forgetful(self.classifier)
        fallen = self._run(USUAL, rows, search, judge, elsewhere=True).fooled.tolist()
        there = self._ids([row for row, done in zip(rows, fallen, strict=True) if done])
        return Tried(title=title, broken=[case for case in there if case not in longer.broken])

    def _try(
        self, title: str, attack: Attack, rows: Sequence[int], search: Predictor | None = None
    ) -> Tried:
        fooled = self._run(attack, rows, search).fooled.tolist()
        broken = [row for row, done in zip(rows, fooled, strict=True) if done]
        climbed = 0
        if len(broken) >= FEWEST:
            climbed = int(self._run(PLENTY, broken).fooled.sum())
        return Tried(title=title, broken=self._ids(broken), climbed=climbed)

    def _run(
        self,
        attack: Attack,
        rows: Sequence[int],
        search: Predictor | None = None,
        judge: Predictor | None = None,
        threat: ThreatModel | None = None,
        *,
        elsewhere: bool = False,
    ) -> Attacked:
        """An attack on slices, moved if they shall lie `elsewhere`; its successes confirmed by
        `judge`.
        """
        images, labels = self.load(rows)
        threat = threat or cast(Trial, self.trial).threat
        here = self.plan.confine(threat, self.cohort, rows, self.device)
        if elsewhere:
            images = moved(images)
            here = replace(here, mask=None if here.mask is None else moved(here.mask))
        generator = torch.Generator().manual_seed(self.plan.settings.seed)
        points = attack(search or self.view, images, labels, here, generator=generator)
        return verify(judge or self.classifier, points, images, labels, here)

    def _ids(self, rows: Sequence[int]) -> list[str]:
        return [self.cohort.cases[row].case_id for row in rows]


def outputs_of(classifier: Predictor, images: Images) -> Outputs:
    """What answers look like: rows that sum to one, or whatever a sigmoid has just given."""
    with torch.enable_grad():
        outputs = classifier(images.detach().requires_grad_(True))
    if not bool(((outputs >= 0) & (outputs <= 1)).all()):
        return "logits"
    if bool(((outputs.sum(1) - 1).abs() < 1e-3).all()):
        return "softmax"
    made_by = outputs.grad_fn.name() if outputs.grad_fn else ""
    return "sigmoid" if made_by.startswith("Sigmoid") else "logits"
