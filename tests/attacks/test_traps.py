"""Mistakes that published attack code has made; each test fails on the mistake."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustmri.attacks import PGD, CarliniWagnerL2, Noise, bim, fgsm, make_attack
from robustmri.attacks.engine import climb, draw_seeds, loss_against, worse_of
from robustmri.attacks.step_rules import momentum, steepest
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import L2
from robustmri.threat.threat_model import ThreatModel


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Sure(nn.Module):
    """The same classifier with its logits times `factor`: it decides alike, and is far surer."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * self.network(images)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "name", ["fgsm", "bim", "pgd", "cw", "apgd", "apgd-ce", "apgd-dlr", "apgd-t"]
)
def test_a_saturated_network_does_not_look_robust(name, norm, trained, blobs):
    images, labels = blobs
    sure = Sure(trained, 1e3)
    points = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        F.cross_entropy(sure(points), labels, reduction="sum"), points
    )
    assert (gradient.flatten(1).abs().amax(1) == 0).float().mean() > 0.9  # The trap is there.
    threat = ThreatModel(norm, {"linf": 0.1, "l2": 0.8}[norm])
    steps = {"steps": 25} if name.startswith("apgd") else {}
    attacked = [
        make_attack(name, **steps)(network, images, labels, threat, generator=seeded())
        for network in (trained, sure)
    ]
    plain, saturated = (
        threat.fooled(trained(points), labels).float().mean() for points in attacked
    )
    assert plain > 0.3
    # Among three classes a factor turns the cross-entropy's gradient a little.
    assert saturated >= plain - 0.05


@pytest.mark.parametrize("colour", [0.0, 1.0])
def test_carlini_wagner_moves_black_and_white_pixels(colour, make_network):
    """atanh(2x - 1) is infinite there: with a change of variables by tanh these images could not
    change at all.
    """
    network = make_network("linear")
    images = torch.full((3, 1, 8, 8), colour, dtype=torch.float64)
    labels = network(images).argmax(1)
    attack = CarliniWagnerL2(learning_rate=0.02, searches=6)
    attacked = attack(network, images, labels, ThreatModel("l2"), generator=seeded())
    assert (network(attacked).argmax(1) != labels).all()


