"""What an attack is: a callable that finds, in S(x), images that the classifier gets wrong."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import torch

from robustmri.attacks.settings import check_kinds
from robustmri.core.arrays import Images, Labels, Logits
from robustmri.core.errors import ThreatModelError
from robustmri.threat.eps import Eps
from robustmri.threat.norms import GRADIENT_NORMS, Radius
from robustmri.threat.physical import PhysicalThreat
from robustmri.threat.threat_model import ThreatModel

Predictor = Callable[[Images], Logits]
Knowledge = Literal["gradients", "scores", "decisions", "nothing"]


class Attack(Protocol):
    """Implementations are frozen dataclasses; eps belongs to the call, and step sizes are fractions
    of it.
    """

    def __call__(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> Images:
        """Images in S(images), the worst found for each.

        Args:
            classifier: images in [0, 1] to logits; a module is run in evaluation mode and left as
                it was.
            images: shape (n, channels, ...), values within the threat's bounds.
            labels: true classes, shape (n,).
            threat: what may be changed, and what counts as success.
            generator: source of the random draws, on the CPU; each image takes one number from it,
                in order, so that a batch gives what its images give one by one.

        Raises:
            ThreatModelError: images or labels that do not fit the threat.
        """


@dataclass(frozen=True)
class Facts:
    """What is true of an attack whatever its settings; stated where the attack is written.

    Args:
        name: on the command line and in recipes; empty where only Python can make it.
        title: as the field writes it.
        paper: where it comes from.
        doi: of the paper, where the report should lead to it.
        norms: that it knows.
        minimal: whether it looks for the nearest fooling image and has no radius.
        iterative: whether it takes several steps within eps and should be at least as strong as a
            single one; not so where strength is given up on purpose, to transfer.
        knowledge: what it asks the classifier for.
        members: name to title of the attacks that a suite consists of.
    """

    name: str
    title: str
    paper: str
    doi: str = ""
    norms: tuple[str, ...] = GRADIENT_NORMS
    minimal: bool = False
    iterative: bool = False
    knowledge: Knowledge = "gradients"
    members: dict[str, str] = field(default_factory=dict)


class CheckedAttack:
    """The checks that every attack begins with; an attack itself is a `search`."""

    facts: ClassVar[Facts]

    def __post_init__(self) -> None:
        check_kinds(self)

    def __call__(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel | PhysicalThreat | None = None,
        *,
        eps: Radius | str | Eps | None = None,
        generator: torch.Generator | None = None,
    ) -> Images:
        """See `Attack`; on its own, an attack needs no more than a radius.

        Args:
            classifier: as there; outputs with `logits`, as Hugging Face's, are understood.
            images: as there.
            labels: as there, of any integer type.
            threat: as there; or a `PhysicalThreat`, over whose parameters an attack in l-infinity
                then searches; None: l-infinity, or the first norm that the attack knows, and `eps`.
            eps: radius, 8/255 if not given; only where there is no `threat`.
            generator: as there; None: one from seed 0, so that the same call gives the same images.

        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
        >>> from robustmri import PGD
        >>> attacked = PGD(steps=20)(network, images, labels, eps=8 / 255)
        >>> bool((attacked - images).abs().max() <= 8 / 255 + 1e-6)
        True
        """
        if not callable(classifier) or isinstance(classifier, type):
            raise ThreatModelError(
                "expected the classifier as a network, or a function of images to logits, got "
                f"{classifier!r:.80}."
            )
        if isinstance(threat, PhysicalThreat):
            return self._over_parameters(classifier, images, labels, threat, eps, generator)
        threat = self._threat(threat, eps)
        threat = self.check(images, labels, threat)
        if generator is not None and (
            not isinstance(generator, torch.Generator) or generator.device.type != "cpu"
        ):
            raise ThreatModelError(
                "the generator must be a torch.Generator on the CPU: "
                "torch.Generator().manual_seed(0)."
            )
        # Gradients are wanted, also where whoever calls wants none.
        with torch.inference_mode(False):
            if images.is_inference():
                images = images.clone()
            images, labels = images.detach(), labels.to(images.device, torch.long, copy=True)
            if not len(images):
                return images.clone()
            generator = generator or torch.Generator().manual_seed(0)
            return self.search(classifier, images, labels, threat, generator=generator)

    def _over_parameters(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: PhysicalThreat,
        eps: Radius | str | Eps | None,
        generator: torch.Generator | None,
    ) -> Images:
        """The changed images of the parameters that this attack finds."""
        if not searches_parameters(self.facts, self):
            raise ThreatModelError(
                f"{self.facts.name} cannot search over the parameters of a physical threat: that "
                "takes an attack within eps, in l-infinity, for which images are no pictures. Use "
                "pgd, apgd, spsa or standard."
            )
        if eps is not None:
            raise ThreatModelError("give eps in the PhysicalThreat, not beside it.")
        ThreatModel(eps=0.0).check(images, labels)
        with torch.inference_mode(False):
            changed = threat.change(images.clone() if images.is_inference() else images)
            seen, start = changed.seen_by(classifier), changed.start
            points = self(seen, start, labels, changed.box, generator=generator)
            with torch.no_grad():
                return changed.at(points)

    def _threat(self, threat: ThreatModel | None, eps: Radius | str | Eps | None) -> ThreatModel:
        if threat is not None:
            if not isinstance(threat, ThreatModel):
                raise ThreatModelError(
                    f"expected a ThreatModel, got {type(threat).__name__}. To give a radius alone, "
                    "name it: eps=8 / 255."
                )
            if eps is not None:
                raise ThreatModelError("give eps in the ThreatModel, or alone, not both.")
            return threat
        norm = "linf" if "linf" in self.facts.norms else self.facts.norms[0]
        if self.facts.minimal:
            if eps is not None:
                raise ThreatModelError(
                    f"{self.facts.name} has no eps: it looks for the nearest image that fools."
                )
            return ThreatModel(norm, torch.inf)
        if eps is None and norm != "linf":
            raise ThreatModelError(f"{self.facts.name} measures in {norm}: give it an eps.")
        return ThreatModel(norm, 8 / 255 if eps is None else eps)  # type: ignore[arg-type]

    def check(self, images: Images, labels: Labels, threat: ThreatModel) -> ThreatModel:
        """The threat as the search gets it: a minimal attack has no radius, and its own norm where
        it knows one only.

        Raises:
            ThreatModelError: images or labels that do not fit, an infinite radius, or a norm that
                the attack does not know.
        """
        threat.check(images, labels)
        if not self.facts.minimal:
            threat.check_radius()
        elif len(self.facts.norms) == 1:
            threat = replace(threat, norm=self.facts.norms[0])
        threat.check_norm(*self.facts.norms)
        return replace(threat, eps=torch.inf) if self.facts.minimal else threat

    @abstractmethod
    def search(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> Images:
        """As `Attack`, for at least one image, without a graph, that fits the threat."""


def searches_parameters(facts: Facts, attack: object) -> bool:
    """Whether such an attack can search over the parameters of a physical threat: a box, in which
    nothing lies beside anything, so that it cannot be resized or smoothed.
    """
    pictures = getattr(attack, "for_pictures", False)
    return "linf" in facts.norms and not facts.minimal and not pictures


def logits_in(answer: Any, n: int) -> Logits:
    """The logits of a classifier's answer about `n` images: the tensor itself, or what an output of
    Hugging Face holds as `logits`.

    Raises:
        ThreatModelError: neither, or no logit for each of two classes or more.
    """
    logits = answer if isinstance(answer, torch.Tensor) else getattr(answer, "logits", None)
    if logits is None and isinstance(answer, dict):
        logits = answer.get("logits")
    if not isinstance(logits, torch.Tensor):
        raise ThreatModelError(
            f"expected the classifier to return logits as a tensor, got {type(answer).__name__}. "
            "Give a function that returns them alone, such as lambda images: model(images)[0]."
        )
    if not logits.is_floating_point():
        raise ThreatModelError(
            f"expected logits as floating-point numbers, got {logits.dtype}. A classifier that "
            "returns classes alone cannot be attacked so."
        )
    if logits.dim() == 2 and logits.shape[1] == 1:
        raise ThreatModelError(
            f"expected logits ({n}, classes) with a column for each class, got one column. If it "
            "is the logit of class 1, give lambda images: torch.cat([0 * model(images), "
            "model(images)], 1)."
        )
    return logits


Maker = TypeVar("Maker", bound=Callable[..., Any])


def described(facts: Facts) -> Callable[[Maker], Maker]:
    """Give a function that makes an attack facts of its own."""

    def describe(make: Maker) -> Maker:
        make.facts = facts  # type: ignore[attr-defined]
        return make

    return describe
