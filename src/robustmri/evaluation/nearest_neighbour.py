"""What remembering the training slices is worth: the nearest of them names the slice, and how far
no attack changes that follows from geometry, without a search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from robustmri.core.arrays import Images, Labels
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_images, load_labels
from robustmri.data.split import Split
from robustmri.evaluation.intervals import share_interval
from robustmri.results.budget import CLEAN, NO_BUDGET, Budget
from robustmri.results.outcomes import table_of
from robustmri.results.schema import Baseline, Result, RobustnessReport
from robustmri.threat.norms import NORMS

if TYPE_CHECKING:
    import pyarrow as pa

SIDE = 32
"""Height and width, in pixels, at which slices are compared."""
MOST = 30_000_000
"""Pairs of a training and a test slice; of more, nobody waits for the answer."""
NEIGHBOURS, AT_ONCE = 16, 128
CERTIFIED = "certified"
REMEMBERED = "nearest_neighbour"
"""The table beside a result, with a row for each slice."""
ORDER = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}


class Remembered(NamedTuple):
    """Per image: whether its nearest neighbour has its label, and a radius within which no change
    alters that (0 where it has not), shape (n,) each.
    """

    right: Tensor
    radius: Tensor


def remember(
    known: Images, known_labels: Labels, images: Images, labels: Labels, *, norm: str = "linf"
) -> Remembered:
    """The nearest neighbour in l2 among known images, both averaged to `SIDE` px, and its
    certificate.

    A neighbour b is passed over for a, whatever is added within eps, if

        |x - b|^2 - |x - a|^2 > 2 eps |b - a|_dual,

    since the left side is linear in x. The radius is the least over all b of another label, for
    each b by the best of the `NEIGHBOURS` nearest a of the own label; [0, 1] is not used, and of
    two neighbours in question the radius is exact. Averages of pixels change by no more than the
    pixels in linf; in the other norms the factor is counted.

    Args:
        known: images that are remembered, shape (m, c, h, w), in [0, 1].
        known_labels: their classes, shape (m,).
        images: images to be named, shape (n, c, h, w).
        labels: their true classes, shape (n,).
        norm: of the radius, in image units.

    Reference: Wang et al. 2018, "Analyzing the robustness of nearest neighbors", for the question.

    >>> known = torch.tensor([0.2, 0.8]).reshape(2, 1, 1, 1).expand(2, 1, 32, 32)
    >>> remember(known, torch.tensor([0, 1]), known[:1] + 0.1, torch.tensor([0])).radius
    tensor([0.2000])
    """
    shrink = _shrinking(known.shape[-2:]) ** (1.0 / ORDER[norm])
    return _remember(_flat(known), known_labels, _flat(images), labels, norm, shrink)


def _remember(
    memory: Tensor, known_labels: Labels, asked: Tensor, labels: Labels, norm: str, shrink: float
) -> Remembered:
    order = ORDER[NORMS[norm].dual]
    away = torch.cdist(asked, memory) ** 2
    radius = torch.zeros(len(asked))
    right = known_labels[away.argmin(1)] == labels
    # Of each class once: to lay out its own slices and the others for each image took longest.
    parts = {
        label: (known_labels == label, memory[known_labels == label], memory[known_labels != label])
        for label in labels[right].unique().tolist()
    }
    for row in right.nonzero().flatten().tolist():
        own, alike, others = parts[int(labels[row])]
        near, far = away[row][own], away[row][~own]
        if not len(far):
            radius[row] = torch.inf
            continue
        best = near.topk(min(NEIGHBOURS, len(near)), largest=False).indices
        friends = alike[best]
        lead = far - near[best[0]]
        # Those that win first against the nearest friend are looked at against all of them.
        likely = lead / (2 * torch.cdist(others, friends[:1], p=order)[:, 0]).clamp_min(1e-12)
        least = torch.tensor(torch.inf)
        for few in likely.argsort().split(AT_ONCE):
            if likely[few[0]] >= least:
                break
            leads = far[few, None] - near[best][None]
            apart = 2 * torch.cdist(others[few], friends, p=order)
            least = torch.minimum(least, (leads / apart.clamp_min(1e-12)).amax(1).min())
        radius[row] = least / shrink
    return Remembered(right, radius)


def _flat(images: Images) -> Tensor:
    return functional.adaptive_avg_pool2d(images.float(), SIDE).flatten(1)


def _flat_slices(cohort: Cohort, rows: Sequence[int]) -> Tensor:
    """The same of slices, which are never in memory together as they are."""
    return torch.cat([_flat(load_images(cohort, few)) for few in _few_at_once(rows)])


def _few_at_once(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    return (rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE))


def _shrinking(shape: Sequence[int]) -> float:
    """The most that one pixel weighs in all averages together: a change of size 1 in l1 becomes so
    large, in l2 its root.
    """
    pixels = torch.zeros(1, 1, *shape, requires_grad=True)
    (weight,) = torch.autograd.grad(functional.adaptive_avg_pool2d(pixels, SIDE).sum(), pixels)
    return float(weight.max())


def remember_slices(cohort: Cohort, split: Split, rows: list[int], *, norm: str) -> pa.Table | None:
    """What the nearest training slice says of each evaluated one: columns `index`, `group`, `right`
    and `radius`, in image units of the norm.

    Returns:
        None where there are no training slices, where the norm has no such certificate (l0), or
        where it would take minutes.
    """

    if NORMS[norm].dual not in ORDER or not 0 < len(split.train) * len(rows) <= MOST:
        return None
    known, labels = _flat_slices(cohort, split.train), load_labels(cohort, split.train)
    shrink = _shrinking(cohort.shape[1:]) ** (1.0 / ORDER[norm])
    found = [
        _remember(
            known, labels, _flat(load_images(cohort, few)), load_labels(cohort, few), norm, shrink
        )
        for few in _few_at_once(rows)
    ]
    groups = [cohort.cases[row].group for row in rows]
    return table_of(
        {
            "index": rows,
            "group": groups,
            "right": torch.cat([one.right for one in found]).numpy(),
            "radius": torch.cat([one.radius for one in found]).double().numpy(),
        }
    )


def summarise_memory(
    table: pa.Table, budgets: Iterable[Budget], *, norm: str, known: list[int]
) -> Baseline:
    """Accuracy by the nearest neighbour, untouched and certified at each radius in its norm.

    Args:
        table: as `remember_slices` makes it.
        budgets: those of the evaluation; of them the ones in another norm, with a target or without
            a radius are passed over.
        norm: of the radii in the table.
        known: number of training slices; of several tables, of each.
    """
    right, radius = (table[name].to_numpy() for name in ("right", "radius"))
    groups = np.array(table["group"].to_pylist())
    limited = [one for one in budgets if one.norm == norm and one.eps_image and not one.target]
    results = []
    for attack, budget in ((CLEAN, NO_BUDGET), *((CERTIFIED, one) for one in limited)):
        correct = right & (radius > (budget.eps_image or -1.0))
        interval = share_interval(correct, groups)
        results.append(
            Result(
                attack=attack,
                norm=budget.norm,
                eps=budget.eps,
                eps_units=cast(Literal["image", "normalised"], budget.eps_units),
                eps_image=budget.eps_image,
                unit="slice",
                n=len(correct),
                accuracy=float(correct.mean()),
                ci_low=interval.low,
                ci_high=interval.high,
                interval=interval.method,
            )
        )
    return Baseline(name="nearest neighbour", known=known, side=SIDE, results=results)


def pool_memory(parts: Sequence[RobustnessReport], table: pa.Table) -> Baseline:
    """What the tables of several evaluations, put below one another, amount to.

    Args:
        parts: the evaluations, each with a baseline.
        table: as `remember_slices` makes it, of all of them.
    """
    known = [part.baseline for part in parts if part.baseline is not None]
    return summarise_memory(
        table,
        [
            Budget(one.norm, one.eps, one.eps_units, one.eps_image)
            for one in known[0].results
            if one.attack == CERTIFIED
        ],
        norm=parts[0].asked.norm,
        known=[number for one in known for number in one.known],
    )
