from __future__ import annotations

import msgspec
import pytest

from robustmri.report.redact import WITHHELD, redact
from robustmri.results.budget import CORRUPTION
from robustmri.results.schema import Check, load_result

IDS = ["MR040240B", "MR040240", "100360", "17", "18", "O'Neil (J.)+1", "Zo\u00eb"]


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
        ("mr040240b, Mr040240", "[withheld], [withheld]"),
        ("by Zoe\u0308 and ZO\u00cb", "by [withheld] and [withheld]"),
        ("cases 3, 17 and 18 fell", "cases 3, [withheld] and [withheld] fell"),
        ("patients 17-18 of 396 cases", "patients [withheld]-[withheld] of 396 cases"),
        ("17 of 18 slices 2.5 mm thick", "17 of 18 slices 2.5 mm thick"),
    ],
)
def test_text(say, text, expected):
    assert say(text, IDS) == expected


def test_settings_keep_the_tools_own_words_only(build):
    settings = {
        "attacks": ["pgd", "torchattacks:APGDT"],
        "eps": ["0.04", "2.3/255", "0.04@normalised"],
        "examples": ["17", "P1"],
        "limit": 17,
        "logger": "a person",
        "options": {"pgd": {"steps": 20, "of": "P1", "file": "smith.npz", "note": "for a person"}},
        "weights": "/home/smith/w.pth",
    }
    result = msgspec.structs.replace(load_result(build("one")), settings=settings)
    assert redact(result, ["17", "P1"]).settings == {
        "attacks": ["pgd", "torchattacks:APGDT"],
        "eps": ["0.04", "2.3/255", "0.04@normalised"],
        "limit": 17,
        "options": {
            "pgd": {"steps": 20, "of": WITHHELD, "file": WITHHELD, "note": WITHHELD},
        },
        "weights": WITHHELD,
    }


def test_what_an_amount_of_a_corruption_is_stays(build):
    result = load_result(build("one"))
    settings = {"what": "% of the width", "note": "for a person"}
    one = msgspec.structs.replace(result.attacks[0], norm=CORRUPTION, settings=settings)
    other = msgspec.structs.replace(one, norm="")
    redacted = redact(msgspec.structs.replace(result, attacks=[one, other]), ["P1"])
    assert [run.settings["what"] for run in redacted.attacks] == ["% of the width", WITHHELD]
    assert redacted.attacks[0].settings["note"] == WITHHELD


def test_result_keeps_numbers_classes_and_fingerprint(build):
    result = load_result(build("one"))
    redacted = redact(result, ["glioma", result.cohort.fingerprint, "P100"])
    unnamed = msgspec.structs.replace(result.cohort, name="cohort 01234567")
    assert redacted.cohort == unnamed
    assert redacted.results == result.results
    assert redacted.confusions == result.confusions
    assert redacted.examples == []
    assert all(check.case_ids == [] for check in redacted.checks)
    assert [check.status for check in redacted.checks] == [check.status for check in result.checks]
