"""Attacks of other libraries, called as ours are, held to the same threat and verified alike."""

from __future__ import annotations

import sys
import types
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from robustmri.attacks import PGD, Facts, ThirdParty, find_attack, make_attack
from robustmri.attacks.third_party import Opaque
from robustmri.core.errors import SettingsError, ThreatModelError
from robustmri.evaluation.attacked import attack_batch
from robustmri.evaluation.cost import AttackCost
from robustmri.evaluation.plan import resolve_attacks
from robustmri.evaluation.settings import EvaluateSettings, Limits
from robustmri.threat.threat_model import ThreatModel
from robustmri.verbs.evaluate import evaluate
from tiny import read_outcomes, rows_of


@pytest.fixture(scope="module")
def installed():
    for library in ("torchattacks", "foolbox"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip(library, exc_type=ImportError)


def with_peers(test):
    return pytest.mark.usefixtures("installed")(test)


def run(name, trained, blobs, threat, n=24, seed=0, cost=None, **settings):
    """Verified outcome of an attack on the first images."""
    images, labels = (part[:n] for part in blobs)
    generator, attack = torch.Generator().manual_seed(seed), make_attack(name, **settings)
    return attack_batch(
        attack, trained, trained, images, labels, threat, generator=generator, cost=cost
    )


BUDGET = [
    ("torchattacks:PGD", "linf", {"alpha": 0.03}),
    ("torchattacks:FGSM", "linf", {}),
    ("torchattacks:PGDL2", "l2", {"alpha": 0.3}),
    ("torchattacks:Square", "linf", {"n_queries": 50}),
    ("torchattacks:APGD", "l2", {"steps": 5}),
    ("foolbox:LinfPGD", "linf", {"steps": 10}),
    ("foolbox:L2BasicIterativeAttack", "l2", {}),
    ("foolbox:L1PGD", "l1", {}),
]
RADIUS = {"linf": 0.15, "l2": 1.0, "l1": 8.0}


@with_peers
@pytest.mark.parametrize(("name", "norm", "settings"), BUDGET, ids=[name for name, _, _ in BUDGET])
def test_it_keeps_to_the_radius_of_the_threat(name, norm, settings, trained, blobs):
    facts = find_attack(name).facts
    assert not facts.minimal
    assert norm in facts.norms
    done = run(name, trained, blobs, ThreatModel(norm, RADIUS[norm]), **settings)
    assert done.verified.all()
    assert done.fooled.any()
    sizes = {"linf": done.distance("linf"), "l2": done.distance("l2"), "l1": done.distance("l1")}[
        norm
    ]
    assert 0.3 * RADIUS[norm] < sizes.max() <= RADIUS[norm] + 1e-6


@with_peers
@pytest.mark.parametrize(
    "name", ["torchattacks:DeepFool", "foolbox:L2DeepFoolAttack", "foolbox:LInfFMNAttack"]
)
def test_without_a_radius_it_is_minimal(name, trained, blobs):
    assert find_attack(name).facts.minimal
    norm = "linf" if "Inf" in name else "l2"
    done = run(name, trained, blobs, ThreatModel(norm, torch.inf))
    assert done.verified.all()
    assert done.fooled.float().mean() > 0.3
    assert (done.distance("l2")[~done.fooled] == 0).all()


@with_peers
def test_it_finds_what_the_library_finds_by_itself(trained, blobs):
    import torchattacks

    images, labels = blobs[0][:24], blobs[1][:24]
    settings = {"alpha": 0.02, "steps": 4, "random_start": False}
    threat = ThreatModel("linf", 0.07)
    found = make_attack("torchattacks:PGD", **settings)(
        trained, images, labels, threat, generator=torch.Generator()
    )
    assert torch.equal(found, torchattacks.PGD(trained, eps=0.07, **settings)(images, labels))


@with_peers
@pytest.mark.parametrize("name", ["torchattacks:PGD", "foolbox:LinfPGD"])
def test_the_generator_decides_and_nothing_global_moves(name, trained, blobs):
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1]
    threat = ThreatModel("linf", 0.1)
    one, same, other = (run(name, trained, blobs, threat, seed=seed, steps=2) for seed in (0, 0, 1))
    assert torch.equal(one.images, same.images)
    assert not torch.equal(one.images, other.images)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


