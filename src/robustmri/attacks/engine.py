"""The only loop: it climbs a per-image objective inside S(x) and keeps the best point of each
image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from robustmri.attacks.protocol import Predictor, logits_in
from robustmri.attacks.step_rules import Rule, Seen, State
from robustmri.core.arrays import Images, Labels, Logits, PerImage
from robustmri.core.errors import ThreatModelError
from robustmri.losses import difference_of_logits_ratio, log_odds, margin, targeted_ratio
from robustmri.threat.norms import broadcast_eps, per_image
from robustmri.threat.threat_model import ThreatModel

AttackLoss = Callable[[Images, Logits, Tensor], PerImage]
IN_THREADS = 1 << 18
"""So many pixels of random starts are drawn in threads, where an accelerator waits for them."""
Look = Callable[[Predictor, Images, Tensor, AttackLoss, State], tuple[PerImage, Logits, Images]]
LossName = Literal["cross_entropy", "margin", "dlr"]
LOSSES = {"cross_entropy": log_odds, "margin": margin, "dlr": difference_of_logits_ratio}
"""What each named loss climbs; for the cross-entropy its log-odds, which takes the same steps and
never underflows.
"""
TARGETED = {**LOSSES, "dlr": targeted_ratio}
"""What each descends towards a target."""


class Found(NamedTuple):
    """Best point of each image, whether it fooled, and its merit (higher is worse for the
    classifier).
    """

    images: Images
    fooled: Tensor
    merit: PerImage


@contextmanager
def frozen(classifier: Predictor) -> Iterator[None]:
    """Evaluation mode and no parameter gradients inside; every flag is put back as it was, module
    by module.
    """
    if not isinstance(classifier, nn.Module):
        yield
        return
    training = {module: module.training for module in classifier.modules()}
    learning = {parameter: parameter.requires_grad for parameter in classifier.parameters()}
    try:
        for module in training:
            module.training = False
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, flag in training.items():
            module.training = flag
        for parameter, flag in learning.items():
            parameter.requires_grad_(flag)


def loss_against(name: LossName, labels: Labels, threat: ThreatModel) -> AttackLoss:
    """The objective of a budget attack: away from the label, or towards the target."""
    loss = LOSSES[name]
    if threat.target is None:
        return lambda points, logits, rows: loss(logits, labels[rows])
    return loss_towards(name, torch.full_like(labels, threat.target))


def loss_towards(name: LossName, targets: Labels) -> AttackLoss:
    """The same, towards a class of each image's own."""
    loss = TARGETED[name]
    return lambda points, logits, rows: -loss(logits, targets[rows])


def checked(classifier: Predictor, labels: Labels, threat: ThreatModel) -> Predictor:
    """`classifier`, refusing logits that have no column for one of the labels or for the target.

    Also refused: one that changes its images in place, so that they would leave S(x) unseen.
    """
    highest = max(int(labels.max()) if len(labels) else 0, threat.target or 0)

    def predict(points: Images) -> Logits:
        before = _changes(points)
        try:
            logits = logits_in(classifier(points), len(points))
        except RuntimeError as error:
            raise _explained(error, classifier, points) from error
        if _changes(points) != before:
            raise ThreatModelError(IN_PLACE)
        if logits.dim() != 2 or len(logits) != len(points) or logits.shape[1] <= highest:
            raise ThreatModelError(
                f"expected logits ({len(points)}, classes) with more than {highest} classes, since "
                f"that is the highest label or target, got {tuple(logits.shape)}. Do the labels "
                "belong to this classifier?"
            )
        return logits

    return predict


IN_PLACE = "the classifier changes its images in place. Give lambda images: model(images.clone())."


def _changes(points: Images) -> int:
    """How often a tensor has been changed in place, where it keeps count."""
    return 0 if points.is_inference() else points._version


def _explained(error: RuntimeError, classifier: Predictor, points: Images) -> Exception:
    """What to raise in place of an error that torch has raised in a classifier."""
    if "leaf Variable that requires grad" in str(error):
        return ThreatModelError(IN_PLACE)
    if isinstance(error, torch.OutOfMemoryError) or not isinstance(classifier, nn.Module):
        return error
    own = {(p.dtype, p.device) for p in classifier.parameters() if p.is_floating_point()}
    if len(own) != 1 or (points.dtype, points.device) in own:
        return error
    ((dtype, device),) = own
    return ThreatModelError(
        f"the classifier's weights are {dtype} on {device}, its images {points.dtype} on "
        f"{points.device}: {error}. Give images.to({str(device)!r}, {dtype}), or move the network."
    )


