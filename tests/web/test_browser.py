"""The page in a real browser: every view by keyboard, nothing from outside, no error on the
console.

`make test-browser` installs what it needs.
"""

from __future__ import annotations

import re
import shutil
import sys

import pytest

pytestmark = pytest.mark.browser


def open_case(page, shown_picture=True):
    """From the overview to a case that has an attacked picture, by keyboard alone."""
    page.get_by_role("link", name="before", exact=True).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".gallery a")
    links = page.evaluate(
        """async () => {
            const id = location.pathname.split("/")[2], found = [];
            const list = await (await fetch(`/api/results/${id}/cases`)).json();
            for (const one of list.cases) {
              const all = await (await fetch(`/api/results/${id}/cases/${one.id}`)).json();
              if (all.change) found.push(one.id);
            }
            return found;
        }"""
    )
    page.locator(f'.gallery a[href*="{links[0]}"]').focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("canvas")


def grey_sum(page, place=0):
    return page.evaluate(
        """(place) => new Promise((done) => setTimeout(() => {
            const canvas = document.querySelectorAll("canvas")[place];
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            done(data.data.reduce((sum, value) => sum + value, 0));
        }, 100))""",
        place,
    )


def test_look_and_move_eps_by_keyboard(page, served, shown):
    page.goto(served(shown))
    page.wait_for_selector("h1")
    assert page.url.endswith("/")  # The token is gone from the address.
    open_case(page)
    assert page.locator("canvas").count() == 3
    before = grey_sum(page)
    page.keyboard.press("3")
    assert grey_sum(page) != before
    page.locator("canvas").first.focus()
    page.keyboard.press("0")
    assert grey_sum(page) == before
    page.keyboard.press("+")
    page.keyboard.press("Shift+ArrowLeft")
    assert "zoom 1.3" in page.locator(".reading").inner_text()
    page.keyboard.press("0")
    said = page.locator(".eps-said")
    for _ in range(9):
        page.keyboard.press("[")
    assert "Untouched" in said.inner_text()
    assert page.locator(".eps-said .answer.right").count() == 1
    for _ in range(9):
        page.keyboard.press("]")
    assert page.locator(".eps-said .answer.wrong").count() == 1
    assert "flips between" in page.locator(".eps-card").inner_text()
    page.wait_for_url(re.compile(r"eps=0\.04"))
    first = page.locator("h1").inner_text()
    page.keyboard.press("n")
    page.wait_for_function("(name) => document.querySelector('h1').textContent !== name", arg=first)
    page.keyboard.press("p")
    page.wait_for_function("(name) => document.querySelector('h1').textContent === name", arg=first)
    page.keyboard.press("u")
    page.wait_for_selector(".gallery a")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "class"


def test_dragging_sets_the_window(page, served, shown):
    page.goto(served(shown))
    page.wait_for_selector("h1")
    open_case(page)
    box = page.locator("canvas").first.bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 20, box["y"] + 70)
    page.mouse.up()
    assert "level 128, width 255" not in page.locator(".reading").inner_text()
    page.mouse.wheel(0, -400)
    assert "zoom 1.0" not in page.locator(".reading").inner_text()


def test_flicker_shows_the_attacked_slice(page, served, shown):
    page.goto(served(shown))
    page.wait_for_selector("h1")
    open_case(page)
    page.keyboard.press("0")
    slice_, attacked = grey_sum(page, 0), grey_sum(page, 2)
    assert slice_ != attacked
    page.keyboard.press("f")
    assert grey_sum(page, 0) == attacked
    page.keyboard.press("f")
    assert grey_sum(page, 0) == slice_


def test_a_cine_runs_and_stops(page, served, shown):
    page.goto(served(shown))
    page.wait_for_selector("h1")
    open_case(page)
    slider = page.get_by_label("Slice of the patient")
    here = slider.input_value()
    page.keyboard.press("c")
    page.wait_for_function(
        "([slider, here]) => slider.value !== here", arg=[slider.element_handle(), here]
    )
    assert page.get_by_role("button", name="Cine").get_attribute("aria-pressed") == "true"
    page.keyboard.press("c")
    assert page.get_by_role("button", name="Cine").get_attribute("aria-pressed") == "false"
    before = slider.input_value()
    page.keyboard.press(".")
    page.wait_for_function(
        "([slider, before]) => slider.value !== before", arg=[slider.element_handle(), before]
    )


def test_a_click_on_a_class_shows_its_cases_alone(page, served, shown):
    page.goto(served(shown))
    page.wait_for_selector("h1")
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Compare these two").click()
    page.get_by_role("link", name="glioma", exact=True).click()
    page.get_by_text("Show those of all").wait_for()
    labels = page.locator(".gallery .case-label").all_inner_texts()
    assert labels
    assert {label.lower() for label in labels} == {"glioma"}


def test_compare_two(page, served, shown):
    page.goto(served(shown))
    page.wait_for_selector("h1")
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Compare these two").click()
    page.wait_for_selector(".turn-tile")
    saved = int(page.locator(".turn-tile.saved b").inner_text())
    assert page.locator(".gallery a").count() == min(saved, 120)
    page.locator(".gallery a").first.click()
    page.wait_for_selector(".answers")
    assert page.locator(".answers thead th").count() == 4


def test_a_view_can_be_sent_and_gone_back_from(page, served, shown):
    address = served(shown)
    page.goto(address)
    page.wait_for_selector("h1")
    page.get_by_role("link", name="before", exact=True).click()
    page.wait_for_selector(".gallery a")
    page.select_option("select[name=fate]", "holds")
    page.wait_for_url(re.compile("fate=holds"))
    sent = page.url
    page.go_back()
    page.wait_for_selector("table.list")
    page.goto(sent)
    page.wait_for_selector(".gallery, .tally")
    assert page.locator("select[name=fate]").input_value() == "holds"


def test_a_job_runs_is_cancelled_and_goes_on(page, served, tmp_path, tiny_scans):
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copytree(tiny_scans, folder / "scans")
    page.goto(served(folder))
    page.wait_for_selector("h1")
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_label("Scans").select_option(label="scans")
    page.locator("summary", has_text="Settings").first.click()
    page.get_by_label("Pixels").fill("32")
    page.get_by_role("button", name="Prepare").last.click()
    page.get_by_text("Done").wait_for(timeout=60_000)
    slow = [sys.executable, "-c", "import time; print('slow: 1/9', flush=True); time.sleep(3)"]
    from robustmri.web.jobs import Jobs

    Jobs(folder).add("train", "Slow", slow)
    page.get_by_text("slow: 1 of 9").wait_for(timeout=20_000)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Go on").click(timeout=20_000)
    page.locator(".job.done").nth(1).wait_for(timeout=30_000)


def test_names_from_files_are_text(page, served, shown, tmp_path):
    name = "<img src=x onerror=document.title='owned'>"
    shutil.copytree(shown / "before", tmp_path / name)
    page.goto(served(tmp_path))
    page.get_by_role("link", name=name).click()
    page.wait_for_selector(".gallery a")
    assert page.title() != "owned"


@pytest.mark.parametrize("width", [820, 1280, 3840])
def test_nothing_is_wider_than_the_page(width, page, served, shown):
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(served(shown))
    page.wait_for_selector("h1")
    for step in (lambda: None, lambda: open_case(page)):
        step()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
