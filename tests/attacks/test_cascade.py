"""A suite runs each attack on what is left, whatever else is in the batch, and says who broke
what.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from robustmri.attacks import APGD, FMN, PGD, Cascade, Noise, apgd_t, fgsm, standard
from robustmri.attacks.engine import SeededGenerator, draw_seeds
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import L2
from robustmri.threat.threat_model import ThreatModel

STRONG = PGD(steps=10, step_size=0.25, stop_when_fooled=True)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def watched(attack, seen: list[int]):
    """The attack, which takes down how many images it is given."""

    def run(classifier, images, labels, threat, *, generator):
        seen.append(len(images))
        return attack(classifier, images, labels, threat, generator=generator)

    return run


def test_dealt_numbers_are_the_ones_that_are_used():
    whole = draw_seeds(seeded(), n=3, each=2)
    own = torch.randint(2**62, (3,), generator=seeded()).tolist()
    assert draw_seeds(SeededGenerator([own[2], own[0]]), n=2, each=2) == [whole[2], whole[0]]


def test_each_member_sees_only_what_stands(trained, blobs):
    images, labels = blobs
    threat, seen = ThreatModel("l2", 0.5), []

    suite = Cascade(
        {
            "one": fgsm(),
            "two": watched(PGD(loss="margin"), seen),
            "three": watched(PGD(steps=40, restarts=3), seen),
        }
    )
    found, broken_by = suite.run(trained, images, labels, threat, generator=seeded())
    fooled = threat.fooled(trained(found), labels)
    assert torch.equal(broken_by >= 0, fooled)
    assert seen == [(broken_by != 0).sum(), ((broken_by < 0) | (broken_by == 2)).sum()]
    assert 128 > seen[0] > seen[1] > 0
    alone = threat.fooled(
        trained(fgsm()(trained, images, labels, threat, generator=seeded())), labels
    )
    assert torch.equal(broken_by == 0, alone)
    assert torch.equal(suite(trained, images, labels, threat, generator=seeded()), found)


def test_the_draws_of_an_image_do_not_depend_on_which_others_stand(trained, blobs):
    """By a batch of one, in which no other image is broken before it."""
    images, labels = blobs[0][:40], blobs[1][:40]
    threat = ThreatModel("l2", torch.linspace(0.3, 0.8, 40))
    suite = Cascade(
        {"noise": Noise(), "fgsm": fgsm(), "pgd": PGD(restarts=2, stop_when_fooled=True)}
    )
    whole, broken_by = suite.run(trained, images, labels, threat, generator=seeded())
    assert set(broken_by.tolist()) >= {-1, 1, 2}
    shared = seeded()
    for row in range(40):
        here = threat.at(torch.tensor([row]))
        alone, by = suite.run(trained, images[[row]], labels[[row]], here, generator=shared)
        # 1e-5: float32 sums of another batch size.
        torch.testing.assert_close(alone[0], whole[row], rtol=0, atol=1e-5)
        assert by.item() == broken_by[row]


def test_an_image_that_stands_keeps_its_worst_point(trained, blobs):
    images, labels = blobs
    threat = ThreatModel("linf", 0.03)

    def margins(attack) -> Tensor:
        logits = trained(attack(trained, images, labels, threat, generator=seeded()))
        return (
            logits.scatter(1, labels[:, None], -torch.inf).amax(1)
            - logits.gather(1, labels[:, None])[:, 0]
        )

    both, strong = (
        margins(Cascade({"strong": STRONG, "noise": Noise()})),
        margins(Cascade({"strong": STRONG})),
    )
    assert torch.equal(both, strong)  # Noise finds nothing worse.
    weak_first = margins(Cascade({"noise": Noise(), "strong": STRONG}))
    assert (weak_first <= 0).any()
    assert (weak_first >= margins(Noise()) - 1e-6).all() or (weak_first > 0).any()


def test_a_nearest_image_counts_where_it_lies_within_eps(trained, blobs):
    images, labels = blobs
    nearest = FMN()(trained, images, labels, ThreatModel("l2"), generator=seeded())
    distance = L2.size(nearest - images)
    wins = (trained(nearest).argmax(1) != labels) & (distance <= 0.5)
    found, broken_by = Cascade({"fmn": FMN()}).run(
        trained, images, labels, ThreatModel("l2", 0.5), generator=seeded()
    )
    assert 8 < wins.sum() < 120
    assert ((broken_by == 0) | ~wins).all()
    assert torch.equal(found[wins], nearest[wins])
    assert (L2.size(found - images) <= 0.5 + 1e-6).all()


def test_a_member_that_does_not_know_the_norm_is_left_out(trained, blobs):
    images, labels = blobs[0][:8], blobs[1][:8]
    found, broken_by = standard(steps=5, queries=10).run(
        trained, images, labels, ThreatModel("l1", 0.1), generator=seeded()
    )
    assert (broken_by < 4).all()
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("target", [None, 1])
def test_a_target_is_all_that_counts(norm, target, trained, blobs):
    images, labels = blobs
    threat = ThreatModel(norm, {"linf": 0.12, "l2": 0.9}[norm], target=target)
    found, broken_by = standard(steps=20, queries=20).run(
        trained, images, labels, threat, generator=seeded()
    )
    predicted = trained(found).argmax(1)
    won = predicted != labels if target is None else (predicted == target) & (labels != target)
    assert torch.equal(broken_by >= 0, won)
    assert won.any()


def test_targets_are_tried_on_what_stands(counting, trained, blobs):
    images, labels = blobs
    threat, gradients, right = ThreatModel("linf", 0.08), [], []
    for targets in (1, 2, 9):
        counted = counting(trained)
        attack = apgd_t(steps=10, targets=targets, stop_when_fooled=True)
        attacked = attack(counted, images, labels, threat, generator=seeded())
        right.append((trained(attacked).argmax(1) == labels).sum().item())
        gradients.append(counted.gradients)
    assert right[0] > right[1] == right[2]
    assert gradients[1] == gradients[2] == pytest.approx(gradients[0] + 10 * right[0], rel=0.1)
    aimed = replace(threat, target=1)
    results = [
        attack(trained, images, labels, aimed, generator=seeded())
        for attack in (APGD(steps=10), apgd_t(steps=10))
    ]
    assert torch.equal(*results)


def test_a_probe_finds_the_targets_that_are_worth_all_steps(counting):
    """On a network whose likeliest other class is out of reach: some steps towards each show which
    one is not.
    """
    images = torch.full((4, 1, 8, 8), 0.5, dtype=torch.float64)
    weight = torch.zeros(6, 64, dtype=torch.float64)
    weight[4] = 0.2  # Class 1 is always next; only class 4 can be reached.

    def network(points: Tensor) -> Tensor:
        return (points - 0.5).flatten(1) @ weight.T - torch.tensor(
            [0.0, 0.5, 1.0, 2.0, 5.0, 3.0], dtype=torch.float64
        )

    labels, threat = torch.zeros(4, dtype=torch.long), ThreatModel("linf", 0.5)
    for probe, gradients, fooled in ((0, 20, False), (3, 5 * 3 + 20, True)):
        counted = counting(network)
        attack = apgd_t(steps=20, targets=1, probe=probe)
        attacked = attack(counted, images, labels, replace(threat, eps=0.1), generator=seeded())
        assert counted.gradients == 4 * gradients
        attacked = attack(network, images, labels, threat, generator=seeded())
        assert (network(attacked).argmax(1) == 4).all() == fooled


def test_a_spent_budget_ends_the_search(trained, blobs):
    class Budget:
        """Ten calls."""

        calls = 0

        @property
        def exhausted(self) -> bool:
            return self.calls >= 10

        def __call__(self, points: Tensor) -> Tensor:
            self.calls += 1
            return trained(points)

    for attack in (APGD(restarts=3), apgd_t(), standard()):
        budget = Budget()
        attack(budget, *blobs, ThreatModel("linf", 1e-4), generator=seeded())
        assert budget.calls <= 12


def test_square_goes_on_where_gradients_are_hidden(counting, trained, blobs):
    """Stairs have no slope: there the gradients find nothing, and a fifth of the queries is not all
    that is asked.
    """
    images, labels = blobs
    threat, queries = ThreatModel("linf", 0.1), 200

    def stairs(points: Tensor) -> Tensor:
        return trained((points * 8).round() / 8)

    suite = standard(steps=5, queries=queries)
    names = list(suite.members)
    for classifier, hides in ((stairs, True), (trained, False)):
        counted = counting(classifier)
        _, broken_by = suite.run(counted, images, labels, threat, generator=seeded())
        assert (broken_by == names.index("square-long")).any() == hides
        assert (counted.forwards > 200 * (broken_by < 0).sum()) == hides


def test_a_member_may_wait_for_another_to_come_nearest(trained, blobs):
    images, labels = blobs
    threat, seen = ThreatModel("linf", 0.03), []

    def suite(after: str) -> Cascade:
        return Cascade(
            {
                "noise": Noise(),
                "strong": STRONG,
                "then": watched(Noise(), seen),
                "last": watched(Noise(), seen),
            },
            after={"then": after},
        )

    for after in ("strong", "noise"):
        _, broken_by = suite(after).run(trained, images, labels, threat, generator=seeded())
        # The last one meets all that stand.
        assert seen.pop() == ((broken_by < 0) | (broken_by == 3)).sum()
    # Noise is never nearest where PGD was.
    assert seen[0] == ((broken_by < 0) | (broken_by >= 2)).sum()
    assert len(seen) == 1


def test_suites_that_make_no_sense_are_refused():
    for build in (
        lambda: Cascade({}),
        lambda: APGD(steps=0),
        lambda: APGD(restarts=0),
        lambda: APGD(targets=-1),
        lambda: Cascade({"pgd": PGD()}, after={"pgd": "fgsm"}),
        lambda: Cascade({"pgd": PGD()}, after={"fgsm": "pgd"}),
    ):
        with pytest.raises(ThreatModelError):
            build()


def test_probes_stop_where_nobody_is_left(trained, blobs):
    """All images are wrong before the first probe: the others are not tried."""
    images, labels = blobs[0][:6], (trained(blobs[0][:6]).argmax(1) + 1) % 3
    attack = APGD(steps=3, loss="dlr", targets=1, probe=2, stop_when_fooled=True)
    asked = []

    def watched(points):
        asked.append(len(points))
        return trained(points)

    found = attack(watched, images, labels, ThreatModel(eps=0.01), generator=seeded())
    # The ranking of the classes, and the first look of the first probe.
    assert asked == [6, 6]
    assert (trained(found).argmax(1) != labels).all()
