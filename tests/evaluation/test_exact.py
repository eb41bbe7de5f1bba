from __future__ import annotations

import torch

from robustmri.attacks import PGD, fgsm
from robustmri.attacks.cascade import Cascade
from robustmri.evaluation.attacked import attack_batch
from robustmri.evaluation.cost import AttackCost
from robustmri.evaluation.exact import Exact, logits_of
from robustmri.threat.threat_model import ThreatModel


class Counted:
    """A predictor that counts the images it is asked about."""

    def __init__(self, network):
        self.network, self.images = network, 0

    def __call__(self, images):
        self.images += len(images)
        return self.network(images)


def test_a_point_goes_through_once(trained, blobs):
    images, counted = blobs[0], Counted(trained)
    exact = Exact(counted)
    torch.testing.assert_close(exact(images[:4]), logits_of(trained, images[:4]))
    again = exact(images[[3, 5, 0]])
    torch.testing.assert_close(again, logits_of(trained, images[[3, 5, 0]]), rtol=0, atol=1e-6)
    assert counted.images == 5
    assert exact.knows(images[:7]) == [True] * 4 + [False, True, False]


def test_one_changed_bit_is_another_point(trained, blobs):
    images = blobs[0][:1]
    exact = Exact(trained)
    exact(images)
    changed = images.clone()
    changed[0, 0, 0, 0] = torch.nextafter(changed[0, 0, 0, 0], torch.tensor(2.0))
    assert exact.knows(changed) == [False]


def test_what_decides_is_asked_once_about_each_image_that_falls_at_once(trained, blobs):
    """FGSM's points are judged by the original, so neither the suite nor the verification asks
    again.
    """
    images, labels = blobs
    decides, search, cost = Counted(trained), Counted(trained), AttackCost(len(images))
    suite = Cascade(
        {"fgsm": fgsm(stop_when_fooled=True), "pgd": PGD(steps=5, stop_when_fooled=True)}
    )
    clean = logits_of(trained, images)
    right = int((clean.argmax(1) == labels).sum())
    done = attack_batch(
        suite,
        decides,
        search,
        images,
        labels,
        ThreatModel(eps=0.4),
        generator=torch.Generator().manual_seed(0),
        cost=cost,
        clean=clean,
    )
    assert done.fooled.all()
    assert decides.images == right
    assert search.images == right
