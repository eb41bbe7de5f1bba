"""Jobs in a real browser: from a form to the result, uploads, a search, and a server that is
killed.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from PIL import Image

pytestmark = pytest.mark.browser
LONG = 240_000
"""Milliseconds for a verb: it loads torch first."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_cohort):
    """A cohort, and a network that was never trained on it."""
    from robustmri.models.backbones import build_classifier
    from robustmri.models.checkpoint import save_checkpoint

    root = tmp_path_factory.mktemp("jobs") / "folder"
    shutil.copytree(tiny_cohort, root / "cohort")
    names = ("meningioma", "glioma", "pituitary")
    save_checkpoint(build_classifier("resnet18-half", names, 32).eval(), root / "run")
    return root


def png():
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((32, 32)).save(buffer, format="PNG")
    return buffer.getvalue()


def start(page, verb):
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.locator(".tab", has_text=verb).click()


def finished(page, title):
    page.locator(".job.done", has_text=title).wait_for(timeout=LONG)


def fill_evaluation(page, served, folder, root, *, attack):
    """A copy of the folder is served, and the form of an evaluation of six slices filled in."""
    shutil.copytree(folder, root)
    page.goto(served(root))
    page.wait_for_selector("h1")
    start(page, "Evaluate")
    page.locator("summary", has_text="Settings").click()
    page.get_by_label("Attacks", exact=True).fill(attack)
    page.get_by_label("Slices at most").fill("6")


def test_a_small_evaluation_and_then_a_search(page, served, folder, tmp_path):
    fill_evaluation(page, served, folder, tmp_path / "folder", attack="fgsm")
    page.get_by_role("button", name="How long will it take?").click()
    page.get_by_text("on this machine").wait_for(timeout=LONG)
    page.locator(".job-form .strong").click()
    finished(page, "Evaluate: result")
    page.get_by_role("link", name="Evaluate: result").click()
    page.locator(".gallery a").first.click()
    page.wait_for_selector("canvas")
    page.locator("summary", has_text="Search further").click()
    page.get_by_label("Radii eps").fill("2/255,8/255")
    page.get_by_label("Attack", exact=True).last.select_option("bim")
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator(".answers", has_text="BIM (search-0001)").wait_for(timeout=LONG)
    assert page.locator("canvas").count() == 3


def test_an_evaluation_is_cancelled_and_goes_on(page, served, folder, tmp_path):
    root = tmp_path / "folder"
    fill_evaluation(page, served, folder, root, attack="bim")
    page.get_by_label("Other settings").fill("evaluate.batch_size=1")
    page.locator(".job-form .strong").click()
    page.locator(".job.running .progress").wait_for(timeout=LONG)
    page.get_by_role("button", name="Cancel").click()
    page.locator(".job.cancelled").wait_for(timeout=LONG)
    assert not (root / "result" / "robustness.json").exists()
    page.get_by_role("button", name="Go on").click()
    finished(page, "Evaluate: result")
    page.get_by_role("link", name="Evaluate: result").click()
    page.locator(".gallery a").first.wait_for()
    assert page.locator(".gallery a").count() == 6


def test_a_slice_is_uploaded_and_asked_about(page, served, folder, tmp_path):
    root = tmp_path / "folder"
    shutil.copytree(folder, root)
    page.goto(served(root))
    page.wait_for_selector("h1")
    start(page, "Case")
    given = {"name": "a-name.png", "mimeType": "image/png", "buffer": png()}
    page.locator("#field-slice-file").set_input_files(given)
    page.locator("#field-slice option", has_text="slice-0001.png").wait_for(state="attached")
    assert "a-name" not in str([*root.rglob("*")])
    page.locator(".job-form .strong").click()
    finished(page, "Case: case")
    page.get_by_role("link", name="Case: case").click()
    page.wait_for_selector(".answer-picture")
    assert page.locator("tbody tr").count() == 3


def test_a_broken_slice_ends_in_a_sentence(page, served, folder, tmp_path):
    root = tmp_path / "folder"
    shutil.copytree(folder, root)
    page.goto(served(root))
    page.wait_for_selector("h1")
    start(page, "Case")
    broken = {"name": "x.png", "mimeType": "image/png", "buffer": png()[:60]}
    page.locator("#field-slice-file").set_input_files(broken)
    page.locator("#field-slice option", has_text="slice-0001.png").wait_for(state="attached")
    page.locator(".job-form .strong").click()
    page.locator(".job.failed").wait_for(timeout=LONG)
    page.get_by_role("button", name="Log").click()
    page.locator(".log", has_text="slice-0001.png").wait_for()
    said = page.locator(".log").inner_text()
    assert "Traceback" not in said
    assert str(root) not in said


def test_a_killed_server_is_found_again(browser, folder, tmp_path):
    from robustmri.web.jobs import Jobs

    root = tmp_path / "folder"
    shutil.copytree(folder, root)
    Jobs(root).add("train", "Long", [sys.executable, "-c", "import time; time.sleep(9)"])

    def serve():
        words = [sys.executable, "-m", "robustmri.app.cli", "serve", str(root), "--port", "0"]
        words[-1] = str(free_port())
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ)
        address = server.stdout.readline().split(": ", 1)[1].strip()
        until = time.monotonic() + 60
        while time.monotonic() < until:  # It is said just before it is listened to.
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", int(words[-1]))) == 0:
                    break
            time.sleep(0.1)
        return server, address

    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(LONG)
    server, address = serve()
    try:
        page.goto(address)
        page.get_by_role("link", name="Jobs", exact=True).click()
        page.locator(".job.running").wait_for()
        server.kill()
        server.wait()
        page.get_by_text("The server does not answer").wait_for()
        server.stdout.close()
        server, address = serve()
        page.goto(address)
        page.get_by_role("link", name="Jobs", exact=True).click()
        page.locator(".job.done", has_text="Long").wait_for()
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
        context.close()


def free_port():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
