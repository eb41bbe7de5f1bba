"""What every attack promises: stays in S(x), changes nothing else, repeats itself, costs what it
says.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from norm_table import NORM_ROWS
from robustmri.attacks import ATTACKS, PGD, CheckedAttack, Facts
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import NORMS
from robustmri.threat.threat_model import ThreatModel

EPS = {name: row.eps for name, row in NORM_ROWS.items()}
MASK = torch.zeros(8, 8, dtype=torch.bool)
MASK[2:6, 1:7] = True

NOWHERE = torch.zeros_like(MASK)

EACH_ITS_OWN = {
    "eps": torch.tensor([0.0, 0.02, 0.3, 1.0, 0.1, 0.9], dtype=torch.float64),
    "mask": torch.stack([MASK, ~MASK, MASK, ~MASK, NOWHERE, ~NOWHERE])[:, None],
}
THREATS = {
    "target, mask, wider bounds": (
        torch.float64,
        {"target": 2, "mask": MASK, "bounds": (0.0, 1.5)},
    ),
    "eps and mask per image": (torch.float64, EACH_ITS_OWN),
    "plain, float32": (torch.float32, {}),
    "eps and mask per image, float32": (torch.float32, EACH_ITS_OWN),
    "masked out, float32": (torch.float32, {"mask": NOWHERE}),
}
"""What is plain and in float64 is what most other tests here are about."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def predict(network: nn.Module, images: Tensor) -> Tensor:
    return copy.deepcopy(network).eval()(images).argmax(1).detach()


def state_of(network: nn.Module) -> dict[str, object]:
    """Everything about a network that an attack must leave alone."""
    tensors = {name: value.detach().clone() for name, value in network.state_dict().items()}
    flags = {name: module.training for name, module in network.named_modules()}
    learning = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    gradients = {name: None if grad is None else grad.clone() for name, grad in gradients.items()}
    return {"tensors": tensors, "flags": flags, "learning": learning, "gradients": gradients}


def assert_same_state(before: dict[str, object], after: dict[str, object]) -> None:
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.fixture
def half_frozen(make_network):
    """In training, but for its first batch-norm; one parameter does not learn, one holds a
    gradient.
    """
    network = make_network("batch_norm").train()
    network[1].eval()
    network[0].weight.requires_grad_(False)
    network[3].weight.grad = torch.ones_like(network[3].weight)
    return network


def test_every_attack_has_a_row(rows):
    assert {row.name for row in rows} == set(ATTACKS)


def test_stays_in_the_set(row, norm, make_network, make_images):
    network, images = make_network("tanh"), make_images(6)
    labels = predict(network, images)
    for case, (dtype, settings) in THREATS.items():
        network, images = network.to(dtype), images.to(dtype)
        threat = ThreatModel(**{"norm": norm, "eps": EPS[norm], **settings})
        attacked = row.attack(network, images, labels, threat, generator=seeded())
        assert attacked.shape == images.shape, case
        assert attacked.dtype == dtype, case
        assert torch.isfinite(attacked).all(), case
        assert attacked.min() >= threat.bounds[0], case
        assert attacked.max() <= threat.bounds[1], case
        delta = attacked - images
        outside = threat.allow(torch.ones_like(delta)) == 0
        assert not delta[outside].any(), case
        if not row.minimal:
            # 1e-6: adding the perturbation to the image rounds it, by 6e-8 for float32 images in
            # [0, 1].
            assert (NORMS[norm].size(delta) <= torch.as_tensor(threat.eps) + 1e-6).all(), case


def test_changes_nothing_but_its_result(row, norm, half_frozen, make_images):
    images = make_images(4)
    labels = predict(half_frozen, images)
    images_before, labels_before, before = images.clone(), labels.clone(), state_of(half_frozen)
    global_stream = torch.get_rng_state()
    attacked = row.attack(
        half_frozen, images, labels, ThreatModel(norm, EPS[norm]), generator=seeded()
    )
    assert_same_state(before, state_of(half_frozen))
    assert torch.equal(torch.get_rng_state(), global_stream)
    attacked.fill_(0.5)  # Must not be the caller's own tensor.
    assert torch.equal(images, images_before)
    assert torch.equal(labels, labels_before)
    assert not images.requires_grad


def test_asks_any_callable_in_evaluation_mode_and_keeps_no_graph(row, half_frozen, make_images):
    """One result, also where the network is in training, and where gradients are wanted around the
    attack or forbidden.
    """
    images = make_images(4)
    labels = predict(half_frozen, images)
    frozen = copy.deepcopy(half_frozen).eval()
    plain = row.attack(half_frozen, images, labels, ThreatModel(), generator=seeded())
    with torch.no_grad():
        quiet = row.attack(
            lambda points: frozen(points), images, labels, ThreatModel(), generator=seeded()
        )
    learning = row.attack(
        frozen, images.clone().requires_grad_(), labels, ThreatModel(), generator=seeded()
    )
    assert torch.equal(quiet, plain)
    assert torch.equal(learning, plain)
    assert not learning.requires_grad


