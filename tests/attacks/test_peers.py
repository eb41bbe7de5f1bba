"""Agreement with torchattacks and foolbox. They are witnesses, not oracles: each has defects of its
own.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.digits import load_digits
from robustmri.attacks import PGD, Attack, CarliniWagnerL2, Square, bim, fgsm, standard
from robustmri.attacks.apgd import adaptive
from robustmri.attacks.engine import climb, draw_seeds, loss_against, random_points
from robustmri.attacks.hop_skip_jump import HopSkipJump
from robustmri.attacks.nearest import Nearest
from robustmri.attacks.step_rules import momentum
from robustmri.attacks.transfer import Transfer, di_fgsm, ni_fgsm, ti_fgsm, vmi_fgsm
from robustmri.threat.norms import L2, per_image
from robustmri.threat.threat_model import ThreatModel

pytestmark = pytest.mark.peer

EPS = {"linf": 0.07, "l2": 0.6}
STEPS, STEP = 7, 0.2  # Step size as a fraction of eps.
TARGET = 2


def load(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, exc_type=ImportError)


@pytest.fixture(scope="module")
def torchattacks() -> ModuleType:
    return load("torchattacks")


@pytest.fixture(scope="module")
def foolbox() -> ModuleType:
    return load("foolbox")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def ours(
    attack: Attack, network: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel
) -> Tensor:
    return attack(network, images, labels, threat, generator=seeded())


def same(found: Tensor, expected: Tensor) -> None:
    # 1e-12: the perturbation is added and subtracted in another order, 1e-16 for each step, in
    # double precision.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def data(network: nn.Module, make_images: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    images = make_images(12)
    return images, network.eval()(images).argmax(1)


FGSM = fgsm(keep="last")
BIM = bim(steps=STEPS, step_size=STEP, keep="last")

TORCHATTACKS: dict[str, tuple[Attack, str, Callable[[Any, nn.Module, float], Any]]] = {
    "fgsm": (FGSM, "linf", lambda peer, net, eps: peer.FGSM(net, eps=eps)),
    "bim": (
        BIM,
        "linf",
        lambda peer, net, eps: peer.BIM(net, eps=eps, alpha=STEP * eps, steps=STEPS),
    ),
    "pgd": (
        BIM,
        "linf",
        lambda peer, net, eps: peer.PGD(
            net, eps=eps, alpha=STEP * eps, steps=STEPS, random_start=False
        ),
    ),
    "mi-fgsm": (
        Transfer(steps=STEPS, step_size=STEP, decay=0.8, keep="last"),
        "linf",
        lambda peer, net, eps: peer.MIFGSM(net, eps=eps, alpha=STEP * eps, steps=STEPS, decay=0.8),
    ),
    "pgd-l2": (
        BIM,
        "l2",
        # Its eps_for_division would shorten each step by a part in 1e10 of the gradient's length.
        lambda peer, net, eps: peer.PGDL2(
            net, eps=eps, alpha=STEP * eps, steps=STEPS, random_start=False, eps_for_division=0.0
        ),
    ),
}


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("kind", ["tanh", "softplus", "batch_norm"])
@pytest.mark.parametrize("name", TORCHATTACKS)
def test_torchattacks(name, kind, targeted, torchattacks, make_network, make_images):
    network = make_network(kind)
    images, labels = data(network, make_images)
    attack, norm, build = TORCHATTACKS[name]
    peer = build(torchattacks, copy.deepcopy(network), EPS[norm])
    if targeted:
        peer.set_mode_targeted_by_label(quiet=True)
    expected = peer(images, torch.full_like(labels, TARGET) if targeted else labels)
    threat = ThreatModel(norm, EPS[norm], target=TARGET if targeted else None)
    same(ours(attack, network, images, labels, threat), expected)
    assert (expected - images).abs().max() > EPS["linf"] / 2


def test_torchattacks_momentum(torchattacks, make_network, make_images):
    network = make_network("softplus")
    images, labels = data(network, make_images)
    threat = ThreatModel("linf", EPS["linf"])
    expected = torchattacks.MIFGSM(
        copy.deepcopy(network), eps=threat.eps, alpha=STEP * threat.eps, steps=STEPS, decay=0.8
    )(images, labels)
    found = climb(
        network,
        images,
        labels,
        threat,
        start=images,
        steps=STEPS,
        rule=momentum(STEP, decay=0.8),
        keep="last",
        objective=loss_against("cross_entropy", labels, threat),
    )
    same(found.images, expected)


def test_torchattacks_nesterov(torchattacks, make_network, make_images):
    """On images that no look-ahead takes out of the bounds, where the peer does not stop."""
    network = make_network("softplus")
    images, labels = data(network, make_images)
    images = 0.4 * images + 0.3
    threat = ThreatModel("linf", EPS["linf"])
    expected = torchattacks.NIFGSM(
        copy.deepcopy(network), eps=threat.eps, alpha=STEP * threat.eps, steps=STEPS, decay=0.8
    )(images, labels)
    attack = ni_fgsm(steps=STEPS, step_size=STEP, decay=0.8, keep="last")
    same(ours(attack, network, images, labels, threat), expected)
    without = ours(replace(attack, look_ahead=False), network, images, labels, threat)
    assert (without - expected).abs().max() > 1e-3


def test_torchattacks_smoothed_gradient(torchattacks, make_network, make_images):
    """In three channels, since the peer knows no other number."""
    network = make_network("softplus")
    images, labels = data(network, make_images)
    colour = images.expand(-1, 3, -1, -1).clone()
    sees = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), network).double().requires_grad_(False)
    sees[0].weight.copy_(torch.tensor([0.5, 0.3, 0.2]).reshape(1, 3, 1, 1))
    threat = ThreatModel("linf", EPS["linf"])
    peer = torchattacks.TIFGSM(
        copy.deepcopy(sees),
        eps=threat.eps,
        alpha=STEP * threat.eps,
        steps=STEPS,
        decay=0.5,
        len_kernel=5,
        diversity_prob=0.0,
    )
    peer.stacked_kernel = peer.stacked_kernel.double()
    attack = ti_fgsm(steps=STEPS, step_size=STEP, decay=0.5, kernel=5, keep="last")
    found, expected = ours(attack, sees, colour, labels, threat), peer(colour, labels)
    same(found, expected)
    without = ours(replace(attack, kernel=1), sees, colour, labels, threat)
    assert (without - expected).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "build"), [("DIFGSM", di_fgsm), ("VMIFGSM", vmi_fgsm)])
def test_random_transfer_attacks_are_no_weaker_than_torchattacks(
    name, build, torchattacks, trained, blobs
):
    """With the same steps, on the network that they climb on."""
    images, labels = blobs
    threat, settings = ThreatModel("linf", 0.08), {"steps": STEPS, "step_size": STEP}
    if name == "VMIFGSM":
        settings["neighbours"] = 5
    found = ours(build(**settings), trained, images, labels, threat)
    with torch.random.fork_rng():
        peer = getattr(torchattacks, name)(
            copy.deepcopy(trained), eps=threat.eps, alpha=STEP * threat.eps, steps=STEPS
        )
        points = peer(images, labels)
    fooled, fooled_by_peer = (
        (trained(points).argmax(1) != labels).sum() for points in (found, points)
    )
    assert 20 < fooled_by_peer < 110
    assert fooled >= fooled_by_peer - 2  # 2 of 128: both look in random places.


FOOLBOX: dict[str, tuple[Attack, str, Callable[[Any, float], Any]]] = {
    "fgsm": (FGSM, "linf", lambda peer, eps: peer.attacks.LinfFastGradientAttack()),
    "fgsm-l2": (FGSM, "l2", lambda peer, eps: peer.attacks.L2FastGradientAttack()),
    "bim": (
        BIM,
        "linf",
        lambda peer, eps: peer.attacks.LinfBasicIterativeAttack(
            abs_stepsize=STEP * eps, steps=STEPS
        ),
    ),
    "bim-l2": (
        BIM,
        "l2",
        lambda peer, eps: peer.attacks.L2BasicIterativeAttack(abs_stepsize=STEP * eps, steps=STEPS),
    ),
    "pgd": (
        PGD(steps=STEPS, step_size=STEP, keep="last"),
        "linf",
        lambda peer, eps: peer.attacks.LinfPGD(abs_stepsize=STEP * eps, steps=STEPS),
    ),
    "pgd-l2": (
        PGD(steps=STEPS, step_size=STEP, keep="last"),
        "l2",
        lambda peer, eps: peer.attacks.L2PGD(abs_stepsize=STEP * eps, steps=STEPS),
    ),
}


FOOLBOX_GOALS = [(name, False) for name in FOOLBOX] + [
    (name, True) for name in FOOLBOX if not name.startswith("fgsm")
]


@pytest.mark.parametrize("kind", ["tanh", "softplus", "batch_norm"])
@pytest.mark.parametrize(("name", "targeted"), FOOLBOX_GOALS)
def test_foolbox(name, kind, targeted, foolbox, make_network, make_images):
    network = make_network(kind)
    images, labels = data(network, make_images)
    attack, norm, build = FOOLBOX[name]
    threat = ThreatModel(norm, EPS[norm], target=TARGET if targeted else None)
    peer = build(foolbox, EPS[norm])
    if attack.random_start:  # From the same random points as ours.
        seeds = draw_seeds(seeded(), len(images), each=1)
        start = random_points(images, threat, [own[0] for own in seeds])
        peer.get_random_start = lambda x0, epsilon: type(x0)(start)
    goal = (
        foolbox.criteria.TargetedMisclassification(torch.full_like(labels, TARGET))
        if targeted
        else foolbox.criteria.Misclassification(labels)
    )
    model = foolbox.PyTorchModel(copy.deepcopy(network).eval(), bounds=(0, 1), device="cpu")
    same(
        ours(attack, network, images, labels, threat),
        peer.run(model, images, goal, epsilon=EPS[norm]),
    )


@pytest.mark.parametrize("c", [1.0, 10.0])
def test_carlini_wagner_is_no_worse_than_torchattacks(c, torchattacks, trained, blobs):
    images, labels = blobs[0][:32], blobs[1][:32]
    found = ours(CarliniWagnerL2(), trained, images, labels, ThreatModel("l2"))
    peer = torchattacks.CW(copy.deepcopy(trained), c=c, steps=300)(images, labels)
    fooled, fooled_by_peer = (trained(points).argmax(1) != labels for points in (found, peer))
    assert fooled_by_peer.sum() > 4
    assert (fooled | ~fooled_by_peer).all()
    distance, distance_of_peer = (
        L2.size(points - images)[fooled_by_peer] for points in (found, peer)
    )
    assert distance.mean() <= distance_of_peer.mean()


def test_carlini_wagner_is_no_worse_than_foolbox(foolbox, trained, blobs):
    """With the same number of gradients."""
    images, labels = blobs[0][:32], blobs[1][:32]
    found = ours(CarliniWagnerL2(steps=60, searches=5), trained, images, labels, ThreatModel("l2"))
    model = foolbox.PyTorchModel(copy.deepcopy(trained), bounds=(0, 1), device="cpu")
    peer = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=5, steps=60)
    points = peer.run(model, images, foolbox.criteria.Misclassification(labels))
    fooled, fooled_by_peer = (trained(points).argmax(1) != labels for points in (found, points))
    assert fooled_by_peer.sum() > 4
    assert (fooled | ~fooled_by_peer).all()
    assert (
        L2.size(found - images)[fooled_by_peer].mean()
        <= L2.size(points - images)[fooled_by_peer].mean()
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_hop_skip_jump_is_no_worse_than_foolbox(norm, foolbox, counting, trained, blobs):
    """With no more queries."""
    images, labels = blobs[0][:8], blobs[1][:8]
    counted, counted_peer = counting(trained), counting(copy.deepcopy(trained)).eval()
    found = ours(HopSkipJump(steps=10, samples=50), counted, images, labels, ThreatModel(norm))
    model = foolbox.PyTorchModel(counted_peer, bounds=(0, 1), device="cpu")
    peer = foolbox.attacks.HopSkipJumpAttack(
        steps=10, initial_gradient_eval_steps=50, constraint=norm
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _, points, _ = peer(
            model, images, foolbox.criteria.Misclassification(labels), epsilons=None
        )
    right = trained(images).argmax(1) == labels
    assert (trained(found).argmax(1) != labels).all()
    assert counted.forwards <= counted_peer.forwards
    sizes, sizes_of_peer = (
        ThreatModel(norm).measure.size(x - images)[right] for x in (found, points)
    )
    assert sizes.mean() <= 1.05 * sizes_of_peer.mean()  # 5 %: both feel their way at random.


@pytest.mark.parametrize(("norm", "peer_norm"), [("linf", "Linf"), ("l2", "L2")])
def test_square_is_no_worse_than_torchattacks(norm, peer_norm, torchattacks, trained, blobs):
    """With the same number of queries. On a wide margin that the network does not see: the peer
    fails at 12 x 12.
    """
    images, labels = nn.functional.pad(blobs[0][:64], (1, 2, 1, 2)), blobs[1][:64]
    network = nn.Sequential(nn.ZeroPad2d((-1, -2, -1, -2)), copy.deepcopy(trained)).eval()
    eps = {"linf": 0.1, "l2": 0.8}[norm]
    found = ours(Square(queries=200), network, images, labels, ThreatModel(norm, eps))
    with torch.random.fork_rng():
        # Its loop makes a query for the start, and then as many as it is told.
        peer = torchattacks.Square(
            network, norm=peer_norm, eps=eps, n_queries=199, n_restarts=1, loss="margin"
        )
        points = peer(images, labels)
    fooled, fooled_by_peer = (
        (network(points).argmax(1) != labels).sum() for points in (found, points)
    )
    assert 8 < fooled_by_peer < 60
    # 3 of 64: both search at random.
    assert fooled >= fooled_by_peer - 3


@pytest.mark.parametrize(("norm", "peer_norm", "eps"), [("linf", "Linf", 0.06), ("l2", "L2", 0.5)])
@pytest.mark.parametrize(("loss", "peer_loss"), [("cross_entropy", "ce"), ("dlr", "dlr")])
def test_apgd_is_no_worse_than_torchattacks(
    norm, peer_norm, eps, loss, peer_loss, torchattacks, trained, blobs
):
    """From the same random start, by the same steps. At 100 steps its checkpoints are those of the
    paper.
    """
    images, labels, threat = blobs[0].double(), blobs[1], ThreatModel(norm, eps)
    network = copy.deepcopy(trained).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draw = 2 * torch.rand(images.shape) - 1 if norm == "linf" else torch.randn(images.shape)
        start = threat.project(
            images + eps * draw / per_image(threat.measure.size(draw), draw), images
        )
        torch.manual_seed(0)
        peer = torchattacks.APGD(
            copy.deepcopy(network), norm=peer_norm, eps=eps, steps=100, loss=peer_loss
        )
        best_of_peer, right_of_peer, *_ = peer.attack_single_run(images, labels)
    found = climb(
        network,
        images,
        labels,
        threat,
        start=start,
        steps=100,
        rule=adaptive(100),
        objective=loss_against(loss, labels, threat),
    )
    assert (~found.fooled).sum() <= right_of_peer.sum() < 120
    # It compares the step after a return with the point that it returned from, and a share of 3/4
    # counts as too few.
    equal = (found.images - best_of_peer).abs().flatten(1).amax(1) < 1e-6
    assert equal.sum() > 0.6 * len(images)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_suite_runs_where_autoattack_cannot(classes, torchattacks, make_network, make_images):
    """Its targeted attacks index the fourth logit, its logit ratio the third."""
    network, images = make_network("tanh", classes).float().eval(), make_images(6).float()
    labels = network(images).argmax(1)
    with pytest.raises(IndexError), torch.random.fork_rng():
        torchattacks.AutoAttack(copy.deepcopy(network), eps=0.01, n_classes=classes)(images, labels)
    found = ours(standard(queries=100), network, images, labels, ThreatModel("linf", 0.01))
    assert (found - images).abs().max() <= 0.01 + 1e-6
    assert not torch.equal(found, images)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "peer_norm", "eps"), [("linf", "Linf", 0.05), ("l2", "L2", 0.25)])
def test_the_suite_agrees_with_autoattack_for_fewer_gradients(
    norm, peer_norm, eps, torchattacks, counting, make_network, make_images
):
    """Among ten classes, gradients only, for which it takes a third. Its own AutoAttack takes 10
    steps, not 100.
    """
    network, images = make_network("softplus", 10).float().eval(), make_images(24).float()
    labels = network(images).argmax(1)
    counted, of_peer = counting(network), counting(copy.deepcopy(network))
    found = ours(standard(queries=1), counted, images, labels, ThreatModel(norm, eps))
    words = {"norm": peer_norm, "eps": eps, "steps": 100}
    with torch.random.fork_rng():
        peer = torchattacks.MultiAttack(
            [
                torchattacks.APGD(of_peer, **words),
                torchattacks.APGDT(of_peer, n_classes=10, **words),
                torchattacks.FAB(of_peer, n_classes=10, multi_targeted=True, **words),
            ]
        )
        points = peer(images, labels)
    right, right_of_peer = ((network(x).argmax(1) == labels).sum() for x in (found, points))
    assert 4 < right <= right_of_peer
    assert counted.gradients < of_peer.gradients / 3


@pytest.fixture(scope="module")
def hardened() -> nn.Module:
    """Three layers that name the ten digits of scikit-learn, trained on two-step attacks for some
    seconds.
    """
    images, labels = (part[100:] for part in load_digits())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 8 * 8, 10),
        )
    generator, optimiser = seeded(), torch.optim.Adam(network.parameters(), lr=2e-3)
    attack, threat = PGD(steps=2, step_size=0.75), ThreatModel("linf", 0.15)
    for _ in range(8):
        for rows in torch.randperm(len(images), generator=generator).split(64):
            points = attack(network, images[rows], labels[rows], threat, generator=generator)
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(points), labels[rows]).backward()
            optimiser.step()
    return network.eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "peer_norm", "eps"), [("linf", "Linf", 0.15), ("l2", "L2", 1.5)])
def test_the_suite_agrees_with_autoattack_on_a_hardened_network(
    norm, peer_norm, eps, torchattacks, hardened
):
    """Within one image in a hundred, of ten classes, with both as they are; about half of the
    images stand.
    """
    images, labels = (part[:100] for part in load_digits())
    found = ours(standard(), hardened, images, labels, ThreatModel(norm, eps))
    with torch.random.fork_rng():
        peer = torchattacks.AutoAttack(
            copy.deepcopy(hardened), norm=peer_norm, eps=eps, n_classes=10, seed=0
        )
        points = peer(images, labels)
    clean, right, right_of_peer = (
        (hardened(x).argmax(1) == labels).sum() for x in (images, found, points)
    )
    assert clean > 90
    assert 20 < right_of_peer < 80
    assert right <= right_of_peer + 1


@pytest.mark.parametrize(
    ("norm", "peers"),
    [
        ("linf", {"LInfFMNAttack": {"steps": 1000}}),
        ("l2", {"L2FMNAttack": {"steps": 1000}, "DDNAttack": {"steps": 1000}}),
        ("l1", {"L1FMNAttack": {"steps": 1000}, "EADAttack": {"steps": 300}}),
    ],
    ids=["linf", "l2", "l1"],
)
def test_no_search_of_foolbox_finds_nearer_images_on_a_hardened_network(
    norm, peers, foolbox, hardened
):
    images, labels = (part[:32] for part in load_digits())
    size = ThreatModel(norm).measure.size
    found = ours(Nearest(), hardened, images, labels, ThreatModel(norm))
    right = hardened(images).argmax(1) == labels
    assert right.sum() > 20
    assert (hardened(found).argmax(1) != labels).all()
    model = foolbox.PyTorchModel(copy.deepcopy(hardened), bounds=(0, 1), device="cpu")
    for name, settings in peers.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            _, points, fooled = getattr(foolbox.attacks, name)(**settings)(
                model, images, foolbox.criteria.Misclassification(labels), epsilons=None
            )
        kept = right & fooled
        assert kept.sum() > 16
        assert size(found - images)[kept].mean() < size(points - images)[kept].mean()
