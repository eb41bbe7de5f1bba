from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import pytest
import torch

from robustmri.attacks import PGD, CarliniWagnerL2, Cascade, Noise, fgsm
from robustmri.attacks.minimal_eps import SmallestEps
from robustmri.evaluation.attacked import attack_batch, verify, zero_gradients
from robustmri.evaluation.cost import AttackCost
from robustmri.evaluation.settings import Limits
from robustmri.threat.threat_model import ThreatModel

THREAT = ThreatModel(eps=0.15)
STRONG = PGD(steps=10)


@dataclass(frozen=True)
class Returns:
    """An attack that answers with given images, whatever it is asked; `asked` keeps the batches."""

    points: torch.Tensor
    asked: list

    def __call__(self, classifier, images, labels, threat, *, generator):
        self.asked.append(len(images))
        return self.points[: len(images)]


def run(attack, trained, search, blobs, threat=THREAT, seed=0):
    return attack_batch(
        attack, trained, search, *blobs, threat, generator=torch.Generator().manual_seed(seed)
    )


def test_what_is_reported_is_what_the_classifier_says(trained, blobs):
    images, labels = blobs
    done = run(STRONG, trained, trained, blobs)
    with torch.no_grad():
        logits = trained(done.images)
    assert torch.equal(done.logits, logits)
    assert torch.equal(done.fooled, logits.argmax(1) != labels)
    assert 0.3 < done.fooled.float().mean() < 1
    delta = (done.images - images).flatten(1)
    torch.testing.assert_close(done.distance("linf"), delta.abs().amax(1))
    torch.testing.assert_close(done.distance("l2"), delta.norm(dim=1))
    torch.testing.assert_close(done.distance("l1"), delta.abs().sum(1))
    assert torch.equal(done.distance("l0"), (delta != 0).sum(1).float())
    assert done.verified.all()
    assert done.distance("linf").max() <= 0.15 + 1e-6


def test_a_search_that_lies_is_caught_and_done_again(trained, blobs):
    """It calls every image by a wrong name: whoever believed it would stop at the start and count
    all as fooled.
    """
    asked = []

    def liar(points):
        asked.append(len(points))
        return trained(points).roll(1, dims=1)

    attack = replace(STRONG, random_start=False)
    honest, lied = run(attack, trained, trained, blobs), run(attack, trained, liar, blobs)
    assert asked
    assert torch.equal(lied.images, honest.images)
    assert torch.equal(lied.fooled, honest.fooled)


def test_an_image_is_searched_in_the_same_way_in_any_batch(trained, blobs):
    """With a liar, so that some images are searched twice, and with images that are not attacked at
    all.
    """
    images, labels = blobs[0][:40].double(), blobs[1][:40].clone()
    labels[::7] = (labels[::7] + 1) % 3
    network = copy.deepcopy(trained).double()

    def liar(points):
        return network(points).where(points[:, :, 6, 6] < 0.1, network(points).roll(1, dims=1))

    def search(parts):
        generator = torch.Generator().manual_seed(0)
        attack = PGD(steps=2, step_size=0.3)
        return torch.cat(
            [
                attack_batch(
                    attack,
                    network,
                    liar,
                    images[rows],
                    labels[rows],
                    THREAT,
                    generator=generator,
                ).images
                for rows in torch.arange(40).split(parts)
            ]
        )

    torch.testing.assert_close(search(40), search(9), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("turn", "times"), [(0, 1), (1, 2)], ids=["honest", "liar"])
def test_only_what_was_claimed_wrongly_is_searched_again(trained, blobs, turn, times):
    images, labels = blobs
    right = trained(images).argmax(1) == labels
    attack = Returns(images[right], [])
    run(attack, trained, lambda points: trained(points).roll(turn, dims=1), blobs)
    assert attack.asked == [int(right.sum())] * times


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x + 0.2,
        lambda x: x.where(x < 0.5, torch.nan),
        lambda x: x - 0.1,
        lambda x: x + 0.1 + 0 * x,
    ],
    ids=["too far", "not a number", "below 0", "above 1"],
)
def test_a_point_outside_the_set_is_refused(trained, blobs, spoil):
    images, labels = blobs
    images = images / images.amax((1, 2, 3), keepdim=True)
    points = images.clone()
    points[3] = spoil(points[3])
    points[4] += 0.01 * (points[4] < 0.5)
    done = verify(trained, points, images, labels, THREAT)
    assert torch.nonzero(~done.verified).flatten().tolist() == [3]
    assert torch.equal(done.images[3], images[3])
    assert (done.distances[3] == 0).all()
    assert not torch.equal(done.images[4], images[4])
    with torch.no_grad():
        assert torch.equal(done.logits[3], trained(done.images)[3])


def test_a_point_outside_the_mask_is_refused(trained, blobs):
    images, labels = blobs
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 6:] = 1
    points = images.clone()
    points[0, 0, 0, 0] += 0.01
    points[1, 0, 0, 8] += 0.01 if points[1, 0, 0, 8] < 0.9 else -0.01
    done = verify(trained, points, images, labels, replace(THREAT, mask=mask))
    assert done.verified[:2].tolist() == [False, True]


def test_images_that_are_wrong_already_are_not_attacked(trained, blobs):
    images, labels = blobs[0], blobs[1].clone()
    labels[:5] = (labels[:5] + 1) % 3
    wrong = trained(images).argmax(1) != labels
    attack = Returns(images[~wrong], [])
    done = run(attack, trained, trained, (images, labels))
    assert attack.asked == [int((~wrong).sum())]
    done = run(STRONG, trained, trained, (images, labels))
    assert done.fooled[wrong].all()
    assert (done.distance("linf")[wrong] == 0).all()
    assert torch.equal(done.images[wrong], images[wrong])
    assert (done.distance("linf")[done.fooled & ~wrong] > 0).all()


