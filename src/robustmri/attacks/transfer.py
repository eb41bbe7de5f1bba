"""One-step and momentum attacks whose images are meant to fool other classifiers as well: R+FGSM
and the MI family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robustmri.attacks.diversity import resize_and_pad, smooth
from robustmri.attacks.engine import (
    AttackLoss,
    Look,
    LossName,
    by_backpropagation,
    by_forward,
    checked,
    climb,
    exhausted,
    loss_against,
)
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor, described
from robustmri.attacks.step_rules import Rule, Seen, State, momentum, steepest, uniform_change
from robustmri.attacks.streams import advance, like, normals, open_streams, uniforms, with_stream
from robustmri.core.arrays import Images, Labels, Logits, PerImage
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import broadcast_eps, per_image
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class RandomStep(CheckedAttack):
    """R+FGSM: a random step of part of eps, then the rest of it along the gradient found there.

    Args:
        share: part of eps that is random.
        loss: "cross_entropy" or "margin".
        keep: the "best" of the two points, or the "last", as in the paper.

    Reference: Tramer et al. 2018, Eq. 7.
    """

    facts = Facts("r-fgsm", "R+FGSM", "Tramer et al. 2018, Eq. 7", doi="10.48550/arXiv.1705.07204")

    share: float = 0.5
    loss: LossName = "cross_entropy"
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ThreatModelError(f"share must lie between 0 and 1, got {self.share}.")

    def search(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> Images:
        """See `Attack`."""
        streams = open_streams(generator, len(images), images.device)
        away = threat.measure.steepest(
            threat.allow(like(normals(streams, images[:1].numel()), images))
        )
        start = threat.project(
            images + broadcast_eps(threat.eps, images) * self.share * away, images
        )
        return climb(
            classifier,
            images,
            labels,
            threat,
            start=start,
            steps=1,
            rule=steepest(1 - self.share),
            objective=loss_against(self.loss, labels, threat),
            keep=self.keep,
        ).images


@dataclass(frozen=True)
class Transfer(CheckedAttack):
    """Steepest steps along a running sum of gradients, each taken where it depends less on this one
    classifier.

    Its five ways can be put together. All but the momentum are off by default.

    Args:
        steps: number of steps.
        step_size: length of a step as a fraction of eps; the default covers one radius, as in the
            papers.
        decay: share of the sum that the next step keeps (Dong et al. 2018, Eq. 6).
        look_ahead: take the gradient where the sum alone would lead (Lin et al. 2020, Eq. 6).
        diversity: probability that the gradient is taken through a smaller copy on a black ground
            (Xie et al. 2019).
        smallest: side of the smallest copy, as a share of the image's.
        kernel: side in pixels of a Gaussian that smooths the gradient (Dong et al. 2019, Eq. 8); 1
            smooths nothing.
        neighbours: random points around the last point, whose mean gradient corrects this one (Wang
            & He 2021).
        reach: how far from it they are, as a fraction of eps.
        loss: "cross_entropy" or "margin".
        stop_when_fooled: leave each image at its first success.
        keep: the "best" point visited, or the "last", as in the papers.
    """

    facts = Facts(
        "mi-fgsm",
        "MI-FGSM",
        "Dong et al. 2018, Eq. 6",
        doi="10.48550/arXiv.1710.06081",
        iterative=True,
    )

    steps: int = 10
    step_size: float = 0.1
    decay: float = 1.0
    look_ahead: bool = False
    diversity: float = 0.0
    smallest: float = 0.9
    kernel: int = 1
    neighbours: int = 0
    reach: float = 1.5
    loss: LossName = "cross_entropy"
    stop_when_fooled: bool = False
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            self.steps < 1
            or self.step_size <= 0
            or self.decay < 0
            or self.neighbours < 0
            or self.reach <= 0
        ):
            raise ThreatModelError(
                "steps must be at least 1, step_size and reach positive, decay and neighbours at "
                f"least 0, got {self.steps}, {self.step_size}, {self.reach}, {self.decay} and "
                f"{self.neighbours}."
            )
        if (
            not 0 <= self.diversity <= 1
            or not 0 < self.smallest <= 1
            or self.kernel < 1
            or self.kernel % 2 == 0
        ):
            raise ThreatModelError(
                "diversity must lie in [0, 1], smallest in (0, 1] and kernel must be odd, got "
                f"{self.diversity}, {self.smallest} and {self.kernel}."
            )

    @property
    def for_pictures(self) -> bool:
        """Whether it resizes or smooths what it changes."""
        return self.diversity > 0 or self.kernel > 1

    def search(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> Images:
        """See `Attack`."""
        objective, predict = (
            loss_against(self.loss, labels, threat),
            checked(classifier, labels, threat),
        )
        rule = momentum(self.step_size, self.decay)
        if self.neighbours:
            rule = self._tuned(rule, classifier, predict, objective)
        return climb(
            classifier,
            images,
            labels,
            threat,
            start=images,
            steps=self.steps,
            objective=objective,
            rule=with_stream(rule, open_streams(generator, len(images), images.device)),
            look=self._look(threat),
            stop_when_fooled=self.stop_when_fooled,
            keep=self.keep,
        ).images

    def _look(self, threat: ThreatModel) -> Look:
        """Values and logits at the points themselves, so that success is judged there; the gradient
        from elsewhere.
        """

        def look(
            classifier: Predictor, points: Images, rows: Tensor, objective: AttackLoss, state: State
        ) -> tuple[PerImage, Logits, Images]:
            here, at = threat.at(rows), points
            if self.look_ahead:
                free = here.allow(torch.ones_like(points)).flatten(1).sum(1)
                # The papers' code divides a gradient by its mean absolute value, where `momentum`
                # divides by the sum.
                total = state["total"] * per_image(free, points)
                at = (
                    points + self.decay * uniform_change(self.step_size, here, points) * total
                ).clamp(*here.bounds)
            values, logits, gradient = self._slope(
                classifier, at, rows, objective, state["stream"], here
            )
            if self.look_ahead or self.diversity:
                values, logits, _ = by_forward(classifier, points, rows, objective, state)
            return values, logits, gradient

        return look

    def _slope(
        self,
        classifier: Predictor,
        at: Images,
        rows: Tensor,
        objective: AttackLoss,
        streams: Tensor,
        here: ThreatModel,
    ) -> tuple[PerImage, Logits, Images]:
        """AttackLoss, logits and the gradient, smoothed, at these points or through smaller copies
        of them.
        """

        def through(points: Images) -> Logits:
            numbers = uniforms(streams, points.dim())
            return classifier(
                resize_and_pad(points, numbers, self.diversity, self.smallest, here.bounds[0])
            )

        predict = through if self.diversity else classifier
        values, logits, gradient = by_backpropagation(predict, at, rows, objective, {})
        return values, logits, smooth(gradient, self.kernel)

    def _tuned(
        self, rule: Rule, classifier: Predictor, predict: Predictor, objective: AttackLoss
    ) -> Rule:
        """`rule` on gradients corrected by what those around the last point were, on average,
        beyond its own.

        Reference: Wang & He 2021, Eq. 4 and Algorithm 1.
        """

        def init(start: Images) -> State:
            everyone = torch.arange(len(start), device=start.device)
            return {"variance": torch.zeros_like(start), "row": everyone, **rule.init(start)}

        def update(seen: Seen, state: State) -> tuple[Images, State]:
            points, after = rule.update(
                seen._replace(gradient=seen.gradient + state["variance"]), state
            )
            total, rows, taken = torch.zeros_like(seen.points), state["row"], 0
            for neighbour in range(1, self.neighbours + 1 if seen.step < self.steps - 1 else 1):
                if exhausted(classifier):
                    break
                streams = advance(state["stream"] ^ neighbour)
                away = like(2 * uniforms(streams, seen.points[:1].numel()) - 1, seen.points)
                near = seen.points + seen.threat.allow(
                    uniform_change(self.reach, seen.threat, away) * away
                )
                total += self._slope(
                    predict, near.clamp(*seen.threat.bounds), rows, objective, streams, seen.threat
                )[2]
                taken += 1
            variance = seen.threat.allow(total / max(taken, 1) - seen.gradient)
            return points, {"variance": variance, "row": rows, **after}

        return Rule(init, update)


@described(
    Facts(
        "ni-fgsm",
        "NI-FGSM",
        "Lin et al. 2020, Sec. 3.1",
        doi="10.48550/arXiv.1908.06281",
        iterative=True,
    )
)
def ni_fgsm(**settings: object) -> Transfer:
    """Nesterov's look-ahead on the sum of gradients. Reference: Lin et al. 2020, Sec. 3.1."""
    return Transfer(**{"look_ahead": True, **settings})  # type: ignore[arg-type]


