"""What the sections of a report share: the results, and what is derived from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from robustmri.report.tables import Published, Row, align, stage_names
from robustmri.report.verdict import CheckRow, failures, gather_checks
from robustmri.report.wording import norms_of, people, titles_of
from robustmri.results.acceptance import Acceptance, Judged
from robustmri.results.budget import Budget
from robustmri.results.certificate import Certificate
from robustmri.results.comparison import Comparison
from robustmri.results.headline import main_budget
from robustmri.results.lineage import repairs
from robustmri.results.outcomes import Outcomes
from robustmri.results.schema import Check, NormFacts, RobustnessReport


@dataclass(frozen=True)
class Page:
    """The input of every section.

    Args:
        results: the one before repair first.
        outcomes: of each result.
        images: whether scans and case ids may be shown.
        arrays: pictures of the examples; None where there are none to show.
        published: figures from the literature to stand beside the measured ones.
        given: names of the classifiers; empty for those that tell them apart.
        comparison: of two results, paired.
        certificates: of each result that has one.
        maps: of the examples, where the first classifier looks, by method; None without pictures.
        acceptance: what people decided of the classifier; None where nothing was given.
        judged: for each result its numbers, held against the minima.
    """

    results: Sequence[RobustnessReport]
    outcomes: Sequence[Outcomes]
    images: bool
    arrays: dict[str, Any] | None
    published: Sequence[Published]
    given: Sequence[str] = ()
    comparison: Comparison | None = None
    certificates: Sequence[Certificate | None] = ()
    maps: dict[str, Any] | None = None
    acceptance: Acceptance | None = None
    judged: Sequence[Sequence[Judged]] = ()

    @cached_property
    def budget(self) -> Budget | None:
        """The one that the headline is about."""
        return main_budget(self.results)

    @cached_property
    def names(self) -> list[str]:
        """Heads of the columns: a stage or a model each."""
        return list(self.given) or stage_names(self.results)

    @cached_property
    def titles(self) -> dict[str, str]:
        """Name of an attack to how the field writes it."""
        return titles_of(self.results)

    @cached_property
    def norms(self) -> dict[str, NormFacts]:
        """Name of a norm to how to speak of it."""
        return norms_of(self.results)

    @cached_property
    def rows(self) -> list[Row]:
        """A row for each attack and budget."""
        return align(self.results)

    @cached_property
    def checks(self) -> list[CheckRow]:
        """Checks of all results, and of the comparison."""
        return gather_checks(self.results, _compare_attacks(self.results), self.names)

    @cached_property
    def shared(self) -> dict[str, Any]:
        """What every template may use."""
        return {
            "results": self.results,
            "first": self.results[0],
            "names": self.names,
            "repairs": repairs(self.results),
            "at": self.budget,
            "people": people(self.results[0].cohort),
            "reasons": failures(self.checks),
            "images": self.images,
            "compared": self.comparison,
        }


ATTACKER = (
    *("norm", "threat", "target", "region"),
    *("max_gradients", "max_forwards", "max_seconds"),
)
"""Settings that say who attacks, and what may be spent."""


def same_attack(one: Any, other: Any) -> bool:
    """Whether two figures are of the same attack within the same budget."""
    named = ("attack", "norm", "eps", "eps_units", "target")
    return all(getattr(one, name) == getattr(other, name) for name in named)


def _compare_attacks(results: Sequence[RobustnessReport]) -> list[Check]:
    """Before and after are comparable only under the same attacks with the same settings."""
    if len(results) == 1:
        return []

    def settings(report: RobustnessReport) -> list[tuple[Any, ...]]:
        ran = [(run.attack, run.eps, run.settings) for run in report.attacks]
        return [*ran, *((name, getattr(report.asked, name)) for name in ATTACKER)]

    if all(settings(report) == settings(results[0]) for report in results):
        return [
            Check(
                name="Same attacks on both sides", status="pass", detail="Names and settings agree."
            )
        ]
    detail = (
        "The attacks or their settings differ between the results; rows may not be comparable. "
        "See the settings."
    )
    return [Check(name="Same attacks on both sides", status="warn", detail=detail)]
