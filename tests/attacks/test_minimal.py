"""Attacks that look for the nearest fooling image: closed forms, peers, and the mistakes that such
attacks make.
"""

from __future__ import annotations

import copy
import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustmri.attacks import ATTACKS, PGD, CarliniWagnerL2, make_attack
from robustmri.attacks.bisection import shorten
from robustmri.attacks.engine import Found
from robustmri.attacks.nearest import least_change
from robustmri.core.errors import ThreatModelError
from robustmri.evaluation.cost import AttackCost, Metered
from robustmri.threat.norms import NORMS
from robustmri.threat.threat_model import ThreatModel

N = 8
MASK = torch.rand(8, 8, generator=torch.Generator().manual_seed(7)) < 0.6
ZERO = torch.tensor([0])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(
    name: str, network: Any, images: Tensor, labels: Tensor, threat: ThreatModel, **settings: Any
) -> Tensor:
    return make_attack(name, **settings)(network, images, labels, threat, generator=seeded())


def linear(classes: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A linear classifier, images of which many pixels are exactly 0 or 1, and the labels that it
    gives them.
    """
    images = (1.6 * torch.rand(N, 1, 8, 8, generator=seeded(1), dtype=torch.float64) - 0.3).clamp(
        0, 1
    )
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).double()
    with torch.no_grad():
        network[1].weight.copy_(
            torch.randn(classes, 64, generator=seeded(), dtype=torch.float64) / 4
        )
        network[1].bias.zero_().sub_(network(images).mean(0))
    return network, images, network(images).argmax(1)


def solve(gain: Any, wanted: Tensor) -> float:
    """Where the growing function `gain` reaches `wanted`, by bisection."""
    low, high = 0.0, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if gain(middle) < wanted else (low, middle)
    return high


def nearest_boundary(slope: Tensor, room: Tensor, gap: Tensor, norm: str) -> float:
    """Smallest change that gains `gap`, where a pixel gains `slope` times its change, which is at
    most `room`.
    """
    if not (slope * room).sum() > gap:
        return torch.inf
    if norm == "linf":
        return solve(lambda eps: (slope * room.clamp(max=eps)).sum(), gap)
    if norm == "l2":
        pace = solve(lambda pace: (slope * torch.minimum(pace * slope, room)).sum(), gap)
        return torch.minimum(pace * slope, room).norm().item()
    if norm == "l0":
        return 1.0 + int(((slope * room).sort(descending=True).values.cumsum(0) < gap).sum())
    order = slope.argsort(descending=True)
    before = room[order].cumsum(0) - room[order]
    return solve(
        lambda eps: (slope[order] * torch.minimum((eps - before).clamp_min(0), room[order])).sum(),
        gap,
    )


def exact(
    network: nn.Module, images: Tensor, labels: Tensor, norm: str, threat: ThreatModel
) -> Tensor:
    """Distance from each image to its nearest fooling image, by hand."""
    weight, logits = network[1].weight.detach(), network(images).detach()
    distances = []
    for image, label, own in zip(images.flatten(1), labels, logits, strict=True):
        rivals = [k for k in range(len(weight)) if k != label and threat.target in (None, k)]
        ways = []
        for k in rivals:
            difference = threat.allow((weight[label] - weight[k]).reshape(1, 1, 8, 8)).flatten()
            room = torch.where(difference > 0, image, 1 - image)
            ways.append(nearest_boundary(difference.abs(), room, own[label] - own[k], norm))
        distances.append(min(ways))
    return torch.tensor(distances, dtype=torch.float64)


# How much further than the closed form an attack may end on average, bounds and four classes
# included.
SLACK = {
    ("fmn", "linf"): 1.01,
    ("fmn", "l2"): 1.01,
    ("fmn", "l1"): 1.02,
    ("ddn", "l2"): 1.01,
    ("pgd-l0", "l0"): 1.0,
    ("cw-l2", "l2"): 1.02,
    ("ead", "l1"): 1.07,
    ("deepfool", "linf"): 1.01,
    ("deepfool", "l2"): 1.01,
    # The walk takes a linear classifier for what it is.
    ("nearest", "linf"): 1.001,
    ("nearest", "l2"): 1.001,
    ("nearest", "l1"): 1.01,
}
CASES = list(SLACK)
# The cross-entropy looks at several classes at once where the network is not sure, so scale
# matters.
SCALE_FREE = {
    "ddn": {"loss": "margin", "steps": 60},
    "fmn": {"steps": 60},
    "pgd-l0": {"steps": 60},
    "cw-l2": {"searches": 8, "steps": 30, "learning_rate": 0.01},
    "ead": {"searches": 8, "steps": 30},
}
# Enough where the question is not how near.
FEW = {
    "cw-l2": {"steps": 30, "learning_rate": 0.01},
    "ead": {"steps": 30},
}
# The walk is exact on a linear classifier, from whatever its members find.
FEW_MEMBERS = {"nearest": {"steps": 10}}
# Of attacks whose steps shrink by a schedule, so that fewer of them end as near.
FEWER = {**FEW, **{name: {"steps": 40} for name in ("fmn", "ddn", "pgd-l0")}}
# "nearest" takes the nearest of what these find, so what they find it finds.
ALONE = [case for case in CASES if case[0] != "nearest"]


def test_every_minimal_attack_by_gradients_is_held_to_a_closed_form():
    names = {name for name, known in ATTACKS.items() if known.facts.minimal} - {"hop-skip-jump"}
    assert set(CASES) == {(name, norm) for name in names for norm in ATTACKS[name].facts.norms}


MASKS = {2: None, 4: MASK}


@cache
def exact_of_linear(norm: str, classes: int) -> Tensor:
    """Of the test below; by hand it takes as long as an attack."""
    return exact(*linear(classes), norm, ThreatModel(norm, mask=MASKS[classes]))


@pytest.mark.parametrize(("classes", "mask"), MASKS.items(), ids=["two", "four, mask"])
@pytest.mark.parametrize(("name", "norm"), CASES)
def test_finds_the_closed_form_distance(name, norm, classes, mask):
    network, images, labels = linear(classes)
    threat = ThreatModel(norm, mask=mask)
    margin = {"loss": "margin"} if name == "ddn" else {}
    attacked = run(name, network, images, labels, threat, **FEW_MEMBERS.get(name, margin))
    assert threat.fooled(network(attacked), labels).all()
    distance, nearest = NORMS[norm].size(attacked - images), exact_of_linear(norm, classes)
    assert (distance >= nearest * (1 - 1e-9)).all()
    assert (distance / nearest).mean() <= SLACK[name, norm] + 1e-9


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_finds_the_closed_form_distance_to_the_target(name, norm):
    network, images, _ = linear(2)
    labels, threat = network(images).argmax(1), ThreatModel(norm, target=1)
    attacked = run(name, network, images, labels, threat, **FEW_MEMBERS.get(name, {}))
    moved = labels != 1
    assert 0 < moved.sum() < N
    assert torch.equal(attacked[~moved], images[~moved])
    assert (network(attacked).argmax(1) == 1).all()
    nearest = exact(network, images[moved], labels[moved], norm, threat)
    distance = NORMS[norm].size(attacked - images)[moved]
    assert (distance / nearest).mean() <= SLACK[name, norm] + 1e-9


@pytest.mark.parametrize(("name", "norm"), ALONE)
def test_reaches_a_target_among_several_classes(name, norm, trained, blobs):
    images, labels = blobs[0][:12], blobs[1][:12]
    threat = ThreatModel(norm, target=2)
    few = FEWER.get(name, {})
    attacked = run(name, trained, images, labels, threat, **few)
    moved = (labels != 2) & (trained(images).argmax(1) != 2)
    assert (trained(attacked[moved]).argmax(1) == 2).float().mean() > 0.95
    untargeted = run(name, trained, images, labels, ThreatModel(norm), **few)
    size = NORMS[norm].size
    assert size(attacked - images)[moved].mean() >= 0.98 * size(untargeted - images)[moved].mean()


@pytest.mark.parametrize(("name", "norm"), ALONE)
def test_finds_the_same_distance_however_sure_the_network(name, norm, trained, blobs):
    images, labels = blobs[0][:12], blobs[1][:12]
    settings = SCALE_FREE.get(name, {})  # More values of c, since some go into finding the bracket.
    means = {}
    for factor in (1, 1e-2, 1e3):

        def network(points, factor=factor):
            return factor * trained(points)

        found = run(name, network, images, labels, ThreatModel(norm), **settings)
        # Asked as the attack asks: a factor decides how a tie on the boundary is rounded.
        assert (network(found).argmax(1) != labels).all(), factor
        means[factor] = NORMS[norm].size(found - images).mean().item()
    assert means == pytest.approx(dict.fromkeys(means, means[1]), rel=0.05)


@pytest.mark.parametrize(("name", "norm"), ALONE)
def test_no_image_is_lost_because_much_of_it_is_black(name, norm, trained, blobs):
    """Steps that the bounds cut short creep up to the boundary: FMN without our changes lost 14 of
    32 of these.
    """
    images, labels = blobs[0][:32], blobs[1][:32]
    assert (images == 0).float().mean() > 0.3
    attacked = run(name, trained, images, labels, ThreatModel(norm), **FEW.get(name, {}))
    assert (trained(attacked).argmax(1) != labels).all()


@pytest.mark.parametrize(("name", "norm"), ALONE)
def test_a_black_image_is_no_harder(name, norm):
    """Nine pixels in ten push against the bounds, each as hard as the others: linear guesses fall
    far short.
    """
    network, _, _ = linear(2)
    images = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        network[1].weight[0] = 0.1
        network[1].weight[0, ::10] = -0.1
        network[1].weight[1] = 0.0
        network[1].bias.copy_(torch.tensor([0.45, 0.0]))
    # Adam's 60 steps of 0.005 reach no further than 0.3.
    reach = {"learning_rate": 0.05} if name == "cw-l2" else {}
    attacked = run(name, network, images, ZERO, ThreatModel(norm), **reach)
    assert (network(attacked).argmax(1) == 1).all()
    distance, nearest = (
        NORMS[norm].size(attacked),
        exact(network, images, ZERO, norm, ThreatModel()),
    )
    assert distance <= 1.1 * nearest


def test_many_pixels_are_counted_as_well_as_few():
    """The number grows by ever larger jumps, so the first that fools is too large."""
    network, images, labels = linear(2)
    with torch.no_grad():
        network[1].weight.mul_(0.1)
        network[1].bias.zero_().sub_(network(images).mean(0))
        ahead = torch.nn.functional.one_hot(labels, 2).mul(0.6)
    for image, label, lead in zip(images.split(1), labels.split(1), ahead.split(1), strict=True):
        shifted = copy.deepcopy(network)
        with torch.no_grad():
            shifted[1].bias.add_(lead[0])
        attacked = run("pgd-l0", shifted, image, label, ThreatModel("l0"))
        nearest = exact(shifted, image, label, "l0", ThreatModel("l0"))
        assert 15 < nearest.item() < 64
        assert NORMS["l0"].size(attacked - image) == nearest


@pytest.mark.parametrize("limit", [1, 4, 15])
@pytest.mark.parametrize(("name", "norm"), CASES)
def test_ends_when_the_budget_is_spent(name, norm, limit, trained, blobs):
    class Budget:
        calls = 0

        @property
        def exhausted(self) -> bool:
            return self.calls >= limit

        def __call__(self, points: Tensor) -> Tensor:
            self.calls += 1
            return trained(points)

    images, labels = blobs[0][:8], blobs[1][:8]
    budget = Budget()
    attacked = run(name, budget, images, labels, ThreatModel(norm))
    assert budget.calls <= limit + 1
    fooled = trained(attacked).argmax(1) != labels
    assert torch.equal(attacked[~fooled], images[~fooled])


@pytest.mark.parametrize(("name", "norm"), ALONE)
def test_the_way_back_only_shortens(name, norm, trained, blobs):
    images, labels = blobs[0][:32], blobs[1][:32]
    size = NORMS[norm].size
    few = {"steps": 12, **({"learning_rate": 0.05} if name == "cw-l2" else {})}
    far, near = (
        run(name, trained, images, labels, ThreatModel(norm), **few, halvings=h) for h in (0, 10)
    )
    fooled = trained(far).argmax(1) != labels
    assert fooled.sum() > 16
    assert torch.equal(trained(near).argmax(1) != labels, fooled)
    assert (size(near - images) <= size(far - images) + 1e-6).all()
    if norm != "l0":
        assert size(near - images).mean() < size(far - images).mean()


def test_the_way_back_ends_at_a_point_that_was_seen_to_fool():
    """Class 1 wins from 0.46 to 0.54 and above 0.8: halving must not report what lies between."""

    def network(points: Tensor) -> Tensor:
        grey = points.flatten(1).mean(1)
        wins = ((grey - 0.5).abs() < 0.04) | (grey > 0.8)
        return torch.stack([torch.full_like(grey, 0.5), wins.to(grey)], 1)

    images = torch.full((1, 1, 1, 1), 0.1, dtype=torch.float64)
    found = Found(torch.full_like(images, 0.9), torch.tensor([True]), torch.zeros(1))
    threat = ThreatModel("linf", torch.inf)
    ends = [
        shorten(network, images, ZERO, threat, found, halvings=halvings).item()
        for halvings in range(12)
    ]
    assert ends[0] == 0.9
    assert all(network(torch.full_like(images, end)).argmax(1) == 1 for end in ends)
    assert ends == sorted(ends, reverse=True)
    assert ends[-1] == pytest.approx(0.46, abs=0.001)


def test_the_way_back_keeps_the_confidence():
    network, images, labels = linear(2)
    attacked = CarliniWagnerL2(confidence=0.5)(
        network, images, labels, ThreatModel("l2"), generator=seeded()
    )
    logits = network(attacked).detach()
    lead = logits.gather(1, 1 - labels[:, None]) - logits.gather(1, labels[:, None])
    assert (lead >= 0.5).all()
    assert lead.max() < 0.51


def test_from_the_boundary_a_quarter_of_the_gradients_lead_no_further(trained, blobs):
    images, labels, threat = blobs[0][:32], blobs[1][:32], ThreatModel("l2")
    spent, far = {}, {}
    for start in ("image", "boundary"):
        cost = AttackCost(len(images))
        attack = CarliniWagnerL2(start=start)
        points = attack(Metered(trained, cost), images, labels, threat, generator=seeded())
        assert threat.fooled(trained(points), labels).all()
        spent[start], far[start] = cost.gradients, (points - images).flatten(1).norm(dim=1)
    assert spent["boundary"] < spent["image"] / 4
    assert far["boundary"].mean() < 1.01 * far["image"].mean()


def test_where_nothing_is_near_the_search_is_the_papers(blobs):
    """No gradient: DeepFool has nowhere to go, and both starts end where they began."""
    images, labels = blobs[0][:2], torch.zeros(2, dtype=torch.long)
    deaf = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 3))
    deaf[1].weight.data.zero_()
    deaf[1].bias.data = torch.tensor([1.0, 0.0, 0.0])
    attack = CarliniWagnerL2(start="boundary", steps=2, searches=2)
    assert torch.equal(attack(deaf, images, labels, ThreatModel("l2"), generator=seeded()), images)


def test_pixels_that_count_go_all_the_way(trained, blobs):
    images, labels = blobs[0][:16], blobs[1][:16]
    attacked = run("pgd-l0", trained, images, labels, ThreatModel("l0"))
    changed = attacked != images
    assert ((attacked == 0) | (attacked == 1))[changed].all()
    assert changed.flatten(1).sum(1).max() < 20


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_distances_agree_with_the_accuracy_at_each_radius(norm, trained, blobs):
    images, labels = blobs[0][:64], blobs[1][:64]
    distance = NORMS[norm].size(run("fmn", trained, images, labels, ThreatModel(norm)) - images)
    radii = torch.quantile(distance, torch.tensor([0.25, 0.5, 0.75]))
    attacked = PGD(steps=50, step_size=0.05, loss="margin")(
        trained,
        images.repeat(3, 1, 1, 1),
        labels.repeat(3),
        ThreatModel(norm, radii.repeat_interleave(64)),
        generator=seeded(),
    )
    left = (trained(attacked).argmax(1) == labels.repeat(3)).reshape(3, 64).float().mean(1)
    # Never much more than PGD leaves: what PGD fools within eps has a nearest fooling point within
    # it.
    assert ((distance > radii[:, None]).float().mean(1) <= left + 0.03).all()


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_settings_that_make_no_attack_are_refused(name, norm):
    for settings in ({"steps": 0}, {"halvings": -1}):
        with pytest.raises(ThreatModelError):
            make_attack(name, **settings)


@pytest.mark.parametrize("name", ["fmn", "deepfool"])
def test_a_norm_that_it_does_not_know_is_refused(name, trained, blobs):
    with pytest.raises(ThreatModelError, match="knows the norms"):
        run(name, trained, *blobs, ThreatModel("l0"))


def peers(foolbox: Any) -> dict[tuple[str, str], Any]:
    """Foolbox's attack of each kind, with as many gradients as ours at its defaults."""
    attacks = foolbox.attacks
    return {
        ("fmn", "linf"): attacks.LInfFMNAttack(steps=100),
        ("fmn", "l2"): attacks.L2FMNAttack(steps=100),
        ("fmn", "l1"): attacks.L1FMNAttack(steps=100),
        ("ddn", "l2"): attacks.DDNAttack(steps=100),
        ("deepfool", "linf"): attacks.LinfDeepFoolAttack(steps=50),
        ("deepfool", "l2"): attacks.L2DeepFoolAttack(steps=50),
        ("cw-l2", "l2"): attacks.L2CarliniWagnerAttack(binary_search_steps=5, steps=60),
        ("ead", "l1"): attacks.EADAttack(
            binary_search_steps=5,
            steps=100,
            decision_rule="L1",
            initial_const=0.1,
            abort_early=False,
        ),
        ("pgd-l0", "l0"): attacks.L0FMNAttack(steps=100),
    }


@pytest.mark.peer
@pytest.mark.parametrize(("name", "norm"), ALONE)
def test_no_further_than_foolbox(name, norm, trained, blobs):
    """With the same number of gradients; and without the way back, which costs ten forwards
    more.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox", exc_type=ImportError)
    images, labels = blobs[0][:32], blobs[1][:32]
    model = foolbox.PyTorchModel(copy.deepcopy(trained), bounds=(0, 1), device="cpu")
    theirs = peers(foolbox)[name, norm].run(
        model, images, foolbox.criteria.Misclassification(labels)
    )
    beaten = trained(theirs).argmax(1) != labels
    size = NORMS[norm].size
    distance = size(theirs - images)[beaten].mean()
    assert beaten.sum() > 10
    for settings, slack in (({}, 1.0), ({"halvings": 0}, 1.005)):
        ours = run(name, trained, images, labels, ThreatModel(norm), **settings)
        assert (trained(ours).argmax(1) != labels).all()
        assert size(ours - images)[beaten].mean() <= slack * distance


@pytest.mark.peer
def test_fewer_pixels_than_salt_and_pepper(trained, blobs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox", exc_type=ImportError)
    images, labels = blobs[0][:32], blobs[1][:32]
    model = foolbox.PyTorchModel(copy.deepcopy(trained), bounds=(0, 1), device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = foolbox.attacks.SaltAndPepperNoiseAttack(steps=100).run(
            model, images, foolbox.criteria.Misclassification(labels)
        )
    ours = run("pgd-l0", trained, images, labels, ThreatModel("l0"))
    size = NORMS["l0"].size
    assert (
        size(ours - images).mean()
        < size(theirs - images)[trained(theirs).argmax(1) != labels].mean()
    )


@pytest.mark.peer
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_nearest_is_as_near_as_any_of_foolbox(norm, trained, blobs):
    """Each of foolbox's with as many gradients as ours in all, or more; Brendel and Bethge's walk
    where what it needs is installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox", exc_type=ImportError)
    images, labels = blobs[0][:32], blobs[1][:32]
    model = foolbox.PyTorchModel(copy.deepcopy(trained), bounds=(0, 1), device="cpu")
    attacks, goal = foolbox.attacks, foolbox.criteria.Misclassification(labels)
    theirs = {
        "linf": [attacks.LInfFMNAttack(steps=1000)],
        "l2": [attacks.L2FMNAttack(steps=1000), attacks.DDNAttack(steps=1000)],
        "l1": [attacks.L1FMNAttack(steps=1000)],
    }[norm]
    walks = {
        "linf": attacks.LinfinityBrendelBethgeAttack,
        "l2": attacks.L2BrendelBethgeAttack,
        "l1": attacks.L1BrendelBethgeAttack,
    }
    own = run("nearest", trained, images, labels, ThreatModel(norm))
    assert (trained(own).argmax(1) != labels).sum() >= 0.9 * len(labels)
    ours = NORMS[norm].size(own - images)
    start = run("fmn", trained, images, labels, ThreatModel(norm))
    found = [one.run(model, images, goal) for one in theirs]
    if find_spec("numba"):
        walk = walks[norm](steps=300)
        found.append(walk.run(model, images, goal, starting_points=start))
    for points in found:
        beaten = trained(points).argmax(1) != labels
        distance = NORMS[norm].size(points - images)
        assert ours[beaten].mean() <= 1.005 * distance[beaten].mean()


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_a_smaller_radius_brings_nobody_further(norm, trained, blobs):
    """Nor where a part of the image may not change, and alike in any company."""
    images, labels = blobs[0][:6], blobs[1][:6]
    mask = torch.ones_like(images[:1])
    mask[..., :4] = 0
    threat, few = ThreatModel(norm, mask=mask), {"steps": 6, "walk": 0}
    before, after = (
        run("nearest", trained, images, labels, threat, presses=n, **few) for n in (0, 2)
    )
    assert ((after - images) * (1 - mask) == 0).all()
    assert ((after >= 0) & (after <= 1)).all()
    assert (trained(after).argmax(1) != labels)[trained(before).argmax(1) != labels].all()
    near, nearer = (NORMS[norm].size(points - images) for points in (before, after))
    assert (nearer <= near).all()
    assert nearer.mean() < 0.99 * near.mean()
    alone = run("nearest", trained, images[:1], labels[:1], threat, presses=2, **few)
    torch.testing.assert_close(alone, after[:1], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_walk_brings_nobody_further(trained, blobs):
    """By itself: what presses on from where it ends may end elsewhere for it."""
    images, labels = blobs[0][:12], blobs[1][:12]
    for norm, gain in {"linf": 0.999, "l2": 0.999, "l1": 0.999}.items():
        threat = ThreatModel(norm)
        still, walked = (
            NORMS[norm].size(
                run("nearest", trained, images, labels, threat, walk=w, presses=0) - images
            )
            for w in (0, 30)
        )
        fmn = NORMS[norm].size(run("fmn", trained, images, labels, threat) - images)
        assert (walked <= still).all()
        assert (still <= fmn).all()
        assert walked.mean() < gain * still.mean()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_least_change_is_no_larger_than_any_other(norm):
    """Against random changes that grow the same function as far, scaled down to do just so."""
    generator = torch.Generator().manual_seed(0)
    slope = torch.randn(1, 1, 4, 4, generator=generator, dtype=torch.float64)
    bound = torch.rand(1, 1, 4, 4, generator=generator, dtype=torch.float64)
    for needed in (1.5, -1.5):
        wanted = torch.tensor([needed], dtype=torch.float64)
        found = least_change(slope, wanted, -bound, bound, norm)
        assert float((slope * found).sum()) == pytest.approx(needed)
        assert ((found >= -bound) & (found <= bound)).all()
        draws = torch.rand(400, 1, 4, 4, generator=generator, dtype=torch.float64)
        others = bound * (2 * draws - 1)
        others = others + (0.7 * np.sign(needed) * bound * slope.sign() - others) * torch.rand(
            400, 1, 1, 1, generator=generator, dtype=torch.float64
        )
        growth = (slope * others).flatten(1).sum(1) / needed
        enough = others[growth >= 1] / growth[growth >= 1].reshape(-1, 1, 1, 1)
        assert len(enough) > 20
        assert (NORMS[norm].size(enough) >= NORMS[norm].size(found) - 1e-9).all()
    far = least_change(slope, torch.tensor([1e9], dtype=torch.float64), -bound, bound, norm)
    torch.testing.assert_close(far, bound * slope.sign())