def test_flags_come_back_after_a_failure(row, half_frozen, make_images):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = half_frozen

        def forward(self, images):
            raise ValueError("broken")

    network = Broken()
    before = state_of(network)
    with pytest.raises(ValueError, match="broken"):
        row.attack(network, make_images(2), torch.tensor([0, 1]), ThreatModel(), generator=seeded())
    assert_same_state(before, state_of(network))


def test_same_generator_same_result(row, norm, make_network, make_images):
    network, images = make_network("tanh"), make_images(4)
    labels, threat = predict(network, images), ThreatModel(norm, EPS[norm] / 10)
    first, second, third = (
        row.attack(network, images, labels, threat, generator=seeded(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first, second)
    # APGD's first step spans the cube: on so smooth a network all starts end in one corner.
    forgets = norm == "linf" and row.name.startswith(("apgd", "standard"))
    assert torch.equal(first, third) == (forgets or not row.random)


def test_a_batch_is_its_images_one_by_one(row, norm, make_network, make_images):
    if row.name == "universal":
        pytest.skip("its one change for all images is what it is about")
    network, images = make_network("softplus"), make_images(4)
    labels = predict(network, images)
    threat = ThreatModel(norm, torch.linspace(0.2, 1.0, 4, dtype=torch.float64) * EPS[norm])
    threat = replace(threat, mask=torch.stack([MASK, ~MASK, MASK, ~MASK])[:, None])
    whole = row.attack(network, images, labels, threat, generator=seeded())
    shared = seeded()
    singly = [
        row.attack(
            network, images[[i]], labels[[i]], threat.at(torch.tensor([i])), generator=shared
        )
        for i in range(2)
    ]
    # Matrix products of another size add up in another order: 1e-16 in the logits, and Adam divides
    # by small numbers.
    torch.testing.assert_close(whole[:2], torch.cat(singly), rtol=0, atol=1e-9)
    assert (whole != images).flatten(1).any(1).sum() >= 3


def test_eps_zero_is_the_identity(budget_row, norm, make_network, make_images):
    network, images = make_network("tanh"), make_images(4)
    labels = predict(network, images)
    attacked = budget_row.attack(
        network, images, labels, ThreatModel(norm, 0.0), generator=seeded()
    )
    assert torch.equal(attacked, images)


def test_minimal_attacks_use_no_radius(minimal_row, norm, make_network, make_images):
    network, images = make_network("tanh"), make_images(4)
    labels = predict(network, images)
    results = [
        minimal_row.attack(network, images, labels, ThreatModel(norm, eps), generator=seeded())
        for eps in (0.0, torch.inf)
    ]
    assert torch.equal(*results)


def test_k_steps_cost_k_gradients_and_k_plus_one_forwards(
    row, norm, counting, make_network, make_images
):
    network, images = make_network("tanh"), make_images(5)
    with torch.no_grad():
        network[-1].weight.mul_(1e-3)
        network[-1].bias.copy_(torch.tensor([100.0, 0.0, 0.0]))  # Cannot be fooled.
    counted = counting(network)
    labels = torch.zeros(5, dtype=torch.long)
    row.attack(counted, images, labels, ThreatModel(norm, EPS[norm]), generator=seeded())
    assert (counted.gradients / 5, counted.forwards / 5) == row.cost(norm)


def test_moves_pixels_that_are_exactly_black_or_white(row, norm, make_network):
    images = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)]).double()
    network = make_network("linear")
    labels = predict(network, images)
    attacked = row.attack(network, images, labels, ThreatModel(norm, EPS[norm]), generator=seeded())
    assert (attacked[0] > 0).any()
    assert (attacked[1] < 1).any()


def test_images_that_are_wrong_already_stay_wrong(row, norm, make_network, make_images):
    network, images = make_network("tanh").eval(), make_images(4)
    labels = (predict(network, images) + 1) % 3
    attacked = row.attack(network, images, labels, ThreatModel(norm, 1e-3), generator=seeded())
    assert (predict(network, attacked) != labels).all()
    if row.minimal:
        assert torch.equal(attacked, images)


