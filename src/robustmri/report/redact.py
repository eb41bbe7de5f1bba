"""Leave out whatever could lead to a patient: for a report that may leave the hospital.

First by structure: what a person can have typed or named (titles, folders, commands, files, lists
of cases) is not shown, whatever it says. Then by search: no identifier of the results, however it
is written, stays in the sentences that are left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from unicodedata import normalize

import msgspec

from robustmri.results.acceptance import Acceptance
from robustmri.results.budget import CORRUPTION
from robustmri.results.comparison import Comparison
from robustmri.results.schema import RobustnessReport

WITHHELD = "[withheld]"
TITLE = "Robustness of a classifier"
TYPED = ("command", "examples", "logger")
"""Settings and facts that are a person's own words."""
ORIGIN = (
    *("robustmri", "commit", "python", "packages", "system", "processor", "accelerator", "cores"),
    *("seed", "created", "cohort", "split", "start", "kept_epoch", "training_seconds"),
    *("checkpoint", "pooled"),
)
"""What is shown of a result's origin."""
TERM = re.compile(r"[A-Za-z][\w:@+-]*|[\d.]+(?:/\d+)?(?:@\w+)?|[0-9a-f]{8,64}|")
"""A name from the tool's vocabulary, a number, or a hash: one word, no file name."""
# A folder may be named after a person or a project; its last part is enough to recognise a run by.
FOLDERS = re.compile(
    r"(?<![\w.</])(?!(?<=:)//)(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?:[^\s/\\'\",]+[/\\])+(?=[^\s/\\])"
)
QUOTED = re.compile(r"'[^']*\d[^']*'")


def redact(report: RobustnessReport, identifiers: Iterable[str]) -> RobustnessReport:
    """The same report without examples, case ids, names that a person gave, and any identifier in a
    text.

    In the details of checks, whatever stands in quotes and holds a digit goes too: it may name a
    training patient, who is not in `identifiers`.
    """
    listed = [case for check in (*report.checks, *report.split.leakage) for case in check.case_ids]
    listed += [
        name for example in report.examples for name in (example.case_id, example.patient_id)
    ]
    search = _Search({*identifiers, *listed} - {*report.cohort.classes, report.cohort.fingerprint})
    plain: dict[str, Any] = msgspec.to_builtins(report)
    kept = {name: plain[name] for name in ("results", "confusions", "patients")}
    for cost in (kept["patients"] or {}).get("costs", ()):
        cost["consequence"] = ""
    for check in (*plain["checks"], *plain["split"]["leakage"], *plain["model"]["checks"]):
        check["case_ids"] = []
        check["detail"] = QUOTED.sub(WITHHELD, check["detail"])
    plain |= {"title": TITLE, "examples": [], "files": {}}
    plain["cohort"]["name"] = f"cohort {report.cohort.fingerprint[:8]}"
    plain["model"]["weights"] = weights_words(report.model.weights)
    for name in ("source", "route"):
        plain["model"][name] = WITHHELD if plain["model"][name] else ""
    plain["model"]["guessed"] = [WITHHELD for _ in report.model.guessed]
    plain["settings"] = _terms(plain["settings"], search)
    plain["model"]["training"] = _terms(plain["model"]["training"], search)
    for run in plain["attacks"]:
        # What the amount of a corruption is stands in words of the tool.
        what = run["settings"].get("what") if run["norm"] == CORRUPTION else None
        run["settings"] = _terms(run["settings"], search) | ({"what": what} if what else {})
    plain["provenance"] = origin_of(plain["provenance"])
    plain = _walk(plain, search) | kept
    plain["cohort"]["classes"] = report.cohort.classes
    return msgspec.convert(plain, RobustnessReport)


def redact_comparison(comparison: Comparison, identifiers: Iterable[str]) -> Comparison:
    """The same comparison without the patients who turned, and any identifier in a text; the names
    of the two are those that were given for this page.
    """
    search = _Search(identifiers)
    return msgspec.structs.replace(
        comparison,
        patients=[],
        scope=[search.clean(sentence) for sentence in comparison.scope],
        provenance=origin_of(comparison.provenance),
    )


