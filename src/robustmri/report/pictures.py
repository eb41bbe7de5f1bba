"""The poster's picture: a slice, the change, the attacked slice, the tumour outlined; from
`examples.npz`.
"""

from __future__ import annotations

import base64
import io
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError, ResultError
from robustmri.core.files import system_error
from robustmri.core.sizes import sides
from robustmri.core.zips import open_zip
from robustmri.results.schema import Example, RobustnessReport

MOST_BYTES = 1 << 30
ARRAYS = ("clean", "attacked", "sign", "mask")
Plane = npt.NDArray[Any]


def load_examples(folder: Path | str, report: RobustnessReport) -> dict[str, Plane] | None:
    """Arrays of `folder/examples.npz`, shape (k, h, w) each, in colour (k, h, w, 3) but for the
    masks; None where no pictures were kept.

    Raises:
        ResultError: damaged, or not the examples that the report speaks of.
    """
    path = Path(folder) / "examples.npz"
    if not report.examples or not path.is_file():
        return None
    (height, width), channels = sides(report.cohort.size), report.cohort.channels
    # Seven bytes a value and one a pixel in all four arrays, and their heads.
    pixels = len(report.examples) * height * width
    most = min((7 * channels + 1) * pixels + 4096, MOST_BYTES)
    try:
        with open_zip(path, most_bytes=most):
            pass
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ARRAYS}
    except (DataError, OSError, MemoryError, ValueError, KeyError, EOFError, zlib.error) as error:
        raise system_error(error, path) or ResultError(
            f"{path} is damaged or incomplete ({error}). Evaluate again."
        ) from error
    needed = 1 + max(example.position for example in report.examples)
    shapes = {array.shape for array in arrays.values()}
    wanted = (len(arrays["mask"]), height, width)
    colours = (*wanted, 3) if channels == 3 else wanted
    if shapes != {wanted, colours} or arrays["mask"].shape != wanted or wanted[0] < needed:
        raise ResultError(
            f"{path} should hold {needed} images under each of {', '.join(ARRAYS)}, got shapes "
            f"{sorted(shapes)}. Evaluate again."
        )
    return arrays


def load_maps(folder: Path | str, report: RobustnessReport) -> dict[str, Plane] | None:
    """Title of each method to the maps of the examples, uint8 of shape (k, height, width); None
    where none were kept.

    Raises:
        ResultError: damaged, or not of the examples that the report speaks of.
    """
    path = Path(folder) / "saliency.npz"
    if not report.saliency or not report.examples or not path.is_file():
        return None
    shape, k = sides(report.cohort.size), 1 + max(example.position for example in report.examples)
    titles = {one.method: one.title for one in report.saliency}
    try:
        with open_zip(
            path, most_bytes=min(len(titles) * (k * math.prod(shape) + 4096), MOST_BYTES)
        ):
            pass
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            maps = {title: file[name] for name, title in titles.items() if name in file.files}
    except (DataError, OSError, MemoryError, ValueError, KeyError, EOFError, zlib.error) as error:
        raise system_error(error, path) or ResultError(
            f"{path} is damaged or incomplete ({error}). Evaluate again."
        ) from error
    if any((one.shape, one.dtype) != ((k, *shape), np.uint8) for one in maps.values()):
        raise ResultError(f"{path} should hold {k} maps by each method. Evaluate again.")
    return maps


def encode_png(image: Plane, *, colours: int | None = None) -> str:
    """8-bit image, shape (h, w) or (h, w, 3), as a `data:` address."""
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.uint8))
    if colours:
        picture = picture.quantize(colours)
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def trace_outline(mask: Plane) -> str:
    """SVG path around the true pixels, one closed curve per border, holes included.

    The corners of the pixel edges become control points, so that the outline is smooth at any
    magnification.

    >>> trace_outline(np.array([[False, False], [False, True]]))
    'M1.5 1Q2 1 2 1.5Q2 2 1.5 2Q1 2 1 1.5Q1 1 1.5 1Z'
    """
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    onward: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, column in np.argwhere(padded):
        x, y = int(column) - 1, int(row) - 1
        # Clockwise around the pixel, so that borders of neighbours join head to tail.
        if not padded[row - 1, column]:
            onward.setdefault((x, y), []).append((x + 1, y))
        if not padded[row, column + 1]:
            onward.setdefault((x + 1, y), []).append((x + 1, y + 1))
        if not padded[row + 1, column]:
            onward.setdefault((x + 1, y + 1), []).append((x, y + 1))
        if not padded[row, column - 1]:
            onward.setdefault((x, y + 1), []).append((x, y))
    path = []
    while onward:
        corners = [min(onward)]
        while corners[-1] in onward:
            following = onward[corners[-1]]
            corners.append(following.pop())
            if not following:
                del onward[corners[-2]]
        path.append(_smooth(corners[:-1]))
    return "".join(path)


def _smooth(corners: Sequence[tuple[int, int]]) -> str:
    def middle(place: int) -> str:
        (x0, y0), (x1, y1) = corners[place % len(corners)], corners[(place + 1) % len(corners)]
        return f"{(x0 + x1) / 2:g} {(y0 + y1) / 2:g}"

    curves = [
        f"Q{corner[0]} {corner[1]} {middle(place)}"
        for place, corner in enumerate([*corners[1:], corners[0]], start=1)
    ]
    return f"M{middle(0)}" + "".join(curves) + "Z"


class Picture(msgspec.Struct, frozen=True):
    """One case, ready to show; images are `data:` addresses, `height` and `width` in pixels."""

    example: Example
    height: int
    width: int
    clean: str
    sign: str
    change: str
    attacked: str
    outline: str


def _eight_bit(images: Plane) -> Plane:
    return np.clip(np.rint(images * 255.0), 0, 255).astype(np.uint8)


def make_picture(example: Example, arrays: dict[str, Plane]) -> Picture:
    """Panels of one example; grey in the change means none, white and black the largest one, up and
    down. In colour each channel of the change is shown so by itself.
    """
    place = example.position
    clean = arrays["clean"][place].astype(np.float64) / 65535.0
    attacked = np.clip(arrays["attacked"][place].astype(np.float64), 0.0, 1.0)
    change = attacked - clean
    # An untouched image differs by rounding; enlarged, that would look like an attack.
    largest = max(float(np.abs(change).max()), 0.1 / 255)
    return Picture(
        example=example,
        height=int(clean.shape[0]),
        width=int(clean.shape[1]),
        clean=encode_png(_eight_bit(clean)),
        sign=encode_png(_eight_bit((arrays["sign"][place].astype(np.float64) + 1) / 2)),
        change=encode_png(
            _eight_bit((change / largest + 1) / 2), colours=16 if clean.ndim == 2 else 64
        ),
        attacked=encode_png(_eight_bit(attacked)),
        outline=trace_outline(arrays["mask"][place]),
    )


def choose_examples(
    examples: Sequence[Example], classes: Sequence[str], most: int = 3
) -> list[tuple[str, list[Example]]]:
    """At most `most` examples of each class, in the order of the evaluation."""
    chosen = [
        (label, [example for example in examples if example.label == label][:most])
        for label in classes
    ]
    return [(label, found) for label, found in chosen if found]
