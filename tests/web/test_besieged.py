"""A server of its own process under siege: nothing outside of its folder is told, nothing dies,
memory stays bounded, and nothing is logged.
"""

from __future__ import annotations

import http.client
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest

from robustmri.web.bodies import BEGINNINGS
from robustmri.web.folder import UPLOADS, id_of
from robustmri.web.forms import make_forms

pytestmark = pytest.mark.slow
SERVE = """
import sys
from robustmri.web import bodies, patience, server
bodies.PATIENCE = patience.PATIENCE = 2.0
server.serve(sys.argv[1], port=int(sys.argv[2]))
"""
SECRET, PERSON = "kept-outside-the-folder", "Mustermann"
WAYS = (
    *("..", "../outside", "../outside/secret.txt", "..%2foutside%2fsecret.txt", "....//outside"),
    *("%2e%2e/outside", "..\\outside", "/etc/passwd", "file:///etc/passwd", ".jobs/../../outside"),
    *("before/../../outside", "~/.ssh/id_rsa", "%00../outside", "\uff0e\uff0e/outside"),
)
QUERY = (
    "class",
    "patient",
    "fate",
    "sort",
    "from",
    "beside",
    "show",
    "suffix",
    "job",
    "like",
    "eps",
)
KNOWN = {200, 303, 400, 401, 403, 404, 405, 413, 422}
MOST_GROWTH = 150
"""MB that the server may grow by, all of it together."""


