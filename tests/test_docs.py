"""What the pages say is so: links, names of modules and tests, command lines, settings, and code
that runs.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import re
import runpy
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import typer

import robustmri
from robustmri.app.cli import app
from robustmri.attacks import ATTACKS, make_attack
from robustmri.data.phantom import brain, lesions, signal, source
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.recipes import PrepareSettings, list_recipes, load_recipe
from robustmri.threat.norms import GRADIENT_NORMS
from robustmri.training.settings import TrainSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "robustmri"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
CHANGES = {
    "prepare": PrepareSettings,
    "train": TrainSettings,
    "harden": TrainSettings,
    "evaluate": EvaluateSettings,
}
"""What the `**changes` of a verb may be."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")

of_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def fenced(page: Path, language: str) -> list[str]:
    return [
        body for name, body in FENCE.findall(page.read_text(encoding="utf-8")) if name == language
    ]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    return SPAN.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@of_every_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        # Written by docs/generated_pages.py.
        if path in ("gallery.md", "tutorial.md") or path.startswith("reference/"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        assert not anchor or anchor in anchors(target), (
            f"{page.name} links to {link}; no such heading"
        )


@of_every_page
def test_named_files_exist(page):
    """`a/b.py`, `b.toml` and `folder/` are meant from the root or the package."""
    for name in spans(page):
        # Which speak of the folders of their reader.
        ours = page.name not in ("data.md", "data-formats.md")
        if re.fullmatch(r"[\w/-]+\.(py|toml)", name) or (ours and re.fullmatch(r"[\w/-]+/", name)):
            assert any((place / name).exists() for place in (ROOT, PACKAGE)), (
                f"{page.name} names `{name}`"
            )


@of_every_page
def test_named_objects_exist(page):
    for name in spans(page):
        if re.fullmatch(r"robustmri(\.\w+)+", name):
            assert resolve(name) is not None


def resolve(dotted: str) -> Any:
    found: Any = robustmri
    for part in dotted.split(".")[1:]:
        if isinstance(found, ModuleType) and not hasattr(found, part):
            found = importlib.import_module(f"{found.__name__}.{part}")
        else:
            found = getattr(found, part)
    return found


@of_every_page
def test_named_tests_exist(page):
    for path, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", page.read_text(encoding="utf-8")):
        functions = [
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef)
        ]
        assert name in functions, f"{page.name} relies on {path}::{name}"


