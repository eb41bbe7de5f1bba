"""What is installed: ranges, pins and hashes agree, and no range admits a release in which opening
a file can run code.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# The first release without the hole; who published it stands in docs/security.md.
SAFE_SINCE = {
    "torch": "2.10",
    "pyarrow": "14.0.1",
    "pillow": "12.1.1",
    "monai": "1.5.1",
    "jinja2": "3.1.6",
    "onnx": "1.17",
    "starlette": "0.49.1",
}


def pins(name):
    """Name to version in a file of pins; hashes and comments left out."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in found}


def ranges():
    extras = [one for group in PROJECT["optional-dependencies"].values() for one in group]
    return [Requirement(text) for text in (*PROJECT["dependencies"], *extras)]


def test_every_pin_has_hashes_and_every_hash_a_pin():
    assert pins("constraints.txt") == pins("hashes.txt")
    blocks = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "hashes.txt").read_text().strip())
    assert len(blocks) == len(pins("constraints.txt"))
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", block) for block in blocks)


def test_every_pin_is_in_its_range():
    pinned = pins("constraints.txt")
    for one in ranges():
        version = pinned.get(canonicalize_name(one.name))
        assert version is None or one.specifier.contains(version), one


@pytest.mark.parametrize("name", SAFE_SINCE)
def test_no_range_admits_a_published_hole(name):
    asked = [one for one in ranges() if canonicalize_name(one.name) == name]
    assert asked
    for one in asked:
        (floor,) = (part.version for part in one.specifier if part.operator == ">=")
        assert Version(floor) >= Version(SAFE_SINCE[name]), one
