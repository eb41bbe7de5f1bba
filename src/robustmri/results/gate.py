"""Whether a result passes: its findings, as JSON and as JUnit XML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import msgspec

from robustmri.core.files import atomic_file, write_struct
from robustmri.results.schema import Status

SCHEMA_VERSION = 1
Kind = Literal["criterion", "check", "baseline"]
# What XML 1.0 cannot hold, however it is escaped.
UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at, and how it ended."""

    kind: Kind
    name: str
    status: Status
    detail: str


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """All findings about one result; `passed` where none of them failed."""

    passed: bool
    findings: list[Finding]
    checkpoint_sha256: str
    baseline_sha256: str = ""
    decided_by: str = ""
    provenance: dict[str, Any] = {}
    schema_version: int = SCHEMA_VERSION


def save_gate(gate: Gate, path: Path | str) -> Path:
    """Write it as JSON, atomically."""
    write_struct(path, gate)
    return Path(path)


def save_junit(gate: Gate, path: Path | str) -> Path:
    """Write it as JUnit XML, atomically: a test case for each finding, a warning as its output."""
    failed = sum(finding.status == "fail" for finding in gate.findings)
    counts = {"tests": str(len(gate.findings)), "failures": str(failed), "errors": "0"}
    root = ElementTree.Element("testsuites", {"name": "robustmri", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "robustmri", **counts})
    for finding in gate.findings:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"robustmri.{finding.kind}",
            name=_writable(finding.name),
            time="0",
        )
        if finding.status == "fail":
            ElementTree.SubElement(case, "failure", message=_writable(finding.detail))
        else:
            ElementTree.SubElement(case, "system-out").text = _writable(
                f"{finding.status}: {finding.detail}"
            )
    ElementTree.indent(root)
    with atomic_file(path) as partial:
        partial.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
    return Path(path)


def _writable(text: str) -> str:
    return UNWRITABLE.sub("?", text)
