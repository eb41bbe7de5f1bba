"""How fast the workbench answers: `python -m benchmarks.workbench DEMO`.

DEMO is what `robustmri demo` made. Its test slices and both its results are repeated until there
are as many cases as asked for, under names of their own, and beside them lies a folder of many
studies; a Chromium then looks at them as a reader would. It needs the extra `browser`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import describe_machine, disturbances, features_of, load_now
from robustmri.core.files import read_json, sha256_of, write_json
from robustmri.core.sizes import sides
from robustmri.data.cases import write_cases
from robustmri.data.cohort import CASES, HEAD, Cohort, fingerprint_of
from robustmri.data.storage import IMAGES
from robustmri.results.schema import hash_files, load_result, save_result
from robustmri.web.folder import Folder
from robustmri.web.views import case, compare, overview
from robustmri.web.views import result as views

RESULTS = ("before", "after")
LARGE = 10_000
"""Cases from which on slices keep the size of the demo's; fewer are three times as large."""
STUDIES = 100
PAINTED = """() => { const canvas = document.querySelector("canvas"), side = canvas?.width || 0;
  if (!side || document.querySelector("main[aria-busy]")) return false;
  return canvas.getContext("2d").getImageData(side / 2, side / 2, 40, 40).data.some(
    (value, at) => at % 4 < 3 && value > 0); }"""
LISTED = "() => [...document.images].some((one) => one.naturalWidth > 0)"
PAIRED = "() => document.querySelector('.turn-tile')"
TABLE = "() => document.querySelector('table.list')"
WAIT = """() => new Promise((done) => {
  const there = THERE;
  const look = () => (there() ? done(performance.now()) : requestAnimationFrame(look));
  look(); })"""
NEXT = f"""() => new Promise((done) => {{
  const before = document.querySelector("h1"), painted = {PAINTED}, began = performance.now();
  document.body.dispatchEvent(new KeyboardEvent("keydown", {{ key: "n", bubbles: true }}));
  const look = () => (document.querySelector("h1") !== before && painted()
    ? done(performance.now() - began) : requestAnimationFrame(look));
  look(); }})"""
SLIDE = """() => new Promise((done) => {
  const slider = document.querySelector(".eps-slider"), most = Number(slider.max);
  const frames = [], works = [];
  let step = 0, last = performance.now();
  const frame = () => {
    const began = performance.now();
    frames.push(began - last);
    last = began;
    slider.value = String(step % (most + 1));
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    document.body.offsetHeight;  // Style and layout, too.
    works.push(performance.now() - began);
    if (++step < 200) requestAnimationFrame(frame); else done([frames.slice(1), works]);
  };
  requestAnimationFrame(frame); })"""


def main() -> None:
    """Print a table: a row for each wait, a column for each folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder that `robustmri demo` made")
    parser.add_argument("--cases", type=int, nargs="*", default=[3000, 50_000])
    parser.add_argument("--studies", type=int, default=STUDIES, help="of the folder of many")
    parser.add_argument("--without-browser", action="store_true", help="the server's work alone")
    given, load = parser.parse_args(), load_now()
    columns: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="robustmri-workbench-") as place:
        for cases in given.cases:
            times = 1 if cases >= LARGE else 3
            enlarge(given.demo, Path(place) / str(cases), cases=cases, times=times)
            columns[f"{cases} cases"] = look(Path(place) / str(cases), given.without_browser)
        if given.studies:
            crowd(given.demo, Path(place) / "many", studies=given.studies)
            name = f"{given.studies} studies"
            columns[name] = look(Path(place) / "many", given.without_browser)
    print(say(columns, without_browser=given.without_browser, load=load))


def look(folder: Path, without_browser: bool) -> dict[str, float]:
    """Everything that is measured of a folder."""
    return ask(folder) | ({} if without_browser else measure(folder))


def say(
    columns: dict[str, dict[str, float]], *, without_browser: bool, load: float | None = None
) -> str:
    """Markdown: what it was measured with, and the table; `load` is that before the start."""
    names = ["robustmri", "starlette", "uvicorn"]
    names += [] if without_browser else ["playwright"]
    machine, noise = describe_machine(), disturbances(load)
    head = [
        f"{features_of(machine)}, {machine['system']}, Python {machine['python']}, "
        + ", ".join(f"{name} {version(name)}" for name in names),
        *([f"Not a quiet machine: {'; '.join(noise)}"] if noise else []),
        "",
        "| milliseconds | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    rows = dict.fromkeys(name for column in columns.values() for name in column)
    return "\n".join(
        head
        + [
            f"| {row} | " + " | ".join(_figure(one.get(row)) for one in columns.values()) + " |"
            for row in rows
        ]
    )


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def crowd(demo: Path, folder: Path, *, studies: int) -> None:
    """The demo's runs, results and page so many times, ten a folder; one cohort."""
    folder.mkdir()
    shutil.copytree(demo / "cohort", folder / "cohort")
    names = [path.name for path in demo.iterdir() if path.name != "cohort"]
    for number in range(studies):
        place = folder / f"{number // 10:03d}" / f"study-{number:04d}"
        place.mkdir(parents=True)
        for name in names:
            copy = shutil.copytree if (demo / name).is_dir() else shutil.copy2
            copy(demo / name, place / name)


