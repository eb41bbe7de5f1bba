"""Who may look: the token, the host, the origin, the headers; and nothing outside of the folder."""

from __future__ import annotations

import json
import re

import pytest

from robustmri.core.errors import SettingsError
from robustmri.web.pages import ADDRESSES
from robustmri.web.server import serve

VIEWS = [path.replace("{id}", "0" * 16).replace("{case}", "1" * 16) for path in ADDRESSES]
VIEWS = [path.replace("{other}", "2" * 16) for path in VIEWS]
PLACES = [
    *VIEWS,
    "/api/overview",
    "/api/jobs",
    "/api/forms",
    "/static/app.js",
    "/static/type.css",
    "/reports/0",
]


@pytest.mark.parametrize("path", PLACES)
def test_nothing_is_shown_without_the_cookie(path, shown, open_on):
    answer = open_on(shown, session=False).get(path)
    assert answer.status_code == 401
    assert "robustness" not in answer.text


def test_the_token_opens_one_session_and_is_used_up(shown, open_on):
    client = open_on(shown, session=False)
    (first,) = client.app_state["tokens"]
    opened = client.get("/", params={"token": first}, follow_redirects=False)
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert first not in cookie
    assert client.get("/api/overview").status_code == 200
    client.cookies.clear()
    assert client.get("/", params={"token": first}).status_code == 401
    assert len(client.app_state["tokens"]) == 2
    assert client.get("/", params={"token": client.app_state["tokens"][1]}).status_code == 200


@pytest.mark.parametrize("token", ["", "x", "\u00e9", "a" * 5000])
def test_a_guess_opens_nothing(token, shown, open_on):
    client = open_on(shown, session=False)
    assert client.get("/", params={"token": token}).status_code == 401
    client.cookies.set("workbench", token.encode("ascii", "ignore").decode())
    assert client.get("/api/overview").status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "10.0.0.7:8765"])
def test_another_host_is_refused(host, client):
    assert client.get("/api/overview", headers={"host": host}).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_page_can_start_nothing(headers, client):
    answer = client.post("/api/jobs", json={}, headers=headers)
    assert answer.status_code == 403


@pytest.mark.parametrize("path", ["/", "/nowhere", "/api/overview", "/static/app.js"])
def test_every_answer_says_what_a_browser_may_do(path, client):
    answer = client.get(path)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    refused = client.get(path, headers={"host": "evil.example"})
    assert refused.headers["content-security-policy"].startswith("default-src 'self';")


def test_the_page_holds_no_script_or_style_of_its_own(client):
    page = client.get("/").text
    assert not re.search(r"<style|style=|\son\w+=|javascript:", page)
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == [""]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert all(name.startswith(("/", "#")) for name in loaded)
    for name in loaded:
        if name.startswith("/static/"):
            assert client.get(name).status_code == 200, name


def test_nothing_from_outside_is_named_in_the_scripts(client):
    for route in client.app.routes:
        if route.path.startswith("/static/"):
            text = client.get(route.path).text
            outside = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w{2,}", text)) - {"//www.w3.org"}
            assert {one.split(":")[-1] for one in outside} <= {"//www.w3.org"}, route.path
            assert "innerHTML" not in text
            assert "insertAdjacentHTML" not in text


LEADING_OUT = [
    "..",
    "../..",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f%2e%2e",
    "before",
    "/etc/passwd",
    "%00",
    "0" * 16,
    "\u00e9" * 9,
    "a" * 4000,
]
PARAMETERS = [
    "/api/results/{}",
    "/api/results/{}/cases",
    "/api/results/{}/cases/{}",
    "/api/results/{}/cases/{}/slice",
    "/api/results/{}/cases/{}/change",
    "/api/results/{}/cases/{}/thumbnail.png",
    "/api/compare/{}/{}",
    "/api/jobs/{}",
    "/api/answers/{}",
    "/api/answers/{}/picture.png",
    "/reports/{}",
    "/static/{}",
]


@pytest.mark.parametrize("path", PARAMETERS)
def test_nothing_outside_can_be_named(path, client, ids):
    known = ids["before"]
    for word in LEADING_OUT:
        answers = [client.get(path.replace("{}", word))]
        answers += [client.get(path.replace("{}", known, 1).replace("{}", word))]
        for answer in answers if path.count("{}") > 1 else answers[:1]:
            # A client takes ".." out of a path by itself, and then asks for something else.
            resolved = word not in answer.request.url.path and word.startswith("..")
            assert answer.status_code in (404, 422) or resolved, word
            assert "root:" not in answer.text


@pytest.mark.parametrize("name", ["class", "patient", "fate", "sort", "from", "beside"])
@pytest.mark.parametrize("value", ["../x", "-1", "9" * 30, "\u0663", "<script>", "%00", "1e9"])
def test_no_query_is_taken_as_it_comes(name, value, client, ids):
    known = ids["before"]
    case = client.get(f"/api/results/{known}/cases").json()["cases"][0]["id"]
    path = f"/api/results/{known}/cases" + (f"/{case}" if name == "beside" else "")
    answer = client.get(path, params={name: value})
    assert answer.status_code in (404, 422)
    assert set(answer.json()) == {"error"}


def test_no_answer_tells_where_the_folder_is(shown, client, ids):
    known = ids["before"]
    for path in ("/api/overview", f"/api/results/{known}", "/api/forms", "/api/jobs"):
        assert str(shown.parent) not in client.get(path).text


def test_links_that_lead_out_are_left_out(tmp_path, shown, open_on):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "linked").symlink_to(shown / "before")
    (folder / "half").mkdir()
    for name in ("robustness.json", "outcomes.parquet", "examples.npz"):
        (folder / "half" / name).symlink_to(shown / "before" / name)
    (folder / "page.html").symlink_to(shown / "report.html")
    said = open_on(folder).get("/api/overview").json()
    assert said["results"] == said["reports"] == []
    assert {one["name"] for one in said["left_out"]} == {"half", "page.html"}


def test_a_link_made_later_is_refused(tmp_path, shown, open_on):
    folder = tmp_path / "folder"
    (folder / "r").mkdir(parents=True)
    for name in ("robustness.json", "outcomes.parquet", "examples.npz"):
        (folder / "r" / name).write_bytes((shown / "before" / name).read_bytes())
    client = open_on(folder)
    (known,) = (one["id"] for one in client.get("/api/overview").json()["results"])
    assert client.get(f"/api/results/{known}").status_code == 200
    (folder / "r" / "examples.npz").unlink()
    (folder / "r" / "examples.npz").symlink_to(shown / "before" / "examples.npz")
    answer = client.get(f"/api/results/{known}")
    assert answer.status_code == 404
    assert "leads out of the folder" in answer.json()["error"]


def test_read_only_changes_nothing(tmp_path, open_on):
    client = open_on(tmp_path, read_only=True)
    body = {"verb": "prepare", "answers": {"source": "phantom", "out": "cohort"}}
    for path in ("/api/jobs", "/api/jobs/000001/cancel", "/api/jobs/000001/again"):
        assert client.post(path, json=body).status_code == 403
    with client:
        assert client.get("/api/overview").json()["read_only"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null", b"{" * 2000, b" " * 70_000])
def test_a_broken_body_is_one_sentence(body, client):
    answer = client.post("/api/jobs", content=body)
    assert answer.status_code == 422
    assert list(json.loads(answer.text)) == ["error"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_no_server_on_every_address(host, tmp_path):
    with pytest.raises(SettingsError, match="every address"):
        serve(tmp_path, host=host)
