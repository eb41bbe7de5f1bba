"""A run folder belongs to one set of settings, and a checkpoint to one split."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from robustmri.core import processes
from robustmri.core.errors import CheckpointError, DataError, SettingsError
from robustmri.core.files import explain_full_disk, read_json, write_json
from robustmri.core.locks import locked
from robustmri.data.split import Split

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
    claimed = _is_claimed(folder, settings)
    with ExitStack() as held:
        if processes.is_main_process() and not (claimed and (folder / done).exists()):
            with explain_full_disk(folder):
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(folder / LOCK, folder))
        if not _is_claimed(folder, settings):  # Another command may have come first.
            write_json(folder / SETTINGS, settings)
        yield


def _is_claimed(folder: Path, settings: dict[str, Any]) -> bool:
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
    before, settings = _decisive(read_json(path)), _decisive(settings)
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


def refuse_seen(provenance: dict[str, Any], split: Split) -> None:
    """Refuse test slices that another split of the same cohort may have trained on."""
    if (
        provenance.get("cohort") == split.cohort_fingerprint
        and provenance.get("split") != split.fingerprint
    ):
        raise CheckpointError(
            "this checkpoint was trained on another split of this cohort, so it has seen some of "
            "these test slices. Train it on this split, or evaluate it on the cohort folder that "
            "it was trained on."
        )
