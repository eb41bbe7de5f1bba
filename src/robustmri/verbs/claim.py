"""A run folder belongs to one set of settings, and a checkpoint to one split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from robustmri.core.errors import CheckpointError, DataError, SettingsError
from robustmri.core.files import read_json, write_json
from robustmri.data.split import Split


def claim_folder(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run, or make sure that the run that is there has the same."""
    settings = msgspec.json.decode(msgspec.json.encode(settings))
    if not path.exists():
        # A kill in the middle of this very write may have left a partial file, or a process beside
        # this one come first.
        known = (there == path or there.suffix == ".partial" for there in path.parent.glob("*"))
        if all(known):
            write_json(path, settings)
            return
        if not path.exists():  # Still: what else is there may be of a process beside this one.
            raise DataError(f"{path.parent} is not empty and holds no run. Choose another --out.")
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
            f"{path.parent} holds a run with other settings (they differ in "
            f"{', '.join(inner or names)}). Choose another --out, or remove it."
        )


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
