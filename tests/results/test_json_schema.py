"""The published schemas are those of this release, and describe what is written."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import fastjsonschema
import pytest
from typer.testing import CliRunner

from robustmri.app.cli import app
from robustmri.core.errors import SettingsError
from robustmri.results.json_schema import SCHEMAS, json_schema, schema_text

ROOT = Path(__file__).resolve().parents[2]
RESULTS = sorted((ROOT / "results").rglob("robustness.json"))
validate = fastjsonschema.compile(json_schema("robustness"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_published_is_what_this_release_says(name):
    path = ROOT / "docs" / "schemas" / f"{name}-{SCHEMAS[name].version}.json"
    assert path.read_text(encoding="utf-8") == schema_text(name), (
        f"write it anew: robustmri schema {name} --out {path.relative_to(ROOT)}"
    )


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.relative_to(ROOT).as_posix())
def test_every_committed_result_is_described(path):
    validate(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda told: told.pop("results"),
        lambda told: told["results"][0].update(accuracy="high"),
        lambda told: told["checks"][0].update(status="maybe"),
        lambda told: told.update(schema_version=1),
        lambda told: told.pop("schema_version"),
    ],
)
def test_what_is_no_result_is_not_described(spoil):
    told = copy.deepcopy(json.loads(RESULTS[0].read_text(encoding="utf-8")))
    validate(told)
    spoil(told)
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        validate(told)


def test_the_command_prints_or_writes_it(tmp_path):
    assert json.loads(CliRunner().invoke(app, ["schema", "gate"]).output) == json_schema("gate")
    out = tmp_path / "gate.json"
    CliRunner().invoke(app, ["schema", "gate", "--out", str(out)])
    assert out.read_text(encoding="utf-8") == schema_text("gate")
    with pytest.raises(SettingsError, match="Did you mean 'gate'"):
        json_schema("gates")
