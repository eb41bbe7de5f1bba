"""What it means for patients: by endpoint, by class, plane and size of the lesion, and which
confusion.
"""

from __future__ import annotations

from typing import Any

import msgspec

from robustmri.report.page import Page
from robustmri.report.wording import percent
from robustmri.results.budget import CLEAN, Budget
from robustmri.results.headline import main_budget
from robustmri.results.patients import ENDPOINTS, PatientFigures, PatientShare
from robustmri.results.schema import RobustnessReport

PLACE = 55


def patients(page: Page) -> dict[str, Any] | None:
    """Numbers of each result under the headline's attack; None where an older result has none."""
    told = [report.patients for report in page.results]
    if not any(told):
        return None
    levels = sorted({figures.level for figures in told if figures and figures.strata})
    return {
        "parts": [
            _part(report, report.patients, page.budget) if report.patients else None
            for report in page.results
        ],
        "meanings": ENDPOINTS,
        "levels": [f"{100 * level:.1f} %" for level in levels],
        "strata_count": max(len(figures.strata) for figures in told if figures),
    }


def _part(report: RobustnessReport, figures: PatientFigures, at: Budget | None) -> dict[str, Any]:
    clean = {one.endpoint: one for one in figures.shares if one.attack == CLEAN}
    attacked = {one.endpoint: one for one in figures.shares if one.attack != CLEAN and _is(one, at)}
    costs = {(one.truth, one.answer): one for one in figures.costs}
    # Counted under the result's own headline, which may be another where several are shown.
    same = not figures.attack or _is(figures, at)
    if not same:
        figures = msgspec.structs.replace(figures, strata=[], mistakes=[], mean_costs=[])
    return {
        "elsewhere": None if same else main_budget([report]),
        "shares": [
            (endpoint, clean[endpoint], attacked.get(endpoint))
            for endpoint in ENDPOINTS
            if endpoint in clean
        ],
        "strata": _group(figures),
        "mistakes": [
            (one, costs.get((one.truth, one.answer))) for one in figures.mistakes if one.attacked
        ],
        "priced": bool(figures.costs),
        "mean_costs": figures.mean_costs,
        "slices": report.split.n_slices,
        "said": _say(attacked.get("every slice")),
    }


def _is(share: PatientShare | PatientFigures, at: Budget | None) -> bool:
    return at is not None and (share.norm, share.eps, share.eps_units, share.target) == (
        at.norm,
        at.eps,
        at.eps_units,
        at.target,
    )


def _group(figures: PatientFigures) -> list[tuple[str, list[Any]]]:
    kinds = dict.fromkeys(one.by for one in figures.strata)
    return [(kind, [one for one in figures.strata if one.by == kind]) for kind in kinds]


def _say(share: PatientShare | None) -> str:
    """What an attacker does who may choose the slice."""
    if share is None or not share.of:
        return ""
    return (
        f"Of {share.of} patients with every slice right, an attacker who may choose the slice "
        f"turns {share.turned} ({percent(share.turned / share.of)})."
    )
