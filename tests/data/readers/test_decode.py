"""An image file becomes the grey values that it is to show, or it is told what was not heeded."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from robustmri.core.errors import DataError
from robustmri.data import limits
from robustmri.data.readers import decode
from robustmri.data.readers.decode import FORMATS, not_black, read_picture
from scans import draw

GREY = draw(1, 0)[:48, :40].copy()
LEVELS = Image.fromarray(GREY)
COLOURS = Image.merge("RGB", [LEVELS, LEVELS, LEVELS.transpose(Image.Transpose.ROTATE_180)])
HALF = LEVELS.point([0] * 128 + [255] * 128)
DEEP = GREY.astype(np.uint16) * 257


def encode(image: Image.Image, kind: str, **settings: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def tiff(
    values: np.ndarray, *, white_is_zero: bool = False, kind: int = 1, bits: int | None = None
) -> bytes:
    """A TIFF file without compression, little-endian; `kind` is its sample format."""
    height, width = values.shape
    content = values.astype(values.dtype.newbyteorder("<")).tobytes()
    tags = {
        256: width,
        257: height,
        258: bits or values.dtype.itemsize * 8,
        259: 1,
        262: int(not white_is_zero),
        273: 8 + 2 + 10 * 12 + 4,
        277: 1,
        278: height,
        279: len(content),
        339: kind,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


@pytest.mark.parametrize(
    ("kind", "settings", "lossy"),
    [
        ("JPEG", {"quality": 60}, True),
        ("TIFF", {"compression": "jpeg"}, True),
        ("WEBP", {"quality": 30}, True),
        ("WEBP", {"lossless": True}, False),
        ("JPEG2000", {"irreversible": True, "quality_layers": [8]}, True),
        ("JPEG2000", {}, False),
        ("PNG", {}, False),
    ],
)
def test_a_mask_is_no_larger_for_its_compression(
    kind: str, settings: dict[str, object], lossy: bool
) -> None:
    inside = np.zeros((64, 64), bool)
    rows, columns = np.mgrid[:64, :64]
    inside[(rows - 30) ** 2 + (columns - 35) ** 2 < 150] = True
    picture = read_picture(encode(Image.fromarray(inside.astype(np.uint8) * 255), kind, **settings))
    mask = not_black(picture.pixels, picture.lossy)
    assert picture.lossy == lossy
    assert mask is not None
    assert (mask != inside).sum() <= 8 * lossy, "a few pixels of the edge"
    assert (picture.pixels > 0).sum() >= inside.sum() + 50 * lossy


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_by_its_content(kind: str) -> None:
    content = encode(LEVELS, kind, **({"lossless": True} if kind == "WEBP" else {}))
    picture = read_picture(content)
    assert np.abs(picture.pixels.astype(int) - GREY).max() <= (12 if kind == "JPEG" else 0)
    assert picture.notes == ()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_sixteen_bits_are_kept(kind: str) -> None:
    assert np.array_equal(read_picture(encode(Image.fromarray(DEEP), kind)).pixels, DEEP)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (GREY, 1),
        (GREY.view(np.int8), 2),
        (DEEP, 1),
        ((DEEP ^ 0x8000).view(np.int16), 2),
        (DEEP.astype(np.uint32) * 65537, 1),
        (DEEP.astype(np.int32) - 30000, 2),
        (DEEP.astype(np.float32), 3),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_depth_and_sign_of_a_tiff(values: np.ndarray, kind: int) -> None:
    assert np.array_equal(read_picture(tiff(values, kind=kind)).pixels, values)


@pytest.mark.parametrize("values", [GREY, DEEP], ids=["8 bit", "16 bit"])
def test_white_is_zero(values: np.ndarray) -> None:
    inverted = np.iinfo(values.dtype).max - values
    assert np.array_equal(read_picture(tiff(inverted, white_is_zero=True)).pixels, values)


def test_white_is_zero_in_floating_point() -> None:
    values = read_picture(tiff(DEEP.astype(np.float32), white_is_zero=True, kind=3)).pixels
    assert np.array_equal(values, -DEEP.astype(np.float32))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_orientation_is_heeded(kind: str, orientation: int) -> None:
    turn = {
        2: np.fliplr,
        3: lambda image: np.rot90(image, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda image: np.rot90(image, 3),
        7: lambda image: np.rot90(image, 2).T,
        8: np.rot90,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    picture = read_picture(encode(LEVELS, kind, exif=exif, **how))
    assert np.abs(picture.pixels.astype(int) - turn(GREY)).max() <= 2
    assert picture.notes == ("turned as its EXIF orientation says",)


TOLD: dict[str, tuple[Callable[[], bytes], str]] = {
    "alpha": (lambda: encode(Image.merge("LA", [LEVELS, HALF]), "PNG"), "transparent in places"),
    "alpha in TIFF": (
        lambda: encode(Image.merge("RGBA", [LEVELS] * 3 + [HALF]), "TIFF"),
        "transparent in places",
    ),
    "transparent level": (
        lambda: encode(LEVELS, "PNG", transparency=int(GREY[0, 0])),
        "transparent in places",
    ),
    "pages": (
        lambda: encode(LEVELS, "TIFF", save_all=True, append_images=[HALF]),
        "more than one page or frame",
    ),
    "frames": (
        lambda: encode(LEVELS, "GIF", save_all=True, append_images=[HALF]),
        "more than one page or frame",
    ),
    "profile": (lambda: encode(LEVELS, "PNG", icc_profile=b"gamma 4"), "a colour profile"),
    "resolution": (lambda: encode(LEVELS, "TIFF", dpi=(72, 144)), "not square"),
    "ratio": (lambda: encode(LEVELS, "JPEG", dpi=(72, 144)), "not square"),
    "gamma": (lambda: with_chunk(b"gAMA", struct.pack(">I", 100_000)), "a gamma"),
    "16-bit colours": (
        lambda: png(np.stack([DEEP] * 3, axis=2).byteswap().tobytes(), 16, 2),
        "16 bits a channel, of which 8 are read",
    ),
}


def chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(rows: bytes, bits: int, colour: int, size: tuple[int, int] = GREY.shape) -> bytes:
    height, width = size
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    each = len(rows) // height
    lines = b"".join(b"\0" + rows[at : at + each] for at in range(0, each * height, each or 1))
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_chunk(kind: bytes, content: bytes) -> bytes:
    whole = png(GREY.tobytes(), 8, 0)
    return whole[:33] + chunk(kind, content) + whole[33:]


@pytest.mark.parametrize("case", TOLD)
def test_what_is_changed_or_not_heeded_is_told(case: str) -> None:
    make, words = TOLD[case]
    (note,) = read_picture(make()).notes
    assert words in note


def test_what_is_transparent_becomes_black() -> None:
    grey = read_picture(encode(Image.merge("LA", [LEVELS, HALF]), "PNG")).pixels
    assert np.array_equal(grey, np.where(GREY >= 128, GREY, 0))
    assert np.array_equal(
        read_picture(encode(Image.merge("LA", [LEVELS, HALF]), "TIFF")).pixels, grey
    )


@pytest.mark.parametrize(
    "content",
    [
        encode(COLOURS, "PNG"),
        encode(COLOURS, "JPEG", quality=100, subsampling=0),
        encode(COLOURS.quantize(256), "PNG"),
        encode(Image.merge("RGBA", [*COLOURS.split(), LEVELS.point([255] * 256)]), "PNG"),
    ],
    ids=["PNG", "JPEG", "palette", "opaque"],
)
def test_colours_are_kept(content: bytes) -> None:
    picture = read_picture(content)
    assert (picture.pixels.shape, picture.notes) == ((*GREY.shape, 3), ())
    assert np.abs(picture.pixels.astype(int) - np.asarray(COLOURS)).mean() < 4


def test_grey_in_three_channels_loses_nothing() -> None:
    for image in (Image.merge("RGB", [LEVELS] * 3), Image.merge("RGBA", [LEVELS] * 3 + [LEVELS])):
        opaque = image.convert("RGB")
        assert read_picture(encode(opaque, "PNG")).notes == ()
        assert np.array_equal(read_picture(encode(opaque, "PNG")).pixels, GREY)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GIF89a",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 48\n%%EndComments\n(secret) run\n",
        encode(LEVELS, "PPM"),
        encode(LEVELS, "ICO"),
        encode(LEVELS, "PDF"),
        b"\0" * 128 + b"DICM" + b"\0" * 99,
    ],
    ids=["nothing", "cut", "PostScript", "PPM", "ICO", "PDF", "DICOM"],
)
def test_other_formats_are_not_even_tried(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("another program was started")

    monkeypatch.setattr("subprocess.Popen", start)
    with pytest.raises((DataError, EOFError, OSError)) as caught:
        read_picture(content)
    assert "not an image" in str(caught.value) or content == b"GIF89a"


@pytest.mark.parametrize("size", [(30_000, 30_000), (1, 65_000), (65_000, 1), (10_000, 8_000)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_claimed_sizes_are_looked_at_before_memory_is_asked_for(
    kind: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    height, width = size
    small = encode(LEVELS, kind)
    content = {
        "PNG": lambda: png(b"", 8, 0, size),
        "TIFF": lambda: (
            tiff(np.zeros((1, 1), np.uint8))
            .replace(struct.pack("<HHII", 256, 4, 1, 1), struct.pack("<HHII", 256, 4, 1, width))
            .replace(struct.pack("<HHII", 257, 4, 1, 1), struct.pack("<HHII", 257, 4, 1, height))
        ),
        "BMP": lambda: small[:18] + struct.pack("<ii", width, height) + small[26:],
        "GIF": lambda: small[:6] + struct.pack("<HH", width, height) + small[10:],
    }[kind]()

    def load(*_: object) -> None:
        raise AssertionError("memory was asked for")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile.load", load, raising=False)
    with pytest.raises(DataError, match=r"claims \d+ x \d+ pixels.*the limit is 67108864"):
        read_picture(content)


def test_a_raised_limit_is_heeded_beyond_that_of_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    assert np.array_equal(read_picture(encode(LEVELS, "PNG")).pixels, GREY)
    monkeypatch.setenv(limits.MAX_PIXELS, "2303")
    with pytest.raises(DataError, match="40 x 48 pixels, 2304 once it is padded"):
        read_picture(encode(LEVELS, "PNG"))
    monkeypatch.setenv(limits.MAX_PIXELS, "2304")
    assert np.array_equal(read_picture(encode(LEVELS, "PNG")).pixels, GREY)


def test_large_slices_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LARGE", GREY.size - 1)
    monkeypatch.setattr(decode, "_flat", lambda *_: pytest.fail("not a picture in colours"))
    seen = []
    monkeypatch.setattr(
        decode, "_has_second_frame", lambda _: seen.append(limits._one_at_a_time.locked())
    )
    read_picture(encode(LEVELS, "PNG"))
    assert seen == [True]
    assert not limits._one_at_a_time.locked()
