from __future__ import annotations

import pytest
import torch

from robustmri.attacks.engine import draw_seeds
from robustmri.core.errors import SettingsError
from robustmri.models.backbones import build_classifier
from robustmri.training.batches import batches, check_parts, order_of, seed_of, shares
from robustmri.training.settings import TrainSettings


def seeded(learn, turn=0, *, accumulate=1, ranks=1, seed=0):
    """Steps of an epoch, over all processes: each image as its label, its bytes and its random
    number.
    """
    settings = TrainSettings(batch_size=16, accumulate=accumulate, seed=seed)
    steps = []
    for rank in range(ranks):
        for step, parts in enumerate(batches(learn, settings, turn, rank=rank, ranks=ranks)):
            if not rank:
                steps.append([])
            for batch, _ in parts:
                seeds = draw_seeds(batch.generator, len(batch.labels), each=1)
                steps[step] += [
                    (int(label), image.numpy().tobytes(), own)
                    for image, label, (own,) in zip(batch.images, batch.labels, seeds, strict=True)
                ]
    return steps


def test_each_epoch_takes_every_image_once_in_its_own_order(learn):
    seen = [
        torch.cat(
            [
                part.batch.images
                for parts in batches(learn, TrainSettings(batch_size=16, augment="none"), turn)
                for part in parts
            ]
        )
        for turn in (0, 1, 0)
    ]
    assert sorted(image.sum().item() for image in seen[0]) == sorted(
        image.sum().item() for image in learn.images
    )
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(("accumulate", "ranks"), [(3, 1), (1, 2), (1, 3), (2, 2), (1, 12)])
def test_whoever_takes_an_image_sees_the_same(learn, accumulate, ranks):
    """Augmentation and random start belong to the place in the batch; 42 images leave 10 for the
    last one.
    """
    alone, shared = seeded(learn), seeded(learn, accumulate=accumulate, ranks=ranks)
    assert [len(step) for step in alone] == [16, 16, 10]
    for step, (one, other) in enumerate(zip(alone, shared, strict=True)):
        # Where there are fewer images than processes, each process takes all.
        times = ranks if len(one) < ranks else 1
        assert sorted(one * times) == sorted(other), step
    assert sorted(seeded(learn, seed=1)[0]) != sorted(alone[0])


def test_a_balanced_epoch_has_as_many_of_each_class():
    labels = torch.tensor([0] * 60 + [1] * 9 + [2] * 21)
    settings = TrainSettings(balance=True)
    orders = [order_of(labels, settings, turn) for turn in (0, 1)]
    assert [labels[order].bincount().tolist() for order in orders] == [[30, 30, 30]] * 2
    assert orders[0].tolist() != orders[1].tolist() == order_of(labels, settings, 1).tolist()
    for label in range(3):
        often = orders[0].bincount(minlength=90)[labels == label]
        assert often.max() - often.min() <= 1


def test_an_image_that_is_left_over_joins_the_batch_before(learn):
    """Alone it would give batch-norm statistics of one image."""
    n = len(learn.labels)
    for size, expected in ((n - 1, [n]), (n - 2, [n - 2, 2]), (n, [n]), (n + 1, [n])):
        parts = [
            part for (part,) in batches(learn, TrainSettings(batch_size=size, augment="none"), 0)
        ]
        assert [len(part.batch.labels) for part in parts] == expected
        found = torch.cat([part.batch.images for part in parts]).flatten(1).sum(1).sort().values
        torch.testing.assert_close(found, learn.images.flatten(1).sum(1).sort().values)
        assert [part.weight for part in parts] == [1.0] * len(expected)


def test_numbers_are_those_that_a_generator_would_give(learn):
    """So runs that were made before numbers were dealt stay what they were."""
    (part,) = next(batches(learn, TrainSettings(batch_size=16, seed=5), 2))
    plain = torch.Generator().manual_seed(seed_of(5, 2, 0, 0))
    assert draw_seeds(part.batch.generator, 16, each=2) == draw_seeds(plain, 16, each=2)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 16])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_weights_make_the_mean_of_the_whole(n, accumulate, ranks):
    values, places = torch.arange(n, dtype=torch.float64) ** 2, []
    means = []
    for rank in range(ranks):
        own = shares(n, accumulate, rank, ranks)
        places.append(len(own))
        means.append(sum(weight * values[part].mean().item() for part, weight in own))
    assert sum(means) / ranks == pytest.approx(values.mean().item())
    assert len(set(places)) == 1, "processes meet in each part, so all have as many"
    assert all(
        len(values[part]) for rank in range(ranks) for part, _ in shares(n, accumulate, rank, ranks)
    )


def test_time_is_in_epochs(learn):
    settings = TrainSettings(batch_size=16)
    times = [parts[0].batch.epoch for parts in batches(learn, settings, 2, epochs_per_pass=4.0)]
    assert times == pytest.approx([8.0, 8 + 4 / 3, 8 + 8 / 3])


@pytest.mark.parametrize(
    ("changes", "size", "refused"),
    [
        ({"batch_size": 1}, 32, True),
        ({"batch_size": 16, "accumulate": 16}, 32, True),
        ({"batch_size": 16, "devices": 16}, 32, True),
        ({"batch_size": 16, "accumulate": 8}, 32, False),
        ({"batch_size": 16, "accumulate": 16}, 64, False),
    ],
)
def test_parts_of_one_image_are_refused_where_batch_norm_has_one_value(changes, size, refused):
    classifier = build_classifier("resnet18-half", ("a", "b"), size)
    settings = TrainSettings(**changes)
    if not refused:
        check_parts(classifier, 32, settings)
        return
    with pytest.raises(SettingsError, match="batch-norm of resnet18-half cannot learn from one"):
        check_parts(classifier, 32, settings)


def test_pairs_of_batch_norms_where_there_is_none_are_refused(fresh):
    settings = TrainSettings(dual_batch_norm=True)
    check_parts(fresh(), 32, settings)
    with pytest.raises(SettingsError, match="dual_batch_norm changes nothing: custom has no"):
        check_parts(fresh(batch_norm=False), 32, settings)
