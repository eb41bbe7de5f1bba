"""This package and what it needs as wheels, for a machine that cannot fetch them."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Collection, Iterable, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import robustmri
from robustmri.core.errors import DownloadError, SettingsError
from robustmri.core.provenance import COMMIT_FILE, commit
from robustmri.core.zips import deflate

PACKAGE = "robustmri"
BRINGS = {
    "torch": (
        "numpy",
        "filelock",
        "typing-extensions",
        "sympy",
        "networkx",
        "jinja2",
        "fsspec",
        "mpmath",
        "markupsafe",
    ),
    "torchvision": ("torch", "numpy", "pillow"),
    "timm": ("torch", "torchvision", "safetensors", "pyyaml"),
}
"""What a machine that has the one has too, since these cannot do without."""
UNUSED = ("h5py", "scikit-learn")
"""For reading the release's files and for the benchmarks' digits: not needed where the cohort is
packed already.
"""
PLATFORM = "linux_x86_64"
_TAGS = {
    "linux_x86_64": [f"manylinux_2_{n}_x86_64" for n in (28, 27, 24, 17)]
    + ["manylinux2014_x86_64"],
    "linux_aarch64": [f"manylinux_2_{n}_aarch64" for n in (28, 27, 24, 17)]
    + ["manylinux2014_aarch64"],
}


def present(have: Iterable[str]) -> set[str]:
    """Everything that a machine has on which these packages are installed.

    >>> sorted(present(["torchvision"]))[:4]
    ['filelock', 'fsspec', 'jinja2', 'markupsafe']
    """
    found: set[str] = set()
    left: list[str] = [canonicalize_name(name) for name in have]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += BRINGS.get(name, ())
    return found


def needed(have: Iterable[str], python: str) -> dict[str, str]:
    """Names and versions, as installed here, of all that the package needs and the machine lacks.

    Optional parts of packages are left out.

    Args:
        have: packages that the machine has; what they need themselves is there too.
        python: version of its Python, such as "3.12".

    Raises:
        SettingsError: something is not installed here, so that its version is unknown.
    """
    there, found = present(have), dict[str, str]()
    surroundings = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "extra": "",
    }
    left = [(PACKAGE, name) for name in _requirements(PACKAGE, surroundings)]
    while left:
        by, name = left.pop()
        if name in found or name in there or (by == PACKAGE and name in UNUSED):
            continue
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError as error:
            raise SettingsError(
                f"{name}, which {by} needs, is not installed here, so its version is unknown. "
                "Install it, or name it in --have if the other machine has it."
            ) from error
        left += [(name, further) for further in _requirements(name, surroundings)]
    return dict(sorted(found.items()))


def _requirements(name: str, surroundings: dict[str, str]) -> list[str]:
    wanted = [Requirement(text) for text in metadata.requires(name) or []]
    return [
        canonicalize_name(one.name)
        for one in wanted
        if one.marker is None or one.marker.evaluate(surroundings)
    ]


def fetch_wheels(
    packages: Sequence[str], folder: Path, pythons: Sequence[str], platform: str = PLATFORM
) -> None:
    """Fetch "NAME==VERSION" for every Python version through pip's own configured index; sources
    are not built.

    Raises:
        SettingsError: a platform that is not known.
        DownloadError: pip finds no wheel, or no index.
    """
    if platform not in _TAGS:
        raise SettingsError(f"platform must be one of {', '.join(_TAGS)}, got {platform!r}.")
    if not packages:
        return
    tags = [part for tag in _TAGS[platform] for part in ("--platform", tag)]
    for python in pythons:
        said = subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--only-binary=:all:",
                "--implementation",
                "cp",
                "--python-version",
                python,
                *tags,
                "--dest",
                str(folder),
                *packages,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if said.returncode:
            errors = [line for line in said.stderr.splitlines() if line.startswith("ERROR")]
            raise DownloadError(
                f"pip cannot fetch wheels for Python {python} on {platform}: "
                f"{' '.join(errors[-2:])} Is a package index reached from here? If the other "
                "machine has the package, name it in --have."
            )


def write_own_wheel(folder: Path) -> Path:
    """This very code as a wheel, changed files included; it knows the commit it was made from."""
    about = metadata.distribution(PACKAGE)
    version = robustmri.__version__
    home, info = Path(robustmri.__file__).parent, f"{PACKAGE}-{version}.dist-info"
    contents = {
        f"{PACKAGE}/{path.relative_to(home).as_posix()}": path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    contents[f"{PACKAGE}/{COMMIT_FILE}"] = (commit() or "unknown").encode()
    contents[f"{info}/METADATA"] = (about.read_text("METADATA") or "").encode()
    contents[f"{info}/entry_points.txt"] = (about.read_text("entry_points.txt") or "").encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(
        f"{name},{_digest(content)},{len(content)}\n" for name, content in contents.items()
    )
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"{PACKAGE}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in contents.items():
            deflate(wheel, name, content)
    return path


def _digest(content: bytes) -> str:
    raw = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return f"sha256={raw.decode()}"


def largest(folder: Path) -> str:
    """The three largest files of a folder, for a message."""
    files: Collection[Path] = [path for path in folder.iterdir() if path.is_file()]
    by_size = sorted(files, key=lambda path: -path.stat().st_size)[:3]
    return ", ".join(
        f"{path.name.partition('-')[0]} {path.stat().st_size / 2**20:.0f} MiB" for path in by_size
    )
