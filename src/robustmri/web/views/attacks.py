"""What an attack is, for who points at its name."""

from __future__ import annotations

from robustmri.results.budget import CLEAN, WORST
from robustmri.results.schema import AttackRun, RobustnessReport

SEES = {
    "gradients": "along the gradient of the network",
    "scores": "by how sure each answer is",
    "decisions": "by the answers alone",
    "nothing": "without asking the network",
}
ROWS = {
    CLEAN: "The slices as they are.",
    WORST: "For each slice the attack that did the most harm: what withstands here withstood all.",
}


def explain_attacks(report: RobustnessReport) -> dict[str, str]:
    """A sentence for each attack of a result, by name."""
    return ROWS | {
        run.attack: f"A change {_how(run)}, {SEES[run.knowledge]} ({run.paper})."
        for run in report.attacks
    }


def _how(run: AttackRun) -> str:
    if run.minimal:
        return "of any size, the nearest that fools, looked for"
    return "that is looked for in many steps" if run.iterative else "that is made at once"
