from __future__ import annotations

import errno
import hashlib
import json

import pytest

from robustmri.core.errors import DataError, RobustMRIError
from robustmri.core.files import (
    atomic_file,
    atomic_folder,
    fingerprint,
    read_json,
    sha256_of,
    write_json,
)
from robustmri.core.provenance import describe_run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_half(path, stop):
    with atomic_file(path) as partial:
        partial.write_text("half of the n")
        raise stop


def replace_half(folder):
    with atomic_folder(folder, replaces="mark") as partial:
        (partial / "new").write_text("1")
        raise KeyboardInterrupt


def test_a_file_appears_whole(tmp_path):
    with atomic_file(tmp_path / "deep" / "a.txt") as partial:
        partial.write_text("one")
        assert not (tmp_path / "deep" / "a.txt").exists()
    assert (tmp_path / "deep" / "a.txt").read_text() == "one"
    assert names(tmp_path / "deep") == ["a.txt"]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_the_old_one(tmp_path, stop):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(stop):
        write_half(tmp_path / "a.txt", stop)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path):
    with pytest.raises(RobustMRIError, match="full") as caught:
        write_half(tmp_path / "a.txt", OSError(errno.ENOSPC, "No space left on device"))
    assert str(tmp_path / "a.txt") in str(caught.value)
    assert names(tmp_path) == []


def test_a_file_where_a_folder_should_be_is_no_full_disk(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError), atomic_file(tmp_path / "a" / "b.txt"):
        pass


def test_a_folder_appears_whole(tmp_path):
    with atomic_folder(tmp_path / "cohort") as partial:
        (partial / "x").write_text("1")
        assert not (tmp_path / "cohort").exists()
    assert names(tmp_path) == ["cohort"]
    assert names(tmp_path / "cohort") == ["x"]


def test_a_folder_that_holds_something_is_kept(tmp_path):
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "precious").write_text("1")
    with pytest.raises(DataError, match="not empty"), atomic_folder(tmp_path / "cohort"):
        pass
    assert names(tmp_path / "cohort") == ["precious"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "cohort").mkdir()
    with atomic_folder(tmp_path / "cohort") as partial:
        (partial / "x").write_text("1")
    assert names(tmp_path / "cohort") == ["x"]


def test_a_folder_is_replaced_only_at_the_end(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mark").write_text("1")
    with pytest.raises(KeyboardInterrupt):
        replace_half(tmp_path / "run")
    assert names(tmp_path / "run") == ["mark"]
    with atomic_folder(tmp_path / "run", replaces="mark") as partial:
        (partial / "new").write_text("1")
    assert names(tmp_path / "run") == ["new"]
    assert names(tmp_path) == ["run"]


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5], "a": None})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2.5], "a": None}
    assert (tmp_path / "a.json").read_text().endswith("\n")


def test_a_number_that_json_has_not_is_refused(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"accuracy": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff"])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"b\.json does not exist"):
        read_json(tmp_path / "b.json")


def test_hash_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_fingerprint_tells_values_apart_and_not_orders():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert len(fingerprint(None)) == 16


def test_a_run_is_described(monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["/somewhere/bin/robustmri", "train", "/home/anna/cohort", "--out", "runs/a"]
    )
    facts = describe_run(seed=7)
    assert facts["seed"] == 7
    assert facts["command"] == "robustmri train cohort --out runs/a"
    assert facts["packages"]["torch"][0].isdigit()
    assert facts["created"].endswith("+00:00")
    json.dumps(facts)
