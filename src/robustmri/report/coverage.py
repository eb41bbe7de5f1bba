"""What a run holds of what standards and regulators speak of: a map in their words, never a claim
that anything conforms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec

from robustmri.report.wording import people
from robustmri.results.budget import CLEAN
from robustmri.results.schema import RobustnessReport

State = Literal["covered", "partly", "not covered"]
NOISE = "noise"
PIXELWISE = {"", "linf", "l2", "l1", "l0"}
"""Norms of a deliberate change of pixels; others are changes as a scanner makes them."""


class Covered(msgspec.Struct, frozen=True):
    """A word of theirs, and what the run has to say to it."""

    word: str
    state: State
    said: str


class Source(msgspec.Struct, frozen=True):
    """A document, and the words of it."""

    title: str
    words: list[Covered]


class Run(NamedTuple):
    """What was run, over all results of the page."""

    results: Sequence[RobustnessReport]
    certified: bool
    accepted: bool

    @property
    def first(self) -> RobustnessReport:
        """The one whose cohort and split are shown."""
        return self.results[0]

    @property
    def knowledge(self) -> set[str]:
        """What the attackers knew."""
        return {run.knowledge for report in self.results for run in report.attacks}

    @property
    def attacks(self) -> set[str]:
        """Names of the attacks."""
        return {run.attack for report in self.results for run in report.attacks}

    def titles(self, *knowledge: str) -> str:
        """The attacks with that knowledge, and the members of suites with it, in words. Random
        noise searches for nothing.
        """
        found = []
        runs = [run for report in self.results for run in report.attacks if run.attack != NOISE]
        for run in runs:
            found += [run.title] if run.knowledge in knowledge else []
            found += [
                f"{run.members[name]} (of {run.title})"
                for name, known in run.member_knowledge.items()
                if known in knowledge and known != run.knowledge
            ]
        return ", ".join(dict.fromkeys(found))

    @property
    def strata(self) -> list[str]:
        """What patients and slices are divided by."""
        strata = self.first.patients.strata if self.first.patients else []
        return list(dict.fromkeys(["class", *(one.by for one in strata)]))

    @property
    def detectors(self) -> str:
        """Titles of the detectors, in words."""
        found = [one.title for report in self.results for one in report.detection]
        return ", ".join(dict.fromkeys(found))

    @property
    def other_changes(self) -> str:
        """Changes that are no change of single pixels, in words."""
        norms = {name: facts.title for one in self.results for name, facts in one.norms.items()}
        return ", ".join(title for name, title in norms.items() if name not in PIXELWISE)


def map_coverage(
    results: Sequence[RobustnessReport], *, certified: bool = False, accepted: bool = False
) -> list[Source]:
    """The documents in the order in which they are shown.

    Args:
        results: of the page.
        certified: whether one of them has a certificate.
        accepted: whether people gave minima.
    """
    run = Run(results, certified, accepted)
    return [Source(title, tell(run)) for title, tell in SOURCES.items()]


def _nist(run: Run) -> list[Covered]:
    white, queries = run.titles("gradients"), run.titles("scores", "decisions")
    targets = sorted({number.target for one in run.results for number in one.results} - {""})
    return [
        Covered("Evasion, white box", *_ran(white, "no attack followed the gradients.")),
        Covered("Evasion, black box", *_ran(queries, "no attack by queries was run.")),
        Covered(
            "Evasion, transferred",
            "covered" if "transfer" in run.attacks else "not covered",
            "Examples of another network were tried."
            if "transfer" in run.attacks
            else "No examples of another network were tried as an attack of their own.",
        ),
        Covered(
            "Targeted evasion",
            "covered" if targets else "not covered",
            f"Towards {', '.join(targets)}."
            if targets
            else "Any wrong answer counted as a success; none was asked for.",
        ),
        Covered("Poisoning, of data or model", "not covered", "The training was not attacked."),
        Covered(
            "Privacy: extraction, inversion, membership",
            "not covered",
            "What the network gives away was not asked.",
        ),
    ]


def _iso(run: Run) -> list[Covered]:
    tried = bool(run.attacks)
    return [
        Covered(
            "Stability: the same answer within a domain",
            "partly" if tried else "not covered",
            "Tested by attacks within a stated distance of each slice: an upper bound, not a proof."
            if tried
            else "No attack was run.",
        ),
        Covered(
            "Statistical methods",
            "covered",
            "Shares with 95 % intervals that draw whole "
            f"{people(run.first.cohort)}, and checks of the run by itself.",
        ),
        Covered(
            "Formal methods (Part 2)",
            "partly" if run.certified else "not covered",
            "No solver or abstract interpretation. Randomised smoothing gives a certificate that "
            "holds with a stated probability."
            if run.certified
            else "No property was proven.",
        ),
        Covered(
            "Sensitivity, relevance, reachability",
            "not covered",
            "They are not measured in the standard's sense.",
        ),
    ]


def _fda(run: Run) -> list[Covered]:
    leaking = any(check.status == "fail" for check in run.first.split.leakage)
    independent = run.first.split.kind != "slice" and not leaking
    return [
        Covered(
            "Independence of test data",
            "covered" if independent and run.first.model.training else "partly",
            f"Split by {run.first.split.kind}; leakage was looked for."
            if run.first.split.kind != "none"
            else "External: all slices of the cohort are tests.",
        ),
        Covered(
            "Performance with confidence intervals", "covered", "Untouched and under each attack."
        ),
        Covered(
            "Performance in subgroups",
            "partly",
            f"By {', '.join(run.strata)}. Sex, age, site and scanner are not in the result.",
        ),
        Covered(
            "Cybersecurity: model evasion",
            "partly" if run.attacks else "not covered",
            "The attacks above, within the stated budgets."
            if run.attacks
            else "No attack was run.",
        ),
        Covered(
            "Cybersecurity: data leakage, overfitting",
            "partly",
            "Copies across the split are looked for; they bear on the figures, and are no test of "
            "an attacker.",
        ),
        Covered(
            "Cybersecurity: poisoning, inversion, stealing, model bias, performance drift",
            "not covered",
            "None of them was tested.",
        ),
        Covered(
            "Risk assessment, labelling, monitoring after release, human factors",
            "not covered",
            "They are not a matter of one evaluation.",
        ),
    ]


def _ai_act(run: Run) -> list[Covered]:
    clean = [one for one in run.first.results if one.attack == CLEAN]
    changes, detectors = run.other_changes, run.detectors
    return [
        Covered(
            "Accuracy, its metrics declared (paragraphs 1 and 3)",
            "partly" if clean else "not covered",
            "Accuracy with its interval and what it counts. "
            + (
                "Minima were given and held against it."
                if run.accepted
                else "No minima were given."
            ),
        ),
        Covered(
            "Robustness: errors, faults, inconsistencies (4)",
            "partly" if changes else "not covered",
            f"Changes as a scanner makes them: {changes}."
            if changes
            else "Only deliberate changes were tried, no faults of a scanner or of software.",
        ),
        Covered(
            "Robustness: feedback loops (4)", "not covered", "The classifier does not learn here."
        ),
        Covered(
            "Cybersecurity: adversarial examples, model evasion (5)",
            "partly" if run.attacks else "not covered",
            "The attacks above, within the stated budgets."
            if run.attacks
            else "No attack was run.",
        ),
        Covered(
            "Cybersecurity: measures to detect such attacks (5)",
            "partly" if detectors else "not covered",
            f"{detectors}, each also under an attack that knows it."
            if detectors
            else "No detector was held against an attack.",
        ),
        Covered(
            "Cybersecurity: data and model poisoning, confidentiality, model flaws (5)",
            "not covered",
            "None of them was tested.",
        ),
    ]


def _ran(titles: str, otherwise: str) -> tuple[State, str]:
    return ("covered", f"{titles}.") if titles else ("not covered", otherwise.capitalize())


SOURCES: dict[str, Callable[[Run], list[Covered]]] = {
    "NIST AI 100-2e2025, Adversarial Machine Learning": _nist,
    "ISO/IEC 24029, Robustness of neural networks": _iso,
    "FDA draft guidance of January 2025, AI-Enabled Device Software Functions": _fda,
    "EU AI Act (Regulation 2024/1689), Article 15": _ai_act,
}