class SeededGenerator(torch.Generator):
    """A generator for one attack on a part of a batch: the number that each image takes is laid
    ready.

    So what an image draws does not depend on which others are still there.
    """

    numbers: list[int]

    def __new__(cls, numbers: list[int]) -> SeededGenerator:
        """With one number for each image."""
        seeded = super().__new__(cls)
        seeded.numbers = numbers
        return seeded


def draw_seeds(generator: torch.Generator, n: int, each: int) -> list[list[int]]:
    """`each` seeds for every image, so that an image's random stream does not depend on the other
    images in the batch.

    An image takes one number from `generator` whatever `each` is. So a batch gives what its images
    give one by one, and the first restarts are the same however many follow: more of them cannot
    help the classifier.

    >>> few = draw_seeds(torch.Generator().manual_seed(0), n=2, each=1)
    >>> many = draw_seeds(torch.Generator().manual_seed(0), n=2, each=3)
    >>> [seeds[:1] for seeds in many] == few
    True
    """
    if isinstance(generator, SeededGenerator):
        own = generator.numbers
    else:
        own = torch.randint(2**62, (n,), generator=generator).tolist()
    streams = [torch.Generator().manual_seed(seed) for seed in own]
    return [torch.randint(2**62, (each,), generator=stream).tolist() for stream in streams]


def random_points(images: Images, threat: ThreatModel, seeds: list[int]) -> Images:
    """A random point of S(x) for each image, drawn from its own seed."""
    if threat.mask is None:
        unit = torch.stack(_draw(images[0].numel(), threat, seeds)) if seeds else images
        # One copy to the images' device for all of them.
        unit = unit.reshape(images.shape).to(images)
        return threat.project(images + broadcast_eps(threat.eps, images) * unit, images)
    free = threat.allow(torch.ones_like(images)) != 0
    unit = torch.zeros_like(images)
    for row, seed in enumerate(seeds):
        # Only over the pixels that may change: an l2 start over all of them would lose most of its
        # length to the mask.
        pixels = unit[row][free[row]]
        if len(pixels):
            (start,) = _draw(len(pixels), threat, [seed])
            unit[row][free[row]] = start.to(unit)
    return threat.project(images + broadcast_eps(threat.eps, images) * unit, images)


def _draw(pixels: int, threat: ThreatModel, seeds: list[int]) -> list[Tensor]:
    """Random starts of size at most 1, on the CPU, so that every device gets the same; in threads,
    since an accelerator waits for them.
    """
    like = torch.empty(pixels)

    def one(seed: int) -> Tensor:
        return threat.measure.random_start(like, torch.Generator().manual_seed(seed))

    if len(seeds) * pixels < IN_THREADS or not torch.cuda.is_available():
        return [one(seed) for seed in seeds]
    return list(_threads().map(one, seeds))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))


def climb(
    classifier: Predictor,
    images: Images,
    labels: Labels,
    threat: ThreatModel,
    *,
    start: Images,
    steps: int,
    rule: Rule,
    objective: AttackLoss,
    stop_when_fooled: bool = False,
    minimal: bool = False,
    confidence: float = 0.0,
    keep: Literal["best", "last"] = "best",
    judged: bool = True,
    look: Look | None = None,
) -> Found:
    """Take `steps` uphill steps from `start`; K steps cost K gradients and, if `judged`, K + 1
    forwards.

    If the classifier has an attribute `exhausted` and it is true (a budget of time or of queries is
    spent), the search ends with what it has.

    Args:
        classifier: images to logits.
        images: originals, shape (n, channels, ...).
        labels: true classes, shape (n,).
        threat: every point is projected into its set.
        start: first points, inside the set.
        steps: number of steps; the last point is evaluated too.
        rule: how a gradient becomes a step.
        objective: (points, logits, rows) to the value to climb, one per image; `rows` says which
            images of the batch.
        stop_when_fooled: drop an image from the batch once it fools; for worst-case accuracy
            nothing more is to be won.
        minimal: among fooling points prefer the nearest one instead of the one with the highest
            objective.
        confidence: margin in logits by which a point must fool to count.
        keep: "best" point of each image (one that fools before one that does not), or the "last",
            as older papers do.
        judged: whether the last point is looked at; whoever trains on it, and keeps the last, looks
            at it anyway.
        look: how the objective, the logits and the gradient at a point are found; the default is by
            backpropagation.
    """
    look = look or by_backpropagation
    predict = checked(classifier, labels, threat)
    exact = checked(exact_classifier(classifier), labels, threat)
    images, start = images.detach(), start.detach()
    best = start.clone()
    fooled = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    merit = torch.full((len(images),), -torch.inf, dtype=images.dtype, device=images.device)
    rows = torch.arange(len(images), device=images.device)
    points, state = start, rule.init(start)
    with frozen(classifier):
        for step in range(steps + 1):
            here = threat.at(rows)
            last = step == steps or exhausted(classifier)
            if last and not judged:
                best = points
                break
            model, query = (exact, by_forward) if last else (predict, look)
            values, logits, gradient = query(model, points, rows, objective, state)
            won = here.fooled(logits, labels[rows], confidence)
            value = -here.measure.size(points - images[rows]) if minimal else values.to(merit)
            better = (won & ~fooled[rows]) | ((won == fooled[rows]) & (value > merit[rows]))
            better &= torch.isfinite(value)  # Overflown logits are no success and no progress.
            if keep == "last":
                better = torch.ones_like(better)
            if judged:  # Else only the last point is wanted, and a GPU need not wait for this.
                taken = rows[better]
                best[taken], fooled[taken] = points[better], won[better]
                merit[taken] = value[better]
            if last:
                break
            if stop_when_fooled and won.any():
                left = ~won
                rows, points, gradient, values, won = (
                    x[left] for x in (rows, points, gradient, values, won)
                )
                state = {name: kept[left] for name, kept in state.items()}
                here = threat.at(rows)
                if not len(rows):
                    break
            originals = images[rows]
            seen = Seen(step, points, originals, values, won, here.allow(gradient), here)
            proposed, state = rule.update(seen, state)
            points = here.project(proposed, originals)
    return Found(best, fooled, merit)


