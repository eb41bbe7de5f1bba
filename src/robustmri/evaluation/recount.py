"""A result's numbers, counted again from the outcomes beside it: what is shown must follow from
what happened to each slice.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from robustmri.core.errors import ResultError
from robustmri.evaluation.further import FURTHER, count_further
from robustmri.evaluation.metrics import count_confusions, summarise
from robustmri.evaluation.nearest_neighbour import REMEMBERED, pool_memory
from robustmri.evaluation.patients import summarise_patients
from robustmri.evaluation.settings import CertifySettings
from robustmri.results.budget import CLEAN
from robustmri.results.certificate import load_certificate, read_certificates
from robustmri.results.outcomes import columns_of, met, read_table
from robustmri.results.schema import Result, RobustnessReport, load_result, suites_of

if TYPE_CHECKING:
    import pyarrow as pa

BEFORE = "cluster bootstrap"
"""How earlier versions counted the interval of a share."""
COUNTED = (
    "n",
    "accuracy",
    "ci_low",
    "ci_high",
    "median_distance",
    "only",
    "broken_by",
    "eps_image",
)


class Counted(NamedTuple):
    """A result, and the tables beside it that its numbers were counted from, by name."""

    result: RobustnessReport
    tables: dict[str, pa.Table]


def refuse_contradictions(folder: Path | str) -> Counted:
    """Count robustness.json again from the tables beside it, and give what was read.

    Raises:
        ResultError: a number differs, or one of the files is missing or damaged.
    """
    result = load_result(folder)
    tables = {name: read_table(folder, name, coded=True) for name in tables_of(result)}
    outcomes = columns_of(tables["outcomes"])
    counted = summarise(outcomes, suites=suites_of(result.attacks))
    if older := next((one.interval for one in result.results if BEFORE in one.interval), ""):
        raise ResultError(
            f"{folder} has intervals of an earlier version ({older!r}), which held less than they "
            "promised where patients were few. Evaluate again, into another --out."
        )
    said, found = _named(result.results), _named(counted)
    if len(said) < len(result.results):
        _refuse(folder, "robustness.json tells a number twice")
    if unlike := sorted(said.keys() ^ found.keys()):
        _refuse(folder, f"{unlike[0]} is in one of them only")
    for name, one in said.items():
        for field in COUNTED:
            told, true = getattr(one, field), getattr(found[name], field)
            if not _same(told, true):
                _refuse(folder, f"{name}: {field} is {told}, counted {true}")
        if one.interval != found[name].interval:
            _refuse(
                folder, f"{name}: its interval is {one.interval!r}, not {found[name].interval!r}"
            )
    clean = outcomes["attack"] == CLEAN
    tested = len(met(outcomes["case_id"][clean])[0]), len(met(outcomes["group"][clean])[0])
    if (result.split.n_slices, result.split.n_patients) != tested:
        _refuse(folder, f"{tested[0]} slices of {tested[1]} patients were tested")
    if result.confusions != count_confusions(outcomes, result.cohort.classes):
        _refuse(folder, "the confusions differ")
    if result.patients is not None:
        counted_patients = summarise_patients(
            outcomes,
            result.cohort.classes,
            costs=result.patients.costs,
        )
        if not _alike(msgspec.to_builtins(result.patients), msgspec.to_builtins(counted_patients)):
            _refuse(folder, "the figures by patient differ")
    if REMEMBERED in tables:
        remembered = pool_memory([result], tables[REMEMBERED])
        if not _alike(msgspec.to_builtins(result.baseline), msgspec.to_builtins(remembered)):
            _refuse(folder, f"the nearest neighbour's figures, of {REMEMBERED}.parquet, differ")
    _recount_further(folder, result, tables)
    _recount_certificate(folder, result)
    return Counted(result, tables)


def tables_of(result: RobustnessReport) -> list[str]:
    """Names of the tables that a result's numbers follow from."""
    remembered = [REMEMBERED] if result.baseline is not None else []
    return ["outcomes", *(name for name in FURTHER if getattr(result, name)), *remembered]


def _recount_further(
    folder: Path | str, result: RobustnessReport, tables: dict[str, pa.Table]
) -> None:
    """Regions, saliency and smallest changes; results of earlier releases have none."""
    if len(tables) == 1 and not result.sensitivity:
        return
    for name, found in count_further(result, tables).items():
        said = getattr(result, name)
        if said and not _alike(msgspec.to_builtins(said), msgspec.to_builtins(found)):
            _refuse(folder, f"{name} differ from what was counted")


def _recount_certificate(folder: Path | str, result: RobustnessReport) -> None:
    from robustmri.evaluation.certify import summarise_certificates

    said = load_certificate(folder, result)
    if said is None:
        return
    counted = summarise_certificates(
        columns_of(read_certificates(folder)),
        msgspec.convert(said.settings, CertifySettings),
        checkpoint_sha256=said.checkpoint_sha256,
        split=said.split,
    )
    for told, true in zip(
        [*said.certified, *said.attacked], [*counted.certified, *counted.attacked], strict=False
    ):
        if (told.eps, told.unit, told.n) != (true.eps, true.unit, true.n) or not all(
            _same(getattr(told, name), getattr(true, name))
            for name in ("accuracy", "ci_low", "ci_high")
        ):
            _refuse(folder, f"the certificate at {told.eps} by {told.unit} is {told.accuracy}")
    if (said.n_slices, said.n_patients, said.abstained, len(said.certified)) != (
        counted.n_slices,
        counted.n_patients,
        counted.abstained,
        len(counted.certified),
    ):
        _refuse(folder, "the certificate counts other slices")


def _named(results: list[Result]) -> dict[str, Result]:
    return {
        " ".join(
            filter(
                None,
                (
                    one.attack,
                    one.norm,
                    f"eps {one.eps} ({one.eps_units})" if one.eps is not None else "",
                    one.target and f"to {one.target}",
                    f"by {one.unit}",
                ),
            )
        ): one
        for one in results
    }


def _alike(told: Any, true: Any) -> bool:
    """Whether two trees of plain data are the same but for rounding."""
    if isinstance(told, dict) and isinstance(true, dict):
        return told.keys() == true.keys() and all(_alike(told[name], true[name]) for name in told)
    if isinstance(told, list) and isinstance(true, list):
        return len(told) == len(true) and all(map(_alike, told, true))
    return _same(told, true)


def _same(told: object, true: object) -> bool:
    if isinstance(told, float) and isinstance(true, float):
        return math.isclose(told, true, rel_tol=1e-9, abs_tol=1e-9)
    return told == true


def _refuse(folder: Path | str, difference: str) -> None:
    raise ResultError(
        f"{folder}: robustness.json contradicts outcomes.parquet ({difference}). One of them was "
        "changed after it was written, or an earlier version counted otherwise. Evaluate again, "
        "into another --out."
    )
