"""What training descends: a loss of the logits on clean images, on the worst images near them, or
on both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from robustmri.attacks import PGD
from robustmri.attacks.engine import climb, draw_seeds, frozen, random_points
from robustmri.attacks.protocol import Attack, Predictor
from robustmri.attacks.step_rules import steepest, steepest_step
from robustmri.attacks.streams import like, normals, open_streams
from robustmri.core.arrays import Images, Labels, Logits
from robustmri.core.errors import SettingsError, did_you_mean
from robustmri.losses import boosted_cross_entropy, kl_divergence
from robustmri.models.classifier import Classifier
from robustmri.models.dual_norm import using
from robustmri.models.optimised import Precision
from robustmri.threat.eps import check_eps, parse_eps
from robustmri.threat.threat_model import ThreatModel
from robustmri.training.minimax import Batch as Batch
from robustmri.training.minimax import Objective as Objective
from robustmri.training.minimax import attacked_by, ramped, searched
from robustmri.training.settings import TrainSettings


def standard(label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy on the images as they are."""
    return Objective(
        lambda clean, attacked, labels: F.cross_entropy(
            clean, labels, label_smoothing=label_smoothing
        )
    )


def adversarial(
    attack: Attack,
    threat: ThreatModel,
    *,
    ramp_epochs: float = 0.0,
    label_smoothing: float = 0.0,
    clean_share: float = 0.0,
    precision: Precision | None = None,
) -> Objective:
    """Cross-entropy on the worst images that `attack` finds in the threat's set.

    The attack sees the network as it is used later: batch-norm with its running statistics, folded
    into the convolutions. The step itself trains batch-norm on the attacked images.

    Args:
        attack: the inner maximisation.
        threat: its set; eps grows linearly from zero over the first `ramp_epochs` epochs.
        ramp_epochs: length of the ramp.
        label_smoothing: share of the label spread over all classes.
        clean_share: share of the loss that is on the clean images.
        precision: arithmetic of the inner loop; None: the faster one on this hardware.

    Reference: Madry et al. 2018, Eq. 2.1; with a share of clean images, Goodfellow et al. 2015,
    Sec. 6.
    """

    def loss(clean: Logits, attacked: Logits, labels: Labels) -> Tensor:
        worst = F.cross_entropy(attacked, labels, label_smoothing=label_smoothing)
        if not clean_share:
            return worst
        return (
            clean_share * F.cross_entropy(clean, labels, label_smoothing=label_smoothing)
            + (1 - clean_share) * worst
        )

    return Objective(
        loss, attacked_by(attack, threat, ramp_epochs, precision), clean=clean_share > 0
    )


def one_step(threat: ThreatModel, **settings: Any) -> Objective:
    """`adversarial`, and its settings, with a single step of 1.25 eps from a random point,
    projected back.

    For one gradient an image it comes close to many steps, but it can collapse: within an epoch the
    network learns to answer this one step and nothing else. The robust validation is by another
    attack, so that this is seen.

    Reference: Wong, Rice & Kolter 2020, Algorithm 3.
    """
    return adversarial(PGD(steps=1, step_size=1.25, keep="last"), threat, **settings)


def free(
    threat: ThreatModel, *, replays: int = 4, ramp_epochs: float = 0.0, label_smoothing: float = 0.0
) -> Objective:
    """Cross-entropy on attacked images whose next step comes from the gradient that trained the
    weights.

    Each batch is stepped on `replays` times; the perturbation, a step of eps further each time, is
    carried from one replay to the next. So an attacked image costs no gradient of its own.

    In the paper the perturbation is also carried on to the next batch, that is, to other images.
    Here each batch begins at a random point of the set: it serves as well (Wong et al. 2020, Sec.
    4.1), and a run that is resumed at the end of an epoch needs nothing but its weights to go on
    the same.

    Reference: Shafahi et al. 2019, Algorithm 1.
    """
    # By batch, so that batches whose gradients are summed before a step do not mix; an entry leaves
    # with its images.
    carried = WeakTensorKeyDictionary()

    def search(classifier: nn.Module, batch: Batch) -> Images:
        if batch.replay == 0:
            seeds = [seed for (seed,) in draw_seeds(batch.generator, len(batch.images), each=1)]
            carried[batch.images] = random_points(
                batch.images, ramped(threat, batch.epoch, ramp_epochs), seeds
            )
        points: Images = carried[batch.images]
        return points

    def listen(batch: Batch, gradient: Images) -> None:
        here, points = ramped(threat, batch.epoch, ramp_epochs), carried[batch.images]
        climbed = points + steepest_step(1.0, here.allow(torch.nan_to_num(gradient)), here)
        carried[batch.images] = here.project(climbed, batch.images)

    def loss(clean: None, attacked: Logits, labels: Labels) -> Tensor:
        return F.cross_entropy(attacked, labels, label_smoothing=label_smoothing)

    return Objective(loss, search, clean=False, listen=listen, replays=replays)