class Besieged:
    """A server on a folder beside which something lies that nobody may see."""

    def __init__(self, place: Path, shown: Path) -> None:
        self.place, self.folder = place, place / "folder"
        shutil.copytree(shown, self.folder)
        shutil.copytree(shown / "before", place / "outside" / PERSON)
        (place / "outside" / "secret.txt").write_text(SECRET)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = [sys.executable, "-c", SERVE, str(self.folder), str(self.port)]
        with open(place / "log", "wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        until(lambda: "token=" in self.log() and self.knock())
        answer = self.ask("GET", "/?" + self.log().split("/?")[1].split()[0])
        self.cookie = answer[2]["set-cookie"].split(";")[0]

    def log(self) -> str:
        return (self.place / "log").read_text()

    def knock(self) -> bool:
        with socket.socket() as asked:
            return asked.connect_ex(("127.0.0.1", self.port)) == 0

    def resident(self) -> float:
        words = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", words)[1]) / 1024

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple:
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            headers = {"Cookie": self.cookie} if hasattr(self, "cookie") else {}
            asked.request(method, path, body, headers)
            answer = asked.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace"), answer.headers
        finally:
            asked.close()

    def json(self, path: str) -> dict:
        return msgspec.json.decode(self.ask("GET", path)[1])

    def refused_or_ours(self, method: str, path: str, body: bytes | None = None) -> None:
        """Ask; the answer must be one of ours, and tell nothing of what lies outside."""
        status, said, _ = self.ask(method, path, body)
        assert status in KNOWN, (method, path, body, status)
        for word in (SECRET, PERSON, "root:", str(self.place), "Traceback"):
            assert word not in said, (method, path, body, word)

    def open(self, sent: bytes) -> socket.socket:
        """A connection that has said so much."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.settimeout(30)
        client.connect(("127.0.0.1", self.port))
        client.sendall(sent)
        return client

    def head(self, method: str, path: str, more: str = "") -> bytes:
        host = f"127.0.0.1:{self.port}"
        return (
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {self.cookie}\r\n{more}\r\n"
        ).encode()


@pytest.fixture(scope="module")
def besieged(shown, tmp_path_factory):
    place = tmp_path_factory.mktemp("besieged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(place / "home"))
        one = Besieged(place, shown)
    yield one
    one.process.kill()
    one.process.wait()


@pytest.fixture(autouse=True)
def survives(besieged):
    """Whatever a test did, the server answers, has not grown much, and has logged nothing."""
    besieged.json("/api/overview")
    before, log = besieged.resident(), besieged.log()
    yield
    assert besieged.process.poll() is None
    assert {one["name"] for one in besieged.json("/api/overview")["results"]} == {
        "before",
        "deep/after",
    }
    grown = besieged.resident() - before
    print(f"grew by {grown:.0f} MB to {besieged.resident():.0f} MB")
    assert grown < MOST_GROWTH
    assert besieged.log() == log
    assert {path.name for path in besieged.place.iterdir()} <= {"folder", "outside", "log", "home"}
    assert (besieged.place / "outside" / "secret.txt").read_text() == SECRET


def until(there, seconds=120.0):
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def many(besieged, asked):
    """Ask all of it by eight clients at once; how many it were."""
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(lambda one: besieged.refused_or_ours(*one), asked))
    print(f"{len(asked)} requests")
    return len(asked)


def test_no_way_leads_out_of_the_folder(besieged):
    """Every place of every address, every word of a query, every answer of every form."""
    known = besieged.json("/api/overview")["results"][0]["id"]
    case = besieged.json(f"/api/results/{known}/cases")["cases"][0]["id"]
    paths = [
        *("/results/{}", "/answers/{}", "/reports/{}", "/api/answers/{}", "/api/jobs/{}"),
        *("/api/results/{}", "/api/results/{}/cases", f"/api/results/{known}/cases/{{}}"),
        *(f"/api/results/{known}/cases/{{}}/slice", f"/api/results/{{}}/cases/{case}/change"),
        *(f"/api/compare/{known}/{{}}", f"/api/compare/{{}}/{known}", "/static/{}", "/{}"),
        *("/api/answers/{}/picture.png", f"/api/results/{known}/cases/{{}}/thumbnail.png"),
        *("/api/results/{}/patients", "/compare/{}/x"),
    ]
    ids = [id_of(kind, f"../outside/{PERSON}") for kind in ("result", "run", "cohort", "report")]
    asked = [
        ("GET", path.format(quote(word, safe=safe)), None)
        for path in paths
        for word in (*WAYS, *ids)
        for safe in ("", "/.%\\~:")
    ]
    for name in QUERY:
        for path in (f"/api/results/{known}/cases", f"/api/results/{known}/cases/{case}", "/jobs"):
            asked += [("GET", f"{path}?{name}={quote(word)}", None) for word in (*WAYS, *ids)]
    for form in make_forms().values():
        for field in form.fields:
            for word in (*WAYS, *ids):
                answers = {field.name: [word] if field.what == "things" else word}
                body = msgspec.json.encode({"verb": form.verb, "answers": answers})
                asked.append(("POST", "/api/jobs", body))
    for path in ("/api/searches", "/api/comparisons", "/api/uploads/remove"):
        for name in ("result", "case", "patient", "first", "second", "kind", "id"):
            body = {"result": known, "kind": "slice", "answers": {}}
            asked += [("POST", path, msgspec.json.encode(body | {name: word})) for word in WAYS]
    assert many(besieged, asked) > 2000
    made = [path.name for path in (besieged.folder / ".jobs").rglob("job.json")]
    assert made == []


def test_500_mutated_uploads(besieged):
    random_ = random.Random(0)
    asked = []
    for _ in range(500):
        kind = random_.choice(list(BEGINNINGS))
        suffix = random_.choice(list(BEGINNINGS[kind]))
        at, word = random_.choice(BEGINNINGS[kind][suffix])
        content = bytearray(bytes(at) + word + random_.randbytes(random_.randrange(5000)))
        for _ in range(random_.choice([0, 0, 1, 9])):
            content[random_.randrange(len(content))] = random_.randrange(256)
        named = random_.choice([suffix, suffix, f"{PERSON}{suffix}", "../x.png", ".exe", "." * 99])
        kind = random_.choice([kind] * 5 + ["result", "..", ""])
        path = f"/api/uploads/{quote(kind, safe='')}?suffix={quote(named)}"
        asked.append(("POST", path, bytes(content[: random_.choice([None, 5])])))
    many(besieged, asked)
    stored = [path.name for path in (besieged.folder / UPLOADS).iterdir()]
    assert all(re.fullmatch(r"(slice|model)-[0-9]{4}\.[a-z0-9]+", name) for name in stored)
    assert 20 < len(stored) <= 200
    things = besieged.json("/api/forms")["things"]
    for kind in ("slice", "model"):
        for one in things[kind]:
            body = msgspec.json.encode({"kind": kind, "id": one["id"]})
            besieged.refused_or_ours("POST", "/api/uploads/remove", body)
    assert list((besieged.folder / UPLOADS).iterdir()) == []


def test_slow_clients_are_given_up_and_hold_nobody_up(besieged):
    """A byte at a time, in the head and in the body of a request; answers that nobody reads."""
    report = besieged.json("/api/overview")["reports"][0]["id"]
    upload = besieged.head("POST", "/api/uploads/slice?suffix=.png", "Content-Length: 9999999\r\n")
    heads = [besieged.open(b"GET /api/over") for _ in range(40)]
    bodies = [besieged.open(upload + b"\x89PNG\r\n\x1a\n") for _ in range(4)]
    unread = [besieged.open(besieged.head("GET", f"/reports/{report}")) for _ in range(50)]
    closed, began = set(), time.monotonic()

    def drip():
        while len(closed) < len(heads) + len(bodies) and time.monotonic() - began < 60:
            for client in (*heads, *bodies):
                try:
                    client.send(b"x")
                except OSError:
                    closed.add(client)
            time.sleep(0.3)

    dripping = threading.Thread(target=drip)
    dripping.start()
    for _ in range(10):
        assert besieged.ask("GET", "/api/overview")[0] == 200
    dripping.join()
    assert len(closed) == len(heads) + len(bodies)
    until(lambda: not [*(besieged.folder / UPLOADS).glob("part-*")])
    print(f"{len(heads)} heads, {len(bodies)} bodies, {len(unread)} answers unread")
    for client in (*heads, *bodies, *unread):
        client.close()


def test_broken_clients_leave_nothing_behind(besieged):
    """Half a request, half an upload, and gone."""
    upload = besieged.head("POST", "/api/uploads/model?suffix=.onnx", "Content-Length: 999999\r\n")
    words = besieged.head("POST", "/api/jobs", "Content-Length: 500\r\n") + b'{"verb": "train", '
    for sent in (b"GE", b"GET / HTTP/1.1\r\nHost: x\r\n", upload + b"\x08" * 70_000, words) * 25:
        client = besieged.open(sent)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()  # By a reset.
    until(lambda: not [*(besieged.folder / UPLOADS).glob("part-*")])
    assert not [*(besieged.folder / ".jobs").glob("0*")]


def test_fifty_clients_at_once(besieged):
    first, second = (one["id"] for one in besieged.json("/api/overview")["results"])
    cases = besieged.json(f"/api/results/{first}/cases")["cases"]
    paths = ["/", "/api/overview", f"/api/results/{first}", f"/api/compare/{first}/{second}"]
    paths += [f"/api/results/{first}/cases/{one['id']}" for one in cases[:9]]
    with ThreadPoolExecutor(50) as clients:
        answers = [*clients.map(lambda k: besieged.ask("GET", paths[k % len(paths)]), range(400))]
    assert {status for status, *_ in answers} == {200}


def test_two_pages_that_ask_for_the_same_start_one_job(shown, tmp_path, open_on):
    folder = tmp_path / "folder"
    shutil.copytree(shown, folder)
    client = open_on(folder)
    body = {"verb": "prepare", "answers": {"source": "phantom", "out": "cohort"}}
    with ThreadPoolExecutor(8) as pages:
        answers = [*pages.map(lambda _: client.post("/api/jobs", json=body), range(8))]
    assert sorted(one.status_code for one in answers) == [200, *[422] * 7]
    assert len(client.get("/api/jobs").json()["jobs"]) == 1
    (id,) = (one["id"] for one in client.get("/api/jobs").json()["jobs"])
    with ThreadPoolExecutor(8) as pages:
        list(pages.map(lambda _: client.post(f"/api/jobs/{id}/cancel"), range(8)))
    assert client.get(f"/api/jobs/{id}").json()["job"]["state"] == "cancelled"
    assert [path.name for path in (folder / ".jobs").iterdir()] == [id]
