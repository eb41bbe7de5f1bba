"""For whom a report speaks, told for each kind of classifier and test."""

from __future__ import annotations

import msgspec
import pytest

from robustmri.report.glance import glance
from robustmri.report.redact import WITHHELD, redact
from robustmri.results.schema import Check, load_result

IMPORT = {
    "source": "ward7.onnx",
    "route": "ONNX, a graph of known operators. It ends in softmax, which was taken off.",
    "guessed": ["Its images have 224 px, the usual one: the file does not say."],
    "checks": [
        Check(name="order of the classes", status="warn", detail="12 of 32 slices right."),
        Check(name="same answer twice", status="pass", detail="Yes."),
    ],
    "training": {},
    "name": "Given checkpoint",
}


@pytest.fixture
def tell(build):
    """`tell(model={...}, split={...})`: name of a fact to its sentences."""
    result = load_result(build("one"))

    def tell(redacted=False, **parts):
        changed = msgspec.structs.replace(
            result,
            **{
                name: msgspec.structs.replace(getattr(result, name), **fields)
                if isinstance(getattr(result, name), msgspec.Struct)
                else fields
                for name, fields in parts.items()
            },
        )
        changed = redact(changed, ["P100"]) if redacted else changed
        return {fact.name: " ".join(fact.told[0]) for fact in glance([changed])}

    return tell


def knowing(result, knowledge):
    return [msgspec.structs.replace(run, knowledge=knowledge) for run in result.attacks]


@pytest.mark.parametrize(
    ("parts", "name", "expected"),
    [
        ({}, "Model", "resnet18, standard training; sha256 cdcdcdcdcdcd"),
        ({}, "Origin", "Trained here, from weights imagenet"),
        ({"model": {"weights": "none"}}, "Origin", "Trained here, from a fresh network."),
        (
            {"provenance": {"checkpoint": {"start": "ab" * 32}}},
            "Origin",
            "the network abababababab.",
        ),
        (
            {"provenance": {"checkpoint": {"start": "ab" * 32, "training_seconds": 1081.3}}},
            "Origin",
            "the network abababababab, in 18 min.",
        ),
        ({"provenance": {}}, "Origin", "Trained here."),
        ({"model": {"training": {}}}, "Origin", "How it came about is not in the result."),
        ({"model": IMPORT}, "Origin", "Not trained here; imported: ONNX, a graph"),
        ({"model": IMPORT}, "Model", "resnet18, ward7.onnx; sha256"),
        ({}, "Tested on", "408 test slices of 36 patients, 48 px, from t1ce. No patient is in two"),
        ({"split": {"kind": "none"}}, "Tested on", "External validation"),
        ({"split": {"kind": "slice"}}, "Tested on", "patients are on both sides"),
        ({"model": IMPORT}, "Tested on", "what it was trained on is not known here"),
        ({"cohort": {"synthetic": True}}, "Tested on", "408 synthetic test slices"),
        ({}, "Attacker", "White box"),
        ({"model": {"black_box": True}}, "Attacker", "Black box: it offers no gradient"),
        ({"threat": ["Knowledge: black box, the attacker can only ask."]}, "Attacker", "Black box"),
        ({"attacks": []}, "Attacker", "No attack was run."),
        ({"model": IMPORT}, "Guessed", "Its images have 224 px"),
        ({"model": IMPORT}, "Guessed", "on synthetic slices: neither its accuracy"),
        (
            {"model": {**IMPORT, "checked_on": "0123456789abcdef"}},
            "Guessed",
            "slices of this cohort",
        ),
        ({"model": {**IMPORT, "checked_on": "99"}}, "Guessed", "slices of another cohort"),
        (
            {"model": IMPORT},
            "Guessed",
            "1 of 2 checks passed. warn: order of the classes. 12 of 32",
        ),
        ({"model": {**IMPORT, "guessed": []}}, "Guessed", "Nothing was guessed at import."),
        ({"model": {**IMPORT, "checks": []}}, "Guessed", "The import was not checked."),
        ({"model": {"guessed": ["Its mean."]}}, "Guessed", "Guessed at import: Its mean."),
    ],
)
def test_each_fact(tell, parts, name, expected):
    told = tell(**parts)
    assert expected in told[name]
    assert ("Guessed" in told) == bool(parts.get("model", {}).get("guessed") is not None)


def test_what_it_learnt_from_is_told_where_it_learnt_from_this_split(tell):
    split = {"sets": {"train": (1729, 122), "validation": (372, 24)}, "fingerprint": "ab"}
    assert tell(model={"split": "ab"}, split=split)["Trained on"] == (
        "1729 slices of 122 patients; 372 of 24 patients to choose the epoch."
    )
    assert "Trained on" not in tell(model={"split": "cd"}, split=split)
    assert "Trained on" not in tell()


def test_gradients_that_nobody_asked_for_are_told(build):
    result = load_result(build("one"))
    asked = msgspec.structs.replace(result, attacks=knowing(result, "scores"))
    (told,) = next(fact.told for fact in glance([asked]) if fact.name == "Attacker")
    assert told[0].startswith("It offers gradients, but only attacks without them were run (FGSM")


def test_a_copy_that_leaves_keeps_files_and_wording_back(tell):
    told = tell(redacted=True, model={**IMPORT, "weights": "ward7.onnx (sha256 0123456789abcdef)"})
    text = str(told)
    for word in ("ward7", "softmax", "224 px", "t1ce", WITHHELD):
        assert word not in text
    assert told["Origin"] == "Not trained here; imported."
    assert "1 things" not in told["Guessed"]
    assert "Guessed at import: 1, not told in this copy." in told["Guessed"]
    assert "warn: order of the classes." in told["Guessed"]


def test_two_results_share_what_is_the_same(pair):
    told = {fact.name: len(fact.told) for fact in glance([load_result(folder) for folder in pair])}
    assert told == {"Model": 2, "Origin": 2, "Tested on": 1, "Attacker": 1}
