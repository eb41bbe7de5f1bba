"""Which reader fits a path."""

from __future__ import annotations

import re
from pathlib import Path

from robustmri.core.errors import DataError, SettingsError, did_you_mean
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
    from robustmri.data.readers.class_folders import ClassFolders
    from robustmri.data.readers.cohort_folder import CohortFolder
    from robustmri.data.readers.csv_table import ImagesWithCsv
    from robustmri.data.readers.figshare import FigshareRelease

    for reader in (CohortFolder, ImagesWithCsv, FigshareRelease, ClassFolders):
        source: Source | None = reader.look(path)
        if source is not None:
            return source
    raise DataError(
        f"{path} holds no scans that robustmri can read. Expected one of: .mat files or zips of "
        "the figshare release; slices.csv (slice_id, label, patient_id) with images/; one folder "
        "of images for each class."
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
