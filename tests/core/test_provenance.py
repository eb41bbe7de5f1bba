from __future__ import annotations

import errno
import hashlib
import json
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from robustmri.core import provenance
from robustmri.core.errors import DataError, RobustMRIError
from robustmri.core.files import (
    atomic_file,
    atomic_folder,
    fingerprint,
    read_json,
    sha256_of,
    write_json,
)
from robustmri.core.provenance import commit, describe_run


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


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_place_that_cannot_be_written_is_named(tmp_path, number):
    with pytest.raises(RobustMRIError, match=r"a\.txt cannot be written .*Choose another place"):
        write_half(tmp_path / "a.txt", OSError(number, "no"))
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
    with pytest.raises(DataError, match=r"a\.json is damaged: it is not valid JSON"):
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


def test_a_package_that_is_missing_is_said(monkeypatch):
    def version(name):
        if name == "kornia":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    packages = describe_run()["packages"]
    assert (packages["kornia"], packages["monai"]) == ("not installed", "1.0")


def test_a_machine_that_hides_its_processor_is_still_described(monkeypatch):
    def hidden(*_, **__):
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", hidden)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "abacus")
    assert provenance._processor() == "abacus"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Where the package would lie, in a checkout of its own."""
    package = tmp_path / "src" / "robustmri"
    (package / "core").mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(package / "core" / "provenance.py"))
    return package


def test_no_commit_outside_a_checkout_and_that_of_its_bundle_in_one(package):
    assert commit() is None
    (package / "COMMIT").write_text("abc123+\n")
    assert commit() == "abc123+"


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_checkout_has_its_commit_and_a_plus_where_it_was_changed(package, monkeypatch):
    top = package.parents[1]
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=top, check=True, capture_output=True)

    git("init")
    assert commit() is None  # Nothing was committed.
    (package / "a.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "One")
    clean = commit()
    assert len(clean) == 12
    (package / "a.py").write_text("2")
    assert commit() == clean + "+"
