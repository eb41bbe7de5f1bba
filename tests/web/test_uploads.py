"""What is given to the page: its kind, its size, its name; and the bounds of what opens it."""

from __future__ import annotations

import errno
import io
import sys

import pytest
from PIL import Image

from robustmri.web import bodies, run_job
from robustmri.web.folder import UPLOADS
from robustmri.web.jobs import Jobs


def png(side=8):
    buffer = io.BytesIO()
    Image.new("L", (side, side), 90).save(buffer, format="PNG")
    return buffer.getvalue()


def give(client, content, kind="slice", suffix=".png"):
    return client.post(f"/api/uploads/{kind}", params={"suffix": suffix}, content=content)


@pytest.fixture
def client(tmp_path, open_on):
    return open_on(tmp_path)


def stored(tmp_path):
    place = tmp_path / UPLOADS
    return sorted(path.name for path in place.iterdir()) if place.is_dir() else []


GOOD = [
    ("slice", ".png", png()),
    ("slice", ".PNG", png()),
    ("slice", ".jpeg", b"\xff\xd8\xff\xe0" + b"0" * 9),
    ("slice", "", b"\0" * 128 + b"DICM" + b"0" * 9),
    ("slice", ".dcm", b"\0" * 128 + b"DICM"),
    ("model", ".pth", b"PK\x03\x04" + b"0" * 9),
    ("model", ".onnx", b"\x08\x08"),
    ("model", ".safetensors", b"\x10" + b"\0" * 7 + b'{"a":1}'),
]


@pytest.mark.parametrize(("kind", "suffix", "content"), GOOD)
def test_a_file_is_kept_as_it_is_under_a_name_of_ours(kind, suffix, content, client, tmp_path):
    answer = give(client, content, kind, suffix)
    assert answer.status_code == 200, answer.text
    (name,) = stored(tmp_path)
    assert name.startswith(f"{kind}-0001.")
    assert (tmp_path / UPLOADS / name).read_bytes() == content
    assert (tmp_path / UPLOADS / name).stat().st_mode & 0o777 == 0o600
    things = client.get("/api/forms").json()["things"][kind]
    assert things == [{"id": answer.json()["id"], "name": name, "uploaded": "yes"}]
    body = {"kind": kind, "id": answer.json()["id"]}
    assert client.post("/api/uploads/remove", json=body).json()[kind] == []
    assert stored(tmp_path) == []


BAD = [
    ("slice", ".png", b"GIF89a", "begins otherwise"),
    ("slice", ".png", b"", "begins otherwise"),
    ("slice", ".svg", b"<svg>", "must be one of"),
    ("slice", ".php", b"<?php", "must be one of"),
    ("slice", "", b"#!/bin/sh", "begins otherwise"),
    ("slice", "/../../x.png", png(), "must be one of"),
    ("model", ".png", png(), "must be one of"),
    ("model", ".onnx", png(), "begins otherwise"),
    ("model", ".py", b"import os", "must be one of"),
    ("..", ".png", png(), ""),
    ("source", ".png", png(), "expected a file of the kind"),
]


@pytest.mark.parametrize(("kind", "suffix", "content", "said"), BAD)
def test_what_is_no_such_file_is_refused(kind, suffix, content, said, client, tmp_path):
    answer = give(client, content, kind, suffix)
    assert answer.status_code in (404, 405, 422)
    assert said in answer.json()["error"]
    assert stored(tmp_path) == []


def test_a_file_may_be_so_large_and_no_larger(client, tmp_path, monkeypatch):
    monkeypatch.setitem(bodies.MOST, "slice", 2**20)
    assert give(client, png() + b"0" * (2**20 - len(png()))).status_code == 200
    answer = give(client, png() + b"0" * 2**20)
    assert (answer.status_code, "at most 1 MB" in answer.json()["error"]) == (422, True)
    assert stored(tmp_path) == ["slice-0001.png"]


def test_so_many_files_and_no_more(client, tmp_path, monkeypatch):
    monkeypatch.setattr(bodies, "MOST_FILES", 2)
    assert [give(client, png()).status_code for _ in range(3)] == [200, 200, 422]
    assert stored(tmp_path) == ["slice-0001.png", "slice-0002.png"]


def test_only_what_was_uploaded_is_removed(client, tmp_path):
    (tmp_path / "mine.onnx").write_bytes(b"\x08")
    (found,) = client.get("/api/forms").json()["things"]["model"]
    answer = client.post("/api/uploads/remove", json={"kind": "model", "id": found["id"]})
    assert "stays there" in answer.json()["error"]
    assert (tmp_path / "mine.onnx").exists()


def test_an_upload_folder_that_leads_out_is_refused(tmp_path, open_on):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (folder / UPLOADS).symlink_to(outside)
    assert "is a link" in give(open_on(folder), png()).json()["error"]
    assert list(outside.iterdir()) == []


def test_what_lies_among_the_uploads_by_another_name_is_no_trouble(client, tmp_path):
    (tmp_path / UPLOADS).mkdir()
    (tmp_path / UPLOADS / "slice-mine.png").write_bytes(png())
    assert give(client, png()).status_code == 200
    assert stored(tmp_path) == ["slice-0001.png", "slice-mine.png"]


def test_a_folder_that_takes_nothing_says_so_each_time(client, tmp_path, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(type(tmp_path), "mkdir", refuse)
    for _ in range(6):
        assert "cannot be written" in give(client, png()).json()["error"]


@pytest.mark.parametrize("body", [b"[" * 50_000, b'{"a":' + b"9" * 50_000 + b"}", b"\xff", b"[]"])
def test_words_that_are_none_are_refused(body, client):
    answer = client.post("/api/uploads/remove", content=body)
    assert (answer.status_code, "expected JSON" in answer.json()["error"]) == (422, True)


def test_read_only_takes_nothing(tmp_path, open_on):
    client = open_on(tmp_path, read_only=True)
    assert give(client, png()).status_code == 403
    for path in ("/api/uploads/remove", "/api/estimates", "/api/searches"):
        assert client.post(path, json={}).status_code == 403
    assert list(tmp_path.iterdir()) == []


def run(tmp_path, code, **more):
    jobs = Jobs(tmp_path)
    job = jobs.add("case", "", [sys.executable, "-c", code], **more)
    run_job.run_job(tmp_path / ".jobs" / job.id)
    return jobs.read(job.id), jobs.log(job.id)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("bytearray(2**30)", "MemoryError"),
        ("import time; time.sleep(30)", "took longer than"),
        ("open('big', 'wb').truncate(2**30)", ""),
    ],
)
def test_what_opens_a_file_from_elsewhere_is_bounded(code, said, tmp_path, monkeypatch):
    monkeypatch.setattr(run_job, "MEMORY", 2**29)
    monkeypatch.setattr(run_job, "SECONDS", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # The test's own process keeps its own.
    job, log = run(tmp_path, code, guarded=True)
    assert job.state == "failed"
    assert said in log


def test_the_bounds_are_sealed(tmp_path):
    from robustmri.core.files import read_json, write_json

    jobs = Jobs(tmp_path)
    place = tmp_path / ".jobs" / jobs.add("case", "", ["true"], guarded=True).id
    write_json(place / "job.json", read_json(place / "job.json") | {"guarded": False})
    assert jobs.read(place.name).state == "stopped"