def trades(
    threat: ThreatModel,
    *,
    beta: float = 6.0,
    steps: int = 10,
    step_size: float = 0.25,
    ramp_epochs: float = 0.0,
    label_smoothing: float = 0.0,
    precision: Precision | None = None,
) -> Objective:
    """Cross-entropy on the clean images, plus `beta` times how far an attack can drive the
    prediction from theirs.

    The attack climbs that divergence itself, KL(clean || attacked), from a small Gaussian step
    (0.001) off each image, where it is not flat; labels play no part in it.

    Reference: Zhang et al. 2019, Eq. 5 and Algorithm 1.
    """

    def loss(clean: Logits, attacked: Logits, labels: Labels) -> Tensor:
        natural = F.cross_entropy(clean, labels, label_smoothing=label_smoothing)
        return natural + beta * kl_divergence(attacked, clean).mean()

    def find(network: nn.Module, view: Predictor, batch: Batch, here: ThreatModel) -> Images:
        images = batch.images
        # In float32, and not by the view: in bfloat16 so small a step can leave the logits as they
        # are, and where both are equal the divergence has no gradient to climb.
        with frozen(network), using(network, "clean"), torch.no_grad():
            reference = network(images)
        noise = normals(
            open_streams(batch.generator, len(images), images.device), images[0].numel()
        )
        return climb(
            view,
            images,
            batch.labels,
            here,
            start=here.project(images + 0.001 * like(noise, images), images),
            steps=steps,
            rule=steepest(step_size),
            objective=lambda points, logits, rows: kl_divergence(logits, reference[rows]),
            keep="last",
            judged=False,
        ).images

    return Objective(loss, searched(find, threat, ramp_epochs, precision))


def mart(
    attack: Attack,
    threat: ThreatModel,
    *,
    weight: float = 5.0,
    ramp_epochs: float = 0.0,
    precision: Precision | None = None,
) -> Objective:
    """Boosted cross-entropy on the worst images, plus `weight` times KL(clean || attacked) where
    the clean is unsure.

    The divergence of each image counts by 1 - p_y(x): an image that is misclassified untouched has
    no prediction worth keeping apart from its label's.

    Reference: Wang et al. 2020, Eq. 11.
    """

    def loss(clean: Logits, attacked: Logits, labels: Labels) -> Tensor:
        unsure = 1 - clean.softmax(1).gather(1, labels[:, None])[:, 0]
        return (
            boosted_cross_entropy(attacked, labels)
            + weight * kl_divergence(attacked, clean) * unsure
        ).mean()

    return Objective(loss, attacked_by(attack, threat, ramp_epochs, precision))


