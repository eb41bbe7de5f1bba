from __future__ import annotations

import msgspec
import pytest

from robustmri.report import Published, Table, as_markdown, comparison_table
from robustmri.report.tables import align, stage_names
from robustmri.results.budget import NO_BUDGET
from robustmri.results.headline import headline, main_budget
from robustmri.results.schema import Check, load_result


@pytest.fixture
def results(pair):
    return [load_result(folder) for folder in pair]


def figure(attack, stage, accuracy):
    return Published(
        what="accuracy", attack=attack, stage=stage, accuracy=accuracy, source="a poster"
    )


def test_rows_line_up_before_and_after(results):
    table = comparison_table(results)
    assert table.headers == ["Attack", "Radius", "Before", "After"]
    assert [row[0] for row in table.rows] == [
        "No attack",
        "FGSM",
        "BIM",
        "PGD",
        "CW",
        "Worst case",
        "CW-L2",
    ]
    assert table.rows[1][1] == "eps 0.04 (10.2/255)"
    for place, report in enumerate(results):
        clean = next(
            number for number in report.results if (number.attack, number.unit) == ("none", "slice")
        )
        low, high = 100 * clean.ci_low, 100 * clean.ci_high
        assert table.rows[0][2 + place] == f"{100 * clean.accuracy:.1f} % [{low:.1f} to {high:.1f}]"
    assert {len(row) for row in table.rows} == {4}
    assert "408 test slices of 36 patients" in table.notes[0]


def test_published_figures_stand_beside_both_readings_of_eps(build):
    results = [
        load_result(build("a", normalised=True)),
        load_result(build("b", normalised=True, repaired=True)),
    ]
    table = comparison_table(
        results, [figure("none", "before", 0.9986), figure("pgd", "before", 0.0043)]
    )
    assert table.headers[-1] == "Published, before"
    assert table.rows[0][-1] == "99.86 %"
    beside = [(row[1], row[-1]) for row in table.rows if row[0] == "PGD"]
    assert beside == [
        ("eps 0.04 (10.2/255)", "0.43 %"),
        ("eps 0.04 normalised (2.3/255)", "0.43 %"),
    ]
    assert table.notes[-1] == "Published: a poster."
    assert {row[-1] for row in table.rows if row[0] not in ("PGD", "No attack")} == {"-"}


def test_patients_are_another_unit(results):
    slices, patients = comparison_table(results), comparison_table(results, unit="patient")
    assert [row[:2] for row in slices.rows] == [row[:2] for row in patients.rows]
    assert slices.rows != patients.rows


def test_missing_number_is_a_dash(results):
    fewer = [number for number in results[1].results if number.attack != "bim"]
    table = comparison_table([results[0], msgspec.structs.replace(results[1], results=fewer)])
    assert [row[3] for row in table.rows if row[0] == "BIM"] == ["-"]


def test_an_attack_that_was_counted_in_another_unit_has_no_row(results):
    fewer = [
        msgspec.structs.replace(
            report,
            results=[
                number
                for number in report.results
                if (number.attack, number.unit) != ("bim", "slice")
            ],
        )
        for report in results
    ]
    assert "BIM" not in [row[0] for row in comparison_table(fewer).rows]
    assert "BIM" in [row[0] for row in comparison_table(fewer, unit="patient").rows]


def test_failed_check_forbids_to_quote(results):
    assert "Do not quote" not in " ".join(comparison_table(results).notes)
    failed = Check(name="no patient in two sets", status="fail", detail="Three are.")
    spoilt = msgspec.structs.replace(results[1], checks=[failed, failed])
    notes = comparison_table([results[0], spoilt]).notes
    assert notes[0] == "Do not quote: a check failed (no patient in two sets)."


def test_headline_is_where_most_attacks_were_run_first(results):
    at = main_budget(results)
    assert at is not None
    assert (at.norm, at.eps, at.eps_units) == ("linf", 0.04, "image")
    assert headline(results[0], at).attack == "worst"
    assert headline(results[0], None).attack == "none"
    no_worst = [number for number in results[0].results if number.attack != "worst"]
    strongest = headline(msgspec.structs.replace(results[0], results=no_worst), at)
    assert strongest.accuracy == min(
        number.accuracy for number in no_worst if number.eps == 0.04 and number.unit == "slice"
    )
    clean = [number for number in results[0].results if number.attack == "none"]
    assert main_budget([msgspec.structs.replace(results[0], results=clean)]) is None


def test_clean_row_is_one_whatever_its_units(results):
    other = [
        msgspec.structs.replace(number, eps_units="normalised", norm="linf")
        if number.attack == "none"
        else number
        for number in results[1].results
    ]
    rows = align([results[0], msgspec.structs.replace(results[1], results=other)])
    assert [row.budget for row in rows if row.attack == "none"] == [NO_BUDGET]


def test_columns_are_named_after_what_they_are(results, build):
    assert stage_names(results) == ["Before", "After"]
    assert stage_names(results[:1]) == ["standard training"]
    assert stage_names(results[::-1]) == ["adversarial training", "standard training"]
    assert stage_names([results[0], results[0]]) == [
        "standard training (1)",
        "standard training (2)",
    ]


def test_markdown_keeps_its_cells_together():
    text = as_markdown(Table(["a", "b"], [["x|y", "one\ntwo"]], ["Note."]))
    assert text.splitlines() == ["| a | b |", "|---|---|", "| x\\|y | one two |", "", "Note."]
