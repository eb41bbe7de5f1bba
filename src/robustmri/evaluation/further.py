"""What a result tells beyond accuracies, counted from the tables beside it: regions, saliency,
detection and how little it takes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robustmri.core.sizes import sides
from robustmri.evaluation.confined import summarise_regions
from robustmri.evaluation.detection import summarise_detection
from robustmri.evaluation.intervals import quantile_interval
from robustmri.evaluation.metrics import finite
from robustmri.evaluation.saliency import summarise_saliency
from robustmri.evaluation.visibility import peak_signal_to_noise
from robustmri.results.cases import CaseTable, is_of_cases
from robustmri.results.outcomes import columns_of, numbered
from robustmri.results.schema import RobustnessReport, Sensitivity
from robustmri.threat.norms import NORMS

if TYPE_CHECKING:
    import pyarrow as pa

FURTHER = ("regions", "saliency", "detection")
"""Tables beside the outcomes, and the fields that they fill."""
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
FEWEST_RADII = 3
"""With fewer, and no search for the nearest image, a smallest eps would say what was tried."""


def count_further(result: RobustnessReport, tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    """The same fields of a result that is there, counted from its tables."""
    pixels = math.prod(sides(result.cohort.size)) * result.cohort.channels
    return summarise_further(tables, seed=result.asked.seed, pixels=pixels)


def summarise_further(tables: Mapping[str, pa.Table], *, seed: int, pixels: int) -> dict[str, Any]:
    """Fields of a `RobustnessReport`.

    Args:
        tables: "outcomes", and those of `FURTHER` that were asked for.
        seed: of the bootstrap.
        pixels: grey values of a slice; of one in colour, three for each place.
    """
    outcomes = tables["outcomes"]
    told_of = [name for name in outcomes.column_names if is_of_cases(name) or name == "ssim"]
    cases = CaseTable.of(columns_of(outcomes.select(told_of)))
    summaries = (summarise_regions, summarise_saliency, summarise_detection)
    told = {
        name: summary(columns_of(tables[name])) if name in tables else []
        for name, summary in zip(FURTHER, summaries, strict=True)
    }
    return {
        **told,
        "sensitivity": [
            one
            for norm in cases.norms
            if norm in NORMS  # A scanner's severity and a threat's parameter are no size.
            and (one := summarise_sensitivity(cases, norm, seed=seed, pixels=pixels))
        ],
    }


def summarise_sensitivity(
    cases: CaseTable, norm: str, *, seed: int, pixels: int
) -> Sensitivity | None:
    """Of each slice that is right untouched the smallest change in that norm that is known to turn
    it; None where the attacks do not tell.
    """
    columns = cases.outcomes
    tried = columns["eps_image"].astype(float)
    here = columns["norm"] == norm
    met = cases.right & cases.attacked_in(norm)
    if len(np.unique(tried[here & np.isfinite(tried)])) < FEWEST_RADII:
        # So few radii tell of them and not of the slice: only a search for the nearest does.
        searched = np.zeros(len(met), dtype=bool)
        searched[cases.case_of[here & np.isinf(tried)]] = True
        met &= searched
    among = np.flatnonzero(met)
    if not len(among):
        return None
    smallest = cases.smallest_eps(norm)[among]
    groups = cases.column("group")[among]
    names, of = numbered(groups)
    fragile = np.full(len(names), np.inf)
    np.minimum.at(fragile, of, smallest)
    bounds = quantile_interval(smallest, groups, share=0.5, seed=seed)
    rows = cases.nearest_rows(norm)[among]
    rows = rows[rows >= 0]
    called: dict[str, Counter[str]] = {}
    for truth, said in zip(columns["label"][rows], columns["prediction"][rows], strict=True):
        called.setdefault(str(truth), Counter())[str(said)] += 1
    sizes = columns["distance_l2"][rows].astype(float)
    return Sensitivity(
        norm=norm,
        n=len(among),
        n_patients=len(names),
        never=int(np.isinf(smallest).sum()),
        quantiles=_quantiles(smallest),
        ci_low=finite(bounds.low),
        ci_high=finite(bounds.high),
        patients=_quantiles(fragile),
        nearest={truth: dict(sorted(counts.items())) for truth, counts in sorted(called.items())},
        ssim=_median(columns["ssim"][rows].astype(float)) if "ssim" in columns else None,
        psnr=_median(np.array([peak_signal_to_noise(one, pixels) for one in sizes])),
        grey_levels=_median(255 * columns["distance_linf"][rows].astype(float)),
    )


def _quantiles(sizes: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """The size that turns a share of them: one of them, so that infinity stays what it is."""
    return {f"{share:g}": finite(np.quantile(sizes, share, method="higher")) for share in SHARES}


def _median(numbers: npt.NDArray[np.float64]) -> float | None:
    return float(np.median(numbers)) if len(numbers) and np.isfinite(numbers).all() else None
