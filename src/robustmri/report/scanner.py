"""What a scanner does, and how much worse it can be made: rows for the report and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import msgspec

from robustmri.report.tables import Row, Table, align, stage_names
from robustmri.report.wording import budget_words, norms_of, people, points, with_interval
from robustmri.results.budget import CLEAN, CORRUPTION, RANDOM, RANDOM_SEARCH, WORST, Budget
from robustmri.results.headline import main_budget
from robustmri.results.schema import Result, RobustnessReport

Numbers = list[Result | None]
NOTICEABLE = 0.01
"""A mean that changes by less is called the same."""


class CorruptionRow(msgspec.Struct, frozen=True):
    """One corruption, or the worst of all for each slice.

    Attributes:
        name: as a reader sees it.
        what: what its amounts are; empty for the worst of all.
        severities: for each severity a number per result.
        means: over the severities, per result; None where one is missing.
    """

    name: str
    what: str
    severities: list[Numbers]
    means: list[float | None]

    @property
    def change(self) -> float | None:
        """Mean of the last result less that of the first."""
        first, last = self.means[0], self.means[-1]
        return None if len(self.means) < 2 or first is None or last is None else last - first


class ThreatRow(msgspec.Struct, frozen=True):
    """One threat: what happens on average, and at worst.

    Attributes:
        name: threat with its eps.
        average: one random draw for each slice, per result; for an attack in a norm, random noise.
        random: the worst of several random draws.
        worst: the worst that was found at all.
    """

    name: str
    average: Numbers
    random: Numbers
    worst: Numbers


def corruption_rows(results: Sequence[RobustnessReport]) -> list[CorruptionRow]:
    """A row for each corruption in the order of the results, then the worst of all."""
    found: dict[str, list[Row]] = {}
    for row in align(results):
        if row.budget.norm == CORRUPTION:
            found.setdefault(row.attack, []).append(row)
    whats = {
        run.attack: str(run.settings.get("what", ""))
        for report in results
        for run in report.attacks
        if run.norm == CORRUPTION
    }
    order = sorted(found, key=lambda attack: attack == WORST)
    rows = []
    for attack in order:
        slices = [row.slices for row in sorted(found[attack], key=lambda row: row.budget.eps or 0)]
        name = "Worst of all, for each slice" if attack == WORST else found[attack][0].name
        means = [_mean([numbers[place] for numbers in slices]) for place in range(len(results))]
        rows.append(CorruptionRow(name, whats.get(attack, ""), slices, means))
    return rows


def threat_rows(results: Sequence[RobustnessReport]) -> list[ThreatRow]:
    """The threat of the headline first, then each physical one that was looked at."""
    norms, at = norms_of(results), main_budget(results)
    found: dict[Budget, dict[str, Numbers]] = {}
    for row in align(results):
        physical = row.budget.norm and norms[row.budget.norm].kind == "physical"
        if row.attack != CLEAN and (row.budget == at or physical):
            found.setdefault(row.budget, {})[row.attack] = row.slices
    none: Numbers = [None] * len(results)
    order = sorted(found, key=lambda budget: budget != at)
    return [
        ThreatRow(
            budget_words(budget, norms),
            found[budget].get(RANDOM) or found[budget].get("noise") or none,
            found[budget].get(RANDOM_SEARCH) or none,
            found[budget].get(WORST) or none,
        )
        for budget in order
    ]


def count_helped(rows: Sequence[CorruptionRow]) -> tuple[int, int, int]:
    """Corruptions under which the last result is better, worse and the same as the first."""
    changes = [row.change for row in rows if row.what and row.change is not None]
    better = sum(change >= NOTICEABLE for change in changes)
    worse = sum(change <= -NOTICEABLE for change in changes)
    return better, worse, len(changes) - better - worse


def corruption_table(results: Sequence[RobustnessReport]) -> Table | None:
    """Accuracy under each corruption at severity 1, 3 and 5, and the mean over all five; None where
    none was measured.
    """
    rows = corruption_rows(results)
    if not rows:
        return None
    headers = ["Corruption, severity 1 / 3 / 5", *stage_names(results)]
    lines = []
    for row in rows:
        cells = []
        for place, mean in enumerate(row.means):
            shown = [row.severities[number][place] for number in (0, 2, 4)]
            said = " / ".join(f"{100 * one.accuracy:.1f}" if one else "-" for one in shown)
            cells.append(said if mean is None else f"{said} %, mean {100 * mean:.1f}")
        lines.append([row.name, *cells])
    return Table(headers, lines)


def threat_table(results: Sequence[RobustnessReport]) -> Table | None:
    """Each threat with its average and its worst case; None where only attacks in a norm were run
    and no threat stands beside them.
    """
    rows = threat_rows(results)
    if len(rows) < 2:
        return None
    names = stage_names(results)
    headers = ["Threat"]
    for name in names:
        before = f"{name}: " if len(names) > 1 else ""
        headers += [f"{before}random draw", f"{before}worst of random", f"{before}worst found"]
    headers += ["Change, points"] if len(names) > 1 else []
    lines = []
    for row in rows:
        cells = [
            with_interval(number.accuracy, number) if number else "-"
            for place in range(len(names))
            for number in (row.average[place], row.random[place], row.worst[place])
        ]
        first, last = row.worst[0], row.worst[-1]
        if len(names) > 1:
            cells.append(points(last.accuracy - first.accuracy) if first and last else "-")
        lines.append([row.name, *cells])
    cohort = results[0].cohort
    return Table(headers, lines, [f"Brackets: 95 % interval, by {people(cohort)}."])


def _mean(numbers: Numbers) -> float | None:
    return fmean(one.accuracy for one in numbers if one) if all(numbers) and numbers else None
