"""What may be written where, and who is blamed when it fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from robustmri.core.errors import CheckpointError, DataError, ResultError, RobustMRIError
from robustmri.core.files import (
    MOST_JSON,
    atomic_file,
    atomic_folder,
    explain_full_disk,
    read_json,
)
from robustmri.data.cases import read_cases
from robustmri.models.checkpoint import HEAD_FILE, read_checkpoint
from robustmri.results.outcomes import load_outcomes
from robustmri.results.schema import load_result


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path):
    with atomic_file(path) as partial:
        partial.write_text("new")


def make(path, **how):
    with atomic_folder(path, **how) as partial:
        (partial / "new").write_text("new")


def odd_link(place):
    (place / "target").write_text("old")
    place.joinpath("it").symlink_to("target")


def odd_folder_link(place):
    (place / "target").mkdir()
    place.joinpath("it").symlink_to("target")


ODD_FILES = {
    "link": (odd_link, "is a link"),
    "dangling link": (lambda place: place.joinpath("it").symlink_to("nothing"), "is a link"),
    "pipe": (lambda place: os.mkfifo(place / "it"), "is not a plain file"),
    "folder": (lambda place: (place / "it").mkdir(), "is a folder"),
}
ODD_FOLDERS = {
    "link": (odd_folder_link, "is a link"),
    "dangling link": (lambda place: place.joinpath("it").symlink_to("nothing"), "is a link"),
    "pipe": (lambda place: os.mkfifo(place / "it"), "exists already"),
    "file": (lambda place: (place / "it").write_text("old"), "exists already"),
}


@pytest.mark.parametrize("kind", ODD_FILES)
def test_a_file_replaces_nothing_but_a_plain_file(tmp_path, kind):
    prepare, says = ODD_FILES[kind]
    prepare(tmp_path)
    before = {path.name: path.lstat() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match=f"it {says}"):
        write(tmp_path / "it")
    assert {path.name: path.lstat() for path in tmp_path.iterdir()} == before


def test_a_device_is_not_replaced():
    with pytest.raises(DataError, match="/dev/null is not a plain file"):
        write("/dev/null")


@pytest.mark.parametrize("kind", ODD_FOLDERS)
@pytest.mark.parametrize("replaces", ["", "mark"])
def test_a_folder_takes_no_place_of_something_else(tmp_path, kind, replaces):
    prepare, says = ODD_FOLDERS[kind]
    prepare(tmp_path)
    before = {path.name: path.lstat() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match=f"it {says}"):
        make(tmp_path / "it", replaces=replaces)
    assert {path.name: path.lstat() for path in tmp_path.iterdir()} == before


def test_a_folder_is_replaced_only_if_it_is_of_the_kind(tmp_path):
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "photo").write_text("")
    with pytest.raises(DataError, match="not empty"):
        make(tmp_path / "it", replaces="mark")
    (tmp_path / "it" / "mark").write_text("")
    make(tmp_path / "it", replaces="mark")
    assert (names(tmp_path), names(tmp_path / "it")) == (["it"], ["new"])


@pytest.mark.parametrize("out", [".", "..", "", "/"])
def test_a_place_without_a_name_is_one_sentence(tmp_path, monkeypatch, out):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for how in (write, make):
        with pytest.raises(DataError):
            how(out)
    assert names(tmp_path) == ["empty"]
    assert names(tmp_path / "empty") == []


def test_a_folder_that_was_moved_aside_when_the_process_was_killed_comes_back(tmp_path):
    (tmp_path / ".run.0badcafe.old").mkdir()
    (tmp_path / ".run.0badcafe.old" / "mark").write_text("")

    def stopped():
        with atomic_folder(tmp_path / "run", replaces="mark"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert (names(tmp_path), names(tmp_path / "run")) == (["run"], ["mark"])


DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


@pytest.mark.parametrize("number", DENIED)
@pytest.mark.parametrize(
    ("file", "says"),
    [
        (None, "{0}/out cannot be written"),
        ("{0}", "{0}/out cannot be written"),
        ("{0}/out", "{0}/out cannot be written"),
        ("{0}/out/images.npy", "{0}/out cannot be written"),
        ("{0}/.out.0badcafe.partial/images.npy", "{0}/out cannot be written"),
        ("{0}/.out.lock", "{0}/out cannot be written"),
        ("{0}/out.part", "{0}/out cannot be written"),
        ("{0}/scan.mat", "{0}/scan.mat cannot be read"),
        ("{0}/outer/scan.mat", "{0}/outer/scan.mat cannot be read"),
        ("{0}/out.csv", "{0}/out.csv cannot be read"),
    ],
)
def test_no_permission_is_said_of_the_file_that_it_is_about(tmp_path, number, file, says):
    error = OSError(number, os.strerror(number), *([file.format(tmp_path)] if file else []))
    with pytest.raises(RobustMRIError) as caught, explain_full_disk(tmp_path / "out"):
        raise error
    assert str(caught.value).startswith(says.format(tmp_path))


def test_a_full_disk_elsewhere_is_named():
    error = OSError(errno.ENOSPC, "No space left on device", "/elsewhere/cache")
    with (
        pytest.raises(RobustMRIError, match="holds /elsewhere/cache is full"),
        explain_full_disk(Path("out")),
    ):
        raise error


READERS = {
    "settings.json": (lambda place: read_json(place / "settings.json"), DataError),
    "cases.parquet": (lambda place: read_cases(place / "cases.parquet"), DataError),
    HEAD_FILE: (read_checkpoint, CheckpointError),
    "robustness.json": (load_result, ResultError),
    "outcomes.parquet": (load_outcomes, ResultError),
}
STARVED = [MemoryError()] + [
    OSError(number, os.strerror(number))
    for number in (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.EACCES)
]


def fail_with(monkeypatch, error):
    """Whatever opens a file for reading gets the error."""
    import pyarrow.parquet as pq

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Path, "read_text", fail)
    monkeypatch.setattr(Path, "read_bytes", fail)
    monkeypatch.setattr(pq, "read_table", fail)
    monkeypatch.setattr(pq, "read_schema", fail)
    monkeypatch.setattr(pq, "ParquetFile", fail)


@pytest.mark.parametrize("error", STARVED, ids=repr)
@pytest.mark.parametrize("name", READERS)
def test_a_starved_machine_does_not_blame_the_file(tmp_path, monkeypatch, name, error):
    read, _ = READERS[name]
    (tmp_path / name).write_bytes(b"whole")
    fail_with(monkeypatch, error)
    with pytest.raises(RobustMRIError) as caught:
        read(tmp_path)
    assert type(caught.value) is RobustMRIError
    assert str(caught.value).startswith(f"{tmp_path / name} cannot be read (")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_blamed(tmp_path, name):
    read, kind = READERS[name]
    (tmp_path / name).write_bytes(b"[" * 100_000)
    with pytest.raises(kind, match=r"damaged|not valid"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["device", "pipe", "large"])
def test_what_has_no_end_is_not_read(tmp_path, kind):
    path = tmp_path / "split.json"
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        with open(path, "wb") as stream:
            stream.truncate(MOST_JSON + 1)
    with pytest.raises(DataError, match="expected at most" if kind == "large" else "no.* plain"):
        read_json(path)
