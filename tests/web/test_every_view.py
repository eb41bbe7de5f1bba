"""Every view at every width, light and dark: nothing is cut off, and nothing keeps a reader out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
WIDTHS = (820, 1280, 1920, 3840)
AXE = Path(os.environ.get("AXE", "build/npm/node_modules/axe-core/axe.min.js"))
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
ANSWER = """{"case": {"answer": "glioma", "probabilities": {"glioma": 0.9, "pituitary": 0.1},
 "norm": "linf", "smallest_eps": 0.01, "grey_levels": 2.5, "nearest": "pituitary",
 "nearest_probabilities": {"glioma": 0.4, "pituitary": 0.6}, "attacks": ["fmn"]},
 "source": {"name": "slice-0001.png", "sha256": "", "height": 8, "width": 8, "notes": ["a note"]},
 "classifier": {"backbone": "resnet18", "size": 64}, "provenance": {"created": "2025-01-02"}}"""


@pytest.fixture(scope="module")
def folder(paired, tmp_path_factory):
    """Two results and how they compare, an answer about a slice, a cohort that cannot be read, and
    jobs.
    """
    import shutil

    from PIL import Image

    from robustmri.web.jobs import Jobs

    root = tmp_path_factory.mktemp("views") / "folder"
    shutil.copytree(paired, root)
    (root / "cohort").mkdir()
    (root / "cohort" / "cohort.json").write_text("{}")
    (root / "answer").mkdir()
    (root / "answer" / "case.json").write_text(ANSWER)
    Image.new("RGB", (90, 40), (200, 200, 200)).save(root / "answer" / "picture.png")
    jobs = Jobs(root)
    for title, code in (("Train: done", "print('training: 2/2')"), ("Train: failed", "1/0")):
        jobs.add("train", title, [sys.executable, "-c", code])
    return root


@pytest.fixture
def views(page, served, folder):
    """Name to address of each view; the page has the cookie."""
    page.goto(served(folder))
    page.wait_for_selector("h1")
    ask = "async (path) => (await fetch(path)).json()"
    overview = page.evaluate(ask, "/api/overview")
    one, other = (row["id"] for row in overview["results"])
    listed = page.evaluate(ask, f"/api/results/{one}/cases")["cases"]
    pictured = next(case["id"] for case in listed if case["image"])
    bare = next(case["id"] for case in listed if not case["image"])
    return {
        "overview": "/",
        "jobs": "/jobs",
        "a job": "/jobs?job=000002",
        "import": "/jobs?start=import",
        "result": f"/results/{one}",
        "case": f"/results/{one}/{pictured}",
        "case without picture": f"/results/{one}/{bare}",
        "case beside": f"/results/{one}/{pictured}?beside={other}",
        "compare": f"/compare/{one}/{other}",
        "answer": f"/answers/{overview['answers'][0]['id']}",
    }


def open_view(page, address):
    page.goto(page.url.split("/", 3)[0] + "//" + page.url.split("/", 3)[2] + address)
    page.wait_for_selector("main:not([aria-busy]) h1")
    for one in page.locator("main details").all():
        one.evaluate("(details) => { details.open = true; }")


@pytest.mark.skipif(not AXE.is_file(), reason="make test-browser brings axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme, page, views):
    page.emulate_media(color_scheme=scheme)
    source, found = AXE.read_text(), {}
    for name, address in views.items():
        open_view(page, address)
        page.evaluate(source)
        said = page.evaluate("(rules) => axe.run(document, rules)", RULES)
        for one in said["violations"]:
            places = [node["target"][0] for node in one["nodes"][:3]]
            found[name, one["id"]] = (one["help"], places)
    assert found == {}


def test_nothing_is_cut_off_at_any_width(page, views):
    wide = []
    for name, address in views.items():
        open_view(page, address)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 1000})
            if not page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
                wide.append((name, width))
    assert wide == []


def test_under_a_finger_buttons_are_large(page, views):
    page.context.new_cdp_session(page).send(
        "Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 1}
    )
    small = {}
    for name in ("overview", "result", "case beside", "compare", "import"):
        open_view(page, views[name])
        assert page.evaluate("matchMedia('(pointer: coarse)').matches")
        small |= page.evaluate(
            """(name) => {
                const tall = (one) => one.getBoundingClientRect().height;
                return Object.fromEntries(
                  [...document.querySelectorAll("main .button, main select")]
                    .filter((one) => tall(one) > 0 && tall(one) < 40)
                    .map((one) => [`${name}: ${one.textContent.slice(0, 20)}`, tall(one)]));
            }""",
            name,
        )
    assert small == {}


def test_results_of_a_report_go_in_the_order_of_their_ticks(page, views):
    open_view(page, "/jobs?start=report")
    boxes = page.locator("fieldset input")
    boxes.nth(1).check()
    boxes.nth(0).check()
    said = [" ".join(one.split()) for one in page.locator("fieldset label").all_inner_texts()]
    assert said == ["2. after", "1. before"]
    with page.expect_request("**/api/jobs") as asked:
        page.route("**/api/jobs", lambda route: route.fulfill(json={"title": "", "id": "1"}))
        page.locator(".job-form .strong").click()
    ids = [boxes.nth(place).input_value() for place in (1, 0)]
    assert asked.value.post_data_json["answers"]["results"] == ids


def test_everything_that_acts_is_reached_by_tab(page, views):
    """Every link, button and field of a view can get the focus, and shows that it has it."""
    for name in ("overview", "result", "case", "compare", "import", "answer"):
        open_view(page, views[name])
        missed = page.evaluate(
            """() => [...document.querySelectorAll("main a, main button, main select, main input")]
                .filter((one) => one.checkVisibility() && !one.disabled && one.tabIndex < 0)
                .map((one) => one.outerHTML)"""
        )
        assert missed == [], name
        page.keyboard.press("Tab")
        shown = page.evaluate(
            """() => { const style = getComputedStyle(document.activeElement);
                return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0; }"""
        )
        assert shown, name
