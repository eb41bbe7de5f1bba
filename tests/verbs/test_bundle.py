"""Packing, and the rehearsal: a bundle alone on a machine with a few packages and no index."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import robustmri
from other_machine import make_machine
from robustmri.core.errors import DownloadError, SettingsError
from robustmri.core.wheels import needed
from robustmri.data.cohort import Cohort
from robustmri.data.packed import pack_cohort
from robustmri.results.schema import load_result
from robustmri.verbs import bundle as module
from robustmri.verbs.bundle import _add_scripts, _versions, bundle
from robustmri.verbs.carried import install

HAVE = ("torch", "torchvision", "timm", "scipy", "pyarrow", "pytest", "requests", "tqdm")
BESIDE = ("pluggy", "iniconfig", "pytest-timeout", "certifi", "idna", "urllib3", "setuptools")


@pytest.fixture
def without_index(monkeypatch):
    """Wheels that are fetched weigh 3 MiB each."""

    def fetch(packages, folder, pythons, platform):
        for name in packages:
            (folder / f"{name}.whl").write_bytes(bytes(3 * 2**20))

    monkeypatch.setattr(module, "fetch_wheels", fetch)


def test_a_bundle_says_what_it_holds(without_index, tiny_cohort, tmp_path):
    made = bundle(
        tiny_cohort,
        tmp_path / "b",
        have=HAVE,
        overrides=["train.epochs=1"],
        python=["3.12"],
        max_mib=0,
        minutes=5.0,
    )
    names = {path.name for path in (tmp_path / "b").iterdir()}
    assert {"run.sh", "install.py", "stages.toml", "recipe.toml", "cohort.zip", "checks"} <= names
    stored = json.loads((tmp_path / "b" / "bundle.json").read_text())
    assert stored["packed"] == {"robustmri": robustmri.__version__} | needed(HAVE, "3.12")
    assert stored["overrides"] == ["train.epochs=1"]
    assert made.mib["all"] > 30
    assert "without further loss" in made.loss
    with pytest.raises(Exception, match="not empty"):
        bundle(tiny_cohort, tmp_path / "b", have=HAVE)


def test_no_path_of_this_machine_travels(without_index, tiny_cohort, tmp_path):
    bundle(tiny_cohort, tmp_path / "b", have=HAVE, max_mib=0)
    for path in (tmp_path / "b").glob("*.*"):
        assert str(Path.home()).encode() not in path.read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()


def test_slices_lose_as_little_as_fits(without_index, tiny_cohort, tmp_path):
    scans = Cohort.open(tiny_cohort)
    whole = pack_cohort(scans, tmp_path / "whole.zip").bytes / 2**20
    (tmp_path / "wheels").mkdir()
    assert module._add_cohort(scans, tmp_path, whole, None).grey_error == 0
    tight = module._add_cohort(scans, tmp_path, 0.9 * whole, None)
    assert tight.grey_error > 0
    assert tight.bytes <= 0.9 * whole * 2**20
    with pytest.raises(SettingsError, match="error of 0 grey levels"):
        module._add_cohort(scans, tmp_path, 0.9 * whole, 0)
    with pytest.raises(SettingsError, match=r"largest wheels: .*--have"):
        bundle(tiny_cohort, tmp_path / "never", have=HAVE, max_mib=10.0)
    assert not (tmp_path / "never").exists()


def test_weights_are_found_there_as_in_a_cache(without_index, tiny_cohort, tmp_path, monkeypatch):
    (tmp_path / "resnet50-11ad3fa6.pth").write_bytes(b"weights")
    monkeypatch.setattr(
        "robustmri.models.starts.fetch_start",
        lambda start, progress: tmp_path / start.file,
    )
    bundle(tiny_cohort, tmp_path / "b", have=HAVE, overrides=["train.weights=imagenet"], max_mib=0)
    assert (tmp_path / "b" / "weights" / "resnet50-11ad3fa6.pth").read_bytes() == b"weights"
    with pytest.raises(SettingsError, match=r"train\.weights=none"):
        bundle(tiny_cohort, tmp_path / "c", have=HAVE, overrides=["train.weights=mine.pth"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_rehearsal(tmp_path):
    """From the bundle alone, with 24 slices and a minute, and home again."""
    cohort = robustmri.prepare(
        "phantom:patients=12,slices=2,size=64", tmp_path / "cohort", size=64, split="slice"
    )
    assert len(cohort) == 24
    try:
        made = bundle(
            cohort.root,
            tmp_path / "made",
            have=HAVE,
            also=["torchattacks"],
            overrides=["train.backbone=resnet18-half", "prepare.size=64"],
        )
    except DownloadError as error:
        pytest.skip(f"no package index: {error}")
    except SettingsError as error:
        pytest.skip(f"not installed here: {error}")
    shutil.move(tmp_path / "made", tmp_path / "carried")
    python, surroundings = make_machine(tmp_path / "machine", [*made.have, *BESIDE])
    said = subprocess.run(
        [
            "sh",
            str(tmp_path / "carried" / "run.sh"),
            str(tmp_path / "results"),
            "--minutes",
            "1",
            "--grace",
            "5",
        ],
        cwd=tmp_path,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert "From the bundle: robustmri" in said.stdout
    assert (tmp_path / "carried" / "site" / "kornia").is_dir()
    robustmri.unpack_travelled(tmp_path / "carried", tmp_path / "travelled")
    networks = robustmri.unpack(
        tmp_path / "results", tmp_path / "home", cohort=tmp_path / "travelled"
    )
    stages = json.loads((tmp_path / "home" / "stages.json").read_text())
    done = [(one["name"], one["status"]) for one in stages if one["status"] != "left out"]
    assert done == [("check", "done"), ("speed", "done"), ("poster", "done")]
    assert {one.run.name for one in networks} == {"hardened", "standard"}
    assert all(one.changed == 0 for one in networks)
    poster = tmp_path / "home" / "poster"
    assert "| PGD |" in (poster / "table.md").read_text()
    assert (poster / "hardened" / "epochs.csv").read_text().startswith("epoch,")
    result = load_result(poster / "after")
    assert result.provenance["commit"] == made.commit
    again = robustmri.evaluate(
        poster / "hardened", tmp_path / "travelled", tmp_path / "again", attacks=("fgsm",), limit=3
    )
    assert again.checks
    machine = (tmp_path / "home" / "machine.json").read_text()
    assert str(tmp_path) not in machine
    assert python.is_file()


def test_a_package_that_is_not_here_has_no_version_to_ask_for():
    assert _versions(["torch"])["torch"]
    with pytest.raises(SettingsError, match="no-such-thing is not installed here"):
        _versions(["torch", "no-such-thing"])


def test_stages_of_ones_own_and_a_package_without_its_checkout(tmp_path, monkeypatch):
    stages = tmp_path / "mine.toml"
    stages.write_text("stages = []")
    monkeypatch.setattr("robustmri.__file__", str(tmp_path / "site" / "robustmri" / "__init__.py"))
    (tmp_path / "bundle").mkdir()
    _add_scripts(tmp_path / "bundle", "poster-offline", stages)
    assert (tmp_path / "bundle" / "stages.toml").read_text() == "stages = []"
    assert (tmp_path / "bundle" / "run.sh").is_file()
    assert not (tmp_path / "bundle" / "checks").exists()


@pytest.fixture
def on_the_other_machine(tmp_path, monkeypatch):
    """`install` as it lies in a bundle that says so of itself; pip ends as it is told."""

    def run(pip=0, **about):
        stated = {"packed": ["robustmri", "einops"], "have": ["torch"], "imports": [], **about}
        (tmp_path / "bundle.json").write_text(json.dumps({"python": ["3.12"], **stated}))
        asked = []

        def answer(command, **_):
            asked.append(command)
            return subprocess.CompletedProcess(command, pip, "", "no matching wheel")

        monkeypatch.setattr(install, "__file__", str(tmp_path / "install.py"))
        monkeypatch.setattr(install.subprocess, "run", answer)
        monkeypatch.setattr(install.sys, "path", list(install.sys.path))
        install.main()
        return asked[0]

    return run


def test_only_what_is_lacking_is_installed(on_the_other_machine, capsys, tmp_path):
    """The package itself always is: that of the bundle is meant."""
    command = on_the_other_machine(
        packed=["robustmri", "einops", "no-such-thing"], have=["torch", "gone"], imports=["json"]
    )
    assert command[-2:] == ["robustmri", "no-such-thing"]
    assert command[command.index("--target") + 1] == str(tmp_path / "site")
    said = capsys.readouterr().out
    assert "From the bundle: robustmri, no-such-thing." in said
    assert "Said to be here, and is not: gone." in said
    assert "einops" in said.splitlines()[0]
    assert "robustmri" not in said.splitlines()[0]


def test_what_does_not_fit_the_machine_ends_in_a_sentence(on_the_other_machine):
    with pytest.raises(SystemExit, match=r"no matching wheel\n.*made for 3\.12"):
        on_the_other_machine(pip=1)
    with pytest.raises(SystemExit, match=r"no_such_module cannot be imported"):
        on_the_other_machine(imports=["no_such_module"])