def enlarge(demo: Path, folder: Path, *, cases: int, times: int) -> None:
    """A cohort of so many test slices, and the demo's results on them."""
    small = Cohort.open(demo / "cohort")
    table = pq.read_table(demo / RESULTS[0] / "outcomes.parquet")
    rows = sorted(set(table["index"].to_pylist()))
    copies = -(-cases // len(rows))
    side, head = sides(small.size)[0] * times, read_json(demo / "cohort" / HEAD)
    (folder / "cohort").mkdir(parents=True)
    images = np.lib.format.open_memmap(
        folder / "cohort" / IMAGES, "w+", np.uint16, (copies * len(rows), side, side)
    )
    once = np.asarray(small.images)[rows].repeat(times, axis=1).repeat(times, axis=2)
    many = []
    for copy in range(copies):
        images[copy * len(rows) : (copy + 1) * len(rows)] = once
        for place, row in enumerate(rows):
            one = small.cases[row]
            named = {"case_id": f"{one.case_id}-{copy}", "patient_id": f"{one.patient_id}-{copy}"}
            many.append(
                replace(one, index=copy * len(rows) + place, group=named["patient_id"], **named)
            )
    images.flush()
    write_cases(folder / "cohort" / CASES, many)
    people = len({one.patient_id for one in many})
    head |= {"size": side, "n_cases": len(many), "n_patient_ids": people, "n_groups": people}
    head["files"] = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted((folder / "cohort").iterdir())
    }
    head["slices"] = {name: copies * count for name, count in head["slices"].items()}
    head["fingerprint"] = fingerprint_of(head, many)
    write_json(folder / "cohort" / HEAD, head)
    for name in RESULTS:
        _repeat_result(demo / name, folder / name, (rows, copies, times), head, people)


def _repeat_result(
    demo: Path, out: Path, of: tuple[list[int], int, int], head: dict[str, Any], people: int
) -> None:
    rows, copies, times = of
    result = load_result(demo)
    out.mkdir()
    _repeat_outcomes(pq.read_table(demo / "outcomes.parquet"), rows, copies, out)
    _repeat_examples(demo, out, times)
    cohort = msgspec.structs.replace(
        result.cohort,
        size=head["size"],
        n_cases=head["n_cases"],
        n_patients=people,
        fingerprint=head["fingerprint"],
    )
    split = msgspec.structs.replace(result.split, n_slices=head["n_cases"], n_patients=people)
    examples = [
        msgspec.structs.replace(one, case_id=f"{one.case_id}-0", patient_id=f"{one.patient_id}-0")
        for one in result.examples
    ]
    files = hash_files(out, ("outcomes.parquet", "examples.npz"))
    made = {"cohort": cohort, "split": split, "examples": examples, "files": files}
    save_result(msgspec.structs.replace(result, **made), out)


def _repeat_outcomes(table: pa.Table, rows: list[int], copies: int, out: Path) -> None:
    place = np.searchsorted(rows, table["index"].to_numpy())
    parts = []
    for copy in range(copies):
        part = table
        for name in ("case_id", "patient_id", "group"):
            words = [f"{word}-{copy}" for word in table[name].to_pylist()]
            column = pa.array(words).cast(table.schema.field(name).type)
            part = part.set_column(part.column_names.index(name), name, column)
        index = pa.array(copy * len(rows) + place).cast(table.schema.field("index").type)
        parts.append(part.set_column(part.column_names.index("index"), "index", index))
    pq.write_table(pa.concat_tables(parts).combine_chunks(), out / "outcomes.parquet")