def hump(at: float, width: float = 0.05) -> nn.Module:
    """Two classes told by the mean grey value: class 1 wins only within `width` of `at`, class 0
    everywhere else.
    """

    class Hump(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            grey = images.flatten(1).mean(1)
            return torch.stack([torch.zeros_like(grey), width - (grey - at).abs()], 1)

    return Hump()


def grey(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


ZERO = torch.tensor([0])


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_the_best_point_counts_not_the_last(loss):
    """From 0.28 the steps of 0.2 lead to 0.48, which fools, and on to 0.68, which does not."""
    attack = PGD(steps=2, step_size=0.4, random_start=False, loss=loss)
    best = attack(hump(0.5), grey(0.28), ZERO, ThreatModel(eps=0.5), generator=seeded())
    torch.testing.assert_close(best, grey(0.48))
    last = PGD(steps=2, step_size=0.4, random_start=False, loss=loss, keep="last")
    torch.testing.assert_close(
        last(hump(0.5), grey(0.28), ZERO, ThreatModel(eps=0.5), generator=seeded()), grey(0.68)
    )


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("minimal", [False, True])
def test_the_last_step_is_evaluated(steps, minimal):
    """Only the point after the last step fools."""
    start, threat = grey(0.5 - 0.1 * steps), ThreatModel(eps=0.5)
    found = climb(
        hump(0.5),
        start,
        ZERO,
        threat,
        start=start,
        steps=steps,
        rule=steepest(0.2),
        minimal=minimal,
        objective=loss_against("margin", ZERO, threat),
    )
    torch.testing.assert_close(found.images, grey(0.5))
    assert found.fooled.all()


@pytest.mark.parametrize(("minimal", "expected"), [(True, 0.46), (False, 0.50)])
def test_the_nearest_fooling_point_or_the_worst(minimal, expected):
    """0.46 and 0.50 both fool; the first is nearer to the image, the second has the larger
    margin.
    """
    start, threat = grey(0.30), ThreatModel(eps=0.5)
    found = climb(
        hump(0.5),
        start,
        ZERO,
        threat,
        start=start,
        steps=6,
        rule=steepest(0.08),
        minimal=minimal,
        objective=loss_against("margin", ZERO, threat),
    )
    torch.testing.assert_close(found.images, grey(expected))


def test_the_start_is_evaluated():
    found = bim(steps=1, step_size=1.0)(
        hump(0.5), grey(0.5), ZERO, ThreatModel(eps=0.3), generator=seeded()
    )
    torch.testing.assert_close(found, grey(0.5))


def test_a_fooling_point_beats_a_higher_loss():
    """Between the three classes the cross-entropy can be higher where the label still wins than
    where it does not.
    """

    class Uneven(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            near = (images.flatten(1).mean(1) < 0.3).to(images)
            slope = 1e-3 * images.flatten(1).mean(1)
            # Dark: class 1 wins narrowly, p_0 = 0.48. Bright: class 0 wins narrowly over many, p_0
            # = 0.26.
            dark = torch.stack([slope * 0, slope * 0 + 0.05, slope - 5, slope - 5], 1)
            bright = torch.stack([slope * 0 + 0.05, slope, slope, slope], 1)
            return torch.where(near[:, None] > 0, dark, bright)

    found = bim(steps=3, step_size=0.5)(
        Uneven(), grey(0.1), ZERO, ThreatModel(eps=0.5), generator=seeded()
    )
    assert Uneven()(found).argmax(1).item() == 1


@pytest.mark.parametrize("stop", [False, True])
def test_restarts_keep_the_worst_and_each_can_only_add(stop, trained, blobs):
    images, labels = blobs
    threat = ThreatModel("linf", 0.1)

    def fooled_after(restarts: int) -> Tensor:
        attack = PGD(steps=2, step_size=0.3, restarts=restarts, stop_when_fooled=stop)
        return threat.fooled(
            trained(attack(trained, images, labels, threat, generator=seeded())), labels
        )

    fooled = [fooled_after(restarts) for restarts in (1, 2, 4, 8)]
    for fewer, more in pairwise(fooled):
        assert (more | ~fewer).all()  # Nobody is lost again.
        assert more.sum() > fewer.sum()


def test_draws_of_noise_can_only_add(trained, blobs):
    images, labels = blobs
    threat = ThreatModel("linf", 0.4)
    few, many = (
        threat.fooled(
            trained(Noise(draws)(trained, images, labels, threat, generator=seeded())), labels
        )
        for draws in (1, 20)
    )
    assert (many | ~few).all()
    assert many.sum() > few.sum()


def test_the_worse_of_two_points():
    def found(name, fooled, merit):
        points = torch.full((4, 1, 1, 1), name)
        return type(template)(points, torch.tensor(fooled), torch.tensor(merit))

    start, threat = grey(0.5), ThreatModel()
    template = climb(
        hump(0.5),
        start,
        ZERO,
        threat,
        start=start,
        steps=1,
        rule=steepest(1.0),
        objective=loss_against("margin", ZERO, threat),
    )
    one = found(1.0, [True, False, True, False], [0.0, 9.0, 1.0, 2.0])
    two = found(2.0, [False, True, True, False], [9.0, 0.0, 2.0, 1.0])
    worse = worse_of(one, two)
    assert worse.images.flatten().tolist() == [1.0, 2.0, 2.0, 1.0]
    assert worse.fooled.tolist() == [True, True, True, False]
    assert worse.merit.tolist() == [0.0, 0.0, 2.0, 2.0]


def test_an_image_that_cannot_be_fooled_does_not_stop_the_others(trained, blobs):
    """One total cost for the batch rises as soon as one image's does, and ended the search for all
    of them.
    """

    class Constant(nn.Module):
        """Never mistakes images with a white corner for anything but class 0."""

        def forward(self, images: Tensor) -> Tensor:
            deaf = images[:, :1, 0, 0] == 1
            return torch.where(
                deaf, torch.tensor([[1e4, 0.0, 0.0]]) + 0 * images.sum(), trained(images)
            )

    images, labels = blobs[0][:8].clone(), blobs[1][:8].clone()
    images[:4, :, 0, 0], labels[:4] = 1.0, 0
    mask = torch.ones(12, 12)
    mask[0, 0] = 0
    attacked = CarliniWagnerL2(steps=30)(
        Constant(), images, labels, ThreatModel("l2", mask=mask), generator=seeded()
    )
    alone = CarliniWagnerL2(steps=30)(
        trained, images[4:], labels[4:], ThreatModel("l2", mask=mask), generator=seeded()
    )
    assert torch.equal(attacked[:4], images[:4])
    assert (trained(attacked[4:]).argmax(1) != labels[4:]).all()
    torch.testing.assert_close(attacked[4:], alone)


def test_carlini_wagner_searches_for_c(trained, blobs):
    images, labels = blobs[0][:32], blobs[1][:32]

    def run(**settings):
        attacked = CarliniWagnerL2(steps=40, **settings)(
            trained, images, labels, ThreatModel("l2"), generator=seeded()
        )
        return (trained(attacked).argmax(1) != labels), L2.size(attacked - images)

    small, _ = run(searches=1, initial_c=0.01)
    large, far = run(searches=1, initial_c=1e4)
    searched, near = run(searches=7, initial_c=0.01)
    assert small.sum() < 8
    assert large.all()
    assert searched.all()
    assert near.mean() < 0.9 * far.mean()


def test_logits_that_are_not_finite_are_no_success():
    class Overflowing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            grey = images.flatten(1).mean(1)
            broken = torch.where(grey > 0.6, torch.inf, grey)
            return torch.stack([torch.ones_like(grey), broken], 1)

    found = bim(steps=4)(Overflowing(), grey(0.5), ZERO, ThreatModel(eps=0.4), generator=seeded())
    assert torch.isfinite(found).all()
    assert torch.isfinite(Overflowing()(found)).all()


def test_a_momentum_is_kept_per_image_and_normalised(make_network, make_images):
    smooth, images = make_network("tanh").eval(), make_images(4)

    # Gradients that grow on the way: a plain sum would be all last steps.
    def network(points: Tensor) -> Tensor:
        return smooth(points) * (300 * (points - images).square().flatten(1).mean(1))[:, None].exp()

    labels = network(images).argmax(1)
    threat = ThreatModel("linf", 0.1)
    objective = loss_against("cross_entropy", labels, threat)
    total, points = torch.zeros_like(images), images
    for _ in range(5):  # Dong et al. 2018, Eq. 6 and 7, written out.
        points = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(
            F.cross_entropy(network(points), labels, reduction="sum"), points
        )
        total = 0.9 * total + gradient / gradient.flatten(1).abs().sum(1)[:, None, None, None]
        points = images + (points + 0.02 * total.sign() - images).clamp(-0.1, 0.1)
        points = points.clamp(0, 1)
    found = climb(
        network,
        images,
        labels,
        threat,
        start=images,
        steps=5,
        rule=momentum(0.2, decay=0.9),
        objective=objective,
        keep="last",
    )
    # 1e-12: the order of additions.
    torch.testing.assert_close(found.images, points.detach(), rtol=0, atol=1e-12)


def test_a_state_follows_its_image_when_others_leave_the_batch(trained, blobs):
    images, labels = blobs
    threat = ThreatModel("linf", 0.1)
    with_all, with_survivors = (
        climb(
            trained,
            images,
            labels,
            threat,
            start=images,
            steps=8,
            rule=momentum(0.125),
            stop_when_fooled=stop,
            objective=loss_against("margin", labels, threat),
        )
        for stop in (False, True)
    )
    assert torch.equal(with_all.fooled, with_survivors.fooled)
    left = ~with_all.fooled
    assert 0 < left.sum() < len(images)
    torch.testing.assert_close(with_survivors.images[left], with_all.images[left])


def test_seeds_do_not_depend_on_how_many_are_drawn_or_for_whom():
    whole = draw_seeds(seeded(), n=3, each=4)
    shared = seeded()
    assert [draw_seeds(shared, n=1, each=2)[0] for _ in range(3)] == [seeds[:2] for seeds in whole]
    assert len({seed for seeds in whole for seed in seeds}) == 12


def test_settings_that_make_no_attack_are_refused():
    for build in (
        lambda: PGD(steps=0),
        lambda: PGD(restarts=0),
        lambda: PGD(step_size=0.0),
        lambda: fgsm(restarts=2),
        lambda: Noise(draws=0),
        lambda: CarliniWagnerL2(searches=0),
        lambda: CarliniWagnerL2(learning_rate=0.0),
    ):
        with pytest.raises(ThreatModelError):
            build()
