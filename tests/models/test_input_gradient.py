"""A convolution's gradient towards its images, by remainders of the stride."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from robustmri.models.backbones import build_classifier
from robustmri.models.input_gradient import by_remainders, gradient
from robustmri.models.optimised import OptimisedView


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 3), (5, 7), (7, 7)])
@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (3, 2)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 20), (17, 19)])
def test_it_is_autograds_own(kernel, stride, padding, channels, size):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, channels, *size, generator=generator).double().requires_grad_(True)
    weight = torch.rand(5, channels, *kernel, generator=generator).double() - 0.5
    made = functional.conv2d(images, weight, stride=stride, padding=padding)
    above = torch.rand(made.shape, generator=generator).double() - 0.5
    (expected,) = torch.autograd.grad(made, images, above)

    found = gradient(above, weight, size, stride, padding)

    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected)


def test_a_convolution_stays_the_same_to_the_bit_and_gives_a_gradient_twice():
    convolution = nn.Conv2d(1, 8, 7, stride=2, padding=3).requires_grad_(False)
    images = torch.rand(2, 1, 20, 20, requires_grad=True)
    expected = convolution(images)
    (first,) = torch.autograd.grad(expected.square().sum(), images, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), images)

    by_remainders(convolution)
    made = convolution(images)
    (mine,) = torch.autograd.grad(made.square().sum(), images, create_graph=True)
    (again,) = torch.autograd.grad(mine.square().sum(), images)

    assert torch.equal(made, expected)
    torch.testing.assert_close(mine, first)
    torch.testing.assert_close(again, second)


@pytest.mark.parametrize(
    ("convolution", "changed"),
    [
        (nn.Conv2d(1, 8, 7, stride=2, padding=3), True),
        (nn.Conv2d(3, 8, 7, stride=2), True),
        (nn.Conv2d(1, 8, 3, stride=2), False),
        (nn.Conv2d(1, 8, 7), False),
        (nn.Conv2d(8, 8, 7, stride=2), False),
        (nn.Conv2d(2, 8, 7, stride=2, groups=2), False),
        (nn.Conv2d(1, 8, 7, stride=2, dilation=2), False),
        (nn.Conv2d(1, 8, 7, stride=(2, 1)), False),
        (nn.Conv2d(1, 8, 7, padding="valid", stride=2), False),
        (nn.Conv2d(1, 8, 7, padding=3, padding_mode="reflect", stride=2), False),
        (nn.ConvTranspose2d(1, 8, 7, stride=2), False),
    ],
)
def test_only_what_gains_is_changed(convolution, changed):
    kind = type(convolution)

    by_remainders(nn.Sequential(convolution))

    assert (type(convolution) is not kind) is changed


def test_autocast_and_single_images_are_as_without():
    convolution = nn.Conv2d(1, 8, 7, stride=2, padding=3).requires_grad_(False)
    images = torch.rand(2, 1, 20, 20, requires_grad=True)
    (expected,) = torch.autograd.grad(convolution(images).sum(), images)
    by_remainders(convolution)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = convolution(images)
    (rounded,) = torch.autograd.grad(made.sum(), images)
    made = convolution(images).sum()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (whole,) = torch.autograd.grad(made, images)
    one = images[0].detach().requires_grad_(True)
    (single,) = torch.autograd.grad(convolution(one).sum(), one)

    torch.testing.assert_close(rounded, expected, rtol=0.02, atol=0.02)
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(single, expected[0])


def test_a_view_has_it_and_leaves_the_classifier_alone():
    classifier = build_classifier("resnet18", ("a", "b"), 48).eval()
    images = torch.rand(2, 1, 48, 48)
    kinds = [type(module) for module in classifier.modules()]

    view = OptimisedView(classifier, images, precision="fp32")
    points = images.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(classifier(points).square().sum(), points)
    loss = view(points).square().sum()
    assert "_Convolve" in {type(node).__name__.removesuffix("Backward") for node in _nodes(loss)}
    (found,) = torch.autograd.grad(loss, points)

    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    assert [type(module) for module in classifier.modules()] == kinds


def _nodes(made):
    waiting, seen = [made.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [function for function, _ in node.next_functions]
    return seen
