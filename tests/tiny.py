"""A cohort that is learnt in seconds, and a network small enough to do it: for whatever runs from
file to file.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn

CLASSES = ("meningioma", "glioma", "pituitary")
PLACES = ((9, 9), (9, 22), (23, 15))
SIZE = 32


def draw_slice(kind: int, patient: int, number: int) -> np.ndarray:
    """A head with a bright spot, whose place is its class, under noise; uint8."""
    rng = np.random.default_rng([kind, patient, number])
    rows, columns = np.mgrid[:SIZE, :SIZE]
    head = ((rows - 15.5) ** 2 + (columns - 15.5) ** 2 < 15**2) * 60.0
    row, column = np.array(PLACES[kind]) + rng.normal(0, 2.0, 2)
    spot = rng.uniform(20, 120) * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 12)
    noisy = head + spot + (head > 0) * rng.normal(0, 30, head.shape)
    pixels: np.ndarray = np.clip(noisy, 0, 255).astype(np.uint8)
    return pixels


def write_scans(
    folder: Path, *, patients: int = 9, each: int = 4, classes: tuple[str, ...] = CLASSES
) -> Path:
    """images/ and slices.csv: `patients` patients of each class, `each` slices a patient."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for kind, label in enumerate(classes):
        for patient in range(patients):
            for number in range(each):
                slice_id = f"{label}-{patient}-{number}"
                Image.fromarray(draw_slice(kind, patient, number)).save(
                    folder / "images" / f"{slice_id}.png"
                )
                row, column = PLACES[kind]
                outline = (
                    f"{column - 3} {row - 3} {column + 3} {row - 3} {column + 3} {row + 3} "
                    f"{column - 3} {row + 3}"
                )
                rows.append((slice_id, label, f"{label}{patient:02d}", outline))
    with open(folder / "slices.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("slice_id", "label", "patient_id", "tumor_border_xy"))
        writer.writerows(rows)
    return folder


def tiny_network(
    name: str, classes: int, size: int | tuple[int, int], channels: int = 1, **shape: object
) -> nn.Sequential:
    """In place of `robustmri.models.backbones.build_network`: learns the task above in a few
    epochs, in a second.
    """
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(12 * 16, classes),
    )


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks agree in every bit of every parameter and buffer."""
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(value, states[1][name]) for name, value in states[0].items()
    )


Row = dict[str, Any]


def read_outcomes(folder: Path) -> list[Row]:
    """The rows of a result folder's outcomes.parquet."""
    rows: list[Row] = pq.read_table(folder / "outcomes.parquet").to_pylist()
    return rows


def rows_of(
    outcomes: list[Row], attack: str, eps: float | None = None, units: str = "image"
) -> list[Row]:
    """Rows of one attack, at one radius if it is given, in the order of the images."""
    rows = [row for row in outcomes if row["attack"] == attack]
    if eps is not None:
        rows = [row for row in rows if (row["eps"], row["eps_units"]) == (eps, units)]
    return sorted(rows, key=lambda row: row["index"])


def column(rows: list[Row], name: str) -> list[Any]:
    """One value of each row."""
    return [row[name] for row in rows]


def alike(one: Any, other: Any) -> bool:
    """Whether two tables hold the same, missing numbers included."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def plain(table: Any) -> Any:
        columns = [
            pc.if_else(pc.is_nan(column), None, column)
            if pa.types.is_floating(column.type)
            else column
            for column in table.columns
        ]
        return pa.table(columns, names=table.column_names)

    return bool(plain(one).equals(plain(other)))
