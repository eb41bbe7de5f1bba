from __future__ import annotations

import pytest
import torch

from robustmri.training.averages import Average, average_of, re_estimate_batch_norm
from robustmri.training.settings import TrainSettings
from tiny import same_weights


def moved(fresh, seeds):
    """A network at several points of a run."""
    return [fresh(seed) for seed in seeds]


def mean_of(networks, name):
    return torch.stack([network.state_dict()[name] for network in networks]).mean(0)


def unread():
    raise AssertionError("nobody asked for these images")
    yield


def statistics_of(network, batches):
    """Means and unbiased variances of what comes into the batch-norm, each batch counting the
    same.
    """
    with torch.no_grad():
        inputs = [
            network.network[0]((images - network.spec.mean) / network.spec.std)
            for images in batches
        ]
    means = torch.stack([part.mean((0, 2, 3)) for part in inputs]).mean(0)
    return means, torch.stack([part.transpose(0, 1).flatten(1).var(1) for part in inputs]).mean(0)


def test_exponential_average(fresh):
    start, *path = moved(fresh, range(4))
    average = Average("ema", start, decay=0.9)
    for network in path:
        average.after_step(network)
        average.after_epoch(network, 1, unread())
    name = "network.0.weight"
    first, second, third = (network.state_dict()[name] for network in path)
    expected = 0.9 * (0.9 * first + 0.1 * second) + 0.1 * third
    torch.testing.assert_close(average.module.state_dict()[name], expected)
    assert average.kept(start) is average.module


def test_the_exponential_average_takes_in_statistics(fresh, choose):
    one, other = moved(fresh, range(2))
    average = Average("ema", one, decay=0.5)
    average.after_step(one)
    other.train()(choose.images)
    average.after_step(other)
    torch.testing.assert_close(
        average.module.network[1].running_mean, mean_of([one, other], "network.1.running_mean")
    )


def test_equal_average_from_an_epoch_on(fresh, choose):
    start, *path = moved(fresh, range(5))
    average = Average("swa", start, from_epoch=1)
    batches = choose.images.split(8)
    for epochs, network in enumerate(path, start=1):
        average.after_step(network)
        average.after_epoch(network, epochs, unread() if epochs == 1 else batches)
        assert average.kept(network) is (network if epochs == 1 else average.module)
    for name in ("network.0.weight", "network.1.bias", "network.7.weight"):
        torch.testing.assert_close(average.module.state_dict()[name], mean_of(path[1:], name))
    mean, variance = statistics_of(average.module, batches)
    torch.testing.assert_close(average.module.network[1].running_mean, mean)
    torch.testing.assert_close(average.module.network[1].running_var, variance)


def test_equal_average_of_the_same_weights_is_these_weights(fresh, choose):
    network = fresh(1)
    average = Average("swa", fresh(0))
    for epochs in range(1, 6):
        average.after_epoch(network, epochs, [choose.images])
    for one, other in zip(average.module.parameters(), network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_no_average(fresh):
    start, network = moved(fresh, range(2))
    average = Average("none", start)
    average.after_step(network)
    average.after_epoch(network, 1, unread())
    assert average.kept(network) is network


@pytest.mark.parametrize("kind", ["ema", "swa", "none"])
def test_its_state_goes_on(fresh, choose, kind):
    start, *path = moved(fresh, range(5))
    whole, first = (Average(kind, start, decay=0.7, from_epoch=1) for _ in range(2))

    def follow(average, part):
        for epochs in part:
            average.after_step(path[epochs - 1])
            average.after_epoch(path[epochs - 1], epochs, [choose.images])

    follow(whole, (1, 2, 3, 4))
    follow(first, (1, 2))
    second = Average(kind, start, decay=0.7, from_epoch=1)
    second.load_state_dict(first.state_dict())
    follow(second, (3, 4))
    assert same_weights(whole.kept(path[-1]), second.kept(path[-1]))


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, "none"),
        ({"ema_decay": 0.5}, "ema"),
        ({"ema_decay": 0.5, "average": "none"}, "none"),
        ({"average": "swa", "swa_from_epoch": 7}, "swa"),
    ],
    ids=str,
)
def test_settings_name_averages(fresh, settings, kind):
    average = average_of(TrainSettings(**settings), fresh())
    assert average.kind == kind
    assert average.from_epoch == settings.get("swa_from_epoch", 0)


def test_re_estimated_statistics_are_those_of_one_pass(fresh, choose):
    """Whatever stood there before, and with the mode and momentum as they were."""
    network = fresh().eval()
    network.network[1].running_mean.fill_(7.0)
    batches = choose.images.split(12)
    re_estimate_batch_norm(network, batches)
    mean, variance = statistics_of(network, batches)
    torch.testing.assert_close(network.network[1].running_mean, mean)
    torch.testing.assert_close(network.network[1].running_var, variance)
    assert network.network[1].momentum == 0.1
    assert not network.training
