"""The rules of the house, checked: who imports whom, what loads torch, how long a module may be."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.application import use_cases
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

import robustmri

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "robustmri"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 460
HEAVY = (
    "torch",
    "monai",
    "lightning_fabric",
    "kornia",
    "sklearn",
    "scipy",
    "matplotlib",
    "pyarrow",
)
# Everything that the command line touches before a verb has begun, and a report from start to end.
LIGHT = (
    "app.cli",
    "core.errors",
    "core.provenance",
    "core.download",
    "results.schema",
    "report.html",
    "web.server",
    "data.sources",
    "data.cohort",
    "data.split",
    "data.intensity",
    "data.leakage",
    "data.fetch_figshare",
    "data.phantom",
    "evaluation.metrics",
    "evaluation.intervals",
    "evaluation.sanity",
)


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def python(code: str) -> str:
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert said.returncode == 0, said.stderr
    return said.stdout


def loaded_heavy(code: str) -> list[str]:
    """Heavy packages in `sys.modules` once `code` has run in a fresh interpreter."""
    said = python(f"import sys\n{code}\nprint(*sorted(set({HEAVY!r}) & set(sys.modules)))")
    return said.splitlines()[-1].split()


def test_an_evaluation_starts_without_monai():
    """Its import takes longer than torch's, and brings sklearn, scipy.signal, pydicom and more."""
    code = """
import torch
import robustmri.evaluation.evaluate, robustmri.evaluation.probes, robustmri.evaluation.summary
from robustmri.evaluation.visibility import structural_similarity
from robustmri.models.backbones import build_classifier
build_classifier("resnet18-half", ("ill", "well"), 32)
structural_similarity(torch.zeros(1, 1, 12, 12), torch.ones(1, 1, 12, 12))"""
    assert not {"monai", "sklearn", "kornia", "matplotlib", "lightning_fabric"} & set(
        loaded_heavy(code)
    )


def test_import_contracts_hold(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_contracts_name_real_folders():
    """A contract over a folder that was renamed away would be kept by having nothing to check."""
    options = use_cases.read_user_options(config_filename=str(ROOT / "pyproject.toml"))
    assert {contract["id"] for contract in options.contracts_options} == {
        "ranks",
        "attacks",
        "web",
        "report",
    }
    for folder in (
        "web",
        "data",
        "models",
        "threat",
        "attacks",
        "training",
        "evaluation",
        "report",
    ):
        assert (PACKAGE / folder / "__init__.py").is_file()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_says_what_it_is_and_stays_short(path):
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert source.isascii()
    assert ast.get_docstring(tree), "no docstring"
    lines = source.count("\n")
    assert lines <= LONGEST, f"{lines} lines: divide it, or delete"
    asserts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not asserts, f"assert at lines {asserts}: raise one of our own errors"


def test_only_launch_and_loggers_know_fabric():
    users = [name_of(path) for path in MODULES if "lightning_fabric" in imports_of(path)]
    assert set(users) <= {"training/launch.py", "training/loggers.py"}


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def modules_of(folder: Path, package: str) -> dict[str, Path]:
    """Dotted name of every file below a folder to its path; a package is its `__init__`."""
    named = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        named[".".join((package, *parts))] = path
    return named


@functools.cache
def read_imports() -> dict[str, set[str]]:
    """Which file imports which of ours, wherever in the file it says so."""
    files = modules_of(PACKAGE, "robustmri") | modules_of(ROOT / "benchmarks", "benchmarks")
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}:{node.lineno}: a relative import; name the package"
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {one if one in files else node.module for one in inside}
        # The package itself only names its public functions, and loads them later.
        graph[name] = {one for one in found if one in files and one not in (name, "robustmri")}
    graph.pop("robustmri")
    return graph


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def floors() -> dict[str, int]:
    """Room to the height of its floor, from the contract in pyproject.toml; the ground is 0."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = contracts["tool"]["importlinter"]["contracts"][0]["layers"]
    return {
        room.strip(" ()"): height
        for height, layer in enumerate(reversed(layers))
        for room in layer.split("|")
    }


def find_ascents(graph: dict[str, set[str]]) -> list[str]:
    """Imports from a floor into a higher one, or into another room of the same floor. Benchmarks
    stand above all.
    """
    height = floors()

    def stand(module: str) -> tuple[str, int]:
        package, _, rest = module.partition(".")
        room = rest.split(".")[0] if package == "robustmri" else package
        return room, height[room] if package == "robustmri" else len(height)

    return [
        f"{name} -> {other}"
        for name, others in graph.items()
        for other in others
        if stand(name)[0] != stand(other)[0] and stand(name)[1] <= stand(other)[1]
    ]


def test_no_file_imports_itself_by_way_of_others():
    assert find_circle(read_imports()) == []


def test_no_import_goes_up():
    assert find_ascents(read_imports()) == []
    assert {"app", "verbs", "recipes", "attacks", "losses", "core"} <= set(floors())


@pytest.mark.parametrize(
    ("name", "other", "circle"),
    [
        ("robustmri.core.errors", "robustmri.verbs.train", True),
        ("robustmri.report.html", "robustmri.evaluation.metrics", False),
        ("robustmri.models.classifier", "robustmri.threat.norms", False),
        ("robustmri.threat.norms", "benchmarks.timing", False),
    ],
)
def test_a_circle_and_an_import_that_goes_up_would_be_seen(name, other, circle):
    graph = read_imports() | {name: read_imports()[name] | {other}}
    assert find_ascents(graph) == [f"{name} -> {other}"]
    assert bool(find_circle(graph)) == circle


def test_public_names_exist_and_load_lazily():
    assert sorted(robustmri.__all__) == sorted(set(robustmri.__all__))
    assert set(robustmri.__all__) <= set(dir(robustmri))
    for name in robustmri.__all__:
        assert getattr(robustmri, name) is not None
    assert loaded_heavy("import robustmri") == []


def test_light_modules_load_nothing_heavy():
    imports = "\n".join(f"import robustmri.{name}" for name in LIGHT)
    assert loaded_heavy(imports) == []


def test_help_answers_without_torch():
    code = """
import robustmri.app.cli
sys.argv = ["robustmri", "--help"]
try:
    robustmri.app.cli.main()
except SystemExit as end:
    if end.code:
        raise
"""
    assert loaded_heavy(code) == []


def test_heavy_packages_would_be_noticed():
    assert "torch" in loaded_heavy("import robustmri.core.arrays")
