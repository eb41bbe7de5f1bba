"""Finished parts of a long run as files, shared between processes: a rerun after a kill does only
what is missing.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustmri.core import processes
from robustmri.core.errors import DataError
from robustmri.core.files import fingerprint
from robustmri.core.sealed import read_sealed, write_sealed

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = ".shards"


def shards_of(folder: Path, what: Sequence[Any]) -> Path:
    """Where the shards of a run lie that `what` decides, below its folder."""
    return folder / FOLDER / fingerprint(list(what))


def run_shards(
    paths: Sequence[Path],
    make: Callable[[int], pa.Table],
    tell: Callable[[int, pa.Table, int, int], None],
) -> pa.Table:
    """All shards in one table, those that are missing made first; each process makes its own.

    Args:
        paths: file of each shard.
        make: number of a shard to its table.
        tell: told number and table of each shard of this process, how many are done, of how many.
    """
    import pyarrow as pa

    own = range(len(paths))[processes.rank() :: processes.size()]
    found = {place: table for place in own if (table := read_shard(paths[place])) is not None}
    for place, table in found.items():  # All at once: what is left is reckoned from the others.
        tell(place, table, len(found), len(own))
    done = set(found)
    found.clear()
    for place in own:
        if place not in done:
            table = make(place)
            write_shard(paths[place], table)
            done.add(place)
            tell(place, table, len(done), len(own))
    processes.wait_for_all()

    def whole(place: int) -> pa.Table:
        table = read_shard(paths[place])
        return make(place) if table is None else table  # Something outside has removed it.

    # Not held until now: between the images that come and go, small tables that stay keep the heap
    # from shrinking, by twenty times what they hold.
    return pa.concat_tables([whole(place) for place in range(len(paths))])


def write_shard(path: Path, table: pa.Table) -> None:
    """Write a shard, whole or not at all."""
    import pyarrow.parquet as pq

    content = io.BytesIO()
    pq.write_table(table, content)
    write_sealed(path, content.getbuffer())


def read_shard(path: Path) -> pa.Table | None:
    """A finished shard; None where there is none, or a damaged one, which is then done again."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(pa.BufferReader(read_sealed(path)))
    except (FileNotFoundError, DataError):
        return None


def clear_shards(folder: Path) -> None:
    """Remove the shards of a run whose merged result is written."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def divide(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Parts of at most `size` rows, in order.

    >>> list(divide([3, 4, 5, 6, 7], 2))
    [[3, 4], [5, 6], [7]]
    """
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
