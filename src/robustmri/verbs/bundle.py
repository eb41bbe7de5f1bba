"""Pack everything that a GPU machine without network needs into one folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec

import robustmri
from robustmri.core.errors import SettingsError
from robustmri.core.files import atomic_folder, write_json
from robustmri.core.progress import Progress, silent
from robustmri.core.provenance import commit, describe_run
from robustmri.core.settings import check_number
from robustmri.core.wheels import PLATFORM, fetch_wheels, largest, needed, present, write_own_wheel
from robustmri.data.cohort import Cohort
from robustmri.data.packed import LARGEST_ERROR, Packed, pack_cohort
from robustmri.data.split import Split
from robustmri.recipes import find_recipe, load_recipe

HAVE = ("torch", "torchvision", "timm")
"""What the other machine has, unless said otherwise."""
IMPORTS = (
    "torch",
    "numpy",
    "scipy.special",
    "pyarrow.parquet",
    "kornia.augmentation",
    "lightning_fabric",
    "monai",
    "PIL.Image",
)
"""Looked for on the other machine before anything starts."""
HEAD, COHORT_FILE, RECIPE_FILE = "bundle.json", "cohort.zip", "recipe.toml"
MIB = 2**20
HEAD_MIB = 0.1
"""Kept for bundle.json."""


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle holds; bundle.json.

    Attributes:
        commit: of the code that is in it.
        have: packages that the other machine was said to have, with what these bring.
        packed: packages that are in it, and their versions.
        python: versions of Python that its compiled wheels are for.
        platform: that they are for.
        imports: modules that must be there in the end.
        overrides: of the recipe, each "STAGE.SETTING=VALUE".
        cohort: name, slices and size in pixels.
        loss: what the slices have lost.
        mib: size of its parts.
        minutes: of a run, unless it is told another number.
        made: when, where and by which command.
    """

    commit: str | None
    have: tuple[str, ...]
    packed: dict[str, str]
    python: tuple[str, ...]
    platform: str
    imports: tuple[str, ...]
    overrides: tuple[str, ...]
    cohort: dict[str, str | int | tuple[int, int]]
    loss: str
    mib: dict[str, float]
    minutes: float
    made: dict[str, object]


def bundle(
    cohort: str | Path,
    out: str | Path,
    *,
    recipe: str = "poster-offline",
    overrides: Sequence[str] = (),
    have: Sequence[str] = HAVE,
    also: Sequence[str] = (),
    python: Sequence[str] = (),
    platform: str = PLATFORM,
    minutes: float = 9.0,
    max_mib: float = 60.0,
    grey_error: int | None = None,
    stages: str | Path | None = None,
    progress: Progress = silent,
) -> Bundle:
    """Pack package, wheels, cohort, recipe and a script; `sh run.sh RESULTS` on the other machine
    does the rest.

    Args:
        cohort: folder made by `prepare`.
        out: folder to make.
        recipe: name or path; the settings of the run.
        overrides: single settings, such as "train.epochs=10".
        have: packages that the other machine has; they and what they bring are not packed.
        also: further packages to pack, alone, as installed here; such as "torchattacks", to be
            timed beside.
        python: versions of the other machine's Python; compiled wheels are packed for each. None:
            as here.
        platform: "linux_x86_64" or "linux_aarch64".
        minutes: of a run.
        max_mib: what the bundle may weigh in MiB; 0: anything.
        grey_error: by how many of 255 grey levels a pixel may be off; None: as few as `max_mib`
            allows.
        stages: a file of stages in place of the packaged one.
        progress: told about the parts.

    Raises:
        SettingsError: minutes or MiB that there are not; it does not fit into `max_mib`, or weights
            that the recipe starts from cannot be packed.
        DownloadError: wheels or weights cannot be fetched.
    """
    check_number("minutes", minutes, above=True)
    check_number("max_mib", max_mib)
    scans, settings = Cohort.open(cohort), load_recipe(recipe, overrides)
    Split.load(scans.root).check(scans)
    pythons = tuple(python) or (_this_python(),)
    packed = {"robustmri": robustmri.__version__}
    for version in pythons:
        packed |= needed(have, version)
    packed |= _versions(also)
    with atomic_folder(out) as folder:
        for name in ("wheels", "weights"):
            (folder / name).mkdir()
        progress("bundle", 0, 4, "wheels")
        fetch_wheels(
            [f"{name}=={version}" for name, version in packed.items() if name != "robustmri"],
            folder / "wheels",
            pythons,
            platform,
        )
        write_own_wheel(folder / "wheels")
        progress("bundle", 1, 4, "weights")
        _add_start(settings.train.backbone, settings.train.weights, folder / "weights")
        progress("bundle", 2, 4, "scripts")
        _add_scripts(folder, recipe, stages)
        progress("bundle", 3, 4, "cohort")
        others = _mib(folder) + HEAD_MIB
        facts = _add_cohort(scans, folder, max_mib - others if max_mib else None, grey_error)
        made = Bundle(
            commit=commit(),
            have=tuple(sorted(present(have))),
            packed=packed,
            python=pythons,
            platform=platform,
            imports=IMPORTS,
            overrides=tuple(overrides),
            minutes=minutes,
            loss=facts.sentence,
            cohort={"name": scans.name, "slices": len(scans), "size": scans.size},
            mib={
                "wheels": _mib(folder / "wheels"),
                "weights": _mib(folder / "weights"),
                "cohort": round(facts.bytes / MIB, 1),
                "all": _mib(folder),
            },
            made=describe_run(),
        )
        write_json(folder / HEAD, msgspec.to_builtins(made))
        progress("bundle", 4, 4)
    return made


