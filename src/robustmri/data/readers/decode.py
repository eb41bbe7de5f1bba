"""From the bytes of an image file to grey values or colours, from an outline to a mask."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.limits import check_pixels, large_ones_alone
from robustmri.data.readers.source import Array

if TYPE_CHECKING:
    from PIL import Image, ImageFile

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".bmp",
    ".tif",
    ".tiff",
    ".webp",
    ".jp2",
    ".j2k",
    ".gif",
)
# A file is what its bytes say, whatever its name says; formats that make Pillow start other
# programs (EPS, WMF) are not among them.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "JPEG2000", "GIF")
PHOTOMETRIC, BITS, SAMPLE_FORMAT, GREY_RESPONSE = 262, 258, 339, 291  # Tags of TIFF.
USUAL_GAMMA = 1 / 2.2
ROUNDING = 8  # Levels by which lossy formats colour what is grey.


@dataclass(frozen=True)
class Picture:
    """An image file as grey values, or as colours.

    Attributes:
        pixels: shape (h, w) of the file's own depth: 8-bit, 16-bit and floating point stay what
            they are; or (h, w, 3), 8-bit, where it has colours.
        notes: what was done to it, or is in the file and was not heeded.
        lossy: whether its compression changes values, by a little and also where they were 0.
    """

    pixels: Array
    notes: tuple[str, ...]
    lossy: bool = False


def read_picture(content: bytes) -> Picture:
    """Pixels of an image file, the way it is to be shown: turned as its EXIF says, white where it
    says that white is, what is transparent made black.

    Raises:
        DataError: no image of a known format, or one that claims too many pixels.
        OSError: it is truncated, or damaged in another way; other exceptions likewise.
    """
    from PIL import ImageOps

    image = _open(content)
    check_pixels(image.height, image.width)
    with image, large_ones_alone(image.width * image.height):
        notes = list(_not_heeded(image))
        tags: Any = getattr(image, "tag_v2", {})
        said = {tag: tags.get(tag) for tag in (PHOTOMETRIC, BITS, SAMPLE_FORMAT)}
        turned = image.getexif().get(0x0112, 1) not in (1, None)
        image.load()
        # Some formats are turned while they are loaded, and then no longer say that they need it.
        upright = ImageOps.exif_transpose(image)
        if turned:
            notes.append("turned as its EXIF orientation says")
        if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
            pixels = _deep(np.asarray(upright), said)
            if "transparency" in upright.info:
                notes.append("has a transparent grey value, which is not heeded")
        elif upright.mode in ("1", "L") and "transparency" not in upright.info:
            pixels = np.asarray(upright if upright.mode == "L" else upright.convert("L"))
            # Pillow reads signed bytes as if they had no sign.
            pixels = pixels.view(np.int8) if said[SAMPLE_FORMAT] == (2,) else pixels
        else:
            pixels = np.asarray(_flat(upright, notes))
        lossy = _is_lossy(image, content)
        if _has_second_frame(image):
            notes.append("has more than one page or frame, of which the first is read")
    return Picture(pixels, tuple(notes), lossy)


def _open(content: bytes) -> ImageFile.ImageFile:
    """`Image.open` of the formats above, which warns of large sizes by itself and has a limit of
    its own.
    """
    from PIL import Image

    Image.init()
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is None or accept(content[:16]) is True:
            try:
                return factory(io.BytesIO(content), "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # As `Image.open` does.
                continue
    raise DataError(
        f"not an image: {len(content)} bytes of no known format ({', '.join(FORMATS)}), or of a "
        "kind of it that is not read"
    )


def _not_heeded(image: ImageFile.ImageFile) -> Iterator[str]:
    """What a file says of how it is to be shown, and is not done."""
    raw = image.tile[0][3] if image.tile else ""
    raw = raw[0] if isinstance(raw, tuple) and raw else raw
    if isinstance(raw, str) and ";16" in raw and not image.mode.startswith(("I", "F")):
        yield "has 16 bits a channel, of which 8 are read"
    if image.info.get("icc_profile"):
        yield "has a colour profile, which is not applied"
    gamma = image.info.get("gamma", USUAL_GAMMA)
    if abs(gamma - USUAL_GAMMA) > 0.01:
        yield "has a gamma, which is not applied"
    if GREY_RESPONSE in getattr(image, "tag_v2", {}):
        yield "has a grey response curve, which is not applied"
    for key in ("dpi", "aspect", "jfif_density"):
        sides = image.info.get(key)
        if not isinstance(sides, tuple) or len(sides) != 2 or not all(sides):
            continue
        if abs(float(sides[0]) / float(sides[1]) - 1) > 0.01:
            yield "has pixels that are not square, which are read as if they were"
            return


def _deep(values: Array, said: dict[int, Any]) -> Array:
    """Values of 16 or 32 bits, black to white, whatever a TIFF file counts from."""
    bits = (said[BITS] or (values.dtype.itemsize * 8,))[0]
    if values.dtype == np.int32 and bits == 32 and said[SAMPLE_FORMAT] == (1,):
        values = values.view(np.uint32)  # Pillow has no unsigned mode of 32 bits.
    if said[PHOTOMETRIC] != 0:  # 0: white is zero.
        return values
    inverted: Array = 2**bits - 1 - values if values.dtype.kind == "u" else -values
    return inverted


def _flat(image: Image.Image, notes: list[str]) -> Image.Image:
    """Grey or colours, without transparency: on black. Colours that rounding made are none."""
    from PIL import Image, ImageChops

    if image.mode[-1] in "Aa" or "transparency" in image.info:
        full = image.convert("RGBA")
        if full.getchannel("A").getextrema() != (255, 255):
            full = Image.alpha_composite(Image.new("RGBA", full.size, (0, 0, 0, 255)), full)
            notes.append("is transparent in places, which become black")
        flat = full.convert("RGB")
    else:
        flat = image if image.mode == "RGB" else image.convert("RGB")
    red, green, blue = flat.split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        return green
    apart = [ImageChops.difference(green, other) for other in (red, blue)]
    if max(np.asarray(difference).max() for difference in apart) > ROUNDING:
        return flat
    return flat.convert("L")


def _is_lossy(image: ImageFile.ImageFile, content: bytes) -> bool:
    if image.format == "WEBP":
        return b"VP8L" not in content
    if image.format == "JPEG2000":
        start = content.find(b"\xff\x52", max(0, content.find(b"\xff\x4f\xff\x51")))
        return start >= 0 and content[start + 13 : start + 14] == b"\0"  # The 9-7 transform.
    in_tiff = image.info.get("compression") in ("jpeg", "tiff_jpeg")
    return image.format in ("JPEG", "MPO") or in_tiff


def _has_second_frame(image: ImageFile.ImageFile) -> bool:
    try:
        image.seek(1)
    except EOFError:
        return False
    except Exception:  # There is one, and it is damaged.
        return True
    return True


def rasterise(outline: Array, shape: tuple[int, int]) -> Array:
    """Mask of a polygon, its border included.

    Args:
        outline: corners, shape (n, 2), x before y, in pixels.
        shape: height and width of the mask.
    """
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (shape[1], shape[0]), 0)
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in outline], fill=1)
    return np.asarray(canvas).astype(bool)


def not_black(image: Array, lossy: bool = False) -> Array | None:
    """The mask that an image draws: its pixels that are not 0; None where all are.

    Args:
        image: shape (h, w), or (h, w, 3) in colour.
        lossy: whether it was compressed so that values near an edge are not 0 either; its mask are
            the pixels above half of its brightest value.

    >>> not_black(np.array([[0, 3, 250]]), lossy=True)
    array([[False, False,  True]])
    """
    bright: Array = image if image.ndim == 2 else image.max(axis=2)
    mask: Array = np.asarray(bright > (float(bright.max()) / 2 if lossy else 0))
    return mask if mask.any() else None
