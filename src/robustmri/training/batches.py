"""Which images a step takes, and its random numbers: all from (seed, epoch, step), whoever shares
the work.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from robustmri.attacks.engine import SeededGenerator
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import SettingsError
from robustmri.core.sizes import sides, size_of, size_option, size_words
from robustmri.models.classifier import Classifier
from robustmri.models.dual_norm import make_dual
from robustmri.training.augment import augmentation
from robustmri.training.minimax import Batch
from robustmri.training.settings import TrainSettings


@dataclass(frozen=True)
class Examples:
    """Images in [0, 1], shape (n, channels, h, w), and their labels."""

    images: Images
    labels: Labels


class Part(NamedTuple):
    """Images that one process takes at once, and the weight of their mean loss in the step's.

    Gradients are summed over the parts of a process and averaged over the processes; so weighted,
    that gives the gradient of the mean over the whole batch, also where the parts are not equal.
    """

    batch: Batch
    weight: float


def steps_of(n: int, settings: TrainSettings) -> int:
    """Steps of one pass over `n` images; one left over joins the batch before: batch-norm cannot
    train on one image.

    >>> [steps_of(n, TrainSettings(batch_size=32)) for n in (1, 32, 33, 34, 65)]
    [1, 1, 1, 2, 2]
    """
    whole, rest = divmod(n, settings.batch_size)
    return max(1, whole + (rest > 1))


def batches(
    examples: Examples,
    settings: TrainSettings,
    pass_index: int,
    *,
    begins: float | None = None,
    epochs_per_pass: float = 1.0,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[list[Part]]:
    """What process `rank` of `ranks` does in each step of one pass over the examples.

    An image is changed, and gets the number that its random start is drawn from, by its place in
    the batch. So one process and many see the same images, and so do one part and several.

    Args:
        examples: all of them.
        settings: batch size, parts, augmentation and seed.
        pass_index: which pass, from 0.
        begins: the time in epochs at which it begins; None: as many as the passes before count for.
        epochs_per_pass: epochs that a pass counts for.
        rank: number of this process.
        ranks: how many there are.
    """
    n, change = len(examples.labels), augmentation(settings.augment)
    order = order_of(examples.labels, settings, pass_index)
    steps, begins = (
        steps_of(n, settings),
        pass_index * epochs_per_pass if begins is None else begins,
    )
    for step in range(steps):
        first = step * settings.batch_size
        rows = order[first : n if step == steps - 1 else first + settings.batch_size].to(
            examples.images.device
        )
        seed = seed_of(settings.seed, pass_index, step, 0)
        images, labels = change(examples.images[rows], seed), examples.labels[rows]
        numbers = torch.randint(
            2**62, (len(rows),), generator=torch.Generator().manual_seed(seed)
        ).tolist()
        parts = []
        for places, weight in shares(len(rows), settings.accumulate, rank, ranks):
            generator = SeededGenerator(numbers[places])
            # Whoever draws from it more than an attack does must not draw the same in every step.
            generator.manual_seed(seed)
            own = images[places].contiguous(memory_format=torch.channels_last)
            parts.append(
                Part(
                    Batch(own, labels[places], begins + step / steps * epochs_per_pass, generator),
                    weight,
                )
            )
        yield parts


def order_of(labels: Labels, settings: TrainSettings, pass_index: int) -> Tensor:
    """Rows of one pass, shape (n,), as many as there are images.

    With `balance` each class has as many places as any other: rows of a small class come more than
    once, those of a large one are drawn without repetition, others in the next pass.
    """
    generator = torch.Generator().manual_seed(seed_of(settings.seed, pass_index))
    n, places = len(labels), []
    if not settings.balance:
        return torch.randperm(n, generator=generator)
    labels = labels.cpu()
    classes = labels.unique()
    for position, label in enumerate(classes):
        rows = (labels == label).nonzero().flatten()
        wanted = (n + position) // len(classes)
        often = -(-wanted // len(rows))
        drawn = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(often)]
        places.append(torch.cat(drawn)[:wanted])
    return torch.cat(places)[torch.randperm(n, generator=generator)]


def shares(n: int, accumulate: int, rank: int = 0, ranks: int = 1) -> list[tuple[slice, float]]:
    """Places of a batch of `n` images that a process takes in each of its parts, and the parts'
    weights.

    Every process has the same number of parts, since they meet in each of them. Where there are
    fewer images than processes, each process takes all of them.

    >>> shares(5, accumulate=1, rank=0, ranks=2), shares(5, accumulate=1, rank=1, ranks=2)
    ([(slice(0, 6, 2), 1.2)], [(slice(1, 5, 2), 0.8)])
    >>> shares(4, accumulate=2)
    [(slice(0, 2, 1), 0.5), (slice(2, 4, 1), 0.5)]
    """
    all_take_all = n < ranks
    own = range(n) if all_take_all else range(n)[rank::ranks]
    total = n if all_take_all else n / ranks
    count = min(accumulate, n if all_take_all else n // ranks)
    parts = [own[len(own) * k // count : len(own) * (k + 1) // count] for k in range(count)]
    return [(slice(part.start, part.stop, part.step), len(part) / total) for part in parts]


def smallest_part(n: int, settings: TrainSettings) -> int:
    """Images of the smallest part that any process takes in a pass over `n` images.

    >>> [smallest_part(33, TrainSettings(batch_size=16, accumulate=k)) for k in (1, 4, 16)]
    [16, 4, 1]
    """
    steps, ranks = steps_of(n, settings), settings.devices * settings.nodes
    last = n - (steps - 1) * settings.batch_size
    return min(
        len(range(length)[places])
        for length in {last, settings.batch_size if steps > 1 else last}
        for rank in {0, ranks - 1}
        for places, _ in shares(length, settings.accumulate, rank, ranks)
    )


def check_parts(classifier: Classifier, n: int, settings: TrainSettings) -> None:
    """Refuse parts of one image where batch-norm cannot learn from one, and pairs of batch-norms
    where there is none.

    Raises:
        SettingsError: it has one value of each channel there, and no variance; or no batch-norm.
    """
    if settings.dual_batch_norm and not make_dual(copy.deepcopy(classifier)):
        raise SettingsError(
            f"dual_batch_norm changes nothing: {classifier.spec.backbone} has no batch-norm of "
            "torch. Leave it false."
        )
    if smallest_part(n, settings) > 1:
        return
    network, spec = copy.deepcopy(classifier).train(), classifier.spec
    try:
        with torch.no_grad():
            network(torch.zeros(1, *spec.shape))
    except ValueError as error:
        raise SettingsError(
            f"batch-norm of {spec.backbone} cannot learn from one slice of {size_words(spec.size)} "
            f"at a time: raise batch_size (now {settings.batch_size}), lower accumulate (now "
            f"{settings.accumulate}) or devices (now {settings.devices}), or prepare the cohort "
            f"with --size {size_option(size_of(*(2 * side for side in sides(spec.size))))}. The "
            f"training set has {n} slices."
        ) from error


def seed_of(*parts: int) -> int:
    """One seed from several numbers, without collisions between neighbours."""
    seed = 0
    for part in parts:
        seed = (seed * 6364136223846793005 + part + 1442695040888963407) % 2**63
    return seed