def _this_python() -> str:
    import sys

    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _versions(names: Sequence[str]) -> dict[str, str]:
    from importlib import metadata

    try:
        return {name: metadata.version(name) for name in names}
    except metadata.PackageNotFoundError as error:
        raise SettingsError(
            f"{error.name} is not installed here, so its version is unknown. Install it first."
        ) from error


def _add_start(backbone: str, weights: str, folder: Path) -> None:
    """The file that training starts from, where the recipe names one; it is found there as in a
    cache.
    """
    from robustmri.models.starts import fetch_start, find_start, is_start

    if weights == "none":
        return
    if not is_start(weights):
        raise SettingsError(
            f"weights {weights!r} cannot be packed: expected none or the name of published ones. "
            "Say --set train.weights=none to start from scratch."
        )
    path = fetch_start(find_start(weights, backbone), None)
    shutil.copy(path, folder / path.name)


def _add_scripts(folder: Path, recipe: str, stages: str | Path | None) -> None:
    """run.sh and what it needs; tests and benchmarks too, where this package runs from its
    checkout.
    """
    carried = resources.files("robustmri.verbs.carried")
    for name in ("run.sh", "install.py", "stages.toml"):
        (folder / name).write_text(
            carried.joinpath(name).read_text(encoding="utf-8"), encoding="utf-8"
        )
    if stages:
        shutil.copy(stages, folder / "stages.toml")
    shutil.copy(find_recipe(recipe), folder / RECIPE_FILE)
    checkout = Path(robustmri.__file__).parents[2]
    for name, place in (("tests/gpu", "gpu"), ("benchmarks", "benchmarks")):
        if (checkout / name).is_dir():
            shutil.copytree(
                checkout / name,
                folder / "checks" / place,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
    if (folder / "checks").is_dir():
        (folder / "checks" / "pytest.ini").write_text(
            "[pytest]\naddopts = --import-mode=importlib\nmarkers =\n    gpu: needs CUDA\n",
            encoding="utf-8",
        )


def _add_cohort(
    scans: Cohort, folder: Path, room_mib: float | None, grey_error: int | None
) -> Packed:
    """The slices, with as little loss as fits."""
    errors = range(LARGEST_ERROR + 1) if grey_error is None else [grey_error]
    for error in errors:
        packed = pack_cohort(scans, folder / COHORT_FILE, grey_error=error)
        if room_mib is None or packed.bytes <= room_mib * MIB:
            return packed
    raise SettingsError(
        f"the slices take {packed.bytes / MIB:.0f} MiB with an error of {packed.grey_error} grey "
        f"levels, and beside wheels and weights {room_mib:.0f} MiB are left. The largest wheels: "
        f"{largest(folder / 'wheels')}. Name in --have what the other machine has, or raise "
        "--max-mib."
    )


def _mib(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB, 1)
