"""Losses per image, from logits (n, k) and labels (n,) to values (n,). Attacks climb them, training
descends them.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from robustmri.core.arrays import Labels, Logits, PerImage
from robustmri.core.errors import ThreatModelError


def cross_entropy(logits: Logits, labels: Labels) -> PerImage:
    """-log p_y, in nats.

    >>> cross_entropy(torch.zeros(1, 3), torch.tensor([0]))
    tensor([1.0986])
    """
    return F.cross_entropy(logits, labels, reduction="none")


def _others(logits: Logits, labels: Labels) -> Logits:
    """Logits with the true class at minus infinity."""
    return logits.scatter(1, labels[:, None], -torch.inf)


def _true(logits: Logits, labels: Labels) -> PerImage:
    return logits.gather(1, labels[:, None])[:, 0]


def log_odds(logits: Logits, labels: Labels) -> PerImage:
    """log((1 - p_y) / p_y), the log-odds against the true class.

    The cross-entropy is softplus of it, so both have the same gradient up to a positive factor for
    each image, and an attack that uses only its direction takes the same steps. But this one never
    underflows: on a network that is 99.99999 % sure the factor 1 - p_y rounds to zero in float32,
    and so does the gradient of the cross-entropy.

    >>> log_odds(torch.tensor([[200.0, 0.0, 0.0]]), torch.tensor([0]))
    tensor([-199.3069])
    """
    return torch.logsumexp(_others(logits, labels), 1) - _true(logits, labels)


def margin(logits: Logits, labels: Labels) -> PerImage:
    """Largest logit of a wrong class minus that of the true class; positive where the image is
    misclassified.

    Reference: Carlini & Wagner 2017, f6, without the clip.

    >>> margin(torch.tensor([[2.0, 0.5, 1.0]]), torch.tensor([0]))
    tensor([-1.])
    """
    return _others(logits, labels).amax(1) - _true(logits, labels)


def difference_of_logits_ratio(logits: Logits, labels: Labels) -> PerImage:
    """DLR: the margin divided by the gap between the largest and the third largest logit; needs at
    least three classes.

    Reference: Croce & Hein 2020, Eq. 6.
    """
    if logits.shape[1] < 3:
        raise ThreatModelError(
            f"the logit ratio needs 3 classes or more, got {logits.shape[1]}. Use the margin loss."
        )
    ranked = logits.sort(1, descending=True).values
    return margin(logits, labels) / (ranked[:, 0] - ranked[:, 2]).clamp_min(1e-12)


def targeted_ratio(logits: Logits, targets: Labels) -> PerImage:
    """Largest other logit minus the target's, divided by how far the third and the fourth lie below
    the largest.

    Descend it to get the target; needs at least three classes, of which the second stands in for a
    fourth. With the third logit alone below the line, as in the untargeted ratio, it would be
    constant while the target ranks third.

    >>> targeted_ratio(torch.tensor([[4.0, 1.0, 2.0, 3.0]]), torch.tensor([2]))
    tensor([0.8000])

    Reference: Croce & Hein 2020, Eq. 7.
    """
    if logits.shape[1] < 3:
        raise ThreatModelError(
            f"the logit ratio needs 3 classes or more, got {logits.shape[1]}. Use the margin loss."
        )
    ranked = logits.sort(1, descending=True).values[:, :4]
    return margin(logits, targets) / (ranked[:, 0] - ranked[:, -2:].mean(1)).clamp_min(1e-12)


def boosted_cross_entropy(logits: Logits, labels: Labels) -> PerImage:
    """-log p_y - log(1 - p_k) with k the likeliest wrong class: cross-entropy that also asks for a
    margin.

    >>> boosted_cross_entropy(torch.zeros(1, 2), torch.tensor([0]))
    tensor([1.3863])

    Reference: Wang et al. 2020, the first term of Eq. 11.
    """
    rival = _others(logits, labels).argmax(1)
    # 1 - p_k by the log-odds against k: it never rounds to zero.
    return cross_entropy(logits, labels) + F.softplus(-log_odds(logits, rival))


def kl_divergence(logits: Logits, reference: Logits) -> PerImage:
    """KL(reference || logits) between the two softmax distributions, in nats. Reference: Zhang et
    al. 2019, Eq. 5.
    """
    return F.kl_div(
        logits.log_softmax(1), reference.log_softmax(1), reduction="none", log_target=True
    ).sum(1)
