"""What comes home from a run without network, put together again; and the cohort that travelled."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import msgspec

from robustmri.core.errors import DataError, ResultError
from robustmri.core.files import atomic_folder, read_json
from robustmri.core.zips import open_zip
from robustmri.data.cohort import Cohort
from robustmri.data.packed import unpack_cohort
from robustmri.models.halves import Halved, join
from robustmri.verbs.bundle import COHORT_FILE
from robustmri.verbs.run_bundle import HALVED, SUMMARY

MOST_BYTES = 4 << 30
"""Of results without their weights."""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """A run whose weights were put together again.

    Attributes:
        run: its folder.
        largest_change: of any weight by rounding, as a share of the largest of its tensor.
        accuracy: of the rounded network on the test slices; None: there was no cohort to test it
            on.
        changed: test slices that it names differently than was recorded there; None: that is not
            known.
        slices: looked at.
    """

    run: Path
    largest_change: float
    accuracy: float | None = None
    changed: int | None = None
    slices: int = 0


def unpack(
    folder: str | Path, out: str | Path, *, cohort: str | Path | None = None
) -> list[Joined]:
    """Unpack results into `out`: their files, and a run folder with a checkpoint for every network.

    Args:
        folder: the results, as `run.sh` left them.
        out: folder to make.
        cohort: the cohort that travelled (see `unpack_travelled`), to test the rounded networks on.

    Raises:
        ResultError: not such results.
        CheckpointError: parts of the weights are missing or damaged.
    """
    folder, out = Path(folder), Path(out)
    if not (folder / SUMMARY).is_file() or not zipfile.is_zipfile(folder / SUMMARY):
        raise ResultError(
            f"{folder} holds no {SUMMARY}. Expected the folder that run.sh was given."
        )
    with open_zip(folder / SUMMARY, most_bytes=MOST_BYTES) as bag, atomic_folder(out) as partial:
        bag.extractall(partial)
        path = partial / HALVED
        known = read_json(path, dict[str, Halved], error=ResultError) if path.exists() else {}
        for name, halved in known.items():
            for told in (name, *halved.parts):
                _refuse_path(folder / SUMMARY, partial, told)
            # What came home of the checkpoint is its head alone; it gets its weights again.
            shutil.rmtree(partial / name / "checkpoint", ignore_errors=True)
            join(halved, folder, partial / name / "checkpoint")
    return [
        _tested(out / name, halved, Path(cohort) if cohort else None)
        for name, halved in known.items()
    ]


def _refuse_path(file: Path, folder: Path, name: str) -> None:
    """Results come from elsewhere: nothing in them may be named so that it lies outside."""
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise ResultError(
            f"{file} holds {name!r}, which leads out of the folder. Do not trust these results."
        )


def unpack_travelled(bundle: str | Path, out: str | Path) -> Cohort:
    """The cohort of a bundle, as the other machine had it: results and weights that come home
    belong to this one.
    """
    path = Path(bundle)
    path = path / COHORT_FILE if path.is_dir() else path
    if not path.is_file():
        raise DataError(
            f"{bundle} is no bundle: it has no {COHORT_FILE}. Make one: robustmri bundle COHORT "
            "--out DIR"
        )
    return unpack_cohort(path, out)


def _tested(run: Path, halved: Halved, cohort: Path | None) -> Joined:
    joined = Joined(run=run, largest_change=halved.largest_change)
    if cohort is None:
        return joined
    import torch

    from robustmri.data.loaders import load_images, load_labels
    from robustmri.data.split import Split
    from robustmri.evaluation.exact import logits_of
    from robustmri.evaluation.plan import evaluated_slices
    from robustmri.evaluation.settings import EvaluateSettings
    from robustmri.models.checkpoint import check_fits, load_checkpoint

    scans = Cohort.open(cohort)
    classifier, stored = load_checkpoint(run)
    check_fits(stored, scans.classes, scans.size, scans.channels)
    rows = evaluated_slices(Split.load(cohort), EvaluateSettings(), scans)
    parts = [rows[start : start + 16] for start in range(0, len(rows), 16)]
    predicted = torch.cat(
        [logits_of(classifier, load_images(scans, part)).argmax(1) for part in parts]
    ).tolist()
    labels = load_labels(scans, rows).tolist()
    before = _recorded(run)
    names = [classifier.classes[k] for k in predicted]
    ids = [scans.cases[row].case_id for row in rows]
    shared = [
        before[case_id] != name
        for case_id, name in zip(ids, names, strict=True)
        if case_id in before
    ]
    right = sum(one == other for one, other in zip(predicted, labels, strict=True))
    return msgspec.structs.replace(
        joined,
        accuracy=right / len(rows),
        changed=sum(shared) if shared else None,
        slices=len(shared) or len(rows),
    )


def _recorded(run: Path) -> dict[str, str]:
    """What the network said of each untouched slice before it was rounded, if the evaluation came
    home.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = {"hardened": "after", "standard": "before"}.get(run.name, run.name)
    path = run.parent / name / "outcomes.parquet"
    if not path.is_file():
        return {}
    try:
        rows = pq.read_table(path, columns=["case_id", "attack", "clean_prediction"]).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ResultError(f"{path} is damaged. Copy it again.") from error
    return {row["case_id"]: row["clean_prediction"] for row in rows if row["attack"] == "none"}