def exact_classifier(classifier: Predictor) -> Predictor:
    """The original classifier, where `classifier` is a faster view of it: it judges the point that
    an attack ends on.

    Such a view has the original as its `exact`. No gradient is wanted there, and what the original
    has said need not be verified once more.
    """
    exact: Predictor = getattr(classifier, "exact", classifier)
    return exact


def exhausted(classifier: Predictor) -> bool:
    """Whether a budget that the predictor keeps is spent; attacks then end with what they have."""
    return bool(getattr(classifier, "exhausted", False))


@contextmanager
def asking(classifier: Predictor, each: int) -> Iterator[None]:
    """Calls within ask about so many points of every image in them, of which a budget must know."""
    several = getattr(classifier, "several", None)
    with several(each) if several else nullcontext():
        yield


def left(classifier: Predictor) -> float:
    """How often each image may still be asked about; infinite without such a budget."""
    return float(getattr(classifier, "left", math.inf))


def by_forward(
    classifier: Predictor, points: Images, rows: Tensor, objective: AttackLoss, state: State
) -> tuple[PerImage, Logits, Images]:
    """AttackLoss and logits at `points`, and no gradient (zero): for attacks by queries, and for
    the last point.
    """
    with torch.no_grad():
        logits = classifier(points)
        return objective(points, logits, rows), logits, torch.zeros_like(points)


def by_backpropagation(
    classifier: Predictor, points: Images, rows: Tensor, objective: AttackLoss, state: State
) -> tuple[PerImage, Logits, Images]:
    """AttackLoss, logits, and the gradient with respect to the images only."""
    points = points.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = classifier(points)
        values = objective(points, logits, rows)
        # The sum, not the mean: an image's gradient must not depend on the batch size.
        gradient = gradient_of(values.sum(), points)
    return values.detach(), logits.detach(), torch.nan_to_num(gradient)


def gradient_of(value: Tensor, points: Images, *, again: bool = False) -> Images:
    """Gradient of a sum over images; 0 where nothing leads back to the points, as in a network that
    detaches them. With `again` more may be asked for afterwards.
    """
    if not value.requires_grad:
        return torch.zeros_like(points)
    (gradient,) = torch.autograd.grad(value, points, retain_graph=again, allow_unused=True)
    return torch.zeros_like(points) if gradient is None else gradient


def keep_worse(found: Found, rows: Tensor, again: Found) -> None:
    """For the images of `found` that `rows` names, keep the worse of two points, in place."""
    worse = worse_of(Found(*(part[rows] for part in found)), again)
    for part, values in zip(found, worse, strict=True):
        part[rows] = values


def worse_of(found: Found, other: Found) -> Found:
    """For each image the worse of two points: one that fools before one that does not, then the
    higher merit.
    """
    better = (other.fooled & ~found.fooled) | (
        (other.fooled == found.fooled) & (other.merit > found.merit)
    )
    return Found(
        torch.where(per_image(better, found.images), other.images, found.images),
        torch.where(better, other.fooled, found.fooled),
        torch.where(better, other.merit, found.merit),
    )