def redact_acceptance(acceptance: Acceptance, identifiers: Iterable[str]) -> Acceptance:
    """The same words, which were given for this page, without any identifier in them."""
    search = _Search(identifiers)
    words = {
        name: search.clean(getattr(acceptance, name))
        for name in ("intended_use", "version", "decided_by")
    }
    return msgspec.structs.replace(acceptance, **words)


def weights_words(words: str) -> str:
    """What a network started from, without the file's name."""
    found = re.search(r"sha256 ([0-9a-f]{8,64})", words)
    if words == "none":
        return words
    return f"a file (sha256 {found[1]})" if found else WITHHELD


def _terms(value: Any, search: _Search) -> Any:
    """Settings with the tool's own words in them, and no others."""
    if isinstance(value, dict):
        return {
            key: weights_words(item)
            if key == "weights" and isinstance(item, str)
            else _terms(item, search)
            for key, item in value.items()
            if key not in TYPED
        }
    if isinstance(value, list):
        return [_terms(item, search) for item in value]
    if isinstance(value, str):
        return value if TERM.fullmatch(value) and value not in search else WITHHELD
    return value


def origin_of(facts: dict[str, Any]) -> dict[str, Any]:
    """Where something comes from, without what a person typed."""
    kept = {name: facts[name] for name in ORIGIN if name in facts}
    if isinstance(kept.get("checkpoint"), dict):
        kept["checkpoint"] = origin_of(kept["checkpoint"])
    if isinstance(kept.get("pooled"), list):
        kept["pooled"] = [origin_of(part) for part in kept["pooled"] if isinstance(part, dict)]
    return kept


def _walk(value: Any, search: _Search) -> Any:
    if isinstance(value, str):
        return search.clean(value)
    if isinstance(value, dict):
        return {search.clean(str(key)): _walk(item, search) for key, item in value.items()}
    return [_walk(item, search) for item in value] if isinstance(value, list) else value


class _Search:
    """Finds identifiers as whole words, in capital or small letters and any Unicode form.

    Slices are often numbered 1, 2, 3: to strike every such number would strike the results too, so
    numbers of less than five digits go only where the text calls them a case.
    """

    def __init__(self, identifiers: Iterable[str]) -> None:
        names = sorted({_plain(name) for name in identifiers} - {""}, key=lambda n: (-len(n), n))
        self._names = set(names)
        self._numbers = {name for name in names if name.isdecimal() and len(name) < 5}
        words = "|".join(re.escape(name) for name in names if name not in self._numbers)
        numbers = "|".join(sorted(self._numbers, key=lambda n: (-len(n), n)))
        never = r"(?!)"
        self._words = re.compile(
            rf"(?<![A-Za-z0-9])(?:{words or never})(?![A-Za-z0-9])"
            rf"|(?<=['\"])(?:{numbers or never})(?=['\"])",
            re.IGNORECASE,
        )
        self._lists = re.compile(
            r"(?P<word>\b(?:case|slice|patient|group|id)s?\s+#?)"
            r"(?P<list>\d{1,4}(?:(?:,\s*|\s+and\s+|\s*-\s*)#?\d{1,4})*)(?![A-Za-z0-9.]*[A-Za-z0-9])",
            re.IGNORECASE,
        )

    def __contains__(self, text: str) -> bool:
        return _plain(text) in self._names

    def clean(self, text: str) -> str:
        """The text without them."""
        if text in self:
            return WITHHELD
        text = self._words.sub(WITHHELD, normalize("NFC", text))
        return FOLDERS.sub("", self._lists.sub(self._strike, text))

    def _strike(self, found: re.Match[str]) -> str:
        def number(one: re.Match[str]) -> str:
            return WITHHELD if one[0] in self._numbers else one[0]

        return found["word"] + re.sub(r"\d+", number, found["list"])


def _plain(name: str) -> str:
    return normalize("NFC", name).casefold()
