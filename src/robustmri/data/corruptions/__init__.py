"""What a scanner does to a slice: one function each, five severities, a fixed seed."""

from robustmri.data.corruptions.table import (
    CORRUPTIONS,
    SEVERITIES,
    Corruption,
    corrupt,
    corrupt_slice,
    find_corruption,
)

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "Corruption",
    "corrupt",
    "corrupt_slice",
    "find_corruption",
]