def test_any_number_of_classes(row, norm, make_network, make_images):
    for classes in (2, 10):  # Three is what all other tests have.
        network, images = make_network("tanh", classes), make_images(5)
        labels, threat = predict(network, images), ThreatModel(norm, EPS[norm])
        if row.name == "apgd-dlr" and classes == 2:  # Its ratio of logits would be constant.
            with pytest.raises(ThreatModelError, match="3 classes or more, got 2"):
                row.attack(network, images, labels, threat, generator=seeded())
            continue
        attacked = row.attack(network, images, labels, threat, generator=seeded())
        assert torch.isfinite(attacked).all(), classes
        assert not torch.equal(attacked, images), classes


def test_a_batch_of_one_and_of_none(row, norm, make_network, make_images):
    network, images = make_network("tanh"), make_images(1)
    labels = predict(network, images)
    for n in (1, 0):
        threat = ThreatModel(norm, torch.full((n,), EPS[norm]))
        attacked = row.attack(network, images[:n], labels[:n], threat, generator=seeded())
        assert attacked.shape == (n, 1, 8, 8)


def test_volumes(row, norm, make_network, make_images):
    network, images = make_network("volume"), make_images(2, 5, 6, 7)
    labels = predict(network, images)
    for mask in (None, torch.ones(5, 6, 7)):
        case = f"mask of shape {None if mask is None else tuple(mask.shape)}"
        attacked = row.attack(
            network, images, labels, ThreatModel(norm, EPS[norm], mask=mask), generator=seeded()
        )
        assert attacked.shape == images.shape, case
        if not row.minimal:
            assert (NORMS[norm].size(attacked - images) <= EPS[norm] + 1e-6).all(), case


ONE = torch.tensor([0])
GREY = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
REFUSED: dict[str, tuple[Tensor, Tensor, dict[str, object], str]] = {
    "z-scored": (GREY * 4, ONE, {}, r"must lie in \[0.0, 1.0\], got \[2, 2\]"),
    "negative": (GREY - 0.6, ONE, {}, "must lie in"),
    "nan": (GREY * torch.nan, ONE, {}, "NaN"),
    "infinite": (GREY * torch.inf, ONE, {}, "NaN or infinite"),
    "one image without its batch": (GREY[0, 0], ONE, {}, r"got \(8, 8\) and \(1,\)"),
    "labels of another batch": (GREY, torch.tensor([0, 1]), {}, r"and \(2,\)"),
    "one-hot labels": (GREY, torch.tensor([[1, 0, 0]]), {}, r"and \(1, 3\)"),
    "8-bit images": (torch.ones(1, 1, 8, 8, dtype=torch.uint8), ONE, {}, "Divide 8-bit"),
    "float labels": (GREY, torch.zeros(1), {}, "integer labels"),
    "negative label": (GREY, -1 - ONE, {}, "at least 0, got -1"),
    "radii of another batch": (GREY, ONE, {"eps": torch.ones(2)}, "one radius"),
    "negative radii": (GREY, ONE, {"eps": torch.tensor([-0.1])}, "at least 0"),
    "not-a-number radii": (GREY, ONE, {"eps": torch.tensor([torch.nan])}, "at least 0"),
    "radii in grey levels": (GREY, ONE, {"eps": torch.tensor([8.0])}, "8 is more than the bounds"),
    "radii that are flags": (GREY, ONE, {"eps": torch.tensor([True])}, "one radius"),
    "soft mask": (GREY, ONE, {"mask": torch.full((8, 8), 0.5)}, "True or 1 where"),
    "8-bit mask": (GREY, ONE, {"mask": torch.full((8, 8), 255)}, "Give mask > 0"),
    "mask with NaN": (GREY, ONE, {"mask": GREY * torch.nan}, "other values"),
    "mask in numpy": (GREY, ONE, {"mask": np.ones((8, 8))}, "the mask as a torch.Tensor, got nd"),
    "sparse images": (GREY.to_sparse(), ONE, {}, "to_dense"),
    "images without values": (GREY.to("meta"), ONE, {}, "without values"),
    "images without pixels": (GREY[:, :, :0], ONE, {}, "no pixels"),
    "complex images": (GREY + 0j, ONE, {}, "floating-point images"),
    "8-bit floats": (GREY.to(torch.float8_e4m3fn), ONE, {}, "floating-point images"),
    "complex labels": (GREY, ONE + 0j, {}, "integer labels"),
    "mask of another size": (GREY, ONE, {"mask": torch.ones(7, 8)}, r"\(7, 8\) does not fit"),
    "masks of another batch": (GREY, ONE, {"mask": torch.ones(2, 1, 8, 8)}, "does not fit"),
    "a norm that nobody knows": (GREY, ONE, {"norm": "l0"}, "knows the norms linf, .*got l0"),
}
"""What the check that attacks share finds before the classifier is asked."""