@of_every_page
def test_make_targets_exist(page):
    targets = set(
        re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    named = [*re.findall(r"^ {4}make ([\w-]+)", prose(page), re.MULTILINE)]
    named += [span.split()[1] for span in spans(page) if re.match(r"make [a-z]", span)]
    assert set(named) <= targets


def command_lines(page: Path) -> list[tuple[str, bool]]:
    """Command lines, and whether they are complete; in running text they need not be."""
    blocks = [
        line
        for body in (*fenced(page, "console"), *fenced(page, "sh"))
        for line in body.splitlines()
    ]
    indented = re.findall(r"^ {4}(robustmri .*)$", prose(page), re.MULTILINE)
    whole = [line for line in (*blocks, *indented) if line.startswith("robustmri ")]
    return [(line, True) for line in whole] + [
        (span, False) for span in spans(page) if span.startswith("robustmri ")
    ]


@of_every_page
def test_command_lines_parse(page):
    commands = typer.main.get_command(app).commands
    for line, whole in command_lines(page):
        _, verb, *words = shlex.split(line, comments=True)
        if verb in ("VERB", "--help"):
            continue
        assert verb in commands, f"{page.name}: {line}"
        known = {option for parameter in commands[verb].params for option in parameter.opts}
        known |= {
            option for parameter in commands[verb].params for option in parameter.secondary_opts
        } | {"--help"}
        unknown = {word.partition("=")[0] for word in words if word.startswith("--")} - known
        assert not unknown, f"{page.name}: {line}: no option {', '.join(unknown)}"
        if whole:
            accept(commands[verb], verb, words)


def accept(command: Any, verb: str, words: list[str]) -> None:
    """Parse the line as the shell would hand it over, and load its settings, without running it."""
    given = command.make_context(verb, words).params
    overrides = list(given.get("set_") or ())
    stage = {
        name: given.get(name)
        for name in ("attacks", "eps", "curve", "norm", "limit")
        if given.get(name)
    }
    overrides += [
        f"{verb}.{name}={value}" for name, value in stage.items() if verb in ("evaluate", "harden")
    ]
    recipe = given.get("recipe", "standard")
    if recipe in list_recipes():
        load_recipe(recipe, overrides)
    if verb == "prepare":
        PrepareSettings(
            size=given["size"],
            intensity=given["intensity"],
            split=given["split"],
            fold=given["fold"],
        )


def test_command_lines_are_found():
    assert sum(len(command_lines(page)) for page in PAGES) > 20


@of_every_page
def test_python_runs(page):
    """Blocks with `>>>` are run, one after another; the others are held against the signatures of
    what they call.
    """
    blocks = fenced(page, "python")
    examples = "\n".join(body for body in blocks if body.startswith(">>>"))
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    outcome: list[str] = []
    runner.run(
        doctest.DocTestParser().get_doctest(examples, {}, page.name, str(page), 0),
        out=outcome.append,
    )
    assert not outcome, "".join(outcome)
    for body in blocks:
        if not body.startswith(">>>"):
            check_calls(ast.parse(body), page.name)


def check_calls(tree: ast.Module, where: str) -> None:
    names: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            exec(compile(ast.Module([node], []), where, "exec"), names)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        root = ast.unparse(node.func).partition(".")[0]
        if root not in names:
            continue
        function = eval(ast.unparse(node.func), names)
        keywords = {word.arg: word.value for word in node.keywords if word.arg}
        inspect.signature(function).bind(*node.args, **keywords)
        changes = CHANGES.get(getattr(function, "__name__", ""))
        if changes:
            fields = {field.name for field in msgspec.structs.fields(changes)}
            assert set(keywords) <= fields | set(inspect.signature(function).parameters), (
                f"{where}: {root}"
            )


@of_every_page
def test_recipes_load(page, tmp_path):
    for number, body in enumerate(fenced(page, "toml")):
        path = tmp_path / f"{number}.toml"
        path.write_text(body, encoding="utf-8")
        load_recipe(str(path))


def sections(page: Path) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_sections_and_table_of_attacks_say_what_the_code_says():
    """Every attack that the page speaks of, from its facts; `robustmri attacks` lists all."""
    page = sections(ROOT / "docs" / "attacks.md")
    named = [title for title in page if title in ATTACKS]
    rows = re.findall(
        r"^\| \[`([\w-]+)`\]\(#[\w-]+\) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$",
        (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert [name for name, *_ in rows] == named
    assert len(named) > 20
    for name, what, norms, gradients, _ in rows:
        facts = ATTACKS[name].facts
        assert norms == ("any" if facts.norms is GRADIENT_NORMS else ", ".join(facts.norms))
        assert ("no radius" in what) == facts.minimal
        assert (gradients == "0") == (facts.knowledge != "gradients")
        years, author = re.findall(r"\b\d{4}\b", facts.paper), facts.paper.split()[0]
        said = [word for word in (*years, author) if word not in page[name]]
        assert not said or not years, f"{name}: its section does not name {said}"
        stated = {
            setting: ast.literal_eval(value)
            for setting, value in re.findall(
                r"^\| `(\w+)` \| ([^|]+?) \|", page[name], re.MULTILINE
            )
        }
        # Another attack with other settings, which a line of code states.
        if not isinstance(ATTACKS[name].make, type):
            assert re.search(
                rf"^>>> {name.replace('-', '_')}\(\) == \w+\(", page[name], re.MULTILINE
            )
        else:
            assert stated == asdict(make_attack(name))


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_explains_its_settings(name):
    """In its docstring, which `robustmri attacks NAME` prints."""
    make = ATTACKS[name].make
    settings = inspect.signature(make).parameters.values()
    said = inspect.getdoc(make) or ""
    own = [setting.name for setting in settings if setting.kind is not setting.VAR_KEYWORD]
    assert not [setting for setting in own if f"    {setting}: " not in said]


def test_every_row_of_a_check_is_one():
    """The site lists every check by its docstring; the table tells more of some."""
    rows = set(
        re.findall(
            r"^\| ([^|]+?) \|",
            (ROOT / "docs" / "checks.md").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    calls = [
        node
        for path in (
            "evaluation/budget_checks.py",
            "evaluation/order_checks.py",
            "evaluation/masking_checks.py",
            "evaluation/shortcut_checks.py",
            "evaluation/study_checks.py",
            "report/page.py",
        )
        for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    names = {
        word.value.value
        for node in calls
        if node.func.id in ("Check", "_compare", "_judge")
        for word in node.keywords
        if word.arg == "name" and isinstance(word.value, ast.Constant)
    }
    assert len(names) > 12
    split = {
        "patients in one set only",
        "copies in one set only",
        "groups in one set only",
        "near-duplicates in one set only",
        "no patient under two names",
        "test slices new to the classifier",
    }
    assert rows - {"check", "---"} <= names | split
    assert len(rows) > 15


def percent(share: float) -> float:
    return round(100 * share, 6)


PHANTOM = [
    (r"([\d.]+) mm of the surface", (brain.CORTEX_MM,)),
    (r"in (\d+) % oedema", (percent(lesions.MENINGIOMA_OEDEMA),)),
    (r"(\d+) % over the convexity", (percent(lesions.MENINGIOMA_SHARES[0]),)),
    (r"(\d+) % are mostly solid", (percent(lesions.SOLID_GLIOMA),)),
    (r"(\d+) % enhance faintly", (percent(lesions.FAINT_GLIOMA),)),
    (r"(\d+) % lie in the cerebellum", (percent(lesions.CEREBELLAR_GLIOMA),)),
    (r"(\d+) to (\d+) mm wide", tuple(2 * radius for radius in lesions.ADENOMA_RADIUS_MM)),
    (r"(\d+) % hold a cyst", (percent(lesions.CYSTIC_ADENOMA),)),
    (r"at least (\d+) % of its largest", (percent(source.LEAST_SHARE_OF_AREA),)),
    (r"TR (\d+) to (\d+) ms", (signal.TR_MS[1.5][0], signal.TR_MS[3.0][1])),
    (r"TE (\d+) to (\d+) ms", signal.TE_MS),
    (r"1.5 T \((\d+) %\)", (percent(signal.SHARE_AT_1_5_TESLA),)),
    (r"r1 of \w+ in plasma, ([\d.]+) and ([\d.]+)", signal.RELAXIVITY_1),
    (r"r2 of \w+ in plasma, ([\d.]+) and ([\d.]+)", signal.RELAXIVITY_2),
    (
        r"of CSF, about ([\d.]+) s and ([\d.]+) s",
        (signal.TISSUES["csf"].t1_ms[1] / 1000, signal.TISSUES["csf"].t2_ms[1] / 1000),
    ),
    (
        r"ours, ([\d.]+) to ([\d.]+),",
        (signal.TISSUES["adenoma"].gadolinium_mm, signal.TISSUES["glioma"].gadolinium_mm),
    ),
    (
        r"patients=(\d+), slices_per_patient=(\d+), size=(\d+), seed=(\d+)",
        tuple(
            getattr(source.PhantomSource, name)
            for name in ("patients", "slices_per_patient", "size", "seed")
        ),
    ),
]
"""What docs/phantom.md says in numbers, and where the code has them."""


@pytest.mark.parametrize(("sentence", "numbers"), PHANTOM, ids=[row[0] for row in PHANTOM])
def test_phantom_is_what_its_page_says(sentence, numbers):
    page = " ".join((ROOT / "docs" / "phantom.md").read_text(encoding="utf-8").split())
    said = re.search(sentence, page)
    assert said, "the page no longer says so"
    assert tuple(map(float, said.groups())) == numbers


def indented_block(page: Path, beginning: str) -> list[str]:
    lines = page.read_text(encoding="utf-8").splitlines()
    start = lines.index(f"    {beginning}")
    block = []
    for line in lines[start:]:
        if not line.startswith("    "):
            break
        block.append(line[4:])
    return block


def test_tree_names_every_module():
    named = set()
    for line in indented_block(ROOT / "docs" / "architecture.md", "src/robustmri/")[1:]:
        words = line.partition("#")[0].split()
        folder = words.pop(0) if words[0].endswith("/") else ""
        named |= {folder + word for word in words}
    there = {str(path.relative_to(PACKAGE).with_suffix("")) for path in PACKAGE.rglob("*.py")}
    modules = {name for name in there if not name.endswith("__init__")}
    assert named <= modules
    # A file an attack, a format, a section: their folders are read, so the tree need not.
    free = ("attacks/", "data/readers/", "report/sections/")
    assert {name for name in modules - named if not name.startswith(free)} == set()


def test_ranks_are_those_that_are_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]
    ranks = [
        layer.translate({ord(mark): None for mark in "()"})
        for layer in contracts["contracts"][0]["layers"]
    ]
    assert indented_block(ROOT / "docs" / "architecture.md", "app") == ranks


def test_readme_fits_a_screen_and_has_a_place_for_the_table():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 80
    assert text.count("<!-- demo-table -->") == text.count("<!-- /demo-table -->") == 1
    assert text.index("<!-- demo-table -->") < text.index("<!-- /demo-table -->")


@of_every_page
def test_plain_text(page):
    text = page.read_text(encoding="utf-8")
    assert text.isascii()
    assert text.endswith("\n")


def test_tables_of_results_are_those_of_the_files():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- ([\w-]+) -->\n(.*?)<!-- /\1 -->", page, re.DOTALL)
    assert {name for name, _ in shown} == {
        path.parent.name for path in (ROOT / "results").glob("*/table.md")
    }
    for name, table in shown:
        stored = (ROOT / "results" / name / "table.md").read_text(encoding="utf-8")
        rows = [line for line in stored.splitlines() if line.startswith("|")]
        # These pages are ASCII, minus signs too.
        assert table.splitlines() == [row.replace("\N{MINUS SIGN}", "-") for row in rows]


def tutorial(changes: dict[str, str]) -> list[dict[str, Any]]:
    """Run the notebook, with some of its numbers replaced, and return its cells."""
    text = TUTORIAL.read_text(encoding="utf-8")
    for number, other in changes.items():
        assert number in text
        text = text.replace(number, other)
    run = runpy.run_path(str(ROOT / "docs" / "notebook.py"))["run_notebook"]
    return run(json.loads(text))["cells"]


def printed(cells: list[dict[str, Any]]) -> str:
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return "\n".join("".join(output.get("text", ())) for output in outputs)


def test_tutorial_runs(tmp_path, monkeypatch):
    """Small and short; whether it tells its story is a slow test."""
    monkeypatch.chdir(tmp_path)
    smaller = {"slices=8,size=96": "slices=2,size=32", "    size=48": "    size=32"}
    shorter = {"epochs=10": "epochs=1", "epochs=16": "epochs=1", "ramp_epochs=4": "ramp_epochs=0"}
    cells = tutorial(smaller | shorter)
    assert "| Worst case | eps 0.04 (10.2/255) |" in printed(cells)
    assert "fail" not in printed(cells)
    assert (tmp_path / "tutorial" / "report.html").is_file()


@pytest.mark.slow
def test_tutorial_comes_to_what_is_stored_in_it(tmp_path, monkeypatch):
    """To the same figures on the machine that stored them; elsewhere to the same story."""
    monkeypatch.chdir(tmp_path)
    stored = json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]
    for cells in (stored, tutorial({})):
        worst = re.findall(
            r"^\| Worst case \| .* \| ([\d.]+) % .*\| ([\d.]+) %", printed(cells), re.M
        )
        ((before, after),) = worst
        assert float(before) < 30
        assert float(after) > float(before) + 15


def test_links_of_the_tutorial_lead_somewhere():
    cells = json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([\w.-]+)\)", text)
    assert links
    assert not [link for link in links if not (TUTORIAL.parent / link).is_file()]
