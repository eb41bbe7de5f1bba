"""The table of cases: who is on each slice, and where the slice came from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from robustmri.core.errors import DataError
from robustmri.core.files import system_error

MOST_CASES = 1_000_000
MOST_BYTES = 1 << 29
"""Of a table of cases in memory: 500 each."""
BATCH = 4096


@dataclass(frozen=True)
class Case:
    """One slice of a cohort.

    Attributes:
        index: row in the image array.
        group: what must stay together in a patient-wise split; the patient, or ids that differ by a
            trailing letter.
        source: file name relative to the source it was read from.
        sha256: hash of that file, which may have given several slices.
        height: of the original slice, in pixels; likewise `width`.
        plane: "axial", "coronal", "sagittal", or "" where unknown.
        fold: fold that the authors of the data gave it.
        lesion_box: (x0, y0, x1, y1) in pixels of the cohort, x1 and y1 just outside the lesion.
    """

    index: int
    case_id: str
    label: str
    class_index: int
    patient_id: str
    group: str
    source: str
    sha256: str
    height: int
    width: int
    plane: str
    fold: int | None
    lesion_box: tuple[int, int, int, int] | None


def group_of(patient_id: str) -> str:
    """Patient behind an id: a single trailing letter after a digit marks another scan of the same
    person.

    >>> group_of("MR040240B"), group_of("100360"), group_of("ward B")
    ('MR040240', '100360', 'ward B')
    """
    return re.sub(r"(?<=\d)[A-Za-z]$", "", patient_id)


def file_hashes(cases: Iterable[Case]) -> list[str]:
    """Hash of the file of each case of a cohort; where an earlier version stored one for each slice
    of a volume, the first one's for all of them.
    """
    first: dict[str, str] = {}
    return [first.setdefault(case.source, case.sha256) for case in cases]


def write_cases(path: Path, cases: Iterable[Case]) -> None:
    """Write the table of cases as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, whole = pa.string(), pa.int32()
    columns = {
        "index": whole,
        "case_id": text,
        "label": text,
        "class_index": whole,
        "patient_id": text,
        "group": text,
    }
    columns |= {
        "source": text,
        "sha256": text,
        "height": whole,
        "width": whole,
        "plane": text,
        "fold": whole,
    }
    columns |= {"lesion_box": pa.list_(whole)}
    pq.write_table(
        pa.Table.from_pylist([asdict(case) for case in cases], schema=pa.schema(columns)), path
    )


def read_cases(path: Path, n_cases: int = MOST_CASES) -> tuple[Case, ...]:
    """Read the table of cases, no more than `n_cases` of them.

    Raises:
        DataError: there are more, or it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path} is missing, or no plain file. Prepare the scans again.")
    try:
        with pq.ParquetFile(path) as file:
            rows: list[dict[str, Any]] = []
            held = 0
            for batch in file.iter_batches(batch_size=BATCH):
                rows += batch.to_pylist()
                if (held := held + batch.nbytes) > MOST_BYTES or len(rows) > min(
                    n_cases, MOST_CASES
                ):
                    raise DataError(
                        f"{path} holds more than {min(n_cases, MOST_CASES)} slices, or more than "
                        f"{MOST_BYTES >> 20} MiB. Make the cohort again."
                    )
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        fault = system_error(error, path)
        if not fault and isinstance(error, OSError) and error.errno:
            raise
        raise fault or DataError(
            f"{path} is damaged ({' '.join(str(error).split())}). Make the cohort again."
        ) from error
    try:
        return msgspec.convert(rows, tuple[Case, ...])
    except msgspec.ValidationError as error:
        raise DataError(
            f"{path} is not a table of cases ({error}). Make the cohort again."
        ) from error