def noisy(sigma: float, *, label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy on images under Gaussian noise, unclipped: for a classifier that is certified
    by randomised smoothing, which will ask it about just such images.

    Args:
        sigma: standard deviation of the noise, in image units.
        label_smoothing: share of the label spread over all classes.

    Reference: Cohen et al. 2019, Sec. 3.3.
    """

    def search(classifier: nn.Module, batch: Batch) -> Images:
        images = batch.images
        noise = normals(
            open_streams(batch.generator, len(images), images.device), images[0].numel()
        )
        return images + sigma * like(noise, images)

    def loss(clean: None, attacked: Logits, labels: Labels) -> Tensor:
        return F.cross_entropy(attacked, labels, label_smoothing=label_smoothing)

    return Objective(loss, search, clean=False)


def with_logit_pairing(objective: Objective, weight: float) -> Objective:
    """`objective` plus `weight` times the mean square between clean and attacked logits.

    Reference: Kannan, Kurakin & Goodfellow 2018.
    """

    def loss(clean: Logits, attacked: Logits, labels: Labels) -> Tensor:
        return objective.loss(clean, attacked, labels) + weight * F.mse_loss(attacked, clean)

    return replace(objective, loss=loss, clean=True)


def threat_of(settings: TrainSettings, classifier: Classifier) -> ThreatModel:
    """The threat model that the settings train against.

    Raises:
        ThreatModelError: an eps that is more than the whole range of grey values.
    """
    eps, spec = parse_eps(settings.eps), classifier.spec
    check_eps(eps, settings.norm, std=spec.grey_std, shape=spec.shape)
    return ThreatModel(norm=settings.norm, eps=eps.in_image_units(spec.grey_std))


@dataclass(frozen=True)
class Method:
    """A way to train, as settings name it.

    Args:
        title: how a report names a classifier that was trained so.
        build: settings and classifier to the objective.
        attack: the attack of ours that makes its training examples; None where there are none.
        sees_both: whether its loss looks at clean and at attacked images of itself.
        shares: whether `clean_share` can make it look at clean images too.
        smooths: whether `label_smoothing` has a meaning.
    """

    title: str
    build: Callable[[TrainSettings, Classifier], Objective]
    attack: str | None = "pgd"
    sees_both: bool = False
    shares: bool = False
    smooths: bool = True


def _pgd(settings: TrainSettings) -> PGD:
    # The last iterate, as the method has it: the best of all would be the same point most of the
    # time.
    return PGD(steps=settings.attack_steps, step_size=settings.attack_step_size, keep="last")


def _precision(settings: TrainSettings) -> Precision | None:
    return None if settings.precision == "auto" else settings.precision


OBJECTIVES: dict[str, Method] = {
    "standard": Method(
        "Standard training",
        lambda settings, classifier: standard(settings.label_smoothing),
        attack=None,
    ),
    "adversarial": Method(
        "Adversarial training",
        lambda settings, classifier: adversarial(
            _pgd(settings),
            threat_of(settings, classifier),
            ramp_epochs=settings.ramp_epochs,
            label_smoothing=settings.label_smoothing,
            clean_share=settings.clean_share,
            precision=_precision(settings),
        ),
        shares=True,
    ),
    "one-step": Method(
        "One-step adversarial training",
        lambda settings, classifier: one_step(
            threat_of(settings, classifier),
            ramp_epochs=settings.ramp_epochs,
            label_smoothing=settings.label_smoothing,
            clean_share=settings.clean_share,
            precision=_precision(settings),
        ),
        shares=True,
    ),
    "free": Method(
        "Free adversarial training",
        lambda settings, classifier: free(
            threat_of(settings, classifier),
            replays=settings.replays,
            ramp_epochs=settings.ramp_epochs,
            label_smoothing=settings.label_smoothing,
        ),
    ),
    "trades": Method(
        "TRADES",
        lambda settings, classifier: trades(
            threat_of(settings, classifier),
            beta=settings.beta,
            steps=settings.attack_steps,
            step_size=settings.attack_step_size,
            ramp_epochs=settings.ramp_epochs,
            label_smoothing=settings.label_smoothing,
            precision=_precision(settings),
        ),
        sees_both=True,
    ),
    "mart": Method(
        "MART",
        lambda settings, classifier: mart(
            _pgd(settings),
            threat_of(settings, classifier),
            weight=settings.beta,
            ramp_epochs=settings.ramp_epochs,
            precision=_precision(settings),
        ),
        sees_both=True,
        smooths=False,
    ),
    "noisy": Method(
        "Training under noise",
        lambda settings, classifier: noisy(
            settings.noise, label_smoothing=settings.label_smoothing
        ),
        attack=None,
    ),
}
"""Name in the settings to what it stands for."""


def check_objective(settings: TrainSettings) -> Method:
    """What the settings name; settings that it leaves without effect are refused.

    Raises:
        SettingsError: no such objective, or a setting that has no meaning with it.
    """
    name = settings.objective
    if name not in OBJECTIVES:
        raise SettingsError(f"There is no objective {name!r}. {did_you_mean(name, OBJECTIVES)}")
    method = OBJECTIVES[name]
    if settings.clean_share and not method.shares:
        sharing = ", ".join(one for one, kind in OBJECTIVES.items() if kind.shares)
        raise SettingsError(f"clean_share belongs to {sharing}, and not to {name!r}. Set it to 0.")
    if settings.logit_pairing and not settings.attacked:
        raise SettingsError(
            "logit_pairing needs attacked images. Set it to 0, or choose another objective."
        )
    if settings.label_smoothing and not method.smooths:
        raise SettingsError(f"label_smoothing has no meaning in {name!r}. Set it to 0.")
    sees_both = method.sees_both or settings.clean_share or settings.logit_pairing
    if settings.dual_batch_norm and not sees_both:
        raise SettingsError(
            "dual_batch_norm needs an objective that looks at clean and at attacked images. Set "
            "clean_share, or choose "
            f"{', '.join(one for one, kind in OBJECTIVES.items() if kind.sees_both)}."
        )
    return method


def objective_of(settings: TrainSettings, classifier: Classifier) -> Objective:
    """The objective that the settings name, with its further terms."""
    objective = check_objective(settings).build(settings, classifier)
    weight = settings.logit_pairing
    return with_logit_pairing(objective, weight) if weight else objective
