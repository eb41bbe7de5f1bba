"""Several evaluations of disjoint test sets as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from robustmri.core.files import as_folders, atomic_file
from robustmri.results.schema import RobustnessReport, hash_files, save_result


def pool(folders: Sequence[str | Path], out: str | Path, *, title: str) -> RobustnessReport:
    """Several evaluations of disjoint test sets as one, such as those of five folds; written anew
    each time.

    Args:
        folders: result folders of one cohort, evaluated alike.
        out: result folder for robustness.json and outcomes.parquet; there are no pictures.
        title: heading of the result.
    """
    import pyarrow.parquet as pq

    from robustmri.evaluation.nearest_neighbour import REMEMBERED, pool_memory
    from robustmri.evaluation.pool import pool_results

    folders = as_folders(folders)
    result, outcomes = pool_results(folders, title=title)
    remembered, baseline = pool_memory(folders)
    tables = {"outcomes.parquet": outcomes, REMEMBERED: remembered}
    for name, table in tables.items():
        if table is not None:
            with atomic_file(Path(out) / name) as partial:
                pq.write_table(table, partial)
    result = msgspec.structs.replace(result, files=hash_files(out, list(tables)), baseline=baseline)
    save_result(result, out)
    return result
