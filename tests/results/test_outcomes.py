"""The table of outcomes, read within bounds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustmri.core.errors import ResultError
from robustmri.results.outcomes import (
    COLUMNS,
    columns_of,
    load_outcomes,
    met,
    numbered,
    read_table,
    uncoded,
)


def test_a_small_file_that_becomes_large_is_not_read_on(tmp_path, monkeypatch):
    table = pa.table({name: ["the same"] * 200_000 for name in (*COLUMNS, "more")})
    pq.write_table(table, tmp_path / "outcomes.parquet")
    assert read_table(tmp_path).equals(table)
    assert list(load_outcomes(tmp_path)) == list(COLUMNS)
    monkeypatch.setattr("robustmri.results.outcomes.MOST_BYTES", table.nbytes // 2)
    with pytest.raises(ResultError, match="takes more than"):
        read_table(tmp_path)


def test_a_string_is_held_once_and_lists_of_one_length_are_rows():
    table = pa.table(
        {
            "attack": ["pgd", "fgsm", "pgd"],
            "probabilities": [[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]],
            "ragged": [[0.5], [0.25, 0.75], []],
            "gaps": ["a", None, "a"],
        }
    )
    parts = pa.concat_tables([table.slice(1), table.slice(0, 1)])
    columns = columns_of(parts)
    assert columns["attack"].tolist() == ["fgsm", "pgd", "pgd"]
    assert columns["attack"][1] is columns["attack"][2]
    assert columns["probabilities"].tolist() == [[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]]
    assert [one.tolist() for one in columns["ragged"]] == [[0.25, 0.75], [], [0.5]]
    assert columns["gaps"].tolist() == [None, "a", "a"]


def test_a_coded_table_says_the_same_and_can_be_written_out(tmp_path):
    plain = pa.table({name: ["b", "a", "b"] for name in COLUMNS})
    pq.write_table(plain, tmp_path / "outcomes.parquet")
    coded = read_table(tmp_path, coded=True)
    assert pa.types.is_dictionary(coded.schema.field("case_id").type)
    assert uncoded(coded).equals(plain)
    assert columns_of(coded)["case_id"].tolist() == ["b", "a", "b"]


@pytest.mark.parametrize(
    "column",
    [
        np.array(["b", "a", "b", "c"], dtype=object),
        np.array(["b", "a", "b", "c"]),
        np.array(["b", None, 1.5, "b"], dtype=object),
        np.array([2.0, np.nan, 2.0]),
        np.array([], dtype=object),
    ],
)
def test_values_are_numbered_as_they_are_met_or_in_order(column):
    texts = [str(one) for one in column.tolist()]
    for number, order in ((met, list(dict.fromkeys(texts))), (numbered, sorted(set(texts)))):
        names, places = number(column)
        assert names == order
        assert [names[place] for place in places] == texts