@described(Facts("di-fgsm", "DI-FGSM", "Xie et al. 2019", doi="10.48550/arXiv.1803.06978"))
def di_fgsm(**settings: object) -> Transfer:
    """Gradients through randomly smaller copies, without momentum. Reference: Xie et al. 2019, Sec.
    3.3.
    """
    return Transfer(**{"decay": 0.0, "diversity": 0.5, **settings})  # type: ignore[arg-type]


@described(
    Facts("ti-fgsm", "TI-FGSM", "Dong et al. 2019, Sec. 3.3", doi="10.48550/arXiv.1904.02884")
)
def ti_fgsm(**settings: object) -> Transfer:
    """Smoothed gradients, without momentum. Reference: Dong et al. 2019, Sec. 3.3."""
    return Transfer(**{"decay": 0.0, "kernel": 15, **settings})  # type: ignore[arg-type]


@described(
    Facts(
        "vmi-fgsm",
        "VMI-FGSM",
        "Wang & He 2021, Algorithm 1",
        doi="10.48550/arXiv.2103.15571",
        iterative=True,
    )
)
def vmi_fgsm(**settings: object) -> Transfer:
    """Momentum on gradients tuned by their variance nearby. Reference: Wang & He 2021, Algorithm
    1.
    """
    return Transfer(**{"neighbours": 20, **settings})  # type: ignore[arg-type]