def _repeat_examples(before: Path, out: Path, times: int) -> None:
    arrays = dict(np.load(before / "examples.npz"))
    larger = {
        name: array.repeat(times, axis=1).repeat(times, axis=2) for name, array in arrays.items()
    }
    np.savez_compressed(out / "examples.npz", **larger)


def ask(folder: Path) -> dict[str, float]:
    """Milliseconds of the processor that the server spends on an answer, without the browser."""
    shown = Folder(folder)
    times: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        found = work()
        times[f"server: {name}"] = 1000 * (time.process_time() - began)
        return found

    timed("overview, the first time", lambda: overview.overview(shown))
    one, other = (row["id"] for row in _pair(timed("overview", lambda: overview.overview(shown))))
    timed("result, the first time", lambda: views.result(shown, one, {}))
    timed("result", lambda: views.result(shown, one, {}))
    listed = timed("list", lambda: views.cases(shown, one, {}))["cases"]
    first, *others = [row["id"] for row in listed[:31]]
    timed("slice, the first time", lambda: case.pixels(shown, one, first))
    timed("30 next cases", lambda: [case.case(shown, one, id, {}) for id in others])
    timed("30 slices", lambda: [case.pixels(shown, one, id) for id in others])
    timed("30 thumbnails", lambda: [case.thumbnail(shown, one, id) for id in others])
    timed("two results, the first time", lambda: compare.compare(shown, one, other, {}))
    timed("two results", lambda: compare.compare(shown, one, other, {}))
    return times


def _pair(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """A result before repair and one after, of the same study."""
    found = {row["name"]: row for row in shown["results"]}
    first = next(name for name in found if name.endswith(RESULTS[0]))
    return [found[first], found[first.removesuffix(RESULTS[0]) + RESULTS[1]]]


def measure(folder: Path) -> dict[str, float]:
    """What a reader waits for, in milliseconds, and the memory of server and page, in MB."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "robustmri.app.cli", "serve", str(folder), "--port", "8769"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split(": ", 1)[1].strip()
        path = os.environ.get("CHROMIUM") or shutil.which("chromium") or None
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1920, "height": 1080})
            page.set_default_timeout(120_000)
            page.goto("about:blank")  # The browser itself has started.
            times = _wait(page, address)
            devices = browser.new_browser_cdp_session()
            processes = devices.send("SystemInfo.getProcessInfo")["processInfo"]
            pages = [_resident(one["id"]) for one in processes if one["type"] == "renderer"]
            return times | {
                "memory of the server, MB": _resident(server.pid),
                "memory of the page, MB": max(pages),
            }
    finally:
        server.terminate()
        server.wait(10)


def _wait(page: Any, address: str) -> dict[str, float]:
    base = address.split("/?")[0]
    page.goto(address, wait_until="commit")
    times = {"overview, the first time": _until(page, TABLE)}
    page.goto(base, wait_until="commit")
    times["overview"] = _until(page, TABLE)
    fetched = "async (path) => (await fetch(path)).json()"
    one, other = (row["id"] for row in _pair(page.evaluate(fetched, "/api/overview")))
    list_ = f"{base}/results/{one}"
    for name in (", the first time", ""):
        page.goto(list_, wait_until="commit")
        times[f"first picture of the list{name}"] = _until(page, LISTED)
    cases = page.evaluate(fetched, f"/api/results/{one}/cases")["cases"]
    for name in (", the first time", ""):
        page.goto(f"{list_}/{cases[0]['id']}", wait_until="commit")
        times[f"first picture of a case{name}"] = _until(page, PAINTED)
    turns = [page.evaluate(NEXT) for _ in range(30)]
    times["next case, median"] = statistics.median(turns)
    times["next case, longest of 30"] = max(turns)
    frames, works = page.evaluate(SLIDE)
    times["frame while the slider moves, median"] = statistics.median(frames)
    times["frame while the slider moves, 95 of 100"] = sorted(frames)[int(0.95 * len(frames))]
    times["of it script, style and layout, median"] = statistics.median(works)
    page.goto(f"{base}/compare/{one}/{other}", wait_until="commit")
    times["two results"] = _until(page, PAIRED)
    return times


def _until(page: Any, there: str) -> float:
    """Milliseconds from the beginning of the page until something is there."""
    return float(page.evaluate(WAIT.replace("THERE", there)))


def _resident(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    main()
