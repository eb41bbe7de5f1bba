"""The files that others read, described as JSON Schema: `robustmri schema NAME`."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from robustmri.core.errors import SettingsError, did_you_mean
from robustmri.results import comparison, gate, schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Described(NamedTuple):
    """A kind of file, and the version of it that this release writes."""

    kind: Any
    version: int
    about: str


SCHEMAS = {
    "robustness": Described(
        schema.RobustnessReport, schema.SCHEMA_VERSION, "robustness.json, by evaluate"
    ),
    "comparison": Described(
        comparison.Comparison, comparison.SCHEMA_VERSION, "the JSON beside a page, by compare"
    ),
    "gate": Described(gate.Gate, gate.SCHEMA_VERSION, "the findings, by check --json"),
}


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a kind of file.

    Readers may rely on what is required; further fields may come within a version, which changes
    when one goes or means something else.

    Args:
        name: a key of `SCHEMAS`.

    Raises:
        SettingsError: no such kind.

    >>> json_schema("robustness")["properties"]["schema_version"]
    {'const': 2}
    """
    if name not in SCHEMAS:
        raise SettingsError(f"There is no schema {name!r}. {did_you_mean(name, SCHEMAS)}")
    found = SCHEMAS[name]
    made = _plainly(msgspec.json.schema(found.kind))
    root = made["$defs"].pop(made["$ref"].rpartition("/")[2])
    root["properties"]["schema_version"] = {"const": found.version}
    root["required"] = [*root.get("required", []), "schema_version"]
    return {
        "$schema": DIALECT,
        "$id": f"urn:robustmri:{name}:{found.version}",
        **root,
        "title": f"robustmri {name}, version {found.version}",
        "$defs": dict(sorted(made["$defs"].items())),
    }


def _plainly(schema: Any) -> Any:
    """The same, pairs as arrays of two: readers of older drafts do not know `prefixItems`."""
    if isinstance(schema, list):
        return [_plainly(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    plain, parts = {name: _plainly(one) for name, one in schema.items()}, schema.get("prefixItems")
    if parts and all(one == parts[0] for one in parts):
        plain["items"] = plain.pop("prefixItems")[0]
    return plain


def schema_text(name: str) -> str:
    """The same as text, indented, as it is published."""
    return msgspec.json.format(msgspec.json.encode(json_schema(name)), indent=2).decode() + "\n"
