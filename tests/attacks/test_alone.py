"""Attacks called by themselves, on whatever people hand them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from robustmri import PGD, PhysicalThreat, Square, ThreatModel
from robustmri.attacks import make_attack
from robustmri.core.errors import SettingsError, ThreatModelError
from robustmri.threat.eps import Eps

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def linear(classes: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def in_place(images):
    return NETWORK(images.mul_(0.5))


NETWORK = linear()
LABELS = NETWORK(IMAGES).argmax(1)


@pytest.mark.parametrize("eps", [8 / 255, "8/255", Eps(8 / 255)])
def test_an_attack_needs_no_more_than_a_radius(eps):
    threat, generator = ThreatModel(), torch.Generator().manual_seed(0)
    expected = PGD()(NETWORK, IMAGES, LABELS, threat, generator=generator)
    assert torch.equal(PGD()(NETWORK, IMAGES, LABELS, eps=eps), expected)
    assert torch.equal(PGD()(NETWORK, IMAGES, LABELS), expected)
    assert ThreatModel(eps=eps) == threat


@pytest.mark.parametrize(
    "call",
    [
        lambda: PGD()(lambda x: SimpleNamespace(logits=NETWORK(x)), IMAGES, LABELS),
        lambda: PGD()(lambda x: {"logits": NETWORK(x)}, IMAGES, LABELS),
        lambda: PGD()(NETWORK, IMAGES, LABELS.to(torch.uint8)),
        lambda: PGD()(NETWORK, IMAGES, LABELS.int()),
    ],
)
def test_what_is_meant_is_understood(call):
    assert torch.equal(call(), PGD()(NETWORK, IMAGES, LABELS))


def test_gradients_are_had_where_the_caller_wants_none():
    with torch.inference_mode():
        found = PGD()(NETWORK, IMAGES * 1, LABELS * 1)
    assert torch.equal(found, PGD()(NETWORK, IMAGES, LABELS))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PGD()(lambda x: (NETWORK(x), x), IMAGES, LABELS), "got tuple"),
        (lambda: PGD()(NETWORK, IMAGES.numpy(), LABELS), "got ndarray. Use torch.as_tensor"),
        (lambda: PGD()(NETWORK, IMAGES, LABELS.numpy()), "labels as a torch.Tensor, got ndarray"),
        (lambda: PGD()(linear(1), IMAGES, LABELS * 0), "got one column. If it is the logit of"),
        (lambda: PGD()(NETWORK, IMAGES, LABELS, eps=8), "Did you mean 8/255?"),
        (lambda: PGD()(NETWORK, IMAGES, LABELS, ThreatModel(eps=8)), "Did you mean 8/255?"),
        (lambda: PGD()(NETWORK, IMAGES, LABELS, ThreatModel(), eps=0.1), "not both"),
        (lambda: PGD()(NETWORK, IMAGES, LABELS, 0.1), "name it: eps=8 / 255"),
        (lambda: PGD()(NETWORK, IMAGES, LABELS, generator=0), "must be a torch.Generator"),
        (lambda: PGD()(lambda x: NETWORK(x).argmax(1), IMAGES, LABELS), "floating-point numbers"),
        (lambda: make_attack("fmn")(NETWORK, IMAGES, LABELS, eps=0.1), "has no eps"),
        (lambda: ThreatModel(eps=Eps(0.04, "normalised")), "in_image_units"),
        (lambda: ThreatModel(bounds=(1.0, 0.0)), "lowest and the highest"),
        (lambda: ThreatModel(bounds=None), "lowest and the highest"),
        (lambda: ThreatModel(bounds="01"), "lowest and the highest"),
        (lambda: ThreatModel(norm=None), "no norm None"),
        (lambda: ThreatModel(norm=["linf"]), "no norm ['linf']"),
        (lambda: ThreatModel(eps=np.array([0.1, 0.2])), "got ndarray"),
        (lambda: ThreatModel(target=True), "index of a class, got True"),
        (lambda: ThreatModel(target=1 << 80), "index of a class"),
        (lambda: PhysicalThreat(None), "no physical threat None"),
        (lambda: PhysicalThreat("gamma", target="a"), "index of a class, got 'a'"),
        (lambda: PGD()("model", IMAGES, LABELS), "a function of images to logits, got 'model'"),
        (lambda: PGD()(nn.Linear, IMAGES, LABELS), "expected the classifier as a network"),
        (lambda: PGD()(NETWORK, IMAGES.double(), LABELS), "Give images.to('cpu', torch.float32)"),
        (lambda: Square()(NETWORK, IMAGES.half(), LABELS), "its images torch.float16 on cpu"),
        (lambda: PGD()(in_place, IMAGES, LABELS), "changes its images in place"),
        (lambda: Square()(in_place, IMAGES, LABELS), "changes its images in place"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, message):
    with pytest.raises(ThreatModelError) as told:
        call()
    assert message in str(told.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("linf", 0.003), ("l2", 0.3)])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
def test_half_precision_stays_in_the_ball(dtype, norm, eps, bounds):
    low, high = bounds
    images = (low + IMAGES * (high - low)).to(dtype).clamp(*bounds)
    threat = ThreatModel(norm, eps, bounds)
    for away in (1.0, 0.1, 0.001):
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)) * away
        points = threat.project(images + noise.to(dtype), images)
        size = threat.measure.size(points.double() - images.double())
        assert points.dtype == dtype
        assert float(size.max()) <= eps * (1 + 1e-6)
        assert low <= float(points.min()) <= float(points.max()) <= high


@pytest.mark.parametrize("name", ["APGDT", "AutoAttack", "JSMA"])
def test_attacks_of_others_say_how_many_classes_they_need(name):
    pytest.importorskip("torchattacks")
    with pytest.raises(SettingsError, match=f"torchattacks:{name} needs at least .* there are 3"):
        make_attack(f"torchattacks:{name}").refuse_classes(3)
    make_attack(f"torchattacks:{name}").refuse_classes(10)
