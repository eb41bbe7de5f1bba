"""Files of ours that are damaged or hold something else: one sentence, or no harm at all."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bounded import bounded
from robustmri.core.errors import RobustMRIError
from robustmri.core.files import write_json, write_struct
from robustmri.core.sealed import write_sealed
from robustmri.data.cohort import Cohort
from robustmri.data.packed import pack_cohort, unpack_cohort
from robustmri.data.split import Split
from robustmri.evaluation.costs import read_costs
from robustmri.evaluation.shards import read_shard
from robustmri.models.checkpoint import load_checkpoint, read_checkpoint
from robustmri.models.halves import halve
from robustmri.recipes import load_recipe
from robustmri.results.acceptance import read_acceptance
from robustmri.results.certificate import load_certificate, read_certificates
from robustmri.results.schema import load_result
from robustmri.training.deadline import Fitted, read_fitted, write_fitted
from robustmri.training.resume import read_state
from robustmri.training.selection import choose, explain_choice, pareto_front, read_epochs
from robustmri.verbs.certify import certify
from robustmri.verbs.check import check
from robustmri.verbs.compare import compare
from robustmri.verbs.evaluate import evaluate
from robustmri.verbs.on_time import _read as read_planned
from robustmri.verbs.pool import pool
from robustmri.verbs.preset import choose_preset
from robustmri.verbs.report import write_report
from robustmri.verbs.reproduce import Prepared, _refuse_other
from robustmri.verbs.run_bundle import read_head, read_outcomes, read_stages
from robustmri.verbs.run_folder import claimed_folder, read_seen
from robustmri.verbs.unpack import unpack
from robustmri.web.folder import Folder
from robustmri.web.jobs import Jobs
from robustmri.web.views.overview import overview
from robustmri.web.views.result import cases, result

# Of a file; the default makes thousands in all.
EXAMPLES = int(os.environ.get("ROBUSTMRI_FUZZ_EXAMPLES", "150"))
DIGITS = "12345678901234567890" * 250
DEEP = "[" * 20_000
MARK = "REPLACED"
ODD: list[Any] = [
    None, [], {}, "", "x", True, 0, -1, 0.5, 1e308, -1e308, 10**20, [None], [[]], {"": None},
    "../../etc", "\x00", "<script>", ["a"], [1, 2], [1.5], f"{MARK}{DIGITS}", f"{MARK}{DEEP}",
    f"{MARK}NaN", f"{MARK}Infinity", f"{MARK}1e999", f'{MARK}"\\ud800"',
]  # fmt: skip


def use_cohort(folder: Path) -> None:
    cohort = Cohort.open(folder)
    cohort.verify()
    cohort.masks([0])
    Split.load(folder).check(cohort)


def use_settings(folder: Path) -> None:
    with claimed_folder(folder, {"train": {}}, done="checkpoint"):
        pass


def use_report(folder: Path) -> None:
    write_report([folder], folder.parent / "report.html")


def use_epochs(folder: Path) -> None:
    rows = read_epochs(folder)
    pareto_front(rows)
    choose(rows, clean_cost=1.0)
    explain_choice(rows, clean_cost=1.0)


def use_packed(folder: Path) -> None:
    shutil.rmtree(folder.parent / "unpacked", ignore_errors=True)
    unpack_cohort(folder / "cohort.zip", folder.parent / "unpacked")


def pack_home(folder: Path) -> None:
    with zipfile.ZipFile(folder / "summary.zip", "w") as bag:
        bag.write(folder / "weights.json", "weights.json")


def use_home(folder: Path) -> None:
    pack_home(folder)
    use_sent(folder)


def use_sent(folder: Path) -> None:
    shutil.rmtree(folder.parent / "came-home", ignore_errors=True)
    unpack(folder, folder.parent / "came-home")


def use_results(folder: Path) -> None:
    """Every verb that reads a result, but for the report."""
    check(folder, baseline=folder)
    compare(folder, folder, folder.parent / "compared.html")
    shutil.rmtree(folder.parent / "of-all-folds", ignore_errors=True)
    pool([folder], folder.parent / "of-all-folds", title="All")


def use_certificate(folder: Path) -> None:
    if load_certificate(folder, load_result(folder)) is not None:
        read_certificates(folder)


def use_page(root: Path) -> None:
    """What the workbench shows of a folder."""
    folder = Folder(root)
    overview(folder)
    for found in folder.look().of("result"):
        result(folder, found.id, {})
        cases(folder, found.id, {})
    Jobs(root).all()


STORY = Prepared(
    source="phantom",
    place="0123456789abcdef",
    columns="",
    patient_pattern="",
    slices="",
    window="",
    fractions=(0.6, 0.2, 0.2),
)
FILES: dict[str, Callable[[Path], Any]] = {
    "cohort/cohort.json": use_cohort,
    "cohort/split.json": use_cohort,
    "cohort/cases.parquet": use_cohort,
    "run/settings.json": use_settings,
    "run/time.json": read_fitted,
    "run/epochs.csv": use_epochs,
    "run/checkpoint/classifier.json": load_checkpoint,
    "run/checkpoint/weights.safetensors": load_checkpoint,
    "story/time.json": read_planned,
    "result/robustness.json": use_report,
    "result/outcomes.parquet": use_report,
    "result/examples.npz": use_report,
    "shards/fgsm-0000.parquet": lambda folder: read_shard(folder / "fgsm-0000.parquet"),
    "recipe/mine.toml": lambda folder: load_recipe(str(folder / "mine.toml")),
    "bundle/stages.toml": read_stages,
    "bundle/cohort.zip": use_packed,
    "bundle/bundle.json": read_head,
    "home/weights.json": use_home,
    "sent/summary.zip": use_sent,
    "run/resume.pt": read_state,
    "run/checkpoint/seen.json": lambda folder: read_seen(
        folder, read_checkpoint(folder).provenance
    ),
    "story/preset.json": lambda folder: choose_preset("nowhere", folder, 1.0),
    "story/stages.json": read_outcomes,
    "story/prepared.json": lambda folder: _refuse_other(folder, STORY),
    "result/nearest_neighbour.parquet": use_report,
    "certified/certificate/certificate.json": use_certificate,
    "certified/certificate/certificates.parquet": use_certificate,
    "pooled/robustness.json": use_results,
    "pooled/outcomes.parquet": use_results,
    "criteria/criteria.toml": lambda folder: read_acceptance(folder / "criteria.toml"),
    "criteria/costs.csv": lambda folder: read_costs(folder / "costs.csv", ("a", "b")),
    "page/answer/case.json": use_page,
    "page/result/robustness.json": use_page,
    "page/result/outcomes.parquet": use_page,
    "page/cohort/cohort.json": use_page,
    "page/run/checkpoint/classifier.json": use_page,
    "page/.jobs/000001/job.json": use_page,
    "page/.jobs/000001/start.json": use_page,
    "page/.jobs/000001/end.json": use_page,
}
"""Every file that we write and read again, as `FOLDER/...`, and what reads it."""
ANSWER = {
    "case": {
        "answer": "a", "probabilities": {"a": 1.0}, "norm": "linf", "smallest_eps": 0.1,
        "grey_levels": 25.5, "nearest": "b", "nearest_probabilities": {"b": 1.0},
    },
    "source": {"name": "1.png", "sha256": "", "height": 8, "width": 8},
    "classifier": {"backbone": "tiny", "size": 32},
}  # fmt: skip
JOB = {"verb": "train", "title": "one", "command": ["a"], "asked": "then", "seal": "no"}


@pytest.fixture(scope="module")
def whole(tiny_cohort, tiny_run, tmp_path_factory, use_tiny_networks):
    """One of each, as it was written."""
    root = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        shutil.copytree(tiny_cohort, root / "cohort")
        shutil.copytree(tiny_run, root / "run")
        evaluate(tiny_run, tiny_cohort, root / "result", attacks=("fgsm",), precision="fp32")
        (root / "home").mkdir()
        halved = halve(tiny_run, root / "home", "run")
        write_json(root / "home" / "weights.json", {"run": msgspec.to_builtins(halved)})
        for name in ("story", "shards", "recipe", "bundle"):
            (root / name).mkdir()
        write_fitted(
            root / "run", Fitted(minutes=1.0, seconds=50.0, seconds_per_epoch=2.0, epochs=3)
        )
        write_json(
            root / "story" / "time.json",
            {"limit": 3, "of_slices": 9, "max_seconds": 0.5, "evaluation_minutes": 1.0, "train": 1},
        )
        write_sealed(
            root / "shards" / "fgsm-0000.parquet",
            (root / "result" / "outcomes.parquet").read_bytes(),
        )
        (root / "recipe" / "mine.toml").write_text(
            'about = "x"\n[train]\nepochs = 2\nlearning_rate = 0.1\neps = "8/255"\n'
            '[evaluate]\nattacks = ["pgd"]\neps = ["8/255"]\n[evaluate.options.pgd]\nsteps = 3\n'
        )
        (root / "bundle" / "stages.toml").write_text(
            '[[stages]]\nname = "a"\nabout = "b"\ncommand = ["c"]\nminutes = 1.0\n'
        )
        pack_cohort(Cohort.open(tiny_cohort), root / "bundle" / "cohort.zip")
        write_json(root / "bundle" / "bundle.json", {"minutes": 9.0, "overrides": ["train.seed=1"]})
        (root / "run" / "settings.json").write_text('{"train": {}}')
        shutil.copytree(root / "home", root / "sent")
        pack_home(root / "sent")
        state = io.BytesIO()
        torch.save({"epoch": 1, "model": {"a": torch.zeros(3)}}, state)
        write_sealed(root / "run" / "resume.pt", state.getvalue())
        write_json(root / "story" / "preset.json", {"preset": "poster-cpu", "reason": "time"})
        write_struct(root / "story" / "prepared.json", STORY)
        write_json(root / "story" / "stages.json", [{"name": "a", "about": "b", "status": "done"}])
        for name in ("certified", "pooled"):
            shutil.copytree(root / "result", root / name)
        quick = {"samples": 60, "guesses": 10, "attack_steps": 0, "limit": 4}
        certify(tiny_run, tiny_cohort, root / "certified", **quick)
        (root / "criteria").mkdir()
        (root / "criteria" / "criteria.toml").write_text(
            'intended_use = "a"\nversion = "1"\n[min]\nclean = 0.5\nworst_case = "40 %"\n'
        )
        (root / "criteria" / "costs.csv").write_text("truth,answer,cost\na,b,1.5\nb,a,3\n")
        for name in ("result", "cohort", "run"):
            shutil.copytree(root / name, root / "page" / name)
        for name, told in (
            ("answer/case.json", ANSWER),
            (".jobs/000001/job.json", JOB),
            (".jobs/000001/start.json", {"process": 7, "when": "now"}),
            (".jobs/000001/end.json", {"status": 0, "when": "then"}),
        ):
            write_json(root / "page" / name, told)
        yield root


@pytest.fixture
def try_with(whole, tmp_path_factory, use_tiny_networks, monkeypatch):
    """A file's name and its new content to what was raised; whatever is no error of ours passes
    through.
    """
    use_tiny_networks(monkeypatch)
    room = tmp_path_factory.mktemp("room")

    def attempt(name: str, content: bytes) -> RobustMRIError | None:
        folder = name.partition("/")[0]
        shutil.rmtree(room / folder, ignore_errors=True)
        shutil.copytree(whole / folder, room / folder)
        (room / name).write_bytes(content)
        use = FILES[name]
        try:
            with bounded():
                use(room / folder)
        except RobustMRIError as error:
            said = str(error)
            assert said
            assert len(said) < 2000
            return error
        return None

    return attempt


def with_replaced(told: Any, place: tuple[Any, ...], value: Any) -> Any:
    """`told` with the value at a place exchanged; taken out where the new one is ..."""
    if not place:
        return value
    first, *rest = place
    changed = dict(told) if isinstance(told, dict) else list(told)
    if value is ... and not rest:
        del changed[first]
    else:
        changed[first] = with_replaced(told[first], tuple(rest), value)
    return changed


def places(told: Any, limit: int = 4) -> list[tuple[Any, ...]]:
    """Where there is a value, the first few of each list."""
    found: list[tuple[Any, ...]] = [()]
    if isinstance(told, dict):
        inner = list(told.items())
    else:
        inner = list(enumerate(told))[:limit] if isinstance(told, list) else []
    for name, value in inner:
        found += [(name, *place) for place in places(value, limit)]
    return found


def as_text(told: Any) -> bytes:
    """JSON, with what JSON has no word for in the place of its mark."""
    text = json.dumps(told)
    for odd in (DIGITS, DEEP, "NaN", "Infinity", "1e999"):
        text = text.replace(json.dumps(MARK + odd), odd)
    return text.replace(json.dumps(f'{MARK}"\\ud800"'), '"\\ud800"').encode()


SLOW = ("result/", "pooled/", "certified/", "page/")
JSON = [name for name in FILES if name.endswith(".json")]


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_is_read(name, whole, try_with):
    error = try_with(name, (whole / name).read_bytes())
    assert error is None, error


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[[[", b"null", b"{}"], ids=repr)
def test_what_is_no_such_file_is_named(name, content, try_with):
    error = try_with(name, content)
    # A shard is done again; of no settings, and of no weights, nothing is wrong.
    # The page shows the rest.
    harmless = name.startswith(("shards/", "recipe/", "page/")) or content == b"{}"
    harmless = harmless or (name.endswith(".toml") and not content)
    if error is None:
        assert harmless
    elif not harmless:
        assert Path(name).parent.name in str(error)


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize(
    "odd",
    [None, [], "x", -1, f"{MARK}{DIGITS}", f"{MARK}{DEEP}", f"{MARK}NaN", ...],
    ids=lambda odd: str(odd)[:14],
)
def test_odd_values_are_refused_or_do_no_harm(name, odd, whole, try_with):
    told = json.loads((whole / name).read_bytes())
    for place in places(told, limit=1)[1 : 12 : 4 if name.startswith(SLOW) else 1]:
        try_with(name, as_text(with_replaced(told, place, odd)))


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", JSON)
def test_mutated_json(name, whole, try_with):
    told = json.loads((whole / name).read_bytes())

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
    @given(
        changes=st.lists(
            st.tuples(st.sampled_from(places(told)[1:]), st.sampled_from([*ODD, ...])),
            min_size=1,
            max_size=2,
        )
    )
    def check(changes):
        changed = told
        for place, value in changes:
            try:
                changed = with_replaced(changed, place, value)
            except (KeyError, IndexError, TypeError, ValueError):
                continue  # The first change took the place of the second away.
        try_with(name, as_text(changed))

    check()


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FILES)
def test_mutated_bytes(name, whole, try_with):
    content = (whole / name).read_bytes()
    place = st.integers(0, len(content) - 1)

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
    @given(
        changes=st.lists(
            st.tuples(place, st.binary(min_size=0, max_size=6), st.integers(0, 8)),
            min_size=1,
            max_size=4,
        )
    )
    def check(changes):
        mutated = content
        for start, put, taken in changes:
            mutated = mutated[:start] + put + mutated[start + taken :]
        try_with(name, mutated)

    check()


TOML = (
    *("nan", "inf", "-1", "0", "1e300", "9e400", DIGITS),
    *("[]", "{}", '""', '"x"', "true", "[[1]]", '["0,04"]', "[" * 5000),
)


@pytest.mark.parametrize("odd", TOML, ids=lambda odd: odd[:10])
def test_odd_settings_of_a_recipe_are_refused(odd, try_with):
    for stage, name in (
        ("train", "epochs"),
        ("train", "learning_rate"),
        ("train", "seed"),
        ("harden", "eps"),
        ("evaluate", "eps"),
        ("evaluate", "batch_size"),
        ("evaluate", "options"),
        ("prepare", "size"),
        ("prepare", "fractions"),
        ("variants", "a"),
    ):
        try_with("recipe/mine.toml", f'about = "x"\n[{stage}]\n{name} = {odd}\n'.encode())
