"""Intervals and comparisons by patient: slices of one patient are alike, so the patient is what is
drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from robustmri.core.errors import ResultError
from robustmri.results.outcomes import numbered

Floats = npt.NDArray[np.float64]

FEW = 10
"""Patients whom two classifiers treat differently, below which no bootstrap is drawn: it promises
95 % and holds 33 to 90 % (simulated: 20 to 100 patients, intra-patient correlation 0.3).
"""
TELLING = 6.0
"""Effective patients who differ from the rest, at which the measured spread weighs as much as what
is assumed without any. Chosen by simulation, as `tests/evaluation/test_intervals.py` repeats it.
"""
AT_ONCE = 1 << 22
"""Numbers that a bootstrap holds at a time."""
SIGNS = 1 << 22
"""Of patients, drawn for a permutation test; more where that is less than `draws` of them."""
MANY_PATIENTS = 4000
"""Above it the draws of a bootstrap are made anew each time, and never held together."""


class Interval(NamedTuple):
    """Bounds of a share, and how they were found."""

    low: float
    high: float
    method: str


class PatientAccuracy(NamedTuple):
    """Share of `n` patients of whom most slices are named rightly."""

    accuracy: float
    n: int
    interval: Interval


class Difference(NamedTuple):
    """Accuracy after minus accuracy before, on the same slices."""

    difference: float
    low: float
    high: float
    p_value: float
    n_patients: int
    method: str


def share_interval(
    correct: npt.ArrayLike, clusters: npt.ArrayLike, *, level: float = 0.95
) -> Interval:
    """Interval of the share of right slices, with as many observations as the slices tell of
    patients.

    Clopper and Pearson's bounds for an effective number of observations (Korn and Graubard 1998).
    That number lies between two: what the spread between patients says, p (1 - p) over the variance
    of the share with the slices of a patient held together, lowered by Student's t with as many
    degrees of freedom as there are effective patients, less one; and the effective patients alone,
    (sum of slices)^2 / (sum of squared slices), as if all slices of a patient were right or wrong
    together. The fewer effective patients differ from the rest (near 0 and 1), the less their
    spread is known, and the more weighs the second. With no event in n patients of one size the
    bound is 1 - (0.05 / 2) ** (1 / n), the two-sided form of the rule of three, about 3.7 / n.

    Args:
        correct: per slice, whether it is right, shape (n,).
        clusters: per slice, the patient, shape (n,).
        level: share of such intervals that should hold the true value.

    Raises:
        ResultError: no slices, or shapes that differ.

    Reference: Korn & Graubard 1998; Kish 1965, Sec. 8.2; Clopper & Pearson 1934; Hanley &
    Lippman-Hand 1983.

    >>> share_interval([True] * 60, [i // 2 for i in range(60)])
    Interval(low=0.884..., high=1.0, method='exact binomial, 30.0 effective of 30 patients')
    """
    from scipy.special import ndtri, stdtrit

    sums, sizes = _per_patient(correct, clusters)
    n, total = len(sizes), float(sizes.sum())
    if n == 1:
        return Interval(0.0, 1.0, "one patient: no interval")
    share, effective = float(sums.sum()) / total, effective_patients(sizes)
    variance, observations = _variance(sums, sizes), effective
    if variance:
        tail = 0.5 + level / 2
        wider = float(stdtrit(max(1.0, effective - 1), tail) / ndtri(tail)) ** 2
        measured = min(share * (1 - share) / variance, total) / wider
        alike = max(sizes[sums == sizes].sum(), sizes[sums == 0].sum())
        telling = effective * (1 - float(alike) / total)
        assumed = TELLING**2 / (telling**2 + TELLING**2)
        observations = max(1.0, 1 / ((1 - assumed) / measured + assumed / effective))
    return Interval(
        *_exact(share, observations, level),
        f"exact binomial, {observations:.1f} effective of {n} patients",
    )


def quantile_interval(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    share: float = 0.5,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a quantile over slices, patients drawn with replacement; a bound is
    infinite where so many of the values are.

    Args: as of `share_interval`, with values, which may be infinite; `share` is which quantile.

    >>> quantile_interval([1.0, 2.0, 3.0, float("inf")], [0, 1, 2, 3]).high
    inf
    """
    numbers = np.asarray(values, dtype=np.float64)
    names, owner = numbered(clusters)
    n = len(names)
    if n == 1:
        return Interval(float(numbers.min()), float(numbers.max()), "one patient: no interval")
    order = np.argsort(numbers, kind="stable")
    places = []
    for times in _drawn(n, draws, seed, len(order)):
        weights = times[:, owner[order]].cumsum(1)
        # The next larger of two values in the middle, as the quantile itself is taken.
        places.append((weights <= share * weights[:, -1:]).sum(1))
    found = np.sort(numbers[order][np.concatenate(places)])
    tail = (1 - level) / 2
    low, high = found[round(tail * (draws - 1))], found[round((1 - tail) * (draws - 1))]
    return Interval(float(low), float(high), f"cluster bootstrap over {n} patients, {draws} draws")


def patient_accuracy(
    correct: npt.ArrayLike, clusters: npt.ArrayLike, *, level: float = 0.95
) -> PatientAccuracy:
    """Share of patients of whom more than half of the slices are right (a tie is wrong), with
    Wilson's interval.

    Reference: Wilson 1927.

    >>> patient_accuracy([True, True, False, True, False], ["a", "a", "a", "b", "b"]).accuracy
    0.5
    """
    from scipy.special import ndtri

    sums, sizes = _per_patient(correct, clusters)
    n = len(sizes)
    share = float(np.mean(2 * sums > sizes))
    z2 = float(ndtri(0.5 + level / 2)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # At 0 and 1 a bound equals the share; rounding may put it beside.
    low, high = min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
    return PatientAccuracy(share, n, Interval(float(low), float(high), f"Wilson over {n} patients"))


def mean_interval(
    values: npt.ArrayLike, clusters: npt.ArrayLike, *, level: float = 0.95
) -> Interval:
    """Interval of the mean of numbers of at least 0, such as costs, by patient: Student's t with a
    variance that holds the slices of a patient together, and as many degrees of freedom as there
    are effective patients, less one.

    Reference: Kish 1965, Sec. 6.3 and 8.2.

    >>> mean_interval([0, 1, 2, 1], ["a", "b", "c", "d"])
    Interval(low=0.0, high=2.29..., method='Student t over 4 patients')
    """
    from scipy.special import stdtrit

    sums, sizes = _sum_by_patient(np.asarray(values, dtype=np.float64), clusters)
    n, mean = len(sizes), float(sums.sum() / sizes.sum())
    if n == 1:
        return Interval(0.0, np.inf, "one patient: no interval")
    freedom = max(1.0, effective_patients(sizes) - 1)
    half = float(stdtrit(freedom, 0.5 + level / 2) * np.sqrt(_variance(sums, sizes)))
    return Interval(max(0.0, mean - half), mean + half, f"Student t over {n} patients")


def paired_difference(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """What a change did to the accuracy on the same slices, with an interval and a p-value, both by
    patient.

    The interval is the percentile one of the cluster bootstrap; where fewer than ten patients
    differ from the others, it joins the exact binomial intervals of the gains and of the losses
    (Newcombe's MOVER). The p-value is that of a two-sided permutation test which swaps before and
    after for all slices of a patient at once.

    Args:
        before: per slice, whether it was right before the change, shape (n,).
        after: the same after it; the same slices in the same order.
        clusters: per slice, the patient, shape (n,).
        draws: bootstrap samples, and permutations, of which there are ten times as many where
            patients are few; the smallest p-value is that of one permutation.
        level: share of such intervals that should hold the true value.
        seed: of the draws.

    >>> paired_difference([False] * 40, [True] * 40, list(range(20)) * 2).p_value < 0.001
    True
    """
    old, new = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if old.shape != new.shape:
        raise ResultError(
            f"before and after must be of the same slices, got {old.shape} and {new.shape} of them."
        )
    gains, sizes = _per_patient(new & ~old, clusters)
    losses, _ = _per_patient(old & ~new, clusters)
    net, n, total = gains - losses, len(sizes), sizes.sum()
    share = float(net.sum() / total)
    if n == 1:
        return Difference(share, -1.0, 1.0, 1.0, 1, "one patient: no interval")
    unanimous = max(
        int(np.sum(gains == sizes)), int(np.sum(losses == sizes)), int(np.sum(gains + losses == 0))
    )
    if n - unanimous < FEW:
        gain, loss = float(gains.sum() / total), float(losses.sum() / total)
        effective = effective_patients(sizes)
        (gain_low, gain_high), (loss_low, loss_high) = (
            _exact(gain, effective, level),
            _exact(loss, effective, level),
        )
        low = max(-1.0, share - float(np.hypot(gain - gain_low, loss_high - loss)))
        high = min(1.0, share + float(np.hypot(gain_high - gain, loss - loss_low)))
        method = (
            f"exact binomial gains and losses, {effective:.1f} effective of {n} patients (MOVER)"
        )
    else:
        low, high = _resample(net, sizes, draws, level, seed)
        method = f"cluster bootstrap over {n} patients, {draws} draws"
    # Adjusted over the hundred rows of a table the smallest p must still say something.
    swaps = max(draws, min(10 * draws, SIGNS // n))
    source, extreme = np.random.default_rng([seed, 1]), 0
    for rows in _blocks(swaps, n):
        signs = source.choice([-1.0, 1.0], size=(rows, n))
        # Sums of whole numbers are exact in floating point, so >= needs no tolerance.
        extreme += int(np.sum(np.abs(signs @ net) >= abs(net.sum())))
    return Difference(share, low, high, (1 + extreme) / (1 + swaps), n, method)


def _per_patient(values: npt.ArrayLike, clusters: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Sum of `values` and number of slices for each patient, patients in the order of their ids."""
    return _sum_by_patient(np.asarray(values, dtype=bool), clusters)


def _sum_by_patient(values: npt.NDArray[Any], clusters: npt.ArrayLike) -> tuple[Floats, Floats]:
    ids = np.asarray(clusters)
    if values.ndim != 1 or values.shape != ids.shape:
        raise ResultError(
            f"expected one patient for each slice, got {values.shape} slices and {ids.shape} "
            "patients."
        )
    if not len(values):
        raise ResultError(
            "an interval needs at least one slice, got none. Was every case left out, or --limit 0?"
        )
    names, owner = numbered(ids)
    sizes = np.bincount(owner, minlength=len(names)).astype(np.float64)
    return np.bincount(owner, weights=values, minlength=len(names)).astype(np.float64), sizes


def effective_patients(sizes: Floats) -> float:
    """How many patients of one size would tell as much, were the slices of each all alike (Kish).

    >>> effective_patients(np.array([5.0, 5.0])), effective_patients(np.array([99.0, 1.0]))
    (2.0, 1.02...)
    """
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _variance(sums: Floats, sizes: Floats) -> float:
    """Of the mean over slices, by how each patient's sum departs from it."""
    n, residuals = len(sizes), sums - sums.sum() / sizes.sum() * sizes
    return float(n / (n - 1) * (residuals**2).sum() / sizes.sum() ** 2)


def _resample(
    sums: Floats, sizes: Floats, draws: int, level: float, seed: int
) -> tuple[float, float]:
    shares = [
        (times @ sums) / (times @ sizes) for times in _drawn(len(sizes), draws, seed, len(sizes))
    ]
    low, high = np.quantile(np.concatenate(shares), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _blocks(draws: int, width: int) -> Iterator[int]:
    """Numbers of draws that together are `draws`, and each fit into memory."""
    most = max(1, AT_ONCE // width)
    for start in range(0, draws, most):
        yield min(most, draws - start)


def _drawn(n: int, draws: int, seed: int, width: int) -> Iterator[Floats]:
    """How often each patient is drawn, shapes (some, n), together (draws, n).

    Args:
        n: patients.
        draws: of all of them.
        seed: of the draws.
        width: numbers that are made of each draw.
    """
    if n <= MANY_PATIENTS:
        times, start = _draw_patients(n, draws, seed), 0
        for rows in _blocks(draws, max(n, width)):
            yield times[start : start + rows]
            start += rows
        return
    # The same law, a name drawn n times; for few patients the other way is what was published.
    source = np.random.default_rng(seed)
    for rows in _blocks(draws, max(n, width)):
        yield np.stack(
            [np.bincount(source.integers(n, size=n), minlength=n) for _ in range(rows)]
        ).astype(np.float64)


@lru_cache(maxsize=2)  # Every attack and radius of an evaluation draws from the same patients.
def _draw_patients(n: int, draws: int, seed: int) -> Floats:
    """How often each patient is drawn, shape (draws, n)."""
    return (
        np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)
    )


def lower_bound(events: int, n: int, alpha: float) -> float:
    """Share that the true one exceeds, but for a probability of `alpha`: Clopper and Pearson's
    one-sided bound.

    >>> round(lower_bound(1000, 1000, alpha=0.001), 4)
    0.9931
    """
    from scipy.special import betaincinv

    return float(betaincinv(events, n - events + 1, alpha)) if events else 0.0


def tied_probability(events: int, others: int) -> float:
    """Probability that a fair coin differs from half by as much or more, on either side.

    >>> tied_probability(5, 0)
    0.0625
    """
    from scipy.special import betainc

    more, fewer = max(events, others), min(events, others)
    return min(1.0, 2 * float(betainc(more, fewer + 1, 0.5))) if more else 1.0


def _exact(share: float, n: float, level: float) -> tuple[float, float]:
    """Clopper and Pearson's bounds; neither `n` nor `share * n` need be whole."""
    from scipy.special import betaincinv

    events, tail = share * n, (1 - level) / 2
    low = 0.0 if share == 0 else float(betaincinv(events, n - events + 1, tail))
    high = 1.0 if share == 1 else float(betaincinv(events + 1, n - events, 1 - tail))
    return low, high
