"""What an ablation compares: the same slices, radii and seeds, or nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustmri.core.errors import ResultError
from robustmri.evaluation.ablation import compare
from robustmri.evaluation.metrics import worst_case


@pytest.fixture
def evaluated(table, tmp_path):
    """Number of slices, radius and fooled ones to a result folder."""

    def make(name, n=30, eps=0.04, fooled=(), *, attacked=True):
        made = table(n)
        columns = (made.add("pgd", eps, fooled) if attacked else made).columns()
        worst = worst_case(columns)
        whole = {key: np.concatenate([columns[key], worst[key]]).tolist() for key in columns}
        (tmp_path / name).mkdir()
        pq.write_table(pa.table(whole), tmp_path / name / "outcomes.parquet")
        return tmp_path / name

    return make


def test_variants_are_compared_with_the_first_slice_by_slice(evaluated):
    results = {
        "base": [evaluated("a", fooled=range(15)), evaluated("b", fooled=range(20))],
        "more": [evaluated("c", fooled=range(5)), evaluated("d", fooled=range(10))],
    }
    base, more = compare(results, {"base": [10.0, 20.0], "more": [40.0, 50.0]})
    assert (base.clean.accuracy, base.robust["0.04"].accuracy) == (1.0, 25 / 60)
    assert base.robust["0.04"].change is None
    assert more.robust["0.04"].accuracy == 45 / 60
    assert more.robust["0.04"].change.difference == pytest.approx(20 / 60)
    assert more.clean.change.difference == 0
    assert (base.seconds, more.seconds, more.runs) == (15.0, 45.0, 2)
    assert more.by_seed == [[1.0, 25 / 30], [1.0, 20 / 30]]


def test_what_cannot_be_compared_is_refused(evaluated):
    whole = evaluated("whole")
    for other, said in (
        (evaluated("fewer", n=20), "'other' was not measured on the same slices"),
        (evaluated("further", eps=0.08), "'other' was not measured on the same slices"),
        (evaluated("clean", attacked=False), "has no worst case to compare"),
    ):
        with pytest.raises(ResultError, match=said):
            compare({"base": [whole], "other": [other]}, {"base": [1.0], "other": [1.0]})
    with pytest.raises(ResultError, match="measured at different radii"):
        compare({"base": [whole, evaluated("far", eps=0.08)]}, {"base": [1.0]})
