"""One attack, confined to one part of the slices after the other: what it takes to flip an answer,
and where.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from robustmri.attacks import find_attack
from robustmri.core.errors import SettingsError
from robustmri.core.progress import Progress, part_of, silent
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_region
from robustmri.data.regions import REGIONS, Region
from robustmri.data.split import Split
from robustmri.evaluation.evaluate import run_attacks
from robustmri.evaluation.intervals import share_interval
from robustmri.evaluation.plan import Plan, make_plan
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.models.classifier import Classifier
from robustmri.results.budget import CLEAN
from robustmri.results.outcomes import Outcomes
from robustmri.results.schema import RegionResult

if TYPE_CHECKING:
    import pyarrow as pa


def confined_plans(
    settings: EvaluateSettings, classifier: Classifier, cohort: Cohort, split: Split
) -> list[Plan]:
    """A plan for each region: the untouched slices, and one attack at the first eps.

    Raises:
        DataError: a slice lacks the region.
        SettingsError: the attack cannot be confined, or has no radius.
    """
    plans = []
    for region in settings.regions:
        name = settings.regions_attack
        if not classifier.spec.gradients and name == EvaluateSettings().regions_attack:
            name = "square"
        if find_attack(name).facts.minimal:
            raise SettingsError(
                f"{name!r} has no radius, and the table of regions is of one eps. Name another as "
                "regions_attack, such as pgd."
            )
        confined = msgspec.structs.replace(
            settings,
            attacks=(name,),
            options={key: value for key, value in settings.options.items() if key == name},
            eps=settings.eps[:1],
            curve=(),
            corruptions=(),
            region=region,
            regions=(),
            saliency=0,
        )
        plans.append(make_plan(confined, classifier, cohort, split))
    return plans


def run_confined(
    plans: Sequence[Plan],
    classifier: Classifier,
    cohort: Cohort,
    split: Split,
    folder: Path,
    *,
    identity: str,
    device: torch.device,
    progress: Progress = silent,
) -> pa.Table:
    """Outcomes of every plan in one table, with the columns `region` and `region_area`, the share
    of the slice's pixels that may change. Resumed as an evaluation is.
    """
    import pyarrow as pa

    tables = []
    for plan in plans:
        found = run_attacks(
            classifier,
            cohort,
            split,
            plan.settings,
            folder,
            identity=identity,
            device=device,
            plan=plan,
            progress=part_of(f"region {plan.settings.region}", progress),
        ).outcomes
        region, rows = plan.settings.region, found["index"].to_pylist()
        areas = {row: _area(cohort, row, region) for row in set(rows)}
        found = found.append_column("region", pa.array([region] * len(rows), pa.string()))
        tables.append(
            found.append_column("region_area", pa.array([areas[row] for row in rows], pa.float64()))
        )
    return pa.concat_tables(tables)


def _area(cohort: Cohort, row: int, region: Region) -> float:
    mask = load_region(cohort, [row], region)
    return 1.0 if mask is None else float(mask.float().mean())


def summarise_regions(outcomes: Outcomes) -> list[RegionResult]:
    """For each region the share of answers, right untouched, that the attack turned, with its
    interval by patient.

    Args:
        outcomes: as `run_confined` gives them.
    """
    results = []
    right = np.asarray(outcomes["clean_prediction"] == outcomes["label"], dtype=bool)
    for region in dict.fromkeys(outcomes["region"].tolist()):
        rows = np.flatnonzero(
            right & (outcomes["region"] == region) & (outcomes["attack"] != CLEAN)
        )
        if not len(rows):
            continue
        turned = outcomes["fooled"][rows].astype(bool)
        groups = outcomes["group"][rows].astype(str)
        bounds = share_interval(turned, groups)
        patients = [bool(turned[groups == group].any()) for group in np.unique(groups)]
        energy, lesion, area = (
            outcomes[name][rows].astype(float)
            for name in ("lesion_energy", "lesion_area", "region_area")
        )
        first = rows[0]
        results.append(
            RegionResult(
                region=region,
                meaning=REGIONS[region],
                attack=str(outcomes["attack"][first]),
                norm=str(outcomes["norm"][first]),
                eps=float(outcomes["eps"][first]),
                eps_units=outcomes["eps_units"][first],
                eps_image=float(outcomes["eps_image"][first]),
                target=str(outcomes["target"][first]),
                n=len(rows),
                n_patients=len(patients),
                turned=float(np.mean(turned)),
                ci_low=bounds.low,
                ci_high=bounds.high,
                interval=bounds.method,
                patients_turned=float(np.mean(patients)),
                area=float(np.mean(area)),
                lesion_energy=_mean(energy),
                lesion_area=_mean(lesion),
            )
        )
    return results


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.mean(known)) if len(known) else None
