from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from robustmri.attacks import bim
from robustmri.errors import ThreatModelError
from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.models.optimised import OptimisedView, fold_batch_norm
from robustmri.threat.threat_model import ThreatModel

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def settle(network: nn.Module) -> nn.Module:
    """Batch-norm statistics and weights far from those of a new network, where a wrong fold would hardly show."""
    for module in network.modules():
        if isinstance(module, NORMS):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return network


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.networks.nets import resnet18
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = settle(resnet18(spatial_dims=2, n_input_channels=1, num_classes=3))
    classes = ("meningioma", "glioma", "pituitary")
    return Classifier(network, ClassifierSpec(backbone="resnet18", classes=classes, size=32)).eval()


@pytest.fixture(autouse=True)
def _small_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustmri.models.optimised.MICRO_BATCH", 8)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """More than one micro-batch, and the last one not full."""
    return torch.rand(11, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def value_and_gradient(predict, images: Tensor) -> tuple[Tensor, Tensor]:
    points = images.clone().requires_grad_()
    logits = predict(points)
    weights = torch.linspace(-1, 2, logits.numel()).reshape(logits.shape)
    return logits.detach(), torch.autograd.grad((weights * logits).sum(), points)[0]


def similarity(one: Tensor, other: Tensor) -> float:
    return nn.functional.cosine_similarity(one.flatten(1), other.flatten(1)).min().item()


@pytest.mark.parametrize("lanes", [0, 2])
def test_fp32_is_the_same_function(classifier, images, lanes):
    view = OptimisedView(classifier, images, precision="fp32", lanes=lanes)
    logits, gradient = value_and_gradient(classifier, images)
    found, found_gradient = value_and_gradient(view, images)
    assert found.dtype == torch.float32
    assert logits.std() > 0.1
    # 1e-4: folding rounds each weight once more, 6e-8 relative, over 20 layers.
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(found_gradient, gradient, rtol=0, atol=1e-4 * gradient.abs().max().item())
    assert similarity(found_gradient, gradient) > 0.9999


def test_every_batch_norm_of_a_resnet_is_folded(classifier, images):
    folded = fold_batch_norm(classifier, images[:2])
    assert not any(isinstance(module, NORMS) for module in folded.modules())
    assert any(isinstance(module, NORMS) for module in classifier.modules())


def test_bf16_is_close(classifier, images):
    view = OptimisedView(classifier, images, precision="bf16", lanes=0)
    logits, gradient = value_and_gradient(classifier, images)
    found, found_gradient = value_and_gradient(view, images)
    assert found.dtype == torch.float32
    assert found_gradient.dtype == torch.float32
    # bfloat16 keeps 8 bits: 0.4 % a layer, over 20 layers whose errors partly cancel.
    torch.testing.assert_close(found, logits, rtol=0, atol=0.05 * logits.abs().max().item())
    assert similarity(found_gradient, gradient) > 0.95


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_lanes_change_nothing(classifier, images, precision):
    alone, side_by_side = (
        value_and_gradient(OptimisedView(classifier, images, precision=precision, lanes=lanes), images)
        for lanes in (0, 2)
    )
    tolerance = {"fp32": 1e-5, "bf16": 0.02}[precision]  # A batch of another size is summed in another order.
    torch.testing.assert_close(side_by_side[0], alone[0], rtol=0, atol=tolerance * alone[0].abs().max().item())
    assert similarity(side_by_side[1], alone[1]) > 1 - tolerance


def test_lanes_skip_micro_batches_that_nobody_climbs_from(classifier, images):
    view = OptimisedView(classifier, images, precision="fp32", lanes=2)
    points = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(view(points)[9].sum(), points)
    assert gradient[9].any()
    gradient[9] = 0
    assert not gradient.any()


def test_lanes_without_gradients(classifier, images):
    view = OptimisedView(classifier, images, precision="fp32", lanes=2)
    with torch.no_grad():
        logits = view(images)
    assert not logits.requires_grad
    torch.testing.assert_close(logits, classifier(images).detach(), rtol=0, atol=1e-4)


def test_a_failure_in_a_lane_reaches_the_caller(images):
    class Fussy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if (images > 2).any():
                raise ValueError("too bright")
            return images.flatten(1)[:, :3]

    view = OptimisedView(Fussy(), images, precision="fp32", lanes=2)
    images = images.clone()
    images[-1] = 3
    with pytest.raises(ValueError, match="too bright"):
        view(images)


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_number_of_threads_stays_here_and_for_later_threads(classifier, images, two_threads):
    """Lanes run on one core each; a thread that starts afterwards must not inherit that."""
    value_and_gradient(OptimisedView(classifier, images, precision="fp32", lanes=2), images)
    seen = [torch.get_num_threads()]
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2, 2]


def test_the_classifier_is_left_as_it_was(classifier, images):
    source = copy.deepcopy(classifier).train()
    source.network.bn1.eval()
    before = {name: value.clone() for name, value in source.state_dict().items()}
    flags = [module.training for module in source.modules()]
    view = OptimisedView(source, images, precision="bf16", lanes=2)
    value_and_gradient(view, images)
    bim(steps=2)(view, images, torch.zeros(11, dtype=torch.long), ThreatModel(), generator=torch.Generator())
    torch.testing.assert_close(dict(source.state_dict()), before, rtol=0, atol=0)
    assert [module.training for module in source.modules()] == flags
    assert all(parameter.requires_grad and parameter.grad is None for parameter in source.parameters())
    assert not any(module._forward_hooks for module in source.modules())


def test_the_view_outlives_a_change_of_the_classifier(classifier, images):
    source = copy.deepcopy(classifier)
    view = OptimisedView(source, images, precision="fp32", lanes=0)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.zero_()
    torch.testing.assert_close(view(images), classifier(images).detach(), rtol=0, atol=1e-4)


def test_autocast_around_the_call_does_not_reach_it(classifier, images):
    view = OptimisedView(classifier, images, precision="fp32", lanes=0)
    plain = view(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(view(images), plain)


class Small(nn.Module):
    """Convolution, batch-norm and a head; `forward` is what the cases below differ in."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).square().mean((2, 3)))

    def features(self, images: Tensor) -> Tensor:
        return self.norm(self.convolution(images))


