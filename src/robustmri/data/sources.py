"""Which reader fits a path."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from robustmri.core.errors import DataError, SettingsError, did_you_mean
from robustmri.data import readers as folder
from robustmri.data.cohort import is_cohort
from robustmri.data.readers.listing import open_listing
from robustmri.data.readers.source import Source, readable_name
from robustmri.data.readers.tables import is_table

OTHER_TABLES = (".xls", ".ods")


def open_source(path: str | Path, **options: str) -> Source:
    """Source at `path`, its kind found by looking.

    Args:
        path: folder or file of scans (docs/data.md lists the kinds), a table that lies with them, a
            cohort folder, or the word `phantom`, with settings if wanted:
            `phantom:patients=90,slices=8,seed=3`.
        options: of the readers, each of which says which ones it knows; those that are "" count as
            not given.

    Raises:
        DataError: nothing there that a reader knows.
        SettingsError: an option that means nothing for what is there.
    """
    given = {name: value for name, value in options.items() if value}
    if is_phantom(path):
        _check_options((), given, "the phantom")
        return _open_phantom(str(path))
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"{path} does not exist. Expected a folder of scans, a zip, or the word 'phantom'."
        )
    readers = find_readers()
    for reader in readers:
        known = getattr(reader, "options", ())
        source: Source | None = reader.look(
            path, **{name: value for name, value in given.items() if name in known}
        )
        if source is not None:
            _check_options(known, given, source.name)
            return source
    tables = [_unused(file) for file in sorted(path.iterdir())] if path.is_dir() else []
    raise DataError(
        f"{path} holds no scans that robustmri can read. Expected one of: "
        f"{'; '.join(reader.expects for reader in readers)}."
        + "".join(f" {sentence}." for sentence in tables if sentence)
    )


def is_phantom(path: str | Path) -> bool:
    """Whether a source is the word `phantom`, with settings or without, and no path."""
    return bool(re.match(r"phantom(:|$)", str(path)))


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


def _check_options(known: Iterable[str], given: Iterable[str], name: str) -> None:
    for option in given:
        if option not in known:
            raise SettingsError(
                f"{name} has no use for the setting {option!r}"
                + (f"; it knows: {', '.join(known)}." if known else ".")
            )


def find_unread(path: str | Path, source: Source) -> list[str]:
    """Sentences about tables and scans of another kind that lie at `path` and that its source does
    not read.
    """
    path = Path(path)
    if not path.is_dir() or is_cohort(path):
        return []
    used = getattr(source, "tables", ())
    return [_unused(file) for file in sorted(path.iterdir()) if file not in used and _unused(file)]


def _unused(file: Path) -> str:
    """Why a table is not used; "" if it is none."""
    name = readable_name(file.name)
    if file.suffix.lower() in OTHER_TABLES:
        return f"{name} is a table of a kind that is not read: save it as .xlsx or .csv"
    if not is_table(file):
        return ""
    try:
        open_listing(file, {}, rows=1)
    except DataError as error:
        return f"{name} is not used: {error}"
    return (
        f"{name} is a table that is not used: name its columns with --columns "
        "image=COLUMN,label=COLUMN,patient=COLUMN, or give its path"
    )


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
