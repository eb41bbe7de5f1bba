"""Several evaluations of disjoint test sets as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from robustmri.core.files import atomic_file
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

    from robustmri.evaluation.pool import pool_results

    result, outcomes = pool_results(folders, title=title)
    with atomic_file(Path(out) / "outcomes.parquet") as partial:
        pq.write_table(outcomes, partial)
    result = msgspec.structs.replace(result, files=hash_files(out, ["outcomes.parquet"]))
    save_result(result, out)
    return result
