"""Certify every slice of a result by randomised smoothing, attack the smoothed classifier, and
count both by slice and by patient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch

from robustmri.core.errors import SettingsError
from robustmri.core.files import fingerprint
from robustmri.core.progress import Progress, silent
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_images, load_labels
from robustmri.evaluation.metrics import summarise
from robustmri.evaluation.settings import CertifySettings
from robustmri.evaluation.shards import divide, run_shards, shards_of
from robustmri.evaluation.smoothing import Smoothed, nearest_other
from robustmri.models.classifier import Classifier, device_of
from robustmri.models.optimised import OptimisedView
from robustmri.results.certificate import Certificate
from robustmri.results.outcomes import Outcomes, numbered, table_of
from robustmri.results.schema import Check, Result

if TYPE_CHECKING:
    import pyarrow as pa

SHARD = 8
"""Slices of a shard: each takes thousands of forwards."""
CERTIFIED, ATTACKED = "certificate", "smoothed"
STEPS = 6
"""Radii of the curve, evenly spaced up to the largest that can be certified, and most of those
beyond."""


COUNTED = "abstained slices withstand nothing"
"""What the shards of this version mean, so that none of another is taken for one."""


def run_certificates(
    classifier: Classifier,
    cohort: Cohort,
    rows: Sequence[int],
    settings: CertifySettings,
    folder: Path,
    *,
    identity: str,
    device: torch.device,
    progress: Progress = silent,
) -> pa.Table:
    """A row for each slice: its answer, its radius, and how near another answer was found.

    The work is divided into shards as an evaluation's is. What a slice draws depends on the seed
    and its place in the cohort alone.

    Args:
        classifier: what is smoothed.
        cohort: where the slices are.
        rows: indexes of the slices.
        settings: see `CertifySettings`.
        folder: of the certificate; shards lie below it.
        identity: hash of the classifier's weights.
        device: where the computing is done.
        progress: told after each shard of this process.
    """

    classifier = classifier.to(device).eval().requires_grad_(False)
    example = torch.zeros(2, *cohort.shape, device=device)
    view = OptimisedView(classifier, example, precision="fp32")
    smoothed = Smoothed(
        view,
        sigma=settings.sigma,
        samples=settings.samples,
        guesses=settings.guesses,
        alpha=settings.alpha / len(rows),
        at_once=settings.batch_size,
    )
    parts = list(divide(rows, SHARD))
    shards = shards_of(
        folder, [msgspec.to_builtins(settings), identity, cohort.fingerprint, list(rows), COUNTED]
    )

    def make(place: int) -> pa.Table:
        return table_of(_certify(smoothed, classifier, cohort, parts[place], settings))

    def tell(place: int, table: pa.Table, done: int, of: int) -> None:
        progress("certificate", done, of, f"{done * SHARD} slices at most")

    return run_shards([shards / f"{place:05d}.parquet" for place in range(len(parts))], make, tell)


def _certify(
    smoothed: Smoothed,
    classifier: Classifier,
    cohort: Cohort,
    rows: Sequence[int],
    settings: CertifySettings,
) -> dict[str, Any]:
    def stream(row: int, use: str) -> torch.Generator:
        seed = int(fingerprint([settings.seed, row, use]), 16) >> 1
        return torch.Generator().manual_seed(seed)

    device = device_of(classifier)
    images, labels = load_images(cohort, rows).to(device), load_labels(cohort, rows).to(device)
    found = [
        smoothed.certify(image, stream(row, "certify"))
        for image, row in zip(images, rows, strict=True)
    ]
    distances = torch.full((len(rows),), torch.nan)
    if settings.attack_steps and classifier.spec.gradients:
        right = torch.tensor([one.answer for one in found]) == labels.cpu()
        own = right.nonzero()[:, 0].tolist()
        # Where it abstains or errs untouched, nothing is left to attack.
        distances[~right] = 0.0
        _, distances[right] = nearest_other(
            smoothed,
            images[own],
            labels[own],
            steps=settings.attack_steps,
            draws=settings.attack_draws,
            generator=torch.Generator().manual_seed(settings.seed),
            noise_of=lambda place: stream(rows[own[place]], "attack"),
        )
    cases = [cohort.cases[row] for row in rows]
    return {
        "case_id": [case.case_id for case in cases],
        "index": list(rows),
        "patient_id": [case.patient_id for case in cases],
        "group": [case.group for case in cases],
        "label": [case.label for case in cases],
        "prediction": [classifier.classes[one.answer] if one.answer >= 0 else "" for one in found],
        "radius": [one.radius for one in found],
        "votes": [one.votes for one in found],
        "share": [one.share for one in found],
        "distance_l2": distances.tolist(),
    }


def summarise_certificates(
    columns: Outcomes, settings: CertifySettings, *, checkpoint_sha256: str, split: str
) -> Certificate:
    """Certified accuracy, and accuracy under attack, at each radius.

    Args:
        columns: as `run_certificates` gives them.
        settings: of the run.
        checkpoint_sha256: of the classifier.
        split: fingerprint of the split.
    """
    from scipy.special import ndtri

    n = len(columns["label"])
    each = settings.alpha / n
    largest = settings.sigma * float(ndtri(each ** (1 / settings.samples)))
    radii = choose_radii(largest, columns["distance_l2"].astype(float))
    right = columns["prediction"] == columns["label"]
    radius, distance = (columns[name].astype(float) for name in ("radius", "distance_l2"))
    attacked = not np.isnan(distance).any()
    held = columns["radius"][right].astype(float)
    return Certificate(
        sigma=settings.sigma,
        samples=settings.samples,
        alpha=settings.alpha,
        alpha_each=each,
        largest=largest,
        n_slices=n,
        n_patients=len(numbered(columns["group"])[0]),
        abstained=int(np.sum(columns["prediction"] == "")),
        median_radius=float(np.median(held)) if len(held) else None,
        certified=_count(columns, CERTIFIED, [(r, right & (radius > r)) for r in radii]),
        attacked=_count(columns, ATTACKED, [(r, distance > r) for r in radii]) if attacked else [],
        checks=[check_bracket(columns, right & (distance <= radius))] if attacked else [],
        checkpoint_sha256=checkpoint_sha256,
        split=split,
        settings=msgspec.to_builtins(settings),
    )


def check_samples(settings: CertifySettings, n: int) -> None:
    """Refuse, before hours are spent, so few copies that no radius could be certified.

    Raises:
        SettingsError: not even if all of them were called alike.
    """
    fewest = math.floor(math.log(settings.alpha / n) / math.log(0.5)) + 1
    if settings.samples < fewest:
        raise SettingsError(
            f"{settings.samples} copies certify nothing, even if all are called alike: {n} slices "
            f"at alpha {settings.alpha:g} need at least {fewest}, and some hundreds for a radius "
            "that is worth it. Raise samples."
        )


def choose_radii(largest: float, distances: np.ndarray[Any, Any]) -> list[float]:
    """From 0 to the largest radius that can be certified, and on, half as far again each time, to
    where the attack has broken most of what it can.

    >>> choose_radii(0.6, np.array([1.0, np.inf]))
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9, 1.35]
    """
    # Rounded up: at the largest of them nothing is certified.
    radii = [math.ceil(round(1e4 * largest * step / STEPS, 6)) / 1e4 for step in range(STEPS + 1)]
    broken = distances[np.isfinite(distances)]
    furthest = float(np.quantile(broken, 0.9)) if len(broken) else 0.0
    while radii[-1] < furthest and len(radii) <= 2 * STEPS:
        radii.append(round(1.5 * radii[-1], 4))
    return radii


def _count(
    columns: Outcomes, name: str, held: Sequence[tuple[float, np.ndarray[Any, Any]]]
) -> list[Result]:
    """Shares of slices and of patients by the statistics of every evaluation."""
    n, results = len(columns["label"]), []
    for radius, holds in held:
        told = Outcomes(
            {
                **columns,
                "attack": np.full(n, name, dtype=object),
                "norm": np.full(n, "l2", dtype=object),
                "eps": np.full(n, radius),
                "eps_units": np.full(n, "image", dtype=object),
                "eps_image": np.full(n, radius),
                "target": np.full(n, "", dtype=object),
                "clean_prediction": columns["prediction"],
                "prediction": np.where(holds, columns["label"], ""),
            }
        )
        results += summarise(told)
    return results


def check_bracket(columns: Outcomes, broken: np.ndarray[Any, Any]) -> Check:
    """A slice whose answer is certified up to a radius is broken by no change below it."""
    cases = [str(case) for case in columns["case_id"][broken]]
    told = (
        "No slice was broken within its certified radius."
        if not cases
        else f"{len(cases)} slices were broken within their certified radius, which the noise "
        "allows for one table in many. Certify again with another seed; if it happens again, the "
        "classifier's answers are not what was certified."
    )
    return Check(
        name="Attack and certificate agree",
        status="fail" if cases else "pass",
        detail=told,
        case_ids=cases[:20],
    )
