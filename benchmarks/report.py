"""The results: a JSON file that grows task by task, and a page made from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, disturbances, features_of, refuse_another
from robustmri.core.errors import DataError
from robustmri.core.files import atomic_file, read_json, write_json
from robustmri.core.provenance import describe_run

FORMAT_VERSION = 2
RESULTS, PAGE = "benchmarks.json", "benchmarks.md"
HEADINGS = {
    "contender": "contender",
    "median_seconds": "s",
    "range": "lowest - highest",
    "images_per_second": "images a second",
    "ms_per_image_and_step": "ms per image and step",
    "ms_convolutions": "convolutions",
    "ms_layout": "layout",
    "ms_normalisation": "normalisation",
    "ms_activations": "activations, pooling, sums",
    "ms_python": "Python",
    "ms_rest": "rest",
    "gflops": "GFLOP/s",
    "of_gemm": "of a matrix product's",
    "ms_convolutions_alone": "its convolutions alone, ms",
    "of_convolutions": "of the step",
    "cosine_to_reference": "cosine of its gradient",
    "accuracy": "accuracy",
    "accuracy_within_eps": "accuracy within eps",
    "mean_l2": "mean l2",
    "images_of_mean_l2": "of images",
    "stands_here_only": "stands here only",
    "stands_in_ours_only": "stands in ours only",
    "loaded_mib": "MiB, all loaded",
    "peak_mib": "MiB at the peak",
    "note": "",
}
RATIO_HEADINGS = {
    "seconds_of": "seconds of",
    "by_those_of": "divided by those of",
    "median": "median",
    "lowest": "lowest",
    "highest": "highest",
}


def open_results(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """What is in `folder` already, from the same machine, versions and inputs; or an empty start.

    Raises:
        DataError: it holds results of others, which must not share a page.
    """
    machine = describe_machine()
    head = {"format_version": FORMAT_VERSION, "machine": machine, "inputs": inputs}
    if not (folder / RESULTS).exists():
        return {**head, "tasks": {}}
    found: dict[str, Any] = read_json(folder / RESULTS)
    if found.get("format_version") == FORMAT_VERSION:
        refuse_another(folder / RESULTS, found["machine"], machine)
    for name, value in head.items():
        if found.get(name) != value:
            raise DataError(
                f"{folder / RESULTS}: {name.replace('_', ' ')} differ from this run's. Choose "
                "another --out."
            )
    return found


def add_task(
    folder: Path,
    results: dict[str, Any],
    name: str,
    record: dict[str, Any],
    *,
    load: float | None = None,
    others: float | None = None,
) -> list[str]:
    """Put one task's record in place and write both files, each whole or not at all.

    `load` is that of the machine before the start, `others` the cores that others kept busy
    meanwhile. Returns why it does not count as quiet.
    """
    run = describe_run()
    noise = disturbances(load, record["rows"], others)
    made = {"commit": run["commit"], "created": run["created"]}
    results["tasks"][name] = record | made | {"load": load, "others": others, "disturbances": noise}
    write_json(folder / RESULTS, results)
    with atomic_file(folder / PAGE) as partial:
        partial.write_text(page_of(results), encoding="utf-8")
    return noise


def page_of(results: dict[str, Any]) -> str:
    """Markdown: the machine, then a table of contenders and one of ratios for each task."""
    machine = results["machine"]
    listed = ", ".join(f"{name} {version}" for name, version in machine["peers"].items())
    lines = [
        "# Benchmarks",
        "",
        f"{features_of(machine)}; {listed}.",
        "How it was measured: docs/benchmarks.md. Seconds are medians over the rounds; ratios "
        "are taken within each",
        "round, then their median, lowest and highest.",
        "",
        "Inputs: " + _facts(results["inputs"]),
    ]
    if results["inputs"].get("quick"):
        lines += ["", "**A quick run, to see that everything runs: its numbers mean nothing.**"]
    for name, record in results["tasks"].items():
        commit = record.get("commit")
        setting = record["setting"] | ({"commit": commit[:7]} if commit else {})
        lines += ["", f"## {name}", "", f"{record['title']}. {_facts(setting)}", ""]
        lines += _table([_shown(row) for row in record["rows"]], HEADINGS)
        if details := record.get("details"):
            lines += ["", *_table(details, {name: name for name in details[0]})]
        for contender, error in record.get("failed", {}).items():
            lines += ["", f"{contender} did not run: `{error}`"]
        if record.get("disturbances"):
            lines += ["", f"**Not a quiet machine**: {'; '.join(record['disturbances'])}."]
        if record["missing"]:
            lines += ["", f"Not installed: {', '.join(record['missing'])}."]
        if record["ratios"]:
            lines += ["", *_table(record["ratios"], RATIO_HEADINGS)]
    return "\n".join(lines) + "\n"


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    seconds = row.get("seconds")
    return row | {"range": f"{min(seconds):.2f} - {max(seconds):.2f}"} if seconds else row


def _table(rows: list[dict[str, Any]], headings: dict[str, str]) -> list[str]:
    columns = [name for name in headings if any(row.get(name) not in (None, "") for row in rows)]
    lines = [
        "| " + " | ".join(headings[name] for name in columns) + " |",
        "|" + "---|" * len(columns),
    ]
    return lines + [
        "| " + " | ".join(_text(row.get(name)) for name in columns) + " |" for row in rows
    ]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _facts(values: dict[str, Any]) -> str:
    return "; ".join(
        f"{name.replace('_', ' ')}: {_facts(value) if isinstance(value, dict) else _text(value)}"
        for name, value in values.items()
    )
