"""Files that were changed after they were written are not used: pixels, outcomes, numbers."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustmri.core.errors import ResultError
from robustmri.core.files import sha256_of, write_json
from robustmri.core.sealed import SEAL
from robustmri.data.cases import read_cases
from robustmri.data.cohort import fingerprint_of
from robustmri.data.split import Split
from robustmri.verbs.evaluate import evaluate
from robustmri.verbs.pool import pool
from robustmri.verbs.train import train

QUICK = ("--attacks", "fgsm", "--set", "evaluate.precision=fp32")
TRAIN = ("--set", "train.epochs=2", "--set", "train.batch_size=16", "--set", "train.precision=fp32")
pytestmark = pytest.mark.usefixtures("tiny_networks")


@pytest.fixture
def cohort(tiny_cohort, tmp_path):
    return shutil.copytree(tiny_cohort, tmp_path / "cohort")


@pytest.fixture(scope="module")
def finished(tiny_run, tiny_cohort, tmp_path_factory, use_tiny_networks):
    folder = tmp_path_factory.mktemp("finished") / "result"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        evaluate(tiny_run, tiny_cohort, folder, attacks=("fgsm", "bim"), precision="fp32")
    return folder


@pytest.fixture
def result(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "result")


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["images.npy", "masks.npy"])
def test_changed_pixels_are_not_used(name, run, tiny_run, cohort, tmp_path):
    flip(cohort / name, -1)
    region = ("--set", "evaluate.region=lesion") if name == "masks.npy" else ()
    said = run("evaluate", tiny_run, cohort, "--out", tmp_path / "out", *QUICK, *region)
    assert said[0] == 1
    assert f"{name} was changed after it was written" in said[1]
    if name == "images.npy":
        status, words = run("train", cohort, "--out", tmp_path / "run", *TRAIN)
        assert status == 1
        assert "was changed after it was written" in words
        assert not (tmp_path / "run" / "checkpoint").exists()


def test_an_array_that_is_no_image_is_not_used_though_its_hash_agrees(
    run, tiny_run, cohort, tmp_path
):
    """Another type of number, of the same length and with the right hash."""
    path, head = cohort / "images.npy", json.loads((cohort / "cohort.json").read_text())
    path.write_bytes(path.read_bytes().replace(b"<u2", b"<i2", 1))
    head["files"]["images.npy"]["sha256"] = sha256_of(path)
    head["fingerprint"] = fingerprint_of(head, read_cases(cohort / "cases.parquet"))
    (cohort / "cohort.json").write_text(json.dumps(head))
    split = replace(Split.load(cohort), cohort_fingerprint=head["fingerprint"])
    write_json(cohort / "split.json", asdict(split) | {"fingerprint": split.fingerprint})
    status, words = run("evaluate", tiny_run, cohort, "--out", tmp_path / "out", *QUICK)
    assert status == 1
    assert "int16" in words
    assert "expected uint16" in words


def edit(folder: Path, change) -> None:
    path = folder / "robustness.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def headline(told):
    row = next(r for r in told["results"] if r["attack"] == "worst" and r["unit"] == "slice")
    row["accuracy"] = row["ci_high"] = 0.99


def patients(told):
    row = next(r for r in told["results"] if r["attack"] == "fgsm" and r["unit"] == "patient")
    row["n"] += 1


def interval(told):
    told["results"][0]["ci_low"] -= 0.01


def confusion(told):
    told["confusions"][1]["counts"][0][0] += 1


def left_out(told):
    told["results"] = [row for row in told["results"] if row["attack"] != "bim"]


def interval_by_another_name(told):
    told["results"][0] |= {"interval": "exact", "ci_low": 0.98, "ci_high": 0.99}


def told_twice(told):
    told["results"].insert(0, {**told["results"][0], "accuracy": 0.99})


def radius(told):
    row = next(r for r in told["results"] if r["attack"] == "fgsm")
    row["eps_image"] = 0.25


def slices_tested(told):
    told["split"] |= {"n_slices": 777, "n_patients": 666}


@pytest.mark.parametrize(
    "change",
    [
        *(headline, patients, interval, confusion, left_out),
        *(interval_by_another_name, told_twice, radius, slices_tested),
    ],
)
def test_numbers_that_contradict_the_outcomes_are_not_shown(change, run, result, tmp_path):
    edit(result, change)
    status, words = run("report", result, "--out", tmp_path / "out.html")
    assert status == 1
    assert "contradicts outcomes.parquet" in words
    with pytest.raises(ResultError, match="contradicts outcomes"):
        pool([result], tmp_path / "pooled", title="x")
    assert {path.name for path in tmp_path.iterdir()} == {"result"}


@pytest.mark.parametrize("name", ["outcomes.parquet", "examples.npz"])
def test_a_file_beside_a_result_that_was_changed_is_not_used(name, run, result, tmp_path):
    path = result / name
    if name == "outcomes.parquet":  # A whole table, in which the attack failed on every slice.
        table = pq.read_table(path)
        pq.write_table(
            table.set_column(
                table.schema.get_field_index("prediction"), "prediction", table["label"]
            ),
            path,
        )
    else:
        with np.load(path) as arrays:
            np.savez(path.with_suffix(""), **{key: arrays[key][::-1] for key in arrays})
    status, words = run("report", result, "--out", tmp_path / "page.html")
    assert status == 1
    assert f"{name} was changed after" in words


class Killed(BaseException):
    pass


def test_a_damaged_shard_costs_itself_and_nothing_else(tiny_run, tiny_cohort, finished, tmp_path):
    def stop(task, done, total, note=""):
        if done == total:
            raise Killed

    out, settings = tmp_path / "out", {"attacks": ("fgsm", "bim"), "precision": "fp32"}
    with pytest.raises(Killed):
        evaluate(tiny_run, tiny_cohort, out, progress=stop, **settings)
    first, second = sorted(out.glob(".shards/*/*.parquet"))[:2]
    flip(first, 100)
    table = pq.read_table(pa.BufferReader(second.read_bytes()[SEAL:]))
    wrong = pa.array([0.5] * table.num_rows, pa.float64())
    column = table.schema.get_field_index("confidence")
    stream = pa.BufferOutputStream()
    pq.write_table(table.set_column(column, "confidence", wrong), stream)
    second.write_bytes(second.read_bytes()[:SEAL] + stream.getvalue().to_pybytes())
    evaluate(tiny_run, tiny_cohort, out, **settings)
    whole = (finished / "outcomes.parquet").read_bytes()
    assert (out / "outcomes.parquet").read_bytes() == whole


def test_a_damaged_state_is_not_gone_on_from(run, cohort, tmp_path):
    folder = tmp_path / "run"

    def stop(task, done, total, note=""):
        if done == total:
            raise Killed

    with pytest.raises(Killed):
        train(cohort, folder, epochs=2, batch_size=16, precision="fp32", progress=stop)
    state = folder / "resume.pt"
    for place in range(SEAL + 64, state.stat().st_size, state.stat().st_size // 4):
        flip(state, place)
        status, words = run("train", cohort, "--out", folder, *TRAIN)
        assert status == 1
        assert "Remove it to start this run from its beginning" in words
        flip(state, place)
    assert run("train", cohort, "--out", folder, *TRAIN)[0] == 0
