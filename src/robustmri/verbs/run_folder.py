"""A run folder belongs to one set of settings, and a checkpoint to one split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from robustmri.core import processes
from robustmri.core.errors import CheckpointError, DataError, RobustMRIError, SettingsError
from robustmri.core.files import explain_full_disk, read_json, sha256_of, write_json
from robustmri.core.locks import clear_unmarked, locked
from robustmri.data.cohort import Cohort
from robustmri.data.leakage import Finding
from robustmri.data.seen import Seen, check_seen, note_seen
from robustmri.data.split import Split

if TYPE_CHECKING:
    from robustmri.models.checkpoint import Checkpoint

LOCK, SETTINGS = ".lock", "settings.json"


@contextmanager
def claimed_folder(folder: Path, settings: dict[str, Any], *, done: str) -> Iterator[None]:
    """Keep a run folder for this command, whose processes share it, until the block ends.

    Args:
        folder: made if it is not there.
        settings: written into it, unless the run that is there has the same.
        done: what a finished run holds; such a folder is left as it is.

    Raises:
        DataError: the folder holds something else.
        SettingsError: it holds a run with other settings.
        RobustMRIError: another command is writing it.
    """
    settings = msgspec.json.decode(msgspec.json.encode(settings))
    claimed = is_claimed(folder, settings)
    with ExitStack() as held:
        if processes.is_main_process() and not (claimed and (folder / done).exists()):
            with explain_full_disk(folder):
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(folder / LOCK, folder))
        elif processes.is_main_process():
            clear_unmarked(folder / LOCK)  # Of a command that was killed when all was done.
        if not is_claimed(folder, settings):  # Another command may have come first.
            write_json(folder / SETTINGS, settings)
        try:
            yield
        finally:
            _keep_claim(folder, settings)


def _keep_claim(folder: Path, settings: dict[str, Any]) -> None:
    """Somebody may have emptied the folder meanwhile: what was written since then is still of this
    run, and the same command goes on with it.
    """
    gone = folder.exists() and not (folder / SETTINGS).exists()
    if gone and processes.is_main_process():
        with suppress(OSError, RobustMRIError):
            write_json(folder / SETTINGS, settings)


def is_claimed(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether a run of these settings is there; False where there is none."""
    path = folder / SETTINGS
    if not path.exists():
        # A kill in the middle of the first write may have left a partial file, or a process beside
        # this one come first.
        others = [
            there
            for there in folder.glob("*")
            if there.suffix != ".partial" and there.name not in (LOCK, SETTINGS)
        ]
        if not others:
            return False
        if not path.exists():  # Still: what else is there may be of a process beside this one.
            raise DataError(f"{folder} is not empty and holds no run. Choose another --out.")
    before, settings = _decisive(read_json(path, dict[str, Any])), _decisive(settings)
    if before != settings:
        names = [name for name in settings if before.get(name) != settings[name]]
        inner = [
            f"{name}.{key}"
            for name in names
            if isinstance(settings[name], dict) and isinstance(before.get(name), dict)
            for key in settings[name]
            if settings[name][key] != before[name].get(key)
        ]
        raise SettingsError(
            f"{folder} holds a run with other settings (they differ in "
            f"{', '.join(inner or names)}). Choose another --out, or remove it."
        )
    return True


def _decisive(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those of a training that say who computes and who is told."""
    return {
        stage: {
            name: value
            for name, value in inner.items()
            if name not in ("devices", "nodes", "logger")
        }
        if isinstance(inner, dict)
        else inner
        for stage, inner in settings.items()
    }


def refuse_seen(
    folder: Path | str | None,
    checkpoint: Checkpoint,
    cohort: Cohort,
    split: Split,
    rows: Sequence[int],
) -> Finding | None:
    """Refuse to test a checkpoint on slices that it was trained on, however they were prepared.

    Args:
        folder: of the checkpoint; None where it is in memory only.
        checkpoint: what it says about itself.
        cohort: where the test slices are.
        split: of the cohort.
        rows: those that are to be tested.

    Returns:
        What to tell in the report; None on the split of its training, which keeps them apart.

    Raises:
        CheckpointError: it has seen some of them.
    """
    provenance = checkpoint.provenance
    same_cohort = provenance.get("cohort") == split.cohort_fingerprint
    if same_cohort and provenance.get("split") == split.fingerprint:
        return None
    if same_cohort:
        raise CheckpointError(
            "this checkpoint was trained on another split of this cohort, so it has seen some of "
            f"these test slices. {_WAY_OUT}"
        )
    found = check_seen(read_seen(folder, provenance), cohort, rows)
    if found.status == "fail":
        raise CheckpointError(f"this checkpoint has seen test slices: {found.detail}. {_WAY_OUT}")
    return found


_WAY_OUT = (
    "Train it on this split, or evaluate it on the cohort folder that it was trained on, or on "
    "scans that it has not seen."
)


def read_seen(folder: Path | str | None, provenance: dict[str, Any]) -> Seen | None:
    """What a checkpoint was trained on; None where it does not say, as those from elsewhere.

    Raises:
        CheckpointError: its list is missing or damaged.
    """
    if folder is None or "seen_sha256" not in provenance:
        return None
    from robustmri.models.checkpoint import SEEN_FILE, find_checkpoint

    path = find_checkpoint(Path(folder)) / SEEN_FILE
    if not path.is_file() or sha256_of(path) != provenance["seen_sha256"]:
        raise CheckpointError(
            f"{path} is missing or damaged, so it cannot be told what the checkpoint was trained "
            "on. Restore it from a copy, or train again."
        )
    seen: Seen = read_json(path, Seen, error=CheckpointError)
    return seen


def join_seen(
    start: Path | None, provenance: dict[str, Any], cohort: Cohort, rows: Sequence[int]
) -> bytes:
    """What a training has seen, with what its start had, as it is stored."""
    seen = note_seen(cohort, rows)
    before = read_seen(start, provenance) if start is not None else None
    return msgspec.json.encode(seen | before if before else seen)
