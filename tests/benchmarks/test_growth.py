"""What grows is measured of a few of everything; what it works on is what it says."""

from __future__ import annotations

import json
import mmap

import pytest

from benchmarks import growth
from benchmarks.growth import STAGES, chain_of, own_mib, watched
from benchmarks.memory import STATUS
from robustmri.core.errors import DataError


def test_every_stage_runs(tmp_path):
    growth.main(["--quick", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "growth.json").read_text())["rows"]
    assert [row["stage"] for row in rows] == list(STAGES)
    assert all(row["count"] and row["seconds"] >= 0 for row in rows)
    pages = [row["page_mb"] for row in rows if "page_mb" in row]
    assert len(pages) == 2
    assert max(pages) < 5
    growth.main(["--quick", "--only", "bootstrap", "--out", str(tmp_path)])
    assert len(json.loads((tmp_path / "growth.json").read_text())["rows"]) == len(STAGES)
    assert "| bootstrap | 200 patients |" in (tmp_path / "growth.md").read_text()


def test_a_stage_goes_on_where_the_one_before_it_has_ended():
    assert chain_of("report") == ["prepare", "evaluate", "report"]
    assert chain_of("outcomes: report") == ["outcomes: count", "outcomes: report"]
    assert chain_of("bootstrap") == ["bootstrap"]


@pytest.mark.skipif(not STATUS.exists(), reason="only the peak is known elsewhere")
def test_memory_is_what_is_held_beyond_what_was():
    with watched() as facts:  # Mapped: what a heap has free already would cost nothing.
        held = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        held.write(b"x" * (32 << 20))
    assert 32 <= facts["mib"] < 128
    assert own_mib() > 32
    held.close()


@pytest.mark.parametrize("first", [True, False])
def test_numbers_that_mean_nothing_do_not_join_those_that_do(first, tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "measure", lambda names, at_most, say: [])
    words = ["--only", "bootstrap", "--out", str(tmp_path)]
    growth.main([*words, "--quick"][: None if first else -1])
    held = (tmp_path / "growth.json").read_bytes()
    with pytest.raises(DataError, match=f"is of a {'quick' if first else 'full'} run"):
        growth.main([*words, "--quick"][: -1 if first else None])
    assert (tmp_path / "growth.json").read_bytes() == held
