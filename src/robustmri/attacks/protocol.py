"""What an attack is: a callable that finds, in S(x), images that the classifier gets wrong."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import torch

from robustmri.core.arrays import Images, Labels, Logits
from robustmri.threat.norms import GRADIENT_NORMS
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

    def __call__(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> Images:
        """See `Attack`."""
        threat = self.check(images, labels, threat)
        images = images.detach()
        if not len(images):
            return images.clone()
        return self.search(classifier, images, labels, threat, generator=generator)

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


Maker = TypeVar("Maker", bound=Callable[..., Any])


def described(facts: Facts) -> Callable[[Maker], Maker]:
    """Give a function that makes an attack facts of its own."""

    def describe(make: Maker) -> Maker:
        make.facts = facts  # type: ignore[attr-defined]
        return make

    return describe