class TwoReaders(Small):
    def features(self, images: Tensor) -> Tensor:
        convolved = self.convolution(images)
        return self.norm(convolved) + convolved


class TwoNorms(Small):
    def features(self, images: Tensor) -> Tensor:
        convolved = self.convolution(images)
        return self.norm(convolved) * self.other(convolved)


class CalledTwice(Small):
    def features(self, images: Tensor) -> Tensor:
        return self.norm(self.convolution(images)) + self.convolution(1 - images)


class InPlace(Small):
    def features(self, images: Tensor) -> Tensor:
        return self.norm(self.relu(self.convolution(images)))  # The very tensor that left the convolution.


class ByKeyword(Small):
    def features(self, images: Tensor) -> Tensor:
        return self.norm(input=self.convolution(images))


class WithoutStatistics(Small):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)


class NormFirst(Small):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def features(self, images: Tensor) -> Tensor:
        return self.convolution(self.norm(images))


@pytest.mark.parametrize("scale", [1.0, 1e-5], ids=["", "small-logits"])
@pytest.mark.parametrize("example", ["images", "black"])
@pytest.mark.parametrize(
    "kind",
    [Small, TwoReaders, TwoNorms, CalledTwice, InPlace, ByKeyword, WithoutStatistics, NormFirst],
    ids=lambda kind: kind.__name__,
)
def test_folding_never_changes_the_function(kind, example, scale):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind()
    # No mean and no bias: on black images nothing would show.
    network.norm.weight.data.copy_(torch.tensor([3.0, -2.0, 3.0, -2.0])[: len(network.norm.weight)])
    network.other.weight.data.fill_(2.0)
    network.head.weight.data.mul_(scale)
    network.head.bias.data.zero_()
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    folded = fold_batch_norm(network, torch.zeros_like(images) if example == "black" else images)
    expected = network.eval()(images)
    torch.testing.assert_close(folded(images), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    left = sum(isinstance(module, NORMS) for module in folded.modules())
    assert left == (1 if kind is Small else 2)  # The spare one of `Small` feeds nothing and stays.


def test_volumes(images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = settle(
            nn.Sequential(
                nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)
            )
        ).eval()
    volumes = torch.rand(10, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    view = OptimisedView(network, volumes, precision="fp32", lanes=2)
    for found, expected in zip(value_and_gradient(view, volumes), value_and_gradient(network, volumes), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_attacks_on_the_view_fool_the_classifier(trained, blobs):
    images, labels = blobs
    threat = ThreatModel("linf", 0.1)
    fooled = []
    for predict in (trained, OptimisedView(trained, images, lanes=2), OptimisedView(trained, images, lanes=0)):
        attacked = bim()(predict, images, labels, threat, generator=torch.Generator().manual_seed(0))
        assert attacked.dtype == torch.float32
        fooled.append(threat.fooled(trained(attacked), labels).float().mean().item())
    assert 0.2 < fooled[0] < 0.9
    assert fooled[1:] == pytest.approx([fooled[0]] * 2, abs=0.05)  # Images at the boundary, where bf16 may differ.


def test_an_empty_example_is_refused(classifier, images):
    with pytest.raises(ThreatModelError, match="at least one example"):
        OptimisedView(classifier, images[:0])
