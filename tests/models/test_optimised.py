from __future__ import annotations

import builtins
import copy
import io
import warnings

import msgspec
import pytest
import torch
from torch import Tensor, nn

from robustmri.attacks import bim
from robustmri.core.errors import SettingsError, ThreatModelError
from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.models.optimised import (
    OptimisedView,
    fast_precision,
    full_float32,
    simplified,
)
from robustmri.threat.threat_model import ThreatModel

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def settle(network: nn.Module) -> nn.Module:
    """Batch-norm statistics and weights far from those of a new network, where a wrong fold would
    hardly show.
    """
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


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(11, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def value_and_gradient(predict, images: Tensor) -> tuple[Tensor, Tensor]:
    points = images.clone().requires_grad_()
    logits = predict(points)
    weights = torch.linspace(-1, 2, logits.numel()).reshape(logits.shape)
    return logits.detach(), torch.autograd.grad((weights * logits).sum(), points)[0]


def similarity(one: Tensor, other: Tensor) -> float:
    return nn.functional.cosine_similarity(one.flatten(1), other.flatten(1)).min().item()


def test_fp32_is_the_same_function(classifier, images):
    view = OptimisedView(classifier, images, precision="fp32")
    logits, gradient = value_and_gradient(classifier, images)
    found, found_gradient = value_and_gradient(view, images)
    assert found.dtype == torch.float32
    assert logits.std() > 0.1
    # 1e-4: folding rounds each weight once more, 6e-8 relative, over 20 layers.
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        found_gradient, gradient, rtol=0, atol=1e-4 * gradient.abs().max().item()
    )
    assert similarity(found_gradient, gradient) > 0.9999


def test_every_batch_norm_of_a_resnet_is_folded(classifier, images):
    folded, _ = simplified(classifier, images[:2])
    assert not any(isinstance(module, NORMS) for module in folded.modules())
    assert any(isinstance(module, NORMS) for module in classifier.modules())


def test_bf16_is_close(classifier, images):
    view = OptimisedView(classifier, images, precision="bf16")
    logits, gradient = value_and_gradient(classifier, images)
    found, found_gradient = value_and_gradient(view, images)
    assert found.dtype == torch.float32
    assert found_gradient.dtype == torch.float32
    # bfloat16 keeps 8 bits: 0.4 % a layer, over 20 layers whose errors partly cancel.
    torch.testing.assert_close(found, logits, rtol=0, atol=0.05 * logits.abs().max().item())
    assert similarity(found_gradient, gradient) > 0.95


def test_the_classifier_is_left_as_it_was(classifier, images):
    source = copy.deepcopy(classifier).train()
    source.network.bn1.eval()
    before = {name: value.clone() for name, value in source.state_dict().items()}
    flags = [module.training for module in source.modules()]
    view = OptimisedView(source, images, precision="bf16")
    value_and_gradient(view, images)
    bim(steps=2)(
        view, images, torch.zeros(11, dtype=torch.long), ThreatModel(), generator=torch.Generator()
    )
    torch.testing.assert_close(dict(source.state_dict()), before, rtol=0, atol=0)
    assert [module.training for module in source.modules()] == flags
    assert all(
        parameter.requires_grad and parameter.grad is None for parameter in source.parameters()
    )
    assert not any(module._forward_hooks for module in source.modules())


def test_the_view_outlives_a_change_of_the_classifier(classifier, images):
    source = copy.deepcopy(classifier)
    view = OptimisedView(source, images, precision="fp32")
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.zero_()
    torch.testing.assert_close(view(images), classifier(images).detach(), rtol=0, atol=1e-4)


def test_autocast_around_the_call_does_not_reach_it(classifier, images):
    view = OptimisedView(classifier, images, precision="fp32")
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
        # The very tensor that left the convolution.
        return self.norm(self.relu(self.convolution(images)))


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
    folded, _ = simplified(network, torch.zeros_like(images) if example == "black" else images)
    expected = network.eval()(images)
    torch.testing.assert_close(
        folded(images), expected, rtol=0, atol=1e-5 * expected.abs().max().item()
    )
    left = sum(isinstance(module, NORMS) for module in folded.modules())
    assert left == (1 if kind is Small else 2)  # The spare one of `Small` feeds nothing and stays.