@pytest.mark.parametrize(
    "attack", [STRONG, Noise(), PGD(steps=1, random_start=False)], ids=["pgd", "noise", "fgsm"]
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_at_eps_zero_robust_accuracy_is_clean_accuracy(trained, blobs, attack, norm):
    done = run(attack, trained, trained, blobs, ThreatModel(norm=norm, eps=0.0))
    assert torch.equal(done.images, blobs[0])
    assert torch.equal(done.fooled, trained(blobs[0]).argmax(1) != blobs[1])


def test_a_target_is_reached_or_not(trained, blobs):
    labels = blobs[1]
    done = run(STRONG, trained, trained, blobs, replace(THREAT, eps=0.3, target=2))
    assert torch.equal(done.fooled, (done.logits.argmax(1) == 2) & (labels != 2))
    assert done.fooled.any()
    assert not done.fooled[labels == 2].any()


def test_the_nearest_image_has_no_radius(trained, blobs):
    images, labels = blobs[0][:16], blobs[1][:16]
    done = run(CarliniWagnerL2(), trained, trained, (images, labels), ThreatModel("l2", torch.inf))
    assert done.verified.all()
    assert done.fooled.float().mean() > 0.8
    assert 0 < done.distance("l2")[done.fooled].median() < 2


def test_who_broke_an_image_is_told_of_a_suite_alone(trained, blobs):
    images, labels = blobs
    suite = Cascade({"noise": Noise(), "fgsm": fgsm(), "pgd": STRONG})
    done = run(suite, trained, trained, blobs)
    untouched = trained(images).argmax(1) != labels
    assert torch.equal(done.broken_by >= 0, done.fooled & ~untouched)
    alone = run(fgsm(), trained, trained, blobs)
    assert {-1, 1, 2} <= set(done.broken_by.tolist())
    assert alone.fooled[done.broken_by == 1].all()
    assert not alone.fooled[done.broken_by == 2].any()
    assert set(alone.broken_by.tolist()) == {-1}


def test_a_claim_that_does_not_hold_has_broken_nothing(trained, blobs):
    """The first image is claimed and stands, the second is claimed from outside the set, the third
    is fooled.
    """
    images, labels = (part[:3] for part in blobs)
    fooling = run(STRONG, trained, trained, (images, labels), replace(THREAT, eps=0.3)).images
    points = torch.stack([images[0], fooling[1], fooling[2]])
    threat = replace(THREAT, eps=torch.tensor([0.3, 1e-4, 0.3]))
    done = verify(trained, points, images, labels, threat, broken_by=torch.tensor([4, 4, 4]))
    assert done.broken_by.tolist() == [-1, -1, 4]


def test_a_suite_is_run_again_where_low_precision_lied(trained, blobs):
    """Each member stops where it believes the view; the suite asks the original, and must not leave
    it at that.
    """
    suite = Cascade({"fgsm": fgsm(), "pgd": STRONG})
    honest = run(suite, trained, trained, blobs)
    lied = run(suite, trained, lambda points: trained(points).roll(1, dims=1), blobs)
    assert torch.equal(lied.fooled, honest.fooled)
    assert torch.equal(lied.broken_by, honest.broken_by)


def test_a_saturated_network_has_a_gradient_and_a_step_function_has_none(trained, blobs):
    images, labels = blobs
    assert not zero_gradients(lambda x: 1000 * trained(x), images, labels).any(), (
        "attacks climb what never underflows"
    )
    assert zero_gradients(lambda x: trained(x).sign() + 0 * x.sum(), images, labels).all()


@pytest.mark.parametrize("turn", [0, 1], ids=["honest", "liar"])
def test_the_smallest_radius_is_searched_again_where_the_view_lies(trained, blobs, turn):
    """A view that calls every image by a wrong name would end each search with its first point."""

    def view(points):
        return trained(points).roll(turn, dims=1)

    attack = SmallestEps(
        PGD(steps=10, random_start=False, stop_when_fooled=True), (0.02, 0.05, 0.1, 0.15)
    )
    honest, found = run(attack, trained, trained, blobs), run(attack, trained, view, blobs)
    assert torch.equal(found.fooled, honest.fooled)
    assert 0.3 < found.fooled.float().mean() < 1
    torch.testing.assert_close(found.distance("linf"), honest.distance("linf"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("budget", [0, 6, 9, 12])
def test_a_confirmed_success_outlasts_a_claim_that_is_denied(budget):
    """The view's boundary lies nearer: what it claims within the smaller radius the original
    denies, with or without a budget for a second search.
    """

    def says(points, bound):
        mean = points.flatten(1).mean(1)
        return torch.stack([bound - mean, mean - bound], 1)

    images, labels = torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, dtype=torch.long)
    cost = AttackCost(2, Limits(gradients=budget))
    attack = SmallestEps(PGD(steps=4, step_size=0.5, random_start=False), (0.03, 0.04))
    done = attack_batch(
        attack,
        lambda points: says(points, 0.535),
        lambda points: says(points, 0.525),
        images,
        labels,
        ThreatModel(eps=0.04),
        generator=torch.Generator().manual_seed(0),
        cost=cost,
    )
    assert done.fooled.all()
    assert (done.distance("linf") > 0.03).all()
