"""Randomised smoothing: what a classifier says of a slice under noise most often, how far from the
slice that must hold, and how near an attack finds another answer.

Reference: Cohen et al. 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from robustmri.attacks.fmn import FMN
from robustmri.attacks.protocol import Predictor
from robustmri.core.arrays import Images, Labels, Logits
from robustmri.evaluation.attacked import loss_gradient
from robustmri.evaluation.backward import TINIEST
from robustmri.evaluation.exact import logits_of
from robustmri.evaluation.intervals import lower_bound, tied_probability
from robustmri.threat.norms import L2, per_image
from robustmri.threat.threat_model import ThreatModel

FURTHER = (0.05, 0.15, 0.3, 0.5, 0.8, 1.2)
"""How far beyond the point that an attack found the vote is asked, in standard deviations of the
noise: at that point it is open, and a thousand votes leave no doubt about a fifth of one further.
"""


class Certified(NamedTuple):
    """What the vote about one slice allows to say.

    Attributes:
        answer: class that most noisy copies are said to be; -1 where the vote is open (abstention).
        radius: l2 size, in image units, below which no change alters it; 0 where it is open.
        votes: copies that were said to be of that class, of all that were asked about.
        share: which is surely exceeded by the copies of that class.
    """

    answer: int
    radius: float
    votes: int
    share: float


@dataclass(frozen=True)
class Smoothed:
    """The classifier that answers what most noisy copies of an image are said to be.

    Args:
        predictor: images to logits; logits that are not finite are no vote.
        sigma: standard deviation of the noise, in image units; the copies are not clipped.
        samples: copies that are asked about for one answer.
        guesses: further copies, that choose the class which is then voted on.
        alpha: probability with which a certificate of one image may be wrong.
        at_once: copies in one forward.

    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> network[1].weight.data = torch.tensor([[0.0, 0, 0, 0], [1.0, 0, 0, 0]])
    >>> network[1].bias.data = torch.tensor([0.25, 0.0])  # A quarter from the boundary.
    >>> smoothed = Smoothed(network, sigma=0.25, samples=2000)
    >>> found = smoothed.certify(torch.zeros(1, 2, 2), torch.Generator().manual_seed(0))
    >>> found.answer, 0.2 < found.radius < 0.25
    (0, True)
    """

    predictor: Predictor
    sigma: float = 0.25
    samples: int = 1000
    guesses: int = 100
    alpha: float = 0.001
    at_once: int = 256

    def votes(self, image: Tensor, copies: int, generator: torch.Generator) -> Tensor:
        """How many of `copies` noisy copies of an image, shape (channels, ...), are said to be of
        each class, shape (classes,).
        """
        counts: Tensor | None = None
        for start in range(0, copies, self.at_once):
            n = min(self.at_once, copies - start)
            # On the CPU, so that every device asks about the same copies.
            noise = torch.randn((n, *image.shape), generator=generator).to(image)
            logits = logits_of(self.predictor, image + self.sigma * noise)
            said = logits.argmax(1)[torch.isfinite(logits).all(1)]
            found = torch.bincount(said, minlength=logits.shape[1])
            counts = found if counts is None else counts + found
        return torch.zeros(0, dtype=torch.long) if counts is None else counts

    def certify(self, image: Tensor, generator: torch.Generator) -> Certified:
        """The answer about an image and its radius, right with probability 1 - alpha.

        The class is guessed from copies of its own, since the one with most votes among the copies
        that are counted would be counted too often.

        Reference: Cohen et al. 2019, Theorem 1 with the second class at most at 1 - p, and the
        function CERTIFY of Sec. 3.2.
        """
        from scipy.special import ndtri

        guess = int(self.votes(image, self.guesses, generator).argmax())
        votes = int(self.votes(image, self.samples, generator)[guess])
        share = lower_bound(votes, self.samples, self.alpha)
        if share <= 0.5:
            return Certified(-1, 0.0, votes, share)
        return Certified(guess, self.sigma * float(ndtri(share)), votes, share)

    def answer(self, image: Tensor, generator: torch.Generator) -> int:
        """The class with most votes where it surely is the one, else -1.

        Reference: Cohen et al. 2019, the function PREDICT of Sec. 3.2.
        """
        votes, order = self.votes(image, self.samples, generator).topk(2)
        sure = tied_probability(int(votes[0]), int(votes[1])) <= self.alpha
        return int(order[0]) if sure else -1


class Averaged:
    """A smoothed classifier as an attack can climb it: its answers on fixed noise, averaged.

    Args:
        predictor: images to logits.
        noise: shape (draws, channels, ...), the same for all images.

    Reference: Salman et al. 2019, Eq. 6.
    """

    def __init__(self, predictor: Predictor, noise: Tensor) -> None:
        self.predictor, self.noise = predictor, noise

    def __call__(self, images: Images) -> Logits:
        """Logarithms of the mean probabilities, shape (n, classes)."""
        n, draws = len(images), len(self.noise)
        copies = (images[:, None] + self.noise.to(images)).flatten(0, 1)
        shares = self.predictor(copies).float().softmax(1).reshape(n, draws, -1)
        return shares.mean(1).clamp_min(TINIEST).log()


def nearest_other(
    smoothed: Smoothed,
    images: Images,
    labels: Labels,
    *,
    steps: int,
    draws: int,
    generator: torch.Generator,
    noise_of: Callable[[int], torch.Generator],
) -> tuple[Images, Tensor]:
    """For each image the nearest one found that the smoothed classifier surely calls otherwise.

    FMN climbs the answer averaged over fixed noise, then fresh copies are asked about further along
    the same line, until the vote is beyond doubt. Where that average errs on the image itself, the
    line is that of its gradient.

    Args:
        smoothed: what is attacked.
        images: shape (n, channels, ...), of which the smoothed classifier answers rightly.
        labels: true classes.
        steps: of FMN.
        draws: noisy copies that each step averages.
        generator: of the attack's noise.
        noise_of: number of an image to the generator of its fresh copies.

    Returns:
        The points, each image itself where none was found, and their l2 distances, infinite there.
    """
    if not len(images):
        return images, torch.zeros(0)
    noise = smoothed.sigma * torch.randn((draws, *images.shape[1:]), generator=generator)
    threat = ThreatModel("l2", torch.inf)
    view = Averaged(smoothed.predictor, noise.to(images))
    found = FMN(steps=steps)(view, images, labels, threat, generator=generator)
    gone = found - images
    lengths, uphill = L2.size(gone), L2.steepest(loss_gradient(view, images, labels, threat))
    lines = torch.where(per_image(lengths > 0, gone), L2.steepest(gone), uphill)
    points, distances = images.clone(), torch.full((len(images),), torch.inf)
    for row, (image, label, line) in enumerate(zip(images, labels.tolist(), lines, strict=True)):
        fresh = noise_of(row)
        for further in FURTHER:
            far = float(lengths[row]) + further * smoothed.sigma
            point = (image + far * line).clamp(*threat.bounds)
            if smoothed.answer(point, fresh) not in (-1, label):
                points[row] = point
                distances[row] = float(L2.size((point - image)[None]))
                break
    return points, distances
