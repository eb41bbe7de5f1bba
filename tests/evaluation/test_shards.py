"""Parts of a long run as files."""

from __future__ import annotations

import weakref

import pyarrow as pa
import pytest

from robustmri.evaluation.shards import run_shards, write_shard


def test_a_finished_shard_is_held_no_longer_than_it_is_told(tmp_path):
    """Small tables between large images keep a heap from shrinking."""
    paths = [tmp_path / f"{place}.parquet" for place in range(6)]
    write_shard(paths[4], pa.table({"place": [4]}))
    alive, told = [], []

    def make(place):
        assert sum(held() is not None for held in alive) <= 1
        table = pa.table({"place": [place]})
        alive.append(weakref.ref(table))
        return table

    def tell(place, table, done, of):
        told.append((place, table["place"].to_pylist(), done, of))

    made = run_shards(paths, make, tell)

    assert made["place"].to_pylist() == list(range(6))
    assert [place for place, *_ in told] == [4, 0, 1, 2, 3, 5]
    assert told[-1] == (5, [5], 6, 6)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_what_vanishes_meanwhile_is_made_again(tmp_path, damage):
    paths = [tmp_path / f"{place}.parquet" for place in range(3)]
    made = []

    def make(place):
        made.append(place)
        if len(made) == 3:
            damage(paths[0])
        return pa.table({"place": [place]})

    outcomes = run_shards(paths, make, lambda *told: None)

    assert outcomes["place"].to_pylist() == [0, 1, 2]
    assert made == [0, 1, 2, 0]
