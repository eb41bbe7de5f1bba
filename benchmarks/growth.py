"""How time and memory grow with slices, rows and patients: `python -m benchmarks.growth --help`.

Every figure is that of a process of its own: the processor time of the work, without imports, and
the most memory that it held beyond what was loaded before. Slices are phantoms, moved a little and
under noise, so that no two are alike; the network has two layers, so that what is counted is what
the tool does around it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import describe_machine, disturbances, features_of, load_now, refuse_another
from benchmarks.memory import STATUS, peak_mib
from robustmri.core.errors import DataError, RobustMRIError
from robustmri.core.files import read_json, write_json
from robustmri.core.provenance import describe_run

SIZE = 32
"""Pixels along each side: what is counted is slices."""
EACH = 10
"""Slices of a patient."""
IN_A_GROUP = 1_000_000
"""Rows that are written together, as an evaluation does."""
CLASSES = ("meningioma", "glioma", "pituitary")

Facts = dict[str, Any]


class Stage(NamedTuple):
    """What is measured, of so many `units`; `make` is not timed and gives it what it works on."""

    units: str
    work: Callable[[Path, int], Facts | None]
    make: Callable[[Path, int], None] | None = None


# --- prepare ---


def write_scans(folder: Path, count: int) -> None:
    """`folder`/scans: PNG files and a table of them."""
    from PIL import Image

    from robustmri.data.phantom.source import PhantomSource

    drawn = [
        (item.image / item.image.max(), item.label)  # type: ignore[union-attr]
        for item in PhantomSource(patients=24, slices_per_patient=4, size=SIZE).read()
    ]
    noise = np.random.default_rng(0)
    (folder / "scans" / "images").mkdir(parents=True)
    lines = ["slice_id,label,patient_id"]
    for number in range(count):
        patient = number // EACH
        image, label = drawn[4 * (patient % 24) + number % 4]
        moved = np.roll(image, noise.integers(-3, 4, 2), (0, 1))
        grey = np.clip(250 * moved + noise.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
        name = f"s{number:07d}"
        Image.fromarray(grey).save(folder / "scans" / "images" / f"{name}.png", compress_level=1)
        lines.append(f"{name},{label},P{patient:06d}")
    (folder / "scans" / "slices.csv").write_text("\n".join(lines) + "\n")


def run_prepare(folder: Path, count: int) -> None:
    """Read the files, write the cohort, split it by patient."""
    from robustmri.verbs.prepare import prepare

    prepare(folder / "scans", folder / "cohort", size=SIZE, fractions=(0.1, 0.1, 0.8))


# --- evaluate ---


def _classifier() -> Any:
    import torch
    from torch import nn

    from robustmri.models.classifier import Classifier, ClassifierSpec

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128, len(CLASSES)),
    )
    spec = ClassifierSpec(backbone="custom", classes=CLASSES, size=SIZE, mean=0.5, std=0.5)
    return Classifier(network, spec)


def run_evaluate(folder: Path, count: int) -> Facts:
    """FGSM on the test slices, which are eight tenths of all; with everything that stands beside
    it: checks, intervals, pictures.
    """
    from robustmri.verbs.evaluate import evaluate

    result = evaluate(_classifier(), folder / "cohort", folder / "result", attacks=("fgsm",))
    return {"slices": result.split.n_slices}


# --- report and workbench ---


def run_report(folder: Path, count: int) -> Facts:
    """Count every number again, and write the page."""
    from robustmri.results.schema import load_result
    from robustmri.verbs.report import write_report

    page = write_report([folder / "result"], folder / "page.html")
    megabytes = page.stat().st_size / 1e6
    return {"slices": load_result(folder / "result").split.n_slices, "page_mb": round(megabytes, 2)}


def run_workbench(folder: Path, count: int) -> Facts:
    """What the page asks the server for, opened once: all studies, a result, its list, a case."""
    from robustmri.results.schema import load_result
    from robustmri.web.folder import Folder
    from robustmri.web.views import case, overview
    from robustmri.web.views import result as views

    shown = Folder(folder)
    (row,) = overview.overview(shown)["results"]
    views.result(shown, row["id"], {})
    first = views.cases(shown, row["id"], {})["cases"][0]["id"]
    case.case(shown, row["id"], first, {})
    if (folder / "cohort").exists():
        case.pixels(shown, row["id"], first)
    return {"slices": load_result(folder / "result").split.n_slices}


# --- outcomes ---


def repeat_outcomes(folder: Path, rows: int) -> None:
    """`folder`/result: that of a small cohort, its slices again and again under other names; the
    numbers are still those of the small one.
    """
    import msgspec
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from robustmri.results.schema import hash_files, load_result, save_result

    few = min(rows // 2, 1_000)
    (folder / "small").mkdir()
    for step in (write_scans, run_prepare, run_evaluate):
        step(folder / "small", few)
    (folder / "small" / "result").rename(folder / "result")
    path = folder / "result" / "outcomes.parquet"
    table, result = pq.read_table(path), load_result(path.parent)
    span = pc.max(table["index"]).as_py() + 1
    with pq.ParquetWriter(path, table.schema) as writer:
        for copies in np.array_split(np.arange(-(-rows // len(table))), -(-rows // IN_A_GROUP)):
            parts = []
            for copy in copies.tolist():
                changed = {
                    name: pc.binary_join_element_wise(table[name], f"{copy:05d}", "-")
                    for name in ("case_id", "patient_id", "group")
                } | {"index": pc.add(table["index"], copy * span)}
                columns = [changed.get(name, table[name]) for name in table.column_names]
                parts.append(pa.table(columns, table.column_names).cast(table.schema))
            writer.write_table(pa.concat_tables(parts))
    files = hash_files(path.parent, (path.name, "examples.npz"))
    save_result(msgspec.structs.replace(result, files=files), path.parent)


def run_count(folder: Path, rows: int) -> None:
    """From the table to the numbers with their intervals, as at the end of an evaluation."""
    import msgspec

    from robustmri.evaluation.further import summarise_further
    from robustmri.evaluation.metrics import count_confusions, summarise
    from robustmri.evaluation.patients import summarise_patients
    from robustmri.results.outcomes import columns_of, numbered, read_table
    from robustmri.results.schema import load_result, save_result, suites_of

    out = folder / "result"
    table = read_table(out, coded=True)
    columns = columns_of(table)
    result = load_result(out)
    split = msgspec.structs.replace(
        result.split,
        n_slices=len(np.unique(columns["index"])),
        n_patients=len(numbered(columns["group"])[0]),
    )
    counted = {
        "split": split,
        "results": summarise(columns, suites=suites_of(result.attacks)),
        "confusions": count_confusions(columns, CLASSES),
        "patients": summarise_patients(columns, CLASSES),
        "baseline": None,
        **summarise_further({"outcomes": table}, seed=0, pixels=SIZE**2),
    }
    save_result(msgspec.structs.replace(result, **counted), out)


# --- patients ---


def run_bootstrap(folder: Path, patients: int) -> None:
    """One interval of a difference and one of a median, 2000 draws of the patients each."""
    from robustmri.evaluation.intervals import paired_difference, quantile_interval

    source = np.random.default_rng(0)
    owner = np.repeat(np.arange(patients), 2)
    before, after = (source.random(len(owner)) < share for share in (0.3, 0.4))
    paired_difference(before, after, owner)
    quantile_interval(source.random(len(owner)), owner)


# --- a table ---


def write_table(folder: Path, rows: int) -> None:
    """A table of so many slices, and the images of a hundred of them."""
    write_scans(folder, 100)
    named = (f"t{row:07d},{CLASSES[row % 3]},Q{row // EACH:06d}\n" for row in range(rows - 100))
    with open(folder / "scans" / "slices.csv", "a") as stream:
        stream.writelines(named)


STAGES = {
    "prepare": Stage("slices", run_prepare, write_scans),
    "evaluate": Stage("slices", run_evaluate),
    "report": Stage("slices", run_report),
    "workbench": Stage("slices", run_workbench),
    "outcomes: count": Stage("rows", run_count, repeat_outcomes),
    "outcomes: report": Stage("rows", run_report),
    "outcomes: workbench": Stage("rows", run_workbench),
    "bootstrap": Stage("patients", run_bootstrap),
    "table": Stage("lines", run_prepare, write_table),
}
"""In their order: one without `make` goes on where the one before it has ended."""
COUNTS = {
    "slices": (1_000, 10_000, 100_000),
    "rows": (100_000, 1_000_000, 10_000_000),
    "patients": (1_000, 10_000, 100_000),
    "lines": (10_000, 100_000, 1_000_000),
}
"""How many of each are measured."""
FEW = 200
"""Of everything, to warm up and to see that it runs."""


@contextmanager
def watched() -> Iterator[Facts]:
    """Seconds, of the clock and of the processor, and the most memory beyond what is held now.

    Where the system tells it, memory is the process's own: pages of a mapped file, which it can do
    without at any time, are left out.
    """
    facts: Facts = {}
    before = own = own_mib()
    over = threading.Event()

    def watch() -> None:
        nonlocal own
        while not over.wait(0.02):
            own = max(own, own_mib())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    clock, processor = time.perf_counter(), time.process_time()
    try:
        yield facts
    finally:
        facts["seconds"] = round(time.perf_counter() - clock, 3)
        facts["processor_seconds"] = round(time.process_time() - processor, 3)
        over.set()
        watcher.join()
        facts["mib"] = round(max(own, own_mib()) - before, 1)


def own_mib() -> float:
    """Memory of this process that no file stands behind; elsewhere than on Linux, its peak."""
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    return peak_mib()


def chain_of(name: str) -> list[str]:
    """A stage and those that it goes on from, the first of them first."""
    names = list(STAGES)
    at = first = names.index(name)
    while STAGES[names[first]].make is None and STAGES[names[first]].units != "patients":
        first -= 1
    return names[first : at + 1]


def do(name: str, folder: Path, count: int) -> Facts:
    """One stage, watched; what happens once only, such as imports, has happened before on a few."""
    with tempfile.TemporaryDirectory(prefix="robustmri-growth-") as few:
        for one in chain_of(name):
            make(one, Path(few), FEW)
            STAGES[one].work(Path(few), FEW)
    with watched() as facts:
        told = STAGES[name].work(folder, count)
    return _row(name, count, facts, told)


def _row(name: str, count: int, facts: Facts, told: Facts | None) -> Facts:
    """Of an evaluation and what follows its own slices count, not those of the cohort."""
    told, units = told or {}, STAGES[name].units
    count = told.get("slices", count) if units == "slices" else count
    return {"stage": name, "units": units, "count": count, **facts, **told}


def make(name: str, folder: Path, count: int) -> None:
    """What a stage works on, where none has left it."""
    maker = STAGES[name].make
    if maker:
        maker(folder, count)


def in_own_process(*words: str) -> str:
    """What `python -m benchmarks.growth WORDS` says."""
    command = [sys.executable, "-m", "benchmarks.growth", *words]
    root = Path(__file__).resolve().parents[1]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(words[:2])}: {ran.stderr.strip()[-2000:]}")
    return ran.stdout


def measure(names: Sequence[str], at_most: int, say: Callable[[str], None]) -> list[Facts]:
    """A row for each stage and count; what a stage works on is removed with the last that does."""
    chains = {next(iter(chain_of(name))): name for name in names}
    rows = []
    for first, last in chains.items():
        for count in COUNTS[STAGES[first].units]:
            if count > at_most:
                continue
            with tempfile.TemporaryDirectory(prefix="robustmri-growth-") as folder:
                in_own_process("--make", first, "--folder", folder, "--count", str(count))
                for name in chain_of(last):
                    said = in_own_process("--do", name, "--folder", folder, "--count", str(count))
                    rows.append(json.loads(said))
                    say(said.strip())
    return rows


def table_of(rows: Sequence[Facts]) -> list[str]:
    """Markdown: a row for each stage and count."""
    lines = [
        "| what | of | seconds | of the processor | ms each | MiB | page, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        each = 1000 * row["processor_seconds"] / row["count"]
        cells = (
            row["stage"],
            f"{row['count']:,} {row['units']}".replace(",", " "),
            f"{row['seconds']:.1f}",
            f"{row['processor_seconds']:.1f}",
            f"{each:.2g}",
            f"{row['mib']:.0f}",
            row.get("page_mb", ""),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write it where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=list(STAGES), metavar="STAGE", help=", ".join(STAGES)
    )
    parser.add_argument("--at-most", type=int, default=10**9, help="largest count that is measured")
    parser.add_argument("--out", type=Path, help="folder for growth.json and growth.md")
    parser.add_argument("--quick", action="store_true", help="a few of each, in this process")
    for name, kind in (("do", str), ("make", str), ("folder", Path), ("count", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.make:
        make(given.make, given.folder, given.count)
    elif given.do:
        print(json.dumps(do(given.do, given.folder, given.count)))
    else:
        run(given)


def run(given: argparse.Namespace) -> None:
    """All stages that were asked for; with a folder, beside those that it holds already."""
    load = load_now()  # Before the imports of our own.
    names, machine = given.only or list(STAGES), describe_machine()
    path = given.out and given.out / "growth.json"
    held: list[Facts] = []
    if path and path.exists():
        found = read_json(path)
        refuse_another(path, found.get("machine", {}), machine)
        held = found["rows"]
        if given.quick != found.get("quick", False):
            raise DataError(
                f"{path} is of a {'full' if given.quick else 'quick'} run: a quick one's numbers "
                "mean nothing, and do not stand beside others. Choose another --out."
            )
    if noise := disturbances(load):
        print(f"WARNING: the machine is not quiet: {'; '.join(noise)}", file=sys.stderr)
    if given.quick:
        rows = quick(names)
    else:
        rows = measure(names, given.at_most, lambda line: print(line, file=sys.stderr, flush=True))
    rows = [row | {"load": load, "commit": describe_run()["commit"]} for row in rows]
    renewed = {(row["stage"], row["count"]) for row in rows}
    rows = [row for row in held if (row["stage"], row["count"]) not in renewed] + rows
    rows.sort(key=lambda row: (list(STAGES).index(row["stage"]), row["count"]))
    lines = [f"{features_of(machine)}.", "", *table_of(rows)]
    if noise := disturbances(max((row["load"] or 0 for row in rows), default=0)):
        lines += ["", f"**Not a quiet machine**: {'; '.join(noise)}."]
    print("\n".join(lines))
    if path:
        write_json(path, {"machine": machine, "quick": given.quick, "rows": rows})
        path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def quick(names: Sequence[str]) -> list[Facts]:
    """Every stage on a few, to see that it runs; its numbers mean nothing."""
    rows = []
    for last in {next(iter(chain_of(name))): name for name in names}.values():
        with tempfile.TemporaryDirectory(prefix="robustmri-growth-") as folder:
            for name in chain_of(last):
                make(name, Path(folder), FEW)
                with watched() as facts:
                    told = STAGES[name].work(Path(folder), FEW)
                rows.append(_row(name, FEW, facts, told))
    return rows


if __name__ == "__main__":
    try:
        main()
    except RobustMRIError as error:
        sys.exit(str(error))