@with_peers
@pytest.mark.parametrize(
    ("name", "threat", "settings", "limits"),
    [
        ("torchattacks:PGD", ThreatModel("linf", 0.15), {"steps": 10}, Limits(gradients=9)),
        ("foolbox:LinfPGD", ThreatModel("linf", 0.15), {"steps": 10}, Limits(forwards=10)),
        ("torchattacks:Square", ThreatModel("linf", 0.15), {"n_queries": 50}, Limits(forwards=30)),
        ("torchattacks:DeepFool", ThreatModel("l2", torch.inf), {}, Limits(seconds=1e-9)),
    ],
    ids=str,
)
def test_a_spent_budget_breaks_it_off_and_leaves_the_images(
    name, threat, settings, limits, trained, blobs
):
    cost = AttackCost(24, limits)
    done = run(name, trained, blobs, threat, cost=cost, **settings)
    assert cost.cut_short
    assert torch.equal(done.images, blobs[0][:24])
    assert cost.gradients <= 24 * (limits.gradients or torch.inf)
    assert cost.forwards <= 24 * (limits.forwards or torch.inf)
    ample = AttackCost(24, Limits(seconds=60, gradients=10**6, forwards=10**6))
    whole, free = (
        run(name, trained, blobs, threat, cost=cost, **settings) for cost in (ample, None)
    )
    assert not ample.cut_short
    assert torch.equal(whole.images, free.images)
    assert not torch.equal(whole.images, done.images)


@with_peers
@pytest.mark.parametrize("name", ["torchattacks:PGD", "foolbox:LinfPGD"])
def test_it_aims_at_the_target(name, trained, blobs):
    done = run(name, trained, blobs, ThreatModel("linf", 0.4, target=2), steps=10)
    reached = done.logits.argmax(1) == 2
    assert torch.equal(done.fooled, reached & (blobs[1][:24] != 2))
    assert done.fooled.any()


@with_peers
@pytest.mark.parametrize("name", ["torchattacks:PGD", "foolbox:LinfPGD"])
def test_a_network_keeps_its_flags(name, make_network, make_images):
    network, images = make_network("batch_norm"), make_images(4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    make_attack(name, steps=2)(
        network,
        images,
        torch.zeros(4, dtype=torch.long),
        ThreatModel("linf", 0.1),
        generator=torch.Generator(),
    )
    assert all(module.training for module in network.modules())
    assert all(
        parameter.requires_grad and parameter.grad is None for parameter in network.parameters()
    )
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@with_peers
@pytest.mark.parametrize(
    ("name", "threat", "message"),
    [
        ("torchattacks:PGD", {"mask": torch.ones(1, 1, 12, 12)}, "no mask and no region"),
        ("torchattacks:PGD", {"eps": torch.full((24,), 0.1)}, "one radius for all images"),
        ("torchattacks:PGD", {"norm": "l2"}, "knows the norms linf, got l2"),
        ("torchattacks:PGD", {"bounds": (-1.0, 1.0)}, "no other bounds"),
        ("torchattacks:PGD", {"eps": torch.inf}, "finite eps"),
        ("foolbox:L2PGD", {}, "knows the norms l2, got linf"),
        ("torchattacks:VANILA", {"target": 1}, "cannot aim at a class"),
        ("foolbox:LinfFastGradientAttack", {"target": 1}, "cannot aim at a class"),
    ],
)
def test_what_a_library_cannot_do_is_said(name, threat, message, trained, blobs):
    with pytest.raises(ThreatModelError, match=message):
        run(name, trained, blobs, ThreatModel(**{"norm": "linf", "eps": 0.02, **threat}))


@with_peers
@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("torchattacks:PDG", {}, "torchattacks has no attack 'PDG'. Did you mean 'PGD'?"),
        ("foolbox:LinfPDG", {}, "foolbox has no attack 'LinfPDG'. Did you mean 'LinfPGD'?"),
        ("foolbox:PyTorchModel", {}, "foolbox has no attack"),
        (
            "torchattacks:PGD",
            {"step": 3},
            "Attack 'torchattacks:PGD' has no setting 'step'. Did you mean 'steps'?",
        ),
        ("foolbox:LinfPGD", {"stepps": 3}, "Did you mean 'steps'?"),
        ("torchattacks:PGD", {"eps": 0.1}, "takes 'eps' from the threat"),
        ("torchattacks:LGV", {}, "has no default for trainloader"),
    ],
)
def test_a_wrong_name_is_told_at_once(name, settings, message):
    with pytest.raises(SettingsError) as caught:
        make_attack(name, **settings)
    assert message in str(caught.value)


@with_peers
def test_a_mistake_within_a_library_is_quoted(trained, blobs, monkeypatch):
    def broken(*_, **__):
        raise ValueError("a mistake of its own")

    attack = make_attack("foolbox:LinfPGD", steps=1)
    monkeypatch.setattr(attack._kind, "__call__", broken)
    with pytest.raises(ThreatModelError, match="LinfPGD failed: ValueError: a mistake of its own"):
        attack(
            trained,
            blobs[0][:2],
            blobs[1][:2],
            ThreatModel(eps=0.1),
            generator=torch.Generator().manual_seed(0),
        )


