from __future__ import annotations

import msgspec
import pytest

from robustmri.core.errors import SettingsError
from robustmri.report.tables import check_names, stage_names
from robustmri.results.lineage import put_repair_last, repairs, start_of
from robustmri.results.schema import load_result

FIRST = "cd" * 32
"""Hash of the standard network's weights."""


def pooled(result, *starts):
    parts = [{"checkpoint": {"start": start}} for start in starts]
    return msgspec.structs.replace(result, provenance={"pooled": parts})


@pytest.mark.parametrize(
    ("start", "before", "expected"),
    [
        (FIRST, {}, True),
        ("scratch", {}, True),  # The same fresh network, on the same split.
        ("scratch", {"backbone": "vit"}, False),
        ("scratch", {"start": "ef" * 32}, False),
        ("ef" * 32, {}, False),
        ("", {}, False),
    ],
)
def test_a_repair_is_told_by_what_the_results_say(build, start, before, expected):
    results = [load_result(build("a", **before)), load_result(build("b", repaired=True))]
    origin = {"checkpoint": {"start": start}}
    results[1] = msgspec.structs.replace(results[1], provenance=origin)
    assert repairs(results) == expected
    assert not repairs(results[::-1])
    assert put_repair_last(results[::-1]) == ([1, 0] if expected else [0, 1])
    assert (stage_names(results) == ["Before", "After"]) == expected
    assert not repairs([results[0]])


def test_an_import_is_known_by_its_identity(pair):
    before, after = map(load_result, pair)
    model = msgspec.structs.replace(before.model, identity="0011", checkpoint_sha256="22")
    before = msgspec.structs.replace(before, model=model)
    assert not repairs([before, after])
    origin = {"checkpoint": {"start": "0011"}}
    assert repairs([before, msgspec.structs.replace(after, provenance=origin)])


def test_pooled_folds_are_known_by_all_their_starts(pair):
    from robustmri.core.files import fingerprint

    before, after = map(load_result, pair)
    sha = fingerprint(["aa", "bb"])
    model = msgspec.structs.replace(before.model, checkpoint_sha256=sha)
    before = pooled(msgspec.structs.replace(before, model=model), "scratch", "scratch")
    assert start_of(before) == "scratch"
    assert repairs([before, pooled(after, "aa", "bb")])
    assert not repairs([before, pooled(after, "aa", "cc")])
    assert start_of(pooled(after, "aa", "")) == ""


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([{"backbone": "resnet50"}, {"backbone": "densenet121"}], ["resnet50", "densenet121"]),
        ([{"source": "a.onnx"}, {"source": "b.onnx"}], ["a.onnx", "b.onnx"]),
        ([{"name": "one-step"}, {"name": "ten-step"}], ["one-step", "ten-step"]),
        (
            [{}, {"name": "ten-step"}, {"name": "ten-step", "backbone": "vit"}],
            ["resnet18, plain", "resnet18, ten-step", "vit, ten-step"],
        ),
        ([{}, {}], ["plain (1)", "plain (2)"]),
    ],
)
def test_models_go_by_what_tells_them_apart(build, models, expected):
    result = load_result(build("a", name="plain"))
    results = [
        msgspec.structs.replace(result, model=msgspec.structs.replace(result.model, **model))
        for model in models
    ]
    assert stage_names(results) == expected


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", " "], ["a", "b", "c"]])
def test_given_names_are_one_for_each(names):
    assert check_names(["ResNet-50 ", "DenseNet"], 2) == ["ResNet-50", "DenseNet"]
    with pytest.raises(SettingsError, match="needs 2 different names"):
        check_names(names, 2)
