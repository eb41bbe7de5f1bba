"""HopSkipJump: the nearest image that fools, from decisions alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustmri.attacks.bisection import shorten
from robustmri.attacks.engine import Found, asking, checked, exhausted, frozen, left
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor
from robustmri.attacks.streams import advance, like, normals, open_streams, uniforms
from robustmri.core.arrays import Images, Labels, PerImage
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import per_image
from robustmri.threat.threat_model import ThreatModel

_TINY = 1e-12
_REACH = 0.01
"""How far decisions are asked for around the boundary, as a share of its distance. The paper's, a
share of 1 / pixels, is smaller than what float32 can add to an image of 224 x 224."""
_AT_ONCE = 64


@dataclass(frozen=True)
class HopSkipJump(CheckedAttack):
    """Along the boundary towards the image: ask which nearby points fool, step that way, and halve
    the way back.

    It asks for the predicted class only: no logits, no gradient. It begins at the first of several
    random images that fools, from fine noise to large blocks. The radius of the threat is not used:
    the distances are the result. An image for which no start fools comes back unchanged. Norms:
    linf and l2.

    Args:
        steps: rounds of asking, stepping and halving.
        samples: decisions asked for in the first round; the t-th has sqrt(t) times as many.
        starts: random images tried to begin with.

    Reference: Chen, Jordan & Wainwright 2020, Algorithm 2.
    """

    facts = Facts(
        "hop-skip-jump",
        "HopSkipJump",
        "Chen, Jordan & Wainwright 2020, Algorithm 2",
        doi="10.48550/arXiv.1904.02144",
        norms=("linf", "l2"),
        minimal=True,
        knowledge="decisions",
    )

    steps: int = 20
    samples: int = 100
    starts: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.samples < 1 or self.starts < 1:
            raise ThreatModelError(
                f"steps, samples and starts must be at least 1, got {self.steps}, {self.samples} "
                f"and {self.starts}."
            )

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
        halvings = math.ceil(math.log2(math.sqrt(images[:1].numel() or 1) / _REACH))
        result = images.clone()
        with frozen(classifier), torch.no_grad():
            points, rows = self._start(classifier, images, labels, threat, streams)
            x, y, here, streams = images[rows], labels[rows], threat.at(rows), streams[rows]
            everyone = torch.ones_like(rows, dtype=torch.bool)
            stepped = everyone
            best, nearest = points, torch.full_like(here.measure.size(points), torch.inf)
            for step in range(self.steps + 1):
                found = Found(points, stepped, nearest)
                points = (
                    shorten(classifier, x, y, here, found, halvings=halvings)
                    if len(rows)
                    else points
                )
                distance = here.measure.size(points - x)
                nearer = distance < nearest
                best = torch.where(per_image(nearer, points), points, best)
                nearest = torch.where(nearer, distance, nearest)
                if step == self.steps or not len(rows) or exhausted(classifier):
                    break
                streams = advance(streams)
                direction = self._estimate_direction(
                    classifier, points, distance, y, here, streams, step + 1
                )
                points, stepped = _away(
                    classifier, x, points, direction, distance / math.sqrt(step + 1), y, here
                )
        result[rows] = best
        return result

    def _start(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        streams: Tensor,
    ) -> tuple[Images, Tensor]:
        """Random points that fool, and which images they belong to; not those that are wrong
        untouched.
        """
        predict, points = checked(classifier, labels, threat), images.clone()
        rows = (
            torch.nonzero(~threat.fooled(predict(images), labels))[:, 0] if len(images) else labels
        )
        begun = torch.zeros_like(labels, dtype=torch.bool)
        levels = max(images.shape[2:]).bit_length()
        for start in range(self.starts):
            if not len(rows) or exhausted(classifier):
                break
            here, x = threat.at(rows), images[rows]
            blocks = _blocks(advance(streams[rows] ^ start), x, 2 ** (start % levels))
            low, high = here.bounds
            tried = here.project(low + (high - low) * blocks, x)
            won = here.fooled(predict(tried), labels[rows])
            points[rows[won]], begun[rows[won]] = tried[won], True
            rows = rows[~won]
        rows = torch.nonzero(begun)[:, 0]
        return points[rows], rows

    def _estimate_direction(
        self,
        classifier: Predictor,
        points: Images,
        distance: PerImage,
        labels: Labels,
        threat: ThreatModel,
        streams: Tensor,
        rounds: int,
    ) -> Images:
        """Direction in which more points fool, of size 1. Reference: Eq. 16, with the baseline of
        Sec. III-C.
        """
        predict, free = checked(classifier, labels, threat), threat.allow(torch.ones_like(points))
        length = _REACH * distance
        if threat.norm == "linf":
            length = length * free.flatten(1).sum(1).sqrt()
        answers, asked = torch.zeros_like(length), 0
        signed, plain = torch.zeros_like(points), torch.zeros_like(points)
        samples = range(1, int(self.samples * math.sqrt(rounds)) + 1)
        while samples and not exhausted(classifier):
            each = int(max(1, min(_AT_ONCE // max(len(points), 1), left(classifier))))
            several, samples = samples[:each], samples[each:]
            probes = torch.cat(
                [_probe(points, length, threat, streams ^ sample) for sample in several]
            )
            with asking(classifier, len(several)):
                won = threat.fooled(predict(probes), labels.repeat(len(several)))
            # One after another, so that the sum does not depend on how many go at once.
            for probe, answer in zip(
                probes.split(len(points)), won.split(len(points)), strict=True
            ):
                answer, moved = 2 * answer.to(points) - 1, probe - points
                answers, signed, plain = (
                    answers + answer,
                    signed + per_image(answer, moved) * moved,
                    plain + moved,
                )
            asked += len(several)
        mean = answers / max(asked, 1)
        sided = signed - per_image(mean, points) * plain
        direction = torch.where(
            per_image(mean.abs() == 1, points), per_image(mean, points) * plain, sided
        )
        return threat.measure.steepest(direction)


def _away(
    classifier: Predictor,
    images: Images,
    points: Images,
    direction: Images,
    length: PerImage,
    labels: Labels,
    threat: ThreatModel,
) -> tuple[Images, Tensor]:
    """Points further inside, and which could be found: the step is halved until it fools.
    Reference: Sec. III-D.
    """
    predict, points = checked(classifier, labels, threat), points.clone()
    found = torch.zeros_like(labels, dtype=torch.bool)
    for _ in range(15):
        rows = torch.nonzero(~found)[:, 0]
        if not len(rows) or exhausted(classifier):
            break
        here = threat.at(rows)
        tried = here.project(
            points[rows] + per_image(length[rows], points) * direction[rows], images[rows]
        )
        won = here.fooled(predict(tried), labels[rows])
        points[rows[won]], found[rows[won]] = tried[won], True
        length = length / 2
    return points, found


def _probe(points: Images, length: PerImage, threat: ThreatModel, streams: Tensor) -> Images:
    """Points in random directions: normal numbers in l2, uniform ones in linf, as the authors' code
    has it.
    """
    pixels = points[:1].numel()
    drawn = normals(streams, pixels) if threat.norm == "l2" else 2 * uniforms(streams, pixels) - 1
    away = threat.allow(like(drawn, points))
    away = away / per_image(away.flatten(1).norm(dim=1), away).clamp_min(_TINY)
    return (points + per_image(length, points) * away).clamp(*threat.bounds)


def _blocks(streams: Tensor, images: Images, side: int) -> Images:
    """Random grey values in [0, 1), each for a block of `side` pixels."""
    place, blocks = torch.zeros((), dtype=torch.long, device=images.device), 1
    for size in images.shape[2:]:
        along = -(-size // side)
        place = place[..., None] * along + torch.arange(size, device=images.device) // side
        blocks *= along
    channels = images.shape[1]
    return (
        uniforms(streams, channels * blocks)
        .reshape(len(images), channels, blocks)[..., place]
        .to(images)
    )
