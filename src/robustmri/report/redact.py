"""Leave out whatever could lead to a patient: for a report that may leave the hospital."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import msgspec

from robustmri.results.schema import RobustnessReport

WITHHELD = "[withheld]"


def _pattern(identifiers: Iterable[str]) -> re.Pattern[str]:
    """Match any identifier as a whole word; short numbers only where the text calls them a case.

    Slices are often numbered 1, 2, 3: to strike every such number would strike the results too.
    """
    names = sorted(set(identifiers) - {""}, key=lambda name: (-len(name), name))
    plain = [re.escape(name) for name in names if not (name.isdigit() and len(name) < 5)]
    numbers = [re.escape(name) for name in names if name.isdigit() and len(name) < 5]
    never = r"(?!)"
    return re.compile(
        rf"(?<![A-Za-z0-9])(?:{'|'.join(plain) or never})(?![A-Za-z0-9])"
        rf"|(?<=['\"])(?:{'|'.join(numbers) or never})(?=['\"])"
        rf"|(?P<word>\b(?:case|slice|patient|group|id)s?\s+#?)"
        rf"(?:{'|'.join(numbers) or never})(?![A-Za-z0-9.])"
    )


# A folder may be named after a person or a project; its last part is enough to recognise a run by.
FOLDERS = re.compile(
    r"(?<![\w.<:/])(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?:[^\s/\\'\",]+[/\\])+(?=[^\s/\\])"
)
QUOTED = re.compile(r"'[^']*\d[^']*'")


def _bare(command: Any) -> Any:
    """A command line with the last part of each path only."""
    return (
        " ".join(PurePath(word).name for word in command.split())
        if isinstance(command, str)
        else command
    )


def redact(report: RobustnessReport, identifiers: Iterable[str]) -> RobustnessReport:
    """The same report without examples, case ids, names of folders, and any identifier in a text.

    In the details of checks, whatever stands in quotes and holds a digit goes too: it may name a
    training patient, who is not in `identifiers`.
    """
    listed = [case for check in (*report.checks, *report.split.leakage) for case in check.case_ids]
    listed += [
        name for example in report.examples for name in (example.case_id, example.patient_id)
    ]
    spared = {*report.cohort.classes, report.cohort.fingerprint}
    names = {*identifiers, *listed} - spared
    pattern = _pattern(names)

    def clean(text: str) -> str:
        if text in names:
            return WITHHELD
        text = pattern.sub(lambda found: (found.groupdict().get("word") or "") + WITHHELD, text)
        return FOLDERS.sub("", text)

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return clean(value)
        if isinstance(value, dict):
            return {
                clean(str(key)): walk(_bare(item) if key == "command" else item)
                for key, item in value.items()
            }
        return [walk(item) for item in value] if isinstance(value, list) else value

    plain: dict[str, Any] = msgspec.to_builtins(report)
    kept = {name: plain[name] for name in ("results", "confusions")}
    for check in (*plain["checks"], *plain["split"]["leakage"]):
        check["case_ids"] = []
        check["detail"] = QUOTED.sub(WITHHELD, check["detail"])
    plain = walk({**plain, "examples": []}) | kept
    plain["cohort"]["classes"] = report.cohort.classes
    return msgspec.convert(plain, RobustnessReport)
