"""Files of somebody else run nothing: recipes and results that name code, names that are paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustmri.core.errors import ResultError, SettingsError
from robustmri.recipes import load_recipe
from robustmri.verbs.pool import pool

FAST = ("--set", "train.epochs=1", "--set", "train.batch_size=16", "--set", "train.precision=fp32")
pytestmark = pytest.mark.usefixtures("tiny_networks")


def planted(folder: Path) -> tuple[Path, Path]:
    """A recipe whose attack is a command of the shell, and the file that the command would make."""
    mark, recipe = folder / "ran", folder / "theirs.toml"
    recipe.write_text(
        'about = "of a colleague"\n[evaluate]\nattacks = ["os:system"]\n'
        f'[evaluate.options."os:system"]\ncommand = "touch {mark}"\n'
        '[variants.base]\nabout = "as it is"\n'
    )
    return recipe, mark


@pytest.mark.parametrize("verb", ["evaluate", "cross-validate", "ablate", "contrast"])
def test_a_recipe_runs_no_command(verb, run, tiny_run, tiny_cohort, tiny_scans, tmp_path):
    recipe, mark = planted(tmp_path)
    given = {
        "evaluate": (tiny_run, tiny_cohort),
        "cross-validate": (tiny_scans,),
        "ablate": (tiny_cohort,),
        "contrast": (tiny_cohort, tiny_cohort),
    }[verb]
    status, said = run(verb, *given, "--out", tmp_path / "out", "--recipe", recipe)
    assert status == 2
    assert "'os:system' is code of its author's" in said
    assert not mark.exists()
    assert not (tmp_path / "out").exists(), "nothing was begun"


def test_trust_covers_what_was_typed_and_nothing_of_the_recipe(
    run, tiny_run, tiny_cohort, tmp_path, monkeypatch
):
    recipe, mark = planted(tmp_path)
    words = ("evaluate", tiny_run, tiny_cohort, "--out", tmp_path / "out", "--recipe", recipe)
    status, said = run(*words, "--trust")
    assert (status, mark.exists()) == (2, False), said
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_attacks.py").write_text("from robustmri.attacks import PGD as Mine\n")
    status, said = run(*words, "--attacks", "my_attacks:Mine", "--trust")
    assert (status, mark.exists()) == (2, False), "the recipe's options name os:system still"
    status, said = run(*words[:-2], "--attacks", "my_attacks:Mine", "--limit", 2)
    assert status == 2
    assert "add --trust" in said
    status, said = run(*words[:-2], "--attacks", "my_attacks:Mine", "--limit", 2, "--trust")
    assert status == 0, said


def test_a_result_runs_no_command(run, tiny_run, tiny_cohort, tmp_path):
    folder, mark = tmp_path / "result", tmp_path / "ran"
    quick = ("--attacks", "fgsm", "--limit", 4, "--set", "evaluate.precision=fp32")
    assert run("evaluate", tiny_run, tiny_cohort, "--out", folder, *quick)[0] == 0
    path = folder / "robustness.json"
    told = json.loads(path.read_text())
    told["settings"]["evaluate"]["attacks"] = ["os:system"]
    told["settings"]["evaluate"]["options"] = {"os:system": {"command": f"touch {mark}"}}
    told["attacks"][0]["attack"] = "os:system"
    path.write_text(json.dumps(told))
    pool([folder], tmp_path / "pooled", title="x")
    run("report", folder, "--out", tmp_path / "report.html")
    run("evaluate", tiny_run, tiny_cohort, "--out", folder, *quick)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../../escaped", "a/b", "..", ".hidden", "a\\b", "a\nb", ""])
def test_a_variant_that_is_a_path_is_refused(name, tmp_path):
    recipe = tmp_path / "recipe.toml"
    quoted = json.dumps(name)
    recipe.write_text(f'about = "x"\n[variants.{quoted}]\nabout = "y"\n')
    with pytest.raises(SettingsError, match="name"):
        load_recipe(str(recipe))


def test_an_attack_that_is_a_path_leaves_nothing_elsewhere(run, tiny_run, tiny_cohort, tmp_path):
    before = set(tmp_path.rglob("*"))
    for name in ("../../escaped", "torchattacks:../../PGD", "/etc/passwd"):
        status, _ = run(
            "evaluate", tiny_run, tiny_cohort, "--out", tmp_path / "o", "--attacks", name
        )
        assert status == 2
    assert set(tmp_path.rglob("*")) == before


def test_pooling_says_what_is_wrong_with_a_result(tmp_path):
    (tmp_path / "robustness.json").write_text("{}")
    with pytest.raises(ResultError):
        pool([tmp_path], tmp_path / "out", title="x")
