"""Small synthetic heads, and the three layouts in which slices come."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
from PIL import Image, ImageDraw

from robustmri.data.readers.source import LeftOut, RawSlice

LABELS = ("meningioma", "glioma", "pituitary")
SHARED = Path(__file__).parents[2] / "shared" / "data" / "t1ce"


def draw(patient: int, number: int, size: int = 64) -> np.ndarray:
    """One slice of a patient, uint8: a coarse random pattern, shifted a little from slice to
    slice.
    """
    coarse = np.random.default_rng(patient).integers(0, 255, (8, 8)).astype(np.uint8)
    large = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    return np.roll(large, number * size // 64, axis=1)


class SliceList:
    """A source made of given slices."""

    name = "list"
    synthetic = True
    patient_ids = True

    def __init__(self, items: list[RawSlice | LeftOut]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def read(self) -> Iterator[RawSlice | LeftOut]:
        yield from self.items


def slices_of(
    patients: int = 12,
    each: int = 4,
    *,
    size: int = 64,
    fold: Callable[[int], int | None] = lambda patient: None,
) -> list[RawSlice | LeftOut]:
    """Slices of `patients` patients, the classes in turn, number of slices `each` to `each` + 2."""
    items: list[RawSlice | LeftOut] = []
    for patient in range(patients):
        for number in range(each + patient % 3):
            mask = np.zeros((size, size), dtype=bool)
            mask[10:30, 20 : 30 + 2 * number] = True
            items.append(
                RawSlice(
                    case_id=f"{patient}-{number}",
                    label=LABELS[patient % 3],
                    patient_id=f"P{patient:03d}",
                    image=draw(patient, number, size),
                    mask=mask,
                    source=f"{patient}-{number}.png",
                    sha256=f"{patient:032d}{number:032d}",
                    fold=fold(patient),
                    plane="axial",
                )
            )
    return items


OUTLINE = [(20.3, 12.1), (41.0, 15.5), (38.2, 33.9), (24.0, 29.7)]


def write_csv_layout(folder: Path, count: int = 6) -> list[dict[str, str]]:
    """images/<id>.jpg and slices.csv."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(1, count + 1):
        patient = (number - 1) // 2
        Image.fromarray(draw(patient, number)).save(folder / "images" / f"{number}.jpg")
        border = " ".join(f"{x + number} {y}" for x, y in OUTLINE)
        values = (str(number), LABELS[patient % 3], f"MR{patient:03d}", border)
        rows.append(
            dict(zip(("slice_id", "label", "patient_id", "tumor_border_xy"), values, strict=True))
        )
    write_rows(folder / "slices.csv", rows)
    return rows


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_mat(
    path: Path,
    grey: np.ndarray,
    outline: list[tuple[float, float]],
    *,
    label: float = 1.0,
    patient: str = "MR000",
    mask: bool = True,
    rows_first: bool = True,
    leave: tuple[str, ...] = (),
) -> None:
    """One slice as MATLAB v7.3 stores it: transposed, the struct `cjdata`, behind a block of 512
    bytes.
    """
    canvas = Image.new("L", grey.shape[::-1], 0)
    ImageDraw.Draw(canvas).polygon(outline, fill=1)
    pairs = [(y, x) if rows_first else (x, y) for x, y in outline]
    fields = {
        "PID": np.array([[ord(letter)] for letter in patient], dtype=np.uint16),
        "image": grey.T,
        "label": np.array([[label]]),
        "tumorBorder": np.array([[value] for pair in pairs for value in pair]).T,
        "tumorMask": np.asarray(canvas).T,
    }
    if not mask:
        del fields["tumorMask"]
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        for key, value in fields.items():
            if key not in leave:
                group.create_dataset(key, data=value)
    with open(path, "r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def write_release(csv_folder: Path, out: Path, rows: list[dict[str, str]]) -> None:
    """The slices of a CSV folder, as the figshare release would hold them."""
    out.mkdir()
    for row in rows:
        grey = (
            np.asarray(Image.open(csv_folder / "images" / f"{row['slice_id']}.jpg")).astype(
                np.int16
            )
            * 16
        )
        values = [float(value) for value in row["tumor_border_xy"].split()]
        outline = list(zip(values[0::2], values[1::2], strict=True))
        write_mat(
            out / f"{row['slice_id']}.mat",
            grey,
            outline,
            label=1.0 + LABELS.index(row["label"]),
            patient=row["patient_id"],
        )