def test_a_library_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(SettingsError, match="pip install torchattacks"):
        make_attack("torchattacks:PGD")
    with pytest.raises(
        SettingsError, match=r"'torchatacks' cannot be imported.*Did you mean 'torchattacks'"
    ):
        make_attack("torchatacks:PGD")


def test_the_module_around_a_predictor_hides_it(trained, blobs):
    around = Opaque(trained, blobs[0])
    assert list(around.modules()) == [around]
    assert torch.equal(around(blobs[0][:3]), trained(blobs[0][:3]))
    assert next(around.parameters()).device == blobs[0].device
    assert not around.train().place.requires_grad


@dataclass(frozen=True)
class Further:
    """Twice as far as it may."""

    times: float = 2.0

    def __call__(self, classifier, images, labels, threat, *, generator):
        return (images + self.times * threat.eps).clamp(0, 1)


class Nearest(Further):
    facts = Facts("", "Nearest of mine", "a paper", norms=("l2",), minimal=True)


@pytest.fixture
def own(monkeypatch):
    module = types.ModuleType("my_attacks")
    module.Further, module.plain, module.number = Further, lambda steps: PGD(steps=steps), 3
    module.Nearest = Nearest
    monkeypatch.setitem(sys.modules, "my_attacks", module)


def test_an_attack_of_ones_own_is_verified_like_any_other(own, trained, blobs):
    threat = ThreatModel("linf", 0.05)
    assert not run("my_attacks:Further", trained, blobs, threat).verified.all()
    assert run("my_attacks:Further", trained, blobs, threat, times=1).verified.all()
    assert make_attack("my_attacks:plain", steps=3) == PGD(steps=3)
    assert find_attack("my_attacks:Further").facts.norms == ("linf", "l2", "l1")
    stated = replace(Nearest.facts, name="my_attacks:Nearest")
    assert find_attack("my_attacks:Nearest").facts == stated


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("my_attacks:Further", {"time": 1}, "Did you mean 'times'"),
        ("my_attacks:number", {}, "has no attack 'number'"),
        ("my_atacks:Further", {}, "cannot be imported"),
        ("my_attacks:", {}, "has no attack ''"),
    ],
)
def test_what_is_not_an_attack_of_ones_own(own, name, settings, message):
    with pytest.raises(SettingsError, match=message):
        make_attack(name, **settings)


def test_settings_of_a_peer_are_kept():
    pytest.importorskip("foolbox", exc_type=ImportError)
    assert ThirdParty("foolbox", "LinfPGD", {"steps": 3}).settings == {"steps": 3}


@with_peers
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"region": "lesion"}, "cannot be confined to the region 'lesion'"),
        ({"curve": ("0.1",), "curve_attack": "torchattacks:PGD"}, "cannot draw a curve"),
        ({"norm": "l2"}, "knows the norms linf, not l2"),
        ({"options": {"torchattacks:PGD": {"step": 1}}}, "Did you mean 'steps'"),
        ({"curve": ("0.1",), "curve_attack": "torchattacks:CW"}, "no radius"),
    ],
    ids=str,
)
def test_an_evaluation_refuses_at_once_what_they_cannot_do(settings, message):
    with pytest.raises(SettingsError, match=message):
        resolve_attacks(EvaluateSettings(**{"attacks": ("torchattacks:PGD",), **settings}))


@with_peers
def test_a_whole_evaluation_with_peers(tiny_run, tiny_cohort, tmp_path, tiny_networks):
    settings = {
        "attacks": ("pgd", "torchattacks:PGD", "foolbox:LinfPGD", "torchattacks:CW"),
        "precision": "fp32",
        "limit": 6,
        "options": {
            "torchattacks:PGD": {"steps": 3, "alpha": 0.02},
            "torchattacks:CW": {"steps": 5},
        },
    }
    result = evaluate(tiny_run, tiny_cohort, tmp_path / "result", **settings)
    for name in ("torchattacks:PGD", "foolbox:LinfPGD", "torchattacks:CW"):
        rows = rows_of(read_outcomes(tmp_path / "result"), name)
        assert len(rows) == 6
        assert all(row["verified"] for row in rows)
        (told,) = [run for run in result.attacks if run.attack == name]
        assert told.settings["library"] == name.split(":")[0]
        assert told.gradients_per_image > 1
        assert {row["eps"] for row in rows} == ({np.inf} if name.endswith("CW") else {0.04})
    assert {check.status for check in result.checks} <= {"pass", "warn"}
