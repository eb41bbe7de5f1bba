"""What every benchmark says of its machine, and that a table holds one machine only."""

from __future__ import annotations

import json
import os
import time

import pytest
import torch

from benchmarks import growth, machine
from benchmarks.machine import FEATURES, describe_machine, disturbances, features_of, refuse_another
from benchmarks.report import RESULTS, add_task, open_results, page_of
from robustmri.core.errors import DataError
from robustmri.models.optimised import fast_precision

HERE = {
    "processor": "P",
    "features": ["avx2"],
    "imitates": "",
    "cores": 2,
    "threads": 2,
    "bf16": False,
    "torch": "2.13",
    "peers": {},
}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512f avx512_bf16 amx_bf16", FEATURES),
        ("fpu avx2", ("avx2",)),
        ("fpu avx2x amx_bf16_not", ()),
        (None, ()),
    ],
)
def test_features_are_those_of_the_processor(flags, expected, tmp_path, monkeypatch):
    told = tmp_path / "cpuinfo"
    if flags is not None:
        told.write_text(f"processor : 0\nmodel name : avx512f\nflags\t\t: {flags}\n" * 2)
    monkeypatch.setattr(machine, "CPUINFO", told)
    assert machine.processor_features() == expected
    assert describe_machine()["features"] == list(expected)


def test_an_imitation_is_called_one_and_does_without_bfloat16(monkeypatch):
    for name, value in machine.IMITATION.items():
        monkeypatch.setenv(name, value)
    assert fast_precision(torch.device("cpu")) == "fp32"
    said = features_of(describe_machine())
    assert "IMITATION of an older processor" in said
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in said
    assert describe_machine()["environment"]["MKL_ENABLE_INSTRUCTIONS"] == "AVX2"
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "avx2")
    assert fast_precision(torch.device("cpu")) == "fp32", "its older name"
    assert "DNNL_MAX_CPU_ISA=avx2" in features_of(describe_machine())
    assert "IMITATION" not in features_of(HERE)


@pytest.mark.parametrize(
    "other",
    [
        {"processor": "Q"},
        {"features": ["avx2", "avx512f"]},
        {"imitates": "ATEN_CPU_CAPABILITY=avx2"},
        {"threads": 1},
        {"torch": "2.14"},
    ],
)
def test_a_table_of_two_machines_is_refused_by_what_differs(other, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.report.describe_machine", lambda: HERE)
    add_task(tmp_path, open_results(tmp_path, {}), "first", RECORD)
    open_results(tmp_path, {})
    monkeypatch.setattr("benchmarks.report.describe_machine", lambda: HERE | other)
    (name,) = other
    with pytest.raises(DataError, match=f"another machine: its {name} is .* Choose another --out"):
        open_results(tmp_path, {})


def test_results_of_before_the_features_were_noted_are_not_gone_on_with(tmp_path):
    (tmp_path / RESULTS).write_text(json.dumps({"format_version": 1, "machine": {}, "inputs": {}}))
    with pytest.raises(DataError, match="format version differ from this run's"):
        open_results(tmp_path, {})


def test_growth_is_of_one_machine_too(tmp_path):
    (tmp_path / "growth.json").write_text(json.dumps({"machine": HERE, "rows": []}))
    with pytest.raises(DataError, match="another machine"):
        growth.main(["--quick", "--only", "bootstrap", "--out", str(tmp_path)])


ROWS = [{"contender": "ours", "seconds": [1.0, 1.05]}, {"contender": "peer", "seconds": [1.0, 1.3]}]
RECORD = {"title": "T", "setting": {}, "rows": ROWS, "ratios": [], "missing": []}


@pytest.mark.parametrize(
    ("load", "rows", "expected"),
    [
        (0.1, ROWS[:1], []),
        (None, [{"contender": "once", "seconds": []}], []),
        (2.5, ROWS[:1], ["a load of 2.5 before the start"]),
        (0.0, ROWS, ["rounds of peer differ by 30 %"]),
    ],
)
def test_a_machine_that_is_not_quiet_is_told(load, rows, expected, tmp_path):
    assert disturbances(load, rows) == expected
    results = open_results(tmp_path, {})
    assert add_task(tmp_path, results, "first", RECORD | {"rows": rows}, load=load) == expected
    page = page_of(results)
    assert ("Not a quiet machine" in page) == bool(expected)
    assert all(one in page for one in expected)


def test_what_others_do_meanwhile_is_counted(tmp_path, monkeypatch):
    ticks = os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    stat.write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    monkeypatch.setattr(machine, "STAT", stat)
    others = machine.Others()
    later = time.monotonic() + 100
    monkeypatch.setattr(machine.time, "monotonic", lambda: later)
    stat.write_text(f"cpu  {60 * ticks} 0 {20 * ticks} 500 500 0 0 {20 * ticks} 0 0\n")
    assert others.cores() == pytest.approx(1.0, abs=0.05), "idle and waiting do not count"
    assert disturbances(0.0, ROWS[:1], 1.0) == ["others kept 1 cores busy"]
    assert disturbances(0.0, ROWS[:1], 0.05) == []
    stat.unlink()
    assert others.cores() is None


def test_refuse_another_accepts_its_own():
    refuse_another("results", HERE, dict(HERE))
