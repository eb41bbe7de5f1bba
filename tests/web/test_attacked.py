"""The workbench under attack: mutated requests and uploads, slow and broken clients, fifty at once.
Nothing leaks, nothing dies, memory is bounded.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec
import pytest

from robustmri.web import bodies
from robustmri.web.folder import UPLOADS

pytestmark = pytest.mark.slow
WORDS = (
    *("..", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e", "/etc/passwd", "%00"),
    *("a\0b", "\u00e9" * 40, "0" * 16, "-1", "9" * 400, "1e999", "NaN", "<script>", "$(id)"),
    *("; ls", "a\r\nX-Y: 1", "\ud800".encode("utf-8", "surrogatepass"), "{}", "[]", "null", ""),
    *("file:///etc/passwd", "\\\\host\\share", ".jobs", ".uploads", "con", "x" * 5000),
)
QUERY = ("class", "patient", "fate", "sort", "from", "beside", "show", "suffix", "token", "job")
KNOWN = {200, 303, 400, 401, 403, 404, 405, 413, 422}


def hostile(random_):
    word = random_.choice(WORDS)
    return word.decode("latin-1") if isinstance(word, bytes) else word


def body_of(random_, known):
    """JSON that is nearly right, or nothing of the kind."""
    verbs = ["prepare", "import", "train", "harden", "evaluate", "case", "report", "export", "no"]
    names = ["source", "run", "cohort", "out", "model", "slice", "recipe", "eps", "attack", "radii"]
    answers = {name: random_.choice([hostile(random_), known, 1, None, [], {}]) for name in names}
    made = {"verb": random_.choice(verbs), "answers": answers, "result": known, "case": "x"}
    body = msgspec.json.encode(made | {"kind": hostile(random_), "id": hostile(random_)})
    cut = random_.randrange(len(body))
    choices = [body, body[:cut], body[cut:], bytes(random_.randrange(256) for _ in range(99)), b""]
    return random_.choice(choices)


def test_500_mutated_requests(shown, tmp_path, open_on):
    import shutil

    folder = tmp_path / "folder"
    shutil.copytree(shown, folder)
    client = open_on(folder)
    random_ = random.Random(0)
    known = client.get("/api/overview").json()["results"][0]["id"]
    paths = [route.path for route in client.app.routes if not route.path.startswith("/static")]
    paths.remove("/api/jobs/events")  # It has no end.
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for _ in range(500):
        path = random_.choice(paths)
        for name in re.findall(r"\{(\w+)\}", path):
            word = random_.choice([known, hostile(random_)])
            path = path.replace(f"{{{name}}}", quote(word, safe=random_.choice(["", "/.%"])) or "0")
        query = {random_.choice(QUERY): hostile(random_) for _ in range(random_.randrange(3))}
        method = random_.choice(["GET", "GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
        content = body_of(random_, known) if method == "POST" else None
        answer = client.request(method, path, params=query, content=content)
        assert answer.status_code in KNOWN, (method, path, query, content, answer.status_code)
        assert "root:" not in answer.text
        assert str(tmp_path) not in answer.text
        assert "Traceback" not in answer.text
    after = {path: path.read_bytes() for path in before}
    assert after == before
    outside = {path.name for path in tmp_path.iterdir()}
    assert outside == {"folder"}
    made = [path for path in folder.rglob("*") if path.is_file() and path not in before]
    assert all(path.relative_to(folder).parts[0] in (".jobs", UPLOADS) for path in made)


@pytest.fixture
def address(shown, tmp_path, served):
    """Host and port of a server on a copy of the folder, a cookie, and the folder."""
    import shutil

    folder = tmp_path / "folder"
    shutil.copytree(shown, folder)
    parts = urlsplit(served(folder))
    opened = http.client.HTTPConnection(parts.netloc)
    opened.request("GET", f"/?{parts.query}")
    cookie = opened.getresponse().headers["set-cookie"].split(";")[0]
    opened.close()
    return parts.hostname, parts.port, cookie, folder


def get(address, path):
    host, port, cookie, _ = address
    asked = http.client.HTTPConnection(host, port, timeout=120)
    asked.request("GET", path, headers={"Cookie": cookie})
    answer = asked.getresponse()
    said = answer.status, answer.read()
    asked.close()
    return said


def head(address, length):
    host, port, cookie, _ = address
    return (
        f"POST /api/uploads/slice?suffix=.png HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Cookie: {cookie}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def test_slow_and_broken_clients(address, monkeypatch):
    monkeypatch.setattr(bodies, "PATIENCE", 0.5)
    host, port, _, folder = address
    held = []
    for sent in (
        *(b"GET / HT", b"\0" * 9000, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" + b"\0" * 99),
        *(head(address, 10**9), head(address, 10**9) + b"\x89PNG", head(address, -5)),
        *(head(address, 50) + b"\x89PNG\r\n\x1a\n" + b"0" * 90, b"A" * 200_000),
    ):
        client = socket.create_connection((host, port), timeout=5)
        held.append(client)
        client.sendall(sent)
    for client in held[::2]:
        client.close()
    assert get(address, "/api/overview")[0] == 200
    end = time.monotonic() + 60
    while time.monotonic() < end and list((folder / UPLOADS).glob("part-*")):
        time.sleep(0.1)
    assert list((folder / UPLOADS).glob("part-*")) == []
    for client in held:
        client.close()
    assert get(address, "/api/overview")[0] == 200


def resident():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def test_fifty_at_once_and_memory_is_bounded(address):
    host, port, cookie, _ = address
    overview = msgspec.json.decode(get(address, "/api/overview")[1])
    ids = [one["id"] for one in overview["results"]]
    cases = msgspec.json.decode(get(address, f"/api/results/{ids[0]}/cases")[1])["cases"]
    paths = ["/", "/api/overview", f"/api/results/{ids[0]}", f"/api/compare/{ids[0]}/{ids[1]}"]
    paths += [f"/api/results/{ids[0]}/cases/{one['id']}" for one in cases[:9]]
    for path in paths:  # What is kept is kept now.
        get(address, path)
    before, threads = resident(), threading.active_count()
    with ThreadPoolExecutor(50) as many:
        told = [socket.create_connection((host, port), timeout=120) for _ in range(50)]
        for page in told:  # Fifty pages listen, and never read.
            page.sendall(
                f"GET /api/jobs/events HTTP/1.1\r\nHost: {host}:{port}\r\n"
                f"Cookie: {cookie}\r\n\r\n".encode()
            )
        answers = [*many.map(lambda k: get(address, paths[k % len(paths)])[0], range(400))]
    assert set(answers) == {200}
    assert resident() - before < 150
    assert threading.active_count() <= threads + 45  # The pool of the server, which is bounded.
    for page in told:
        page.close()
    assert get(address, "/api/overview")[0] == 200
