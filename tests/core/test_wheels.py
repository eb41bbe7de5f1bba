from __future__ import annotations

import subprocess
import sys
import time
import zipfile

import pytest

from robustmri.core import wheels
from robustmri.core.errors import DownloadError, SettingsError
from robustmri.core.wheels import fetch_wheels, needed, present, write_own_wheel


def test_what_the_machine_has_is_not_packed():
    there = needed(["torch", "torchvision"], "3.12")
    assert not set(there) & {"torch", "numpy", "pillow", "jinja2", "sympy", "triton"}
    assert {"monai", "kornia", "kornia-rs", "msgspec", "lightning-fabric", "scipy"} <= set(there)
    assert "scipy" not in needed(["torch", "torchvision", "SciPy"], "3.12")
    assert not set(there) & {"h5py", "aiohttp"}, "neither the readers' nor optional parts"
    assert "tomli" not in there


def test_torchvision_brings_torch():
    assert {"torch", "numpy", "pillow"} <= present(["torchvision"])


def test_a_package_that_is_not_here_is_said(monkeypatch):
    monkeypatch.setattr(wheels, "_requirements", lambda name, surroundings: ["no-such-thing"])
    with pytest.raises(SettingsError, match=r"no-such-thing, which robustmri needs.*--have"):
        needed([], "3.12")


def test_the_own_wheel_is_the_same_at_any_time(tmp_path, monkeypatch):
    """Also before 1980, of which a zip knows nothing."""
    wheel = write_own_wheel(tmp_path).read_bytes()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert write_own_wheel(tmp_path).read_bytes() == wheel


@pytest.mark.slow
def test_the_own_wheel_installs_and_knows_its_commit(tmp_path):
    path = write_own_wheel(tmp_path)
    assert path.name == "robustmri-0.1.0-py3-none-any.whl"
    said = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--target",
            str(tmp_path / "site"),
            str(path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    home = tmp_path / "site" / "robustmri"
    assert (home / "__init__.pyi").is_file()
    assert (home / "verbs" / "carried" / "run.sh").is_file()
    code = "from robustmri.core.provenance import commit; print(commit())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "site",
        capture_output=True,
        text=True,
        check=True,
    )
    with zipfile.ZipFile(path) as wheel:
        assert found.stdout.strip() == wheel.read("robustmri/COMMIT").decode()


def test_no_index_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DownloadError, match=r"pip cannot fetch wheels for Python 3\.12.*--have"):
        fetch_wheels(["monai==1.6.1"], tmp_path, ["3.12"])
    with pytest.raises(SettingsError, match="platform must be one of"):
        fetch_wheels(["monai==1.6.1"], tmp_path, ["3.12"], "windows")


def test_no_package_asks_no_index(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    fetch_wheels([], tmp_path, ["3.12"])
    with pytest.raises(SettingsError, match="platform must be one of"):
        fetch_wheels([], tmp_path, ["3.12"], platform="abacus")


def test_each_python_gets_wheels_of_its_own(tmp_path, monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command[command.index("--python-version") + 1])
        assert command[-3:] == ["--dest", str(tmp_path), "einops==0.8.0"]
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    fetch_wheels(["einops==0.8.0"], tmp_path, ["3.11", "3.12"])
    assert asked == ["3.11", "3.12"]