@dataclass(frozen=True)
class Untouched(CheckedAttack):
    """Whatever comes through the check comes back."""

    facts = Facts("untouched", "Untouched", "nowhere")

    def search(self, classifier, images, labels, threat, *, generator):
        return images


def test_goes_through_the_shared_checks(row):
    """Which `test_refuses` tries once for all attacks."""
    assert type(row.attack).__call__ is CheckedAttack.__call__
    assert type(row.attack).check is CheckedAttack.check


@pytest.mark.parametrize("case", REFUSED)
def test_the_shared_check_refuses(case):
    images, labels, settings, message = REFUSED[case]
    with pytest.raises(ThreatModelError, match=message):
        Untouched()(never, images, labels, ThreatModel(**settings), generator=seeded())


def test_the_shared_check_lets_the_rest_through():
    for images, labels in ((GREY, ONE), (GREY[:0], ONE[:0])):
        passed = Untouched()(never, images, labels, ThreatModel(), generator=seeded())
        assert torch.equal(passed, images)


def never(images: Tensor) -> Tensor:
    raise AssertionError("the classifier was asked")


def test_every_attack_reaches_the_shared_check(row):
    """The whole of it stands above; here is one case of each thing that it looks at."""
    for case in ("z-scored", "labels of another batch", "negative radii", "mask of another size"):
        images, labels, settings, message = REFUSED[case]
        with pytest.raises(ThreatModelError, match=message):
            row.attack(never, images, labels, ThreatModel(**settings), generator=seeded())
    if len(row.norms) > 1:
        with pytest.raises(ThreatModelError, match="got l0"):
            row.attack(never, GREY, ONE, ThreatModel("l0", 1.0), generator=seeded())


def test_refuses_classes_that_the_classifier_does_not_have(row, make_network):
    network = make_network("linear")
    with pytest.raises(ThreatModelError, match=r"more than 3 classes.* got \(1, 3\)"):
        row.attack(network, GREY, ONE + 3, ThreatModel(), generator=seeded())
    with pytest.raises(ThreatModelError, match="more than 5 classes"):
        row.attack(network, GREY, ONE, ThreatModel(target=5), generator=seeded())


@pytest.mark.parametrize("eps", [torch.inf, torch.tensor([torch.inf])], ids=["number", "each"])
def test_refuses_an_infinite_radius(eps, norm, make_network):
    with pytest.raises(ThreatModelError, match="finite eps"):
        PGD()(make_network("linear"), GREY, ONE, ThreatModel(norm, eps), generator=seeded())


def test_refuses_a_norm_that_it_does_not_know(make_network):
    with pytest.raises(ThreatModelError, match="knows the norms linf, l2, l1, got l0"):
        PGD()(make_network("linear"), GREY, ONE, ThreatModel("l0"), generator=seeded())


def test_refuses_a_classifier_without_a_logit_per_class(row, make_network):
    with pytest.raises(ThreatModelError, match=r"expected logits \(1, classes\).* got \(1,\)"):
        row.attack(
            lambda images: images.flatten(1).sum(1), GREY, ONE, ThreatModel(), generator=seeded()
        )


STOPPING = ("bim", "pgd", "cw", "apgd", "apgd-t")
KINDS = ("plain", "mask-per-image", "eps-per-image", "target")


# Each attack in each kind of threat, in one norm or the other: those who leave do so in the loop
# of all attacks, which knows no norm.
@pytest.mark.parametrize(
    ("name", "kind", "norm"),
    [
        (name, kind, ("linf", "l2")[(i + k) % 2])
        for i, name in enumerate(STOPPING)
        for k, kind in enumerate(KINDS)
    ],
)
def test_stopping_when_fooled_fools_the_same_images_for_less(
    name, norm, kind, counting, trained, blobs
):
    images, labels = blobs[0][:60], blobs[1][:60]
    settings = {
        "plain": {},
        "target": {"target": 1},
        "eps-per-image": {"eps": torch.linspace(0.5, 2, 60) * EPS[norm]},
        "mask-per-image": {"mask": torch.rand(60, 1, 12, 12, generator=seeded(3)) < 0.8},
    }[kind]
    threat = ThreatModel(**{"norm": norm, "eps": EPS[norm], **settings})
    fooled, costs = [], []
    for stop in (False, True):
        counted = counting(trained)
        attack = ATTACKS[name].make(steps=8, stop_when_fooled=stop)
        attacked = attack(counted, images, labels, threat, generator=seeded())
        fooled.append(threat.fooled(trained(attacked), labels))
        costs.append(counted.gradients)
        assert (NORMS[norm].size(attacked - images) <= torch.as_tensor(threat.eps) + 1e-6).all()
    assert torch.equal(*fooled)
    assert 0 < fooled[0].sum() < 60
    assert costs[1] < costs[0]
