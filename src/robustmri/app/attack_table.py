"""What the command line says of attacks: a table of all, and all there is to know of one."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from typing import Any

from robustmri.attacks import ATTACKS, Facts, make_attack
from robustmri.attacks.protocol import Knowledge
from robustmri.core.errors import SettingsError, did_you_mean
from robustmri.report.tables import Table

ASKS_FOR: dict[Knowledge, str] = {
    "gradients": "gradients",
    "scores": "logits",
    "decisions": "predicted class",
    "nothing": "nothing",
}


def tabulate_attacks() -> Table:
    """A row for each attack of ours, from its facts."""
    rows = []
    for name, (facts, _) in ATTACKS.items():
        norms, asks_for = ", ".join(facts.norms), ASKS_FOR[facts.knowledge]
        rows.append([name, facts.title, norms, kind_of(facts), asks_for, facts.paper])
    notes = [
        "More of one: robustmri attacks NAME. Besides: torchattacks:NAME, foolbox:NAME, and "
        "MODULE:NAME of one's own."
    ]
    return Table(["Name", "Attack", "Norms", "Search", "Asks for", "Paper"], rows, notes)


def describe_attack(name: str) -> str:
    """Facts, meaning and settings of one attack of ours.

    Raises:
        SettingsError: no such attack.
    """
    if name not in ATTACKS:
        raise SettingsError(f"There is no attack {name!r}. {did_you_mean(name, ATTACKS)}")
    facts, make = ATTACKS[name]
    made: Any = make_attack(name)
    settings = inspect.signature(make).parameters if facts.members else asdict(made)
    lines = [
        f"{name}: {facts.title}; {kind_of(facts)}; norms {', '.join(facts.norms)}; asks for "
        f"{ASKS_FOR[facts.knowledge]}.",
        f"Paper: {facts.paper}." + (f" https://doi.org/{facts.doi}" if facts.doi else ""),
        "",
        inspect.getdoc(make) or "",
        "",
    ]
    if inspect.isfunction(make) and not facts.members:
        lines += [f"Its settings are those of {type(made).__name__}:", inspect.getdoc(made) or ""]
        lines += [""]
    given = {
        setting: value.default if isinstance(value, inspect.Parameter) else value
        for setting, value in settings.items()
    }
    lines.append(
        "Defaults: " + ", ".join(f"{setting} = {value!r}" for setting, value in given.items())
    )
    return "\n".join(lines)


def kind_of(facts: Facts) -> str:
    """What it searches for, in two words.

    >>> kind_of(ATTACKS["fgsm"].facts), kind_of(ATTACKS["fmn"].facts)
    ('within eps', 'nearest image')
    """
    return "suite" if facts.members else "nearest image" if facts.minimal else "within eps"
