"""Several evaluations of disjoint test sets as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from robustmri.core.errors import ResultError
from robustmri.core.files import as_folders, atomic_file
from robustmri.results.schema import RobustnessReport, hash_files, save_result
from robustmri.verbs.run_folder import SETTINGS


def pool(folders: Sequence[str | Path], out: str | Path, *, title: str) -> RobustnessReport:
    """Several evaluations of disjoint test sets as one, such as those of five folds; written anew
    each time.

    Args:
        folders: result folders of one cohort, evaluated alike.
        out: result folder for robustness.json and the tables beside it; there are no pictures.
        title: heading of the result.

    Raises:
        ResultError: `out` holds an evaluation, which would be lost.
    """
    import pyarrow.parquet as pq

    from robustmri.evaluation.pool import pool_results

    folders = as_folders(folders)
    refuse_evaluation(out)
    result, tables = pool_results(folders, title=title)
    for name, table in tables.items():
        with atomic_file(Path(out) / f"{name}.parquet") as partial:
            pq.write_table(table, partial)
    written = hash_files(out, [f"{name}.parquet" for name in tables])
    result = msgspec.structs.replace(result, files=written)
    save_result(result, out)
    return result


def refuse_evaluation(folder: str | Path) -> None:
    """Make sure that the folder holds no evaluation of its own, which pooling would replace.

    Raises:
        ResultError: it does.
    """
    if (Path(folder) / SETTINGS).exists():
        raise ResultError(
            f"{folder} holds an evaluation, which the pooled result would replace. Choose another "
            "--out."
        )
