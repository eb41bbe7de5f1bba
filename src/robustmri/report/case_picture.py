"""The picture of one case: slice, change and attacked slice side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

PANEL, MARGIN, CAPTION = 384, 16, 64
PAPER, INK = (255, 255, 255), (20, 20, 20)
DARKER, BRIGHTER = np.array([33, 102, 172]), np.array([230, 97, 1])
"""Blue and orange, which most colour-blind people can tell apart."""

Plane = npt.NDArray[Any]


def draw_case(slice_: Plane, attacked: Plane, *, before: str, after: str) -> Image.Image:
    """Draw the three panels with their captions.

    Args:
        slice_: in [0, 1], shape (h, w), or (h, w, 3) in colour.
        attacked: likewise.
        before: answer about the slice.
        after: answer about the attacked slice; "" where nothing changed the answer.
    """
    from PIL import Image, ImageDraw, ImageFont

    change = attacked - slice_
    largest = float(np.abs(change).max())
    magnified = f"{1 / largest:.0f} times" if largest else "none found"
    panels = (
        (_shown(slice_), "Slice", f"answer: {before}"),
        (_signed(change), "Change", f"enlarged {magnified}" if largest else magnified),
        (_shown(attacked), "Attacked slice", f"answer: {after or before}"),
    )
    high = round(PANEL * slice_.shape[0] / slice_.shape[1])
    canvas = Image.new("RGB", (3 * PANEL + 4 * MARGIN, high + 2 * MARGIN + CAPTION), PAPER)
    pen = ImageDraw.Draw(canvas)
    bold, plain = ImageFont.load_default(18), ImageFont.load_default(15)
    for place, (pixels, title, words) in enumerate(panels):
        left = MARGIN + place * (PANEL + MARGIN)
        panel = Image.fromarray(pixels).resize((PANEL, high), Image.Resampling.NEAREST)
        canvas.paste(panel, (left, MARGIN))
        pen.text((left, MARGIN + high + 10), title, fill=INK, font=bold)
        pen.text((left, MARGIN + high + 36), _shortened(words), fill=INK, font=plain)
    return canvas


def _shortened(words: str, most: int = 48) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in words)
    return shown if len(shown) <= most else f"{shown[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def _shown(image: Plane) -> npt.NDArray[np.uint8]:
    levels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    return levels if levels.ndim == 3 else np.repeat(levels[:, :, None], 3, axis=2)


def _signed(change: Plane) -> npt.NDArray[np.uint8]:
    """White where nothing changed, orange where it got brighter, blue where darker. In colour each
    channel by itself, around grey.
    """
    share = change / max(float(np.abs(change).max()), 1e-12)
    if change.ndim == 3:
        return np.asarray(np.rint(255 * (share + 1) / 2), dtype=np.uint8)
    colour = np.where(share[:, :, None] > 0, BRIGHTER, DARKER)
    mixed = 255 + np.abs(share[:, :, None]) * (colour - 255)
    return np.asarray(np.rint(mixed), dtype=np.uint8)