def test_volumes(images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = settle(
            nn.Sequential(
                nn.Conv3d(1, 4, 3),
                nn.BatchNorm3d(4),
                nn.ReLU(),
                nn.AdaptiveAvgPool3d(1),
                nn.Flatten(),
                nn.Linear(4, 2),
            )
        ).eval()
    volumes = torch.rand(10, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    view = OptimisedView(network, volumes, precision="fp32")
    for found, expected in zip(
        value_and_gradient(view, volumes), value_and_gradient(network, volumes), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_attacks_on_the_view_fool_the_classifier(trained, blobs):
    images, labels = blobs
    threat = ThreatModel("linf", 0.1)
    fooled = []
    for predict in (trained, OptimisedView(trained, images)):
        attacked = bim()(
            predict, images, labels, threat, generator=torch.Generator().manual_seed(0)
        )
        assert attacked.dtype == torch.float32
        fooled.append(threat.fooled(trained(attacked), labels).float().mean().item())
    assert 0.2 < fooled[0] < 0.9
    # Images at the boundary, where bf16 may differ.
    assert fooled[1] == pytest.approx(fooled[0], abs=0.05)


def test_an_empty_example_is_refused(classifier, images):
    with pytest.raises(ThreatModelError, match="at least one example"):
        OptimisedView(classifier, images[:0])


class Pooled(nn.Module):
    """A stem as residual networks have it; `shared` uses its ReLU once more, `read` what is before
    the pooling.
    """

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.kind, self.convolution = kind, nn.Conv2d(1, 4, 3)
        self.relu, self.pool, self.head = (
            nn.ReLU(inplace=kind == "inplace"),
            nn.MaxPool2d(2),
            nn.Linear(4, 3),
        )

    def forward(self, images: Tensor) -> Tensor:
        before = self.relu(self.convolution(images) - 0.1)
        after = self.pool(before)
        if self.kind == "shared":
            after = self.relu(after - 0.2)
        if self.kind == "read":
            after = after + before.mean((2, 3), keepdim=True)
        logits: Tensor = self.head(after.mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("kind", "moved"), [("", True), ("inplace", True), ("shared", False), ("read", False)]
)
def test_pooling_moves_before_the_relu_only_where_nothing_changes(kind, moved):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Pooled(kind).eval()
    images = torch.rand(4, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    swapped, _ = simplified(network, images)
    assert isinstance(swapped.relu, nn.Identity) == moved
    for found, expected in zip(
        value_and_gradient(swapped, images), value_and_gradient(network, images), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert isinstance(network.relu, nn.ReLU)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_refreshed_view_is_a_new_view(classifier, images, precision):
    source = copy.deepcopy(classifier)
    view = OptimisedView(source, images, precision=precision)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in (*source.parameters(), *source.buffers()):
            if value.is_floating_point():
                value.mul_(1 + 0.2 * torch.rand(value.shape, generator=generator))
    before = view(images)
    view.refresh(source)
    assert torch.equal(view(images), OptimisedView(source, images, precision=precision)(images))
    assert not torch.allclose(view(images), before, atol=1e-2)


def test_a_compiled_network_meets_few_sizes(classifier, images, monkeypatch):
    """The compiler is left out here: what counts is what it would be given, and what comes back."""
    sizes = []

    def compiled(network, **_):
        def run(batch: Tensor) -> Tensor:
            sizes.append(len(batch))
            return network(batch)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    view = OptimisedView(classifier, images, precision="fp32", compiled=True)
    plain = OptimisedView(classifier, images, precision="fp32")
    for n in (1, 3, 8, 9, 11):
        for found, expected in zip(
            value_and_gradient(view, images[:n]), value_and_gradient(plain, images[:n]), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert sizes == [8, 8, 8, 16, 16]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # The compiler warns of itself.
def test_a_really_compiled_network_is_the_same(classifier, images):
    view = OptimisedView(classifier, images, precision="fp32", compiled=True)
    for found, expected in zip(
        value_and_gradient(view, images), value_and_gradient(classifier, images), strict=True
    ):
        torch.testing.assert_close(
            found, expected, rtol=0, atol=1e-4 * max(1, expected.abs().max().item())
        )
    points = images.clone().requires_grad_(True)
    logits = view(points)
    first = [
        torch.autograd.grad(logits[:, k].sum(), points, retain_graph=True)[0] for k in (0, 1, 0)
    ]
    assert torch.equal(first[0], first[2])


def test_what_ends_in_probabilities_is_searched_in_float32(classifier, images):
    """Of 16 bits a probability near 1 has no logarithm left."""
    made = copy.copy(classifier)
    made.spec = msgspec.structs.replace(classifier.spec, ends_in="sigmoid")
    assert OptimisedView(made, images, precision="bf16").precision == "fp32"
    assert OptimisedView(classifier, images, precision="bf16").precision == "bf16"


@pytest.mark.parametrize(("generation", "expected"), [(7, "fp32"), (8, "bf16"), (9, "bf16")])
def test_recent_cards_multiply_in_16_bit(monkeypatch, generation, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (generation, 0))
    assert fast_precision(torch.device("cuda")) == expected


@pytest.mark.parametrize(
    ("flags", "device", "expected"),
    [
        ("avx2 avx512_bf16", "cpu", "bf16"),
        ("amx_bf16 amx_tile", "cpu", "bf16"),
        ("avx2 avx512f", "cpu", "fp32"),
        ("avx2 avx512_bf16", "mps", "fp32"),
        (None, "cpu", "fp32"),
    ],
)
def test_processors_multiply_in_16_bit_where_they_say_so(monkeypatch, flags, device, expected):
    def said(path):
        if flags is None:
            raise FileNotFoundError(path)
        return io.StringIO(f"flags: fpu {flags}")

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", said)
        found = fast_precision(torch.device(device))
    assert found == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU's own switches")
def test_float32_is_float32_where_torch_was_told_to_round():
    parts = torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul

    def tell(*values):
        for part, value in zip(parts, values, strict=True):
            part.fp32_precision = value

    before = [part.fp32_precision for part in parts]
    try:
        tell("bf16", "bf16")
        with full_float32():
            assert [part.fp32_precision for part in parts] == ["ieee", "ieee"]
        assert [part.fp32_precision for part in parts] == ["bf16", "bf16"]
    finally:
        tell(*before)


@pytest.mark.parametrize("name", ["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"])
def test_rounding_that_cannot_be_prevented_is_refused(name, monkeypatch):
    monkeypatch.setenv(name, "bf16")
    with pytest.raises(SettingsError, match=f"{name}=bf16 rounds .* Remove it"), full_float32():
        pass
    monkeypatch.setenv(name, "strict")
    with full_float32():
        pass
