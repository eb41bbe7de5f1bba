"""How fast the workbench answers: `python -m benchmarks.workbench DEMO --cases 3000 --times 3`.

DEMO is what `robustmri demo` made. Its test slices and their outcomes are repeated until there are
as many cases as asked for, under names of their own; a Chromium then looks at them as a reader
would. It needs the extra `browser`.
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
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robustmri.core.files import read_json, sha256_of, write_json
from robustmri.core.sizes import sides
from robustmri.data.cases import write_cases
from robustmri.data.cohort import CASES, HEAD, Cohort, fingerprint_of
from robustmri.data.storage import IMAGES
from robustmri.results.schema import hash_files, load_result, save_result
from robustmri.web.folder import Folder
from robustmri.web.views import case, overview
from robustmri.web.views import result as views

PAINTED = """() => { const canvas = document.querySelector("canvas"), side = canvas?.width || 0;
  if (!side || document.querySelector("main[aria-busy]")) return false;
  return canvas.getContext("2d").getImageData(side / 2, side / 2, 40, 40).data.some(
    (value, at) => at % 4 < 3 && value > 0); }"""
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
  const slider = document.querySelector(".eps-slider"), most = Number(slider.max), times = [];
  let step = 0;
  const frame = () => {
    const began = performance.now();
    slider.value = String(step % (most + 1));
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    document.body.offsetHeight;  // Style and layout, too.
    times.push(performance.now() - began);
    if (++step < 200) requestAnimationFrame(frame); else done(times);
  };
  requestAnimationFrame(frame); })"""


def main() -> None:
    """Print the times, in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder that `robustmri demo` made")
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--times", type=int, default=1, help="how often a pixel is repeated")
    parser.add_argument("--without-browser", action="store_true", help="the server's work alone")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="robustmri-workbench-") as place:
        folder = Path(place) / "folder"
        enlarge(given.demo, folder, cases=given.cases, times=given.times)
        for name, value in ask(folder).items():
            print(f"{name:44} {value:9.1f}", flush=True)
        if not given.without_browser:
            for name, value in measure(folder).items():
                print(f"{name:44} {value:9.1f}", flush=True)


def enlarge(demo: Path, folder: Path, *, cases: int, times: int) -> None:
    """A cohort of so many test slices, and the demo's first result on them."""
    small, result = Cohort.open(demo / "cohort"), load_result(demo / "before")
    table = pq.read_table(demo / "before" / "outcomes.parquet")
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
    (folder / "before").mkdir()
    _repeat_outcomes(table, rows, copies, folder / "before")
    _repeat_examples(demo / "before", folder / "before", times)
    cohort = msgspec.structs.replace(
        result.cohort,
        size=side,
        n_cases=len(many),
        n_patients=people,
        fingerprint=head["fingerprint"],
    )
    split = msgspec.structs.replace(result.split, n_slices=len(many), n_patients=people)
    examples = [
        msgspec.structs.replace(one, case_id=f"{one.case_id}-0", patient_id=f"{one.patient_id}-0")
        for one in result.examples
    ]
    files = hash_files(folder / "before", ("outcomes.parquet", "examples.npz"))
    made = {"cohort": cohort, "split": split, "examples": examples, "files": files}
    save_result(msgspec.structs.replace(result, **made), folder / "before")


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

    (result,) = timed("overview, the first time", lambda: overview.overview(shown))["results"]
    id = result["id"]
    timed("list, the first time", lambda: views.cases(shown, id, {}))
    listed = timed("list, again", lambda: views.cases(shown, id, {}))["cases"]
    first, *others = [one["id"] for one in listed[:31]]
    timed("a case, the first time", lambda: case.case(shown, id, first, {}))
    timed("its slice, the first time", lambda: case.pixels(shown, id, first))
    timed("30 next cases", lambda: [case.case(shown, id, one, {}) for one in others])
    timed("30 slices", lambda: [case.pixels(shown, id, one) for one in others])
    timed("30 thumbnails", lambda: [case.thumbnail(shown, id, one) for one in others])
    return times


def measure(folder: Path) -> dict[str, float]:
    """What a reader waits for, in milliseconds, and the server's memory, in MB."""
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
            page.set_default_timeout(60_000)
            return _look(page, address) | {"memory of the server, MB": _resident(server.pid)}
    finally:
        server.terminate()
        server.wait(10)


def _look(page: Any, address: str) -> dict[str, float]:
    base = address.split("/?")[0]
    page.goto(address, wait_until="commit")
    overview = _until(page, "() => document.querySelector('table.list')")
    shown = page.evaluate("async () => (await fetch('/api/overview')).json()")
    (result,) = shown["results"]
    list_ = f"{base}/results/{result['id']}"
    seen = "() => [...document.images].some((one) => one.naturalWidth > 0)"
    times = {"overview, the first time": overview}
    for name in ("the first time", "again"):
        page.goto(list_, wait_until="commit")
        times[f"first picture of the list, {name}"] = _until(page, seen)
    cases = page.evaluate(f"async () => (await fetch('/api/results/{result['id']}/cases')).json()")
    single = f"{list_}/{cases['cases'][0]['id']}"
    for name in ("the first time", "again"):
        page.goto(single, wait_until="commit")
        times[f"first picture of a case, {name}"] = _until(page, PAINTED)
    turns = [page.evaluate(NEXT) for _ in range(30)]
    times["next case, median"] = statistics.median(turns)
    times["next case, longest of 30"] = max(turns)
    slides = page.evaluate(SLIDE)
    times["move of the slider, median"] = statistics.median(slides)
    times["move of the slider, longest of 200"] = max(slides)
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
