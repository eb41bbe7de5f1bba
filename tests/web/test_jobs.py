"""Jobs: queued, cancelled, resumed, found again; and what a form may ask for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from robustmri.core.errors import DataError, SettingsError
from robustmri.core.files import read_json, write_json
from robustmri.data.sources import open_source
from robustmri.recipes import list_recipes
from robustmri.web.commands import make_command
from robustmri.web.folder import Folder, NotThereError
from robustmri.web.forms import make_forms
from robustmri.web.jobs import Jobs
from robustmri.web.run_job import run_job

# A verb that counts to three, tells how far it is, and goes on where it was.
VERB = """
import pathlib, sys, time
place = pathlib.Path(sys.argv[1])
for step in range(int(place.read_text() or 0), 3):
    print(f"counting: {step}/3 - so far", flush=True)
    time.sleep(float(sys.argv[2]))
    place.write_text(str(step + 1))
print("counting: 3/3", flush=True)
sys.exit(int(sys.argv[3]))
"""


@pytest.fixture
def verb(tmp_path):
    """`verb(seconds, status=0)` is the command."""
    (tmp_path / "count").write_text("")
    (tmp_path / "verb.py").write_text(VERB)

    def command(seconds=0.0, status=0):
        script = str(tmp_path / "verb.py")
        return [sys.executable, script, str(tmp_path / "count"), str(seconds), str(status)]

    return command


@pytest.fixture
def jobs(tmp_path):
    jobs = Jobs(tmp_path)
    yield jobs
    for job in jobs.all():
        jobs.cancel(job.id, wait=0.1)
    for child in jobs._children:
        child.wait(20)


def until(true, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.02)
    pytest.fail("it did not come")


def run(jobs, *states):
    """Step until the jobs have these states, the oldest first."""

    def there():
        jobs.step()
        return [job.state for job in reversed(jobs.all())] == [*states]

    until(there)


def test_one_after_another(jobs, verb):
    one, other = (jobs.add("train", name, verb()) for name in ("one", "other"))
    assert [job.state for job in jobs.all()] == ["waiting", "waiting"]
    run(jobs, "running", "waiting")
    run(jobs, "done", "done")
    assert jobs.read(one.id).ended <= jobs.read(other.id).started
    assert (jobs.read(one.id).task, jobs.read(one.id).done) == ("counting", 3)


def test_a_failure_is_told_and_tried_again(jobs, verb, tmp_path):
    job = jobs.add("train", "fails", verb(status=3))
    run(jobs, "failed")
    assert (jobs.read(job.id).status, jobs.read(job.id).total) == (3, 3)
    assert "counting: 3/3" in jobs.log(job.id)
    (tmp_path / "verb.py").write_text(VERB.replace("int(sys.argv[3])", "0"))
    jobs.again(job.id)
    run(jobs, "done")


def test_cancelled_and_gone_on_with(jobs, verb, tmp_path):
    job = jobs.add("train", "long", verb(seconds=0.4))
    run(jobs, "running")
    until(lambda: (tmp_path / "count").read_text() == "1")
    jobs.cancel(job.id)
    run(jobs, "cancelled")
    assert "KeyboardInterrupt" in jobs.log(job.id)
    jobs.again(job.id)
    run(jobs, "done")
    # The second time it began at 1, not at 0.
    assert jobs.log(job.id).count("counting: 0/3") == 1


def test_what_waits_is_taken_out_of_the_queue(jobs, verb):
    job = jobs.add("train", "never", verb())
    jobs.cancel(job.id)
    run(jobs, "cancelled")
    assert jobs.log(job.id) == ""


def test_a_verb_that_does_not_listen_is_killed(jobs, tmp_path):
    deaf = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "print('deaf: 1/2', flush=True); time.sleep(60)"
    )
    job = jobs.add("train", "deaf", [sys.executable, "-c", deaf])
    until(lambda: jobs.step() or "deaf" in jobs.log(job.id))
    jobs.cancel(job.id, wait=0.05)
    run(jobs, "cancelled")


def test_a_killed_job_is_found_as_stopped(jobs, verb, tmp_path):
    job = jobs.add("train", "killed", verb(seconds=0.5))
    run(jobs, "running")
    until(lambda: "counting" in jobs.log(job.id))
    start = read_json(tmp_path / ".jobs" / job.id / "start.json")
    os.killpg(start["process"], signal.SIGKILL)
    run(jobs, "stopped")
    jobs.again(job.id)
    run(jobs, "done")


def test_another_server_finds_everything_again(jobs, verb, tmp_path):
    first = jobs.add("train", "first", verb(seconds=0.3))
    second = jobs.add("train", "second", verb())
    run(jobs, "running", "waiting")
    again = Jobs(tmp_path)
    assert [job.state for job in again.all()] == ["waiting", "running"]
    until(lambda: again.read(first.id).state == "done")
    run(jobs, "done", "done")
    assert again.read(first.id).ended <= again.read(second.id).started


@pytest.mark.slow
def test_the_server_may_be_killed(verb, tmp_path):
    """The job goes on, and the next server tells how it ended."""
    server = (
        "import sys, time\nfrom pathlib import Path\nfrom robustmri.web.jobs import Jobs\n"
        f"jobs = Jobs(Path({str(tmp_path)!r}), every=0.05)\njobs.watch()\ntime.sleep(60)"
    )
    jobs = Jobs(tmp_path)
    job = jobs.add("train", "survives", verb(seconds=0.3))
    process = subprocess.Popen([sys.executable, "-c", server])
    try:
        until(lambda: jobs.read(job.id).state == "running")
    finally:
        process.kill()
        process.wait()
    assert Jobs(tmp_path).read(job.id).state == "running"
    until(lambda: Jobs(tmp_path).read(job.id).state == "done")


@pytest.mark.parametrize("id", ["", "..", "1", "0000001", "../../1", "\u0661" * 6, "000009"])
def test_a_job_is_a_number(id, jobs):
    for ask in (jobs.read, jobs.log, jobs.cancel, jobs.again):
        with pytest.raises(NotThereError):
            ask(id)


def test_strange_files_are_no_jobs(jobs, verb, tmp_path):
    (tmp_path / ".jobs" / "000007").mkdir(parents=True)
    (tmp_path / ".jobs" / "000008").mkdir()
    for content in ("[", "[]", "null", "{}", '{"verb": 1}', '{"verb": "a", "title": "b"}'):
        (tmp_path / ".jobs" / "000008" / "job.json").write_text(content)
        assert jobs.all() == []
        jobs.step()
        assert fails(tmp_path / ".jobs" / "000008")
    assert jobs.add("train", "next", verb()).id == "000009"


def fails(place):
    try:
        return run_job(place) != 0
    except DataError:
        return True


@pytest.mark.parametrize("content", ["[]", "{}", '{"process": -1, "when": 5}', '{"status": "0"}'])
def test_what_is_no_start_and_no_end_tells_nothing(content, jobs, verb, tmp_path):
    id = jobs.add("train", "a", verb()).id
    for name in ("start.json", "end.json"):
        (tmp_path / ".jobs" / id / name).write_text(content)
    assert jobs.read(id).state == "waiting"
    assert jobs.cancel(id, wait=0.1).state == "cancelled"


def test_a_queue_that_came_with_the_folder_is_not_run(jobs, verb, tmp_path):
    came = tmp_path / ".jobs" / "000001"
    came.mkdir(parents=True)
    made = {"verb": "train", "title": "", "command": verb(), "out": "", "asked": "", "seal": "0"}
    own = Jobs(tmp_path / "other")
    theirs = read_json(own.folder / own.add("train", "", verb()).id / "job.json")
    for job in (made, {**made, "seal": None}, theirs):
        write_json(came / "job.json", job)
        jobs.step()
        assert jobs.read("000001").state == "stopped"
        with pytest.raises(DataError, match="not asked for here"):
            jobs.again("000001")
        assert run_job(came) == 1
    assert (tmp_path / "count").read_text() == ""


def test_a_command_that_was_exchanged_is_not_run(jobs, verb, tmp_path):
    place = tmp_path / ".jobs" / jobs.add("train", "", verb()).id
    write_json(place / "job.json", read_json(place / "job.json") | {"command": [*verb(), "more"]})
    jobs.step()
    assert jobs.read(place.name).state == "stopped"


@pytest.mark.parametrize("name", ["", "queue.lock", "000001/log.txt"])
def test_a_queue_does_not_lead_out(name, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    link = tmp_path / "folder" / ".jobs" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(DataError, match="link"):
        Jobs(tmp_path / "folder")
    assert outside.read_text() == "theirs"


def test_no_module_of_the_folder_is_imported(jobs, tmp_path):
    ran = tmp_path / "ran"
    for name in ("robustmri", "msgspec"):
        (tmp_path / f"{name}.py").write_text(f"open({str(ran)!r}, 'w').close()")
    jobs.add("train", "", [sys.executable, "-c", "import msgspec, robustmri"])
    run(jobs, "done")
    assert not ran.exists()


# What a form becomes.


@pytest.fixture
def folder(shown):
    folder = Folder(shown)
    folder.look()
    return folder


def command(folder, verb, **answers):
    return make_command(folder, make_forms()[verb], answers)


def test_a_job_that_is_done_leads_to_what_it_made(tmp_path, shown, open_on):
    shutil.copytree(shown / "before", tmp_path / "made")
    client = open_on(tmp_path)
    jobs = client.app_state["jobs"]
    job = jobs.add("evaluate", "Evaluate: made", [sys.executable, "-c", ""], "made")
    assert client.get("/api/jobs").json()["made"] == {}
    run(jobs, "done")
    address = client.get("/api/jobs").json()["made"][job.id]
    assert client.get(f"/api{address}").json()["name"] == "made"


def test_things_become_paths_and_answers_become_options(folder, shown):
    results = [one.id for one in folder.look().of("result")]
    words, out = command(folder, "report", results=results, out="page", without=True)
    assert words[3:] == [
        "report",
        str(shown / "before"),
        str(shown / "deep" / "after"),
        f"--out={shown / 'page.html'}",
        "--no-images",
    ]
    assert out == "page.html"


def test_a_certificate_goes_into_the_result_that_was_chosen(folder, shown, monkeypatch):
    find = folder.find
    monkeypatch.setattr(
        folder, "find", lambda kind, id: find("result", id) if kind != "result" else find(kind, id)
    )
    (one,) = (found for found in folder.look().of("result") if found.name == "deep/after")
    words, out = command(folder, "certify", run=one.id, cohort=one.id, result=one.id, sigma="0.5")
    assert words[-2:] == [f"--out={shown / 'deep' / 'after'}", "--sigma=0.5"]
    assert out == "deep/after"


def test_a_failed_job_says_why_without_the_place_of_the_folder(tmp_path, open_on):
    client = open_on(tmp_path)
    jobs = client.app_state["jobs"]
    said = f"import sys; sys.exit('train: 1/2\\nrobustmri: {tmp_path}/cohort is not a cohort.')"
    job = jobs.add("train", "", [sys.executable, "-c", said])
    run(jobs, "failed")
    for path in ("/api/jobs", f"/api/jobs/{job.id}"):
        answer = client.get(path)
        assert "cohort is not a cohort." in answer.text
        assert str(tmp_path) not in answer.text
    assert client.get("/api/jobs").json()["jobs"][0]["why"] == "cohort is not a cohort."
    assert str(tmp_path) not in client.post(f"/api/jobs/{job.id}/cancel").text


@pytest.mark.parametrize("recipe", list_recipes())
def test_every_recipe_can_be_chosen(recipe, folder):
    form = make_forms()["evaluate"]
    (field,) = (one for one in form.fields if one.name == "recipe")
    assert recipe in field.choices


NOT_ASKED = {
    "--help": "it is there",
    "--trust": "code of others is not run from a page",
    "--estimate": "a button",
    "--on": "of the server, for all its jobs",
    "--case": "asked at the case",
    "--patient": "asked at the case",
    "--pad": "what is usual",
    "--images": "what is usual",
    "--no-images": "of that page; the form of the report asks",
    "--strict": "an exit status, which nobody sees",
    "--report": "a form of its own",
    "--json": "a second file, beside the page",
    "--costs": "a second file",
    "--card": "a second file",
    "--criteria": "a file of settings",
}
"""Options that no form has, and why; docs/workbench.md says the same."""


@pytest.mark.parametrize("verb", list(make_forms()))
def test_a_form_asks_for_every_option_of_its_command(verb):
    import typer

    from robustmri.app.cli import app

    params = typer.main.get_command(app).commands[verb].params
    known = {option for one in params for option in (*one.opts, *one.secondary_opts)}
    asked = {one.option for one in make_forms()[verb].fields if one.option}
    assert asked <= known
    offered = {one for one in known if one.startswith("--")}
    assert offered - asked - set(NOT_ASKED) == set()


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "needs an answer"),
        ({"source": "phantom"}, "needs an answer"),
        ({"source": "phantom", "out": "../out"}, "without separators"),
        ({"source": "phantom", "out": "/tmp/out"}, "without separators"),
        ({"source": "phantom", "out": ".jobs"}, "leading dot"),
        ({"source": "phantom", "out": "before"}, "in the folder already"),
        ({"source": "phantom", "out": "x" * 300}, "at most 100"),
        ({"source": "phantom", "out": "new", "fold": "--help"}, "expected a number"),
        ({"source": "phantom", "out": "new", "fold": "1e9"}, "expected a number"),
        ({"source": "phantom", "out": "new", "fold": [1]}, "expected a number"),
        ({"source": "phantom", "out": "new", "size": "a b"}, "expected names or numbers"),
        ({"source": "phantom", "out": "new", "columns": "--trust"}, "expected names"),
        ({"source": "phantom", "out": "new", "patient_pattern": "a\n--trust"}, "a line of text"),
        ({"source": "phantom", "out": "new", "trust": "yes"}, "no setting 'trust'"),
        ({"source": "/etc", "out": "new"}, "no source"),
        ({"source": {"a": 1}, "out": "new"}, "expected the id"),
    ],
)
def test_an_answer_that_is_none_is_refused(answers, said, folder):
    with pytest.raises((SettingsError, NotThereError), match=said):
        command(folder, "prepare", **answers)


@pytest.mark.parametrize(
    "text", ["os:system;ls", "a b", "$(ls)", "`ls`", "x" * 301, "\u00e9", "a\n--trust", "a'b"]
)
def test_text_holds_names_and_numbers_only(text, folder, monkeypatch):
    from robustmri.web import commands

    monkeypatch.setattr(commands, "_path_of", lambda *_: "/somewhere")
    with pytest.raises(SettingsError, match="expected names or numbers"):
        command(folder, "evaluate", run="a", cohort="b", out="new", attacks=text)


@pytest.mark.parametrize(
    "text",
    ["batch", "train.batch_size=", "train.weights=none", "train.start=/etc/x", "a=b/c", "a=1;b=2"],
)
def test_other_settings_name_no_files(text, folder, monkeypatch):
    from robustmri.web import commands

    monkeypatch.setattr(commands, "_path_of", lambda *_: "/somewhere")
    with pytest.raises(SettingsError, match="expected NAME=VALUE"):
        command(folder, "train", cohort="b", out="new", other=text)


def test_other_settings_become_an_option_each(folder, monkeypatch):
    from robustmri.web import commands

    monkeypatch.setattr(commands, "_path_of", lambda *_: "/somewhere")
    other = "train.batch_size=4 train.eps=8/255"
    words, _ = command(
        folder, "train", cohort="b", out="new", weights="imagenet", devices="2", other=other
    )
    assert words[-4:] == [
        "--weights=imagenet",
        "--devices=2",
        "--set=train.batch_size=4",
        "--set=train.eps=8/255",
    ]
    with pytest.raises(SettingsError, match="expected one name"):
        command(folder, "train", cohort="b", out="new", weights="/etc/passwd")


@pytest.mark.slow
def test_a_small_job_from_the_form_to_its_result(tiny_scans, tmp_path, open_on):
    """Over HTTP: scans that are in the folder become a cohort in it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "scans").mkdir()
    for one in ("images", "slices.csv"):
        (folder / "scans" / one).symlink_to(tiny_scans / one)
    with open_on(folder) as client:
        things = client.get("/api/forms").json()["things"]
        assert "scans" not in [one["name"] for one in things["source"]]  # Its links lead out.
        for one in ("images", "slices.csv"):
            (folder / "scans" / one).unlink()
        shutil.copytree(tiny_scans, folder / "scans", dirs_exist_ok=True)
        things = client.get("/api/forms").json()["things"]
        (source,) = (one["id"] for one in things["source"] if one["name"] == "scans")
        body = {"verb": "prepare", "answers": {"source": source, "out": "cohort", "size": "32"}}
        job = client.post("/api/jobs", json=body).json()
        assert job["state"] == "waiting"

        def ended():
            return client.get(f"/api/jobs/{job['id']}").json()["job"]["state"] not in (
                "waiting",
                "running",
            )

        until(ended, 60)
        said = client.get(f"/api/jobs/{job['id']}").json()
        assert said["job"]["state"] == "done", said["log"]
        assert str(tmp_path) not in said["log"]
        (cohort,) = client.get("/api/overview").json()["cohorts"]
        assert (cohort["name"], cohort["slices"]) == ("cohort", len(open_source(tiny_scans)))
