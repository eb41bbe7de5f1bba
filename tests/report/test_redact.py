from __future__ import annotations

import msgspec
import pytest

from robustmri.report.redact import redact
from robustmri.results.schema import Check, load_result


@pytest.fixture
def say(build):
    """Text of a check's detail once it is redacted."""
    result = load_result(build("one"))

    def redacted(text, identifiers):
        check = Check(name="n", status="pass", detail=text)
        return redact(msgspec.structs.replace(result, checks=[check]), identifiers).checks[0].detail

    return redacted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MR040240B and 100360.", "[withheld] and [withheld]."),
        ("case 17 fell; slice 17 too", "case [withheld] fell; slice [withheld] too"),
        ("17 % of 17 slices, 0.17", "17 % of 17 slices, 0.17"),
        ("'17' is near \"17\"", '[withheld] is near "[withheld]"'),
        ("XMR040240B", "XMR040240B"),
        ("O'Neil (J.)+1 was left out", "[withheld] was left out"),
        ("read /home/smith/scans/one.mat", "read one.mat"),
        ("read ../scans/one.mat and 8/255", "read one.mat and 8/255"),
    ],
)
def test_text(say, text, expected):
    assert say(text, ["MR040240B", "MR040240", "100360", "17", "O'Neil (J.)+1"]) == expected


def test_settings_that_list_cases_are_withheld(build):
    result = msgspec.structs.replace(
        load_result(build("one")), settings={"examples": ["17", "P1"], "limit": 17}
    )
    assert redact(result, ["17", "P1"]).settings == {
        "examples": ["[withheld]", "[withheld]"],
        "limit": 17,
    }


def test_result_keeps_numbers_classes_and_fingerprint(build):
    result = load_result(build("one"))
    redacted = redact(result, ["glioma", result.cohort.fingerprint, "P100"])
    assert redacted.cohort == result.cohort
    assert redacted.results == result.results
    assert redacted.confusions == result.confusions
    assert redacted.examples == []
    assert all(check.case_ids == [] for check in redacted.checks)
    assert [check.status for check in redacted.checks] == [check.status for check in result.checks]
