"""Each library's way to do each task: one small function, written as a user of that library would
write it.

All take a `Setting` and give attacked images, a batch for each radius. Where a library has a
default that only makes it slow (ART attacks one image at a time), it is set to what all use; every
other default is left. Nothing of what we do to be fast is done for the others, and nothing is done
to slow them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.setting import Setting
from robustmri.attacks import PGD, Attack, fgsm, make_attack
from robustmri.attacks.cascade import Cascade, standard
from robustmri.attacks.minimal_eps import SmallestEps
from robustmri.core.arrays import Images, Labels
from robustmri.evaluation.attacked import TOLERANCE, attack_batch, quick, verify
from robustmri.models.optimised import OptimisedView, Precision
from robustmri.threat.norms import LINF, per_image
from robustmri.threat.threat_model import ThreatModel

Points = list[Images]
OURS = "robustmri"


class Contender(NamedTuple):
    """A name, how it does the task, the module that it needs, the most rounds it takes part in, and
    what it is.
    """

    name: str
    attack: Callable[[Setting], Points]
    library: str = ""
    rounds: int = 0
    note: str = ""


# --- robustmri: as an evaluation does it, building the view and the verification included ---


def _view(setting: Setting, precision: Precision | None = None) -> OptimisedView:
    setting.classifier.eval().requires_grad_(False)
    example = setting.images.new_zeros(2, *setting.images.shape[1:])
    return OptimisedView(setting.classifier, example, precision=precision)


def _evaluated(
    attack: Attack, setting: Setting, *, norm: str = "linf", precision: Precision | None = None
) -> list[Images]:
    view, generator = _view(setting, precision), torch.Generator().manual_seed(setting.seed)
    threat = ThreatModel(norm, setting.eps if norm == "linf" else torch.inf)
    clean = (
        [None] * len(setting.images)
        if setting.clean is None
        else setting.clean.split(setting.batch)
    )
    return [
        torch.cat(
            [
                attack_batch(
                    attack,
                    setting.classifier,
                    view,
                    images,
                    labels,
                    threat,
                    generator=generator,
                    clean=known,
                ).images
                for (images, labels), known in zip(setting.batches(), clean, strict=False)
            ]
        )
    ]


def _pgd(setting: Setting) -> PGD:
    return PGD(steps=setting.steps, step_size=setting.step_size)


def ours_pgd(setting: Setting) -> Points:
    return _evaluated(_pgd(setting), setting)


def ours_fgsm_then_pgd(setting: Setting) -> Points:
    """The cheap attack first, the strong one on what it leaves standing."""
    return _evaluated(Cascade({"fgsm": quick(fgsm()), "pgd": quick(_pgd(setting))}), setting)


def ours_pgd_in_fp32(setting: Setting) -> Points:
    return _evaluated(_pgd(setting), setting, precision="fp32")


def ours_pgd_to_the_end(setting: Setting) -> Points:
    """Every image takes every step, as in the peers."""
    view, generator = _view(setting), torch.Generator().manual_seed(setting.seed)
    attack, threat, found = _pgd(setting), ThreatModel(eps=setting.eps), []
    for images, labels in setting.batches():
        points = attack(view, images, labels, threat, generator=generator)
        found.append(verify(setting.classifier, points, images, labels, threat).images)
    return [torch.cat(found)]


def ours_cw(setting: Setting) -> Points:
    return _evaluated(make_attack("cw", steps=setting.steps, step_size=setting.step_size), setting)


def ours_cw_l2(setting: Setting) -> Points:
    attack = make_attack("cw-l2", steps=setting.work.cw_steps, searches=setting.work.cw_searches)
    return _evaluated(attack, setting, norm="l2", precision="fp32")


def ours_cw_l2_from_boundary(setting: Setting) -> Points:
    attack = make_attack("cw-l2", steps=max(1, 6 * setting.work.cw_steps // 5), start="boundary")
    return _evaluated(attack, setting, norm="l2", precision="fp32")


def ours_standard(setting: Setting) -> Points:
    return _evaluated(
        make_attack("standard", steps=setting.work.suite_steps, queries=setting.work.queries),
        setting,
    )


def ours_standard_with_all_queries(setting: Setting) -> Points:
    """As AutoAttack spends them: on every image that stands, wherever Square came."""
    suite = standard(steps=setting.work.suite_steps, queries=setting.work.queries)
    members = {name: one for name, one in suite.members.items() if name != "square"}
    return _evaluated(Cascade(members), setting)


def ours_standard_in_10_steps(setting: Setting) -> Points:
    """With as many steps as torchattacks' AutoAttack takes by itself."""
    steps = min(10, setting.work.suite_steps)
    return _evaluated(make_attack("standard", steps=steps, queries=setting.work.queries), setting)


