"""The transfer family: where its gradients are taken, and that success is judged elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustmri.attacks import RandomStep, Transfer, di_fgsm, fgsm, ni_fgsm, ti_fgsm, vmi_fgsm
from robustmri.attacks.diversity import resize_and_pad, smooth
from robustmri.attacks.streams import open_streams, uniforms
from robustmri.core.errors import ThreatModelError
from robustmri.threat.threat_model import ThreatModel

EPS = {"linf": 0.08, "l2": 0.6}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(9, 12), (5, 6, 7)], ids=["slices", "volumes"])
def test_resize_and_pad_is_interpolation_put_at_a_place(shape, make_images):
    images = make_images(12, *shape)
    numbers = uniforms(open_streams(seeded(), 12, torch.device("cpu")), 2 + len(shape))
    found = resize_and_pad(images, numbers, probability=0.7, smallest=0.5, ground=0.25)
    resized = numbers[:, 0] < 0.7
    assert 0 < resized.sum() < 12
    assert torch.equal(found[~resized], images[~resized])
    sizes = set()
    for image, out, number in zip(images[resized], found[resized], numbers[resized], strict=True):
        small = [int(size * 0.5) for size in shape]
        sides = [
            least + int(number[1] * (size - least + 1))
            for least, size in zip(small, shape, strict=True)
        ]
        mode = "bilinear" if len(shape) == 2 else "trilinear"
        copy = F.interpolate(image[None], size=sides, mode=mode, align_corners=False)[0]
        expected = torch.full_like(image, 0.25)
        corners = [
            int(u * (size - side + 1))
            for u, size, side in zip(number[2:], shape, sides, strict=True)
        ]
        where = tuple(
            slice(corner, corner + side) for corner, side in zip(corners, sides, strict=True)
        )
        expected[(slice(None), *where)] = copy
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
        sizes.add(tuple(sides))
    assert len(sizes) > 2


def test_resizing_needs_slices_or_volumes():
    with pytest.raises(ThreatModelError, match="diversity=0"):
        resize_and_pad(torch.zeros(1, 1, 8), torch.zeros(1, 3), 0.5, 0.9, 0.0)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_smoothing_is_one_convolution_with_the_product_of_gaussians(axes):
    gradient = torch.randn(2, 3, *[9, 8, 7][:axes], generator=seeded(), dtype=torch.float64)
    line = torch.linspace(-3, 3, 5, dtype=torch.float64).square().div(-2).exp()
    kernel = line
    for _ in range(axes - 1):
        kernel = kernel[..., None] * line
    kernel = (kernel / kernel.sum()).expand(3, 1, *[5] * axes)
    expected = [F.conv1d, F.conv2d, F.conv3d][axes - 1](gradient, kernel, padding=2, groups=3)
    torch.testing.assert_close(smooth(gradient, 5), expected, rtol=0, atol=1e-12)
    assert torch.equal(smooth(gradient, 1), gradient)


def test_success_is_judged_at_the_point_and_not_through_its_smaller_copy(counting, make_images):
    """Only copies on a black ground fool; an image judged through them would leave at the first
    step.
    """

    class Framed(nn.Module):
        def forward(self, images):
            frame = torch.cat([images[..., 0, :], images[..., -1, :]], -1).flatten(1).amax(1)
            return torch.stack([frame, torch.full_like(frame, 0.05)], 1)

    images = 0.5 * make_images(3) + 0.4
    counted = counting(Framed())
    attack = di_fgsm(steps=3, diversity=1.0, smallest=0.3, stop_when_fooled=True)
    attack(
        counted, images, torch.zeros(3, dtype=torch.long), ThreatModel(eps=0.01), generator=seeded()
    )
    assert (counted.gradients, counted.forwards) == (9, 21)


def test_they_are_at_least_as_strong_as_one_step(norm, trained, blobs):
    images, labels = blobs
    threat = ThreatModel(norm, EPS[norm])

    def fooled(attack, threat=threat):
        return threat.fooled(
            trained(attack(trained, images, labels, threat, generator=seeded())), labels
        ).sum()

    one = fooled(fgsm())
    assert 20 < one < 120
    # Half of its radius is spent at random.
    assert fooled(RandomStep()) >= 0.7 * fooled(fgsm(), ThreatModel(norm, EPS[norm] / 2))
    assert fooled(ti_fgsm(kernel=3)) >= 0.7 * one  # It does not climb on this network alone.
    for attack in (Transfer(), ni_fgsm(), di_fgsm(step_size=0.2), vmi_fgsm(neighbours=4)):
        assert fooled(attack) >= one


def test_each_setting_matters(make_network, make_images):
    network, images = make_network("tanh").eval(), make_images(4)
    labels, threat = network(images).argmax(1), ThreatModel(eps=0.3)
    attacks = [
        Transfer(),
        Transfer(decay=0.0),
        ni_fgsm(),
        di_fgsm(decay=1.0, diversity=1.0, smallest=0.5),
        ti_fgsm(decay=1.0, kernel=5),
        vmi_fgsm(reach=5.0),
    ]
    found = [attack(network, images, labels, threat, generator=seeded()) for attack in attacks]
    for i, one in enumerate(found):
        assert not any(torch.equal(one, other) for other in found[:i])


def test_settings_that_make_no_attack_are_refused():
    for settings in (
        {"steps": 0},
        {"step_size": 0.0},
        {"decay": -1.0},
        {"diversity": 1.5},
        {"smallest": 0.0},
        {"kernel": 4},
        {"neighbours": -1},
        {"reach": 0.0},
    ):
        with pytest.raises(ThreatModelError):
            Transfer(**settings)
    with pytest.raises(ThreatModelError):
        RandomStep(share=1.0)


def test_neighbours_are_left_out_once_queries_are_spent(make_network, make_images):
    class Metered:
        asked = 0

        def __call__(self, images):
            self.asked += 1
            return network(images)

        @property
        def exhausted(self):
            return self.asked >= 2

    network, images = make_network("tanh").eval(), make_images(2)
    labels, metered = network(images).argmax(1), Metered()
    vmi_fgsm(steps=5, neighbours=9)(
        metered, images, labels, ThreatModel(eps=0.1), generator=seeded()
    )
    assert metered.asked == 3  # The start, one neighbour, and where the search then is.
