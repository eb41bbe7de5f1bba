"""Install from this bundle's wheels what this machine lacks, into its folder `site`; nothing else
is touched.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

ALWAYS = ("robustmri",)


def installed(name: str) -> str | None:
    """Version of a package that this interpreter has of its own."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Say what is here already, install what is not, and stop with one sentence where something
    stays missing.
    """
    here = Path(__file__).resolve().parent
    about = json.loads((here / "bundle.json").read_text(encoding="utf-8"))
    site = here / "site"
    machine = {name: installed(name) for name in (*about["packed"], *about["have"])}
    lacking = [name for name in about["packed"] if machine[name] is None or name in ALWAYS]
    own = [
        f"{name} {version}" for name, version in machine.items() if version and name not in ALWAYS
    ]
    print(f"Python {sys.version.split()[0]}. Of its own: {', '.join(sorted(own)) or 'nothing'}.")
    print(f"From the bundle: {', '.join(lacking)}.")
    said = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-index",
            "--find-links",
            str(here / "wheels"),
            "--no-deps",
            "--no-compile",
            "--upgrade",
            "--target",
            str(site),
            *lacking,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode:
        sys.exit(
            f"The wheels do not fit this machine: {said.stderr.strip()[-600:]}\n"
            "Make the bundle again with --python "
            f"{sys.version_info.major}.{sys.version_info.minor} (it was made for "
            f"{', '.join(about['python'])})."
        )
    sys.path.insert(0, str(site))
    missing = [name for name in about["have"] if machine[name] is None]
    if missing:
        print(f"Said to be here, and is not: {', '.join(missing)}.")
    for module in about["imports"]:
        try:
            importlib.import_module(module)
        except ImportError as error:
            sys.exit(
                f"{module} cannot be imported ({error}). Make the bundle again without it in "
                "--have."
            )


if __name__ == "__main__":
    main()
