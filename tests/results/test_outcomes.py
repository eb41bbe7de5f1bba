"""The table of outcomes, read within bounds."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustmri.core.errors import ResultError
from robustmri.results.outcomes import COLUMNS, load_outcomes, read_table


def test_a_small_file_that_becomes_large_is_not_read_on(tmp_path, monkeypatch):
    table = pa.table({name: ["the same"] * 200_000 for name in (*COLUMNS, "more")})
    pq.write_table(table, tmp_path / "outcomes.parquet")
    assert read_table(tmp_path).equals(table)
    assert list(load_outcomes(tmp_path)) == list(COLUMNS)
    monkeypatch.setattr("robustmri.results.outcomes.MOST_BYTES", table.nbytes // 2)
    with pytest.raises(ResultError, match="takes more than"):
        read_table(tmp_path)