def ours_curve(setting: Setting) -> Points:
    """One search for every image's smallest radius; the points at each radius follow from it."""
    attack = SmallestEps(quick(_pgd(setting)), tuple(setting.radii))
    (found,) = _evaluated(attack, setting.at(max(setting.radii)))
    sizes = LINF.size(found - setting.images)
    return [
        torch.where(per_image(sizes <= radius + TOLERANCE, found), found, setting.images)
        for radius in setting.radii
    ]


# --- torchattacks ---


def _in_batches(attack: Callable[[Images, Labels], Images], setting: Setting) -> Images:
    return torch.cat([attack(images, labels) for images, labels in setting.batches()])


def torchattacks_pgd(setting: Setting) -> Points:
    import torchattacks

    attack = torchattacks.PGD(
        setting.classifier, eps=setting.eps, alpha=setting.step, steps=setting.steps
    )
    return [_in_batches(attack, setting)]


def torchattacks_cw(setting: Setting) -> Points:
    import torchattacks

    return [_in_batches(torchattacks.CW(setting.classifier, steps=setting.work.cw_steps), setting)]


def torchattacks_curve(setting: Setting) -> Points:
    return [torchattacks_pgd(setting.at(radius))[0] for radius in setting.radii]


def torchattacks_autoattack(setting: Setting) -> Points:
    """With its own numbers of steps: 10 where the paper has 100."""
    import torchattacks

    attack = torchattacks.AutoAttack(
        setting.classifier, eps=setting.eps, n_classes=setting.classes, seed=setting.seed
    )
    for part in attack._autoattack.attacks:
        if hasattr(part, "n_queries"):
            part.n_queries = setting.work.queries
    return [_in_batches(attack, setting)]


def torchattacks_autoattack_paper(setting: Setting) -> Points:
    """The same attacks with the paper's 100 steps."""
    import torchattacks

    model, eps, steps, classes = (
        setting.classifier,
        setting.eps,
        setting.work.suite_steps,
        setting.classes,
    )
    parts = [
        torchattacks.APGD(model, eps=eps, steps=steps),
        torchattacks.APGDT(model, eps=eps, steps=steps, n_classes=classes),
        torchattacks.FAB(model, eps=eps, steps=steps, n_classes=classes, multi_targeted=True),
        torchattacks.Square(model, eps=eps, n_queries=setting.work.queries),
    ]
    return [_in_batches(torchattacks.MultiAttack(parts), setting)]


def torchattacks_safe_parts(setting: Setting, steps: int = 10) -> Points:
    """What of AutoAttack runs on three classes, each on what is left, with its own 10 steps."""
    import torchattacks

    model, eps = setting.classifier, setting.eps
    parts = [
        torchattacks.APGD(model, eps=eps, steps=steps, loss="ce"),
        torchattacks.APGD(model, eps=eps, steps=steps, loss="dlr"),
        torchattacks.FAB(model, eps=eps, steps=steps, n_classes=setting.classes),
        torchattacks.Square(model, eps=eps, n_queries=setting.work.queries),
    ]
    return [_in_batches(torchattacks.MultiAttack(parts), setting)]


def torchattacks_safe_parts_paper(setting: Setting) -> Points:
    return torchattacks_safe_parts(setting, steps=setting.work.suite_steps)


