"""Which reader fits a path."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

from robustmri.core.errors import DataError, SettingsError, did_you_mean
from robustmri.data import readers as folder
from robustmri.data.readers.source import Source


def open_source(path: str | Path) -> Source:
    """Source at `path`, its kind found by looking.

    Args:
        path: folder or zip of the figshare release, folder of images with a CSV, class folders, a
            cohort folder, or the word `phantom`, with settings if wanted:
            `phantom:patients=90,slices=8,seed=3`.

    Raises:
        DataError: nothing there that a reader knows.
    """
    if re.match(r"phantom(:|$)", str(path)):
        return _open_phantom(str(path))
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"{path} does not exist. Expected a folder of scans, a zip, or the word 'phantom'."
        )
    readers = find_readers()
    for reader in readers:
        source: Source | None = reader.look(path)
        if source is not None:
            return source
    raise DataError(
        f"{path} holds no scans that robustmri can read. Expected one of: "
        f"{'; '.join(reader.expects for reader in readers)}."
    )


def find_readers() -> list[Any]:
    """Every reader of the folder `readers/`, by `place`: the surest look first."""
    found = []
    for file in pkgutil.iter_modules(folder.__path__):
        module = importlib.import_module(f"{folder.__name__}.{file.name}")
        own = [kind for kind in vars(module).values() if isinstance(kind, type)]
        found += [
            kind for kind in own if hasattr(kind, "look") and kind.__module__ == module.__name__
        ]
    return sorted(found, key=lambda reader: (reader.place, reader.__name__))


def _open_phantom(text: str) -> Source:
    from robustmri.data.phantom import PhantomSource

    names = {"patients": "patients", "slices": "slices_per_patient", "size": "size", "seed": "seed"}
    settings: dict[str, int] = {}
    for part in filter(None, text.partition(":")[2].split(",")):
        key, _, value = part.partition("=")
        if key not in names:
            raise SettingsError(f"The phantom has no setting {key!r}. {did_you_mean(key, names)}")
        try:
            settings[names[key]] = int(value)
        except ValueError as error:
            raise SettingsError(
                f"phantom:{part}: expected a whole number, got {value!r}."
            ) from error
    source: Source = PhantomSource(**settings)
    return source