# --- foolbox ---


def _foolbox(attack: Any, setting: Setting, epsilons: Any) -> list[Any]:
    import foolbox

    model = foolbox.PyTorchModel(setting.classifier, bounds=(0, 1), device="cpu")
    return [
        attack(model, images, labels, epsilons=epsilons)[1] for images, labels in setting.batches()
    ]


def foolbox_pgd(setting: Setting) -> Points:
    import foolbox

    attack = foolbox.attacks.LinfPGD(rel_stepsize=setting.step_size, steps=setting.steps)
    return [torch.cat(_foolbox(attack, setting, setting.eps))]


def foolbox_cw(setting: Setting) -> Points:
    import foolbox

    work = setting.work
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=work.cw_searches, steps=work.cw_steps
    )
    return [torch.cat(_foolbox(attack, setting, None))]


def foolbox_curve(setting: Setting) -> Points:
    import foolbox

    attack = foolbox.attacks.LinfPGD(rel_stepsize=setting.step_size, steps=setting.steps)
    found = _foolbox(attack, setting, list(setting.radii))
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


# --- ART ---


def _art_estimator(setting: Setting) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        setting.classifier,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(setting.images.shape[1:]),
        nb_classes=setting.classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def _art(attack: Any, setting: Setting) -> Points:
    return [torch.from_numpy(attack.generate(x=setting.images.numpy(), y=setting.labels.numpy()))]


def art_pgd(setting: Setting) -> Points:
    from art.attacks.evasion import ProjectedGradientDescent

    attack = ProjectedGradientDescent(
        _art_estimator(setting),
        eps=setting.eps,
        eps_step=setting.step,
        max_iter=setting.steps,
        num_random_init=1,
        batch_size=setting.batch,
        verbose=False,
    )
    return _art(attack, setting)


def art_cw(setting: Setting) -> Points:
    """With its own 10 steps; each has a line search of up to ten forwards, and 50 took many
    minutes.
    """
    from art.attacks.evasion import CarliniL2Method

    attack = CarliniL2Method(
        _art_estimator(setting),
        binary_search_steps=setting.work.cw_searches,
        max_iter=min(10, setting.work.cw_steps),
        batch_size=setting.batch,
        verbose=False,
    )
    return _art(attack, setting)


def art_autoattack(setting: Setting) -> Points:
    """Its four attacks with its own settings; the first step is the paper's, twice eps."""
    from art.attacks.evasion import AutoAttack

    attack = AutoAttack(
        _art_estimator(setting), eps=setting.eps, eps_step=2 * setting.eps, batch_size=setting.batch
    )
    for part in attack.attacks:
        part.verbose = False
        part.max_iter = min(part.max_iter, setting.work.queries)  # Less only to warm up.
    return _art(attack, setting)


# --- secml-torch ---


def _secml(attack: Any, setting: Setting) -> Points:
    from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(setting.images, setting.labels), batch_size=setting.batch)
    found = attack(BasePyTorchClassifier(setting.classifier), loader)
    return [torch.cat([images for images, _ in found])]


def secml_pgd(setting: Setting) -> Points:
    from secmlt.adv.backends import Backends
    from secmlt.adv.evasion.perturbation_models import LpPerturbationModels
    from secmlt.adv.evasion.pgd import PGD as SecmlPGD  # noqa: N811

    attack = SecmlPGD(
        perturbation_model=LpPerturbationModels.LINF,
        epsilon=setting.eps,
        num_steps=setting.steps,
        step_size=setting.step,
        random_start=True,
        backend=Backends.NATIVE,
    )
    return _secml(attack, setting)


def secml_cw(setting: Setting) -> Points:
    """It has none of its own: this is foolbox's, called by it."""
    from secmlt.adv.backends import Backends
    from secmlt.adv.evasion.cw import CW

    work = setting.work
    attack = CW(
        binary_search_steps=work.cw_searches, num_steps=work.cw_steps, backend=Backends.FOOLBOX
    )
    return _secml(attack, setting)
