"""Cohorts of three channels, and of other shapes than squares."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colours import draw_lesion
from robustmri.core.errors import DataError, SettingsError
from robustmri.core.sizes import parse_size
from robustmri.data.cohort import Cohort
from robustmri.data.derived import spread_change, write_derived, write_png
from robustmri.data.intensity import resize, scale, to_grey
from robustmri.data.leakage import near_duplicates
from robustmri.data.loaders import load_images, planes_first, planes_last
from robustmri.data.one_scan import read_scan
from robustmri.data.packed import pack_cohort, unpack_cohort
from robustmri.data.prepare import write_cohort
from robustmri.data.readers.source import RawSlice
from robustmri.data.regions import find_region
from robustmri.data.seen import count_known, note_seen
from robustmri.data.split import make_split
from scans import SliceList, slices_of

HUES = np.array([[[200, 100, 50], [40, 80, 160]]], dtype=np.uint8)


def hue(image: np.ndarray) -> np.ndarray:
    """Differences between channels as shares of the largest: what hue is made of."""
    apart = image.astype(float) - image.min(axis=2, keepdims=True)
    return apart / apart.max(axis=2, keepdims=True)


def coloured(count: int = 12, grey: int = 0) -> list[RawSlice]:
    """Slices of `count` patients, the first `grey` of them grey."""
    made = [item for item in slices_of(count, 1, size=16) if isinstance(item, RawSlice)]
    return [
        replace(
            item,
            image=draw_lesion(number % 2, number, 0) if number >= grey else item.image,
            mask=None,
            label=("melanoma", "naevus")[number % 2],
        )
        for number, item in enumerate(made)
    ]


@pytest.mark.parametrize("rule", ["full", "minmax"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_hues_are_kept(rule: str, dtype: type) -> None:
    image = HUES.astype(dtype) * (257 if dtype == np.uint16 else 1)
    scaled = scale(image, rule)
    np.testing.assert_allclose(hue(scaled), hue(image), atol=1e-5)
    whole = image / np.iinfo(dtype).max
    if rule == "full":
        np.testing.assert_allclose(scaled, whole, atol=1e-6)


def test_a_rule_that_changes_hues_or_has_no_range_is_refused() -> None:
    with pytest.raises(SettingsError, match="changes hues"):
        scale(HUES, "percentile")
    for image in (HUES.astype(np.int16), HUES.astype(np.float32)):
        with pytest.raises(DataError, match="have no full range"):
            scale(image, "full")
    with pytest.raises(DataError, match=r"every pixel is \[9 9 1\]"):
        scale(np.full((4, 4, 3), [9, 9, 1], np.uint8), "full")


def test_brightness_is_pillows() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_grey(image), np.asarray(Image.fromarray(image).convert("L")))


@pytest.mark.parametrize(
    ("shape", "size", "pad", "inside"),
    [
        ((4, 8), (8, 8), True, (slice(2, 6), slice(0, 8))),
        ((4, 8), (4, 8), True, (slice(0, 4), slice(0, 8))),
        ((4, 8), (8, 32), True, (slice(0, 8), slice(8, 24))),
        ((8, 4), (8, 8), True, (slice(0, 8), slice(2, 6))),
        ((4, 8), (8, 8), False, (slice(0, 8), slice(0, 8))),
        ((4, 8, 3), (16, 16), True, (slice(4, 12), slice(0, 16))),
    ],
)
def test_the_aspect_ratio_is_kept_by_padding(
    shape: tuple[int, ...],
    size: tuple[int, int],
    pad: bool,
    inside: tuple[slice, slice],
) -> None:
    resized = resize(np.ones(shape), size, pad=pad)
    assert resized.shape == (*size, *shape[2:])
    expected = np.zeros_like(resized)
    expected[inside] = 1
    np.testing.assert_allclose(resized, expected, atol=1e-6)
    spread = spread_change(resized, shape, pad=pad)
    np.testing.assert_allclose(spread, np.ones(shape), atol=1e-6)


@pytest.mark.parametrize(
    "said", ["0x5", "4", "-8x16", "16x", "x16", "8x8x8", "1e3", "", (8,) * 3, 8.5, True, "5000"]
)
def test_a_size_that_is_none_is_one_sentence(said: object) -> None:
    with pytest.raises(SettingsError, match=r"^size must ") as error:
        parse_size(said)
    assert str(error.value).count(". ") == 0


@pytest.mark.parametrize(
    ("grey", "said", "channels", "told"),
    [
        (0, None, 3, "channels: 3, a guess: 12 of the first 12"),
        (0, 1, 1, "has colours, which become grey"),
        (0, 3, 3, ""),
        (7, None, 1, "has colours, which become grey"),
        (12, None, 1, ""),
        (12, 3, 3, "is grey, and is repeated in three channels"),
    ],
)
def test_channels_are_guessed_and_said(
    grey: int, said: int | None, channels: int, told: str, tmp_path: Path
) -> None:
    items = coloured(12, grey)
    cohort = write_cohort(SliceList(items[:12]), tmp_path / "c", size=16, channels=said)
    assert cohort.channels == channels
    assert cohort.intensity == ("full" if channels == 3 else "minmax")
    assert load_images(cohort, range(3)).shape == (3, channels, 16, 16)
    assert any(told in note for note in cohort.notes) if told else cohort.notes[1:] == ()
    version = json.loads((tmp_path / "c" / "cohort.json").read_bytes())["schema_version"]
    assert version == (2 if channels == 3 else 1)


def test_a_coloured_mark_makes_no_picture_in_colour(tmp_path: Path) -> None:
    marked = []
    for item in slices_of(12, 1, size=32):
        assert isinstance(item, RawSlice)
        image = np.repeat(item.image[:, :, None], 3, axis=2)
        image[:3, :10] = (255, 0, 0)
        marked.append(replace(item, image=image, mask=None))
    assert write_cohort(SliceList(marked), tmp_path / "c", size=16).channels == 1


@pytest.fixture(scope="module")
def oblong(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Twelve slices in colour, 24 x 40 px, the last of them a copy of the one before."""
    items = coloured(13)
    items[12] = replace(items[12], image=items[11].image, label=items[11].label)
    return write_cohort(
        SliceList(items),
        tmp_path_factory.mktemp("oblong") / "cohort",
        size=(24, 40),
        split=make_split,
    )


def test_an_old_head_says_what_it_always_said(oblong: Cohort, tmp_path: Path) -> None:
    """What is new of a cohort is no part of the fingerprint of the kind that there always was."""
    square = write_cohort(SliceList(coloured(12)), tmp_path / "c", size=16, channels=1)
    head = json.loads((square.root / "cohort.json").read_bytes())
    old = {name: value for name, value in head.items() if name not in ("channels", "pad")}
    (square.root / "cohort.json").write_text(json.dumps(old))
    again = Cohort.open(square.root)
    assert (again.channels, again.pad, again.fingerprint) == (1, True, square.fingerprint)
    head = json.loads((oblong.root / "cohort.json").read_bytes())
    (square.root / "cohort.json").write_text(json.dumps(head | {"size": [24, 0]}))
    with pytest.raises(DataError, match="is damaged: a size of"):
        Cohort.open(square.root)


def test_pixels_travel_in_a_pack(oblong: Cohort, tmp_path: Path) -> None:
    pack_cohort(oblong, tmp_path / "cohort.zip")
    there = unpack_cohort(tmp_path / "cohort.zip", tmp_path / "there")
    assert there.shape == oblong.shape == (3, 24, 40)
    assert np.abs(there.images / 257.0 - oblong.images / 257.0).max() <= 0.5


def test_copies_and_known_slices_are_seen(oblong: Cohort) -> None:
    assert (11, 12) in near_duplicates(oblong.images)
    assert count_known(note_seen(oblong, [11]), oblong, [11, 12, 3])[1][:2] == [11, 12]


def test_planes_go_both_ways(oblong: Cohort) -> None:
    images = load_images(oblong, [0, 1])
    assert images.shape == (2, 3, 24, 40)
    np.testing.assert_array_equal(
        planes_last(images).numpy(), oblong.images[:2].astype(np.float32) / 65535
    )
    assert bool((planes_first(planes_last(images)) == images).all())


def test_a_head_is_no_region_of_a_picture_in_colour(oblong: Cohort) -> None:
    with pytest.raises(DataError, match="'brain' is about a bright head on black"):
        find_region(oblong, [0], "brain")


def test_sixteen_bits_of_colour_are_written(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((5, 7, 3)).astype(np.float32)
    write_png(tmp_path / "a.png", image)
    picture = read_scan(tmp_path / "a.png")
    assert picture.notes == ("has 16 bits a channel, of which 8 are read",)
    assert np.abs(picture.image / 255 - image).max() < 1 / 255
    write_png(tmp_path / "b.png", image[:, :, 0])
    assert np.abs(read_scan(tmp_path / "b.png").image / 65535 - image[:, :, 0]).max() <= 0.5 / 65535


def test_a_dicom_file_in_colour_is_derived(tmp_path: Path) -> None:
    from formats import write_dicom

    pixels = np.full((10, 12, 3), 100, np.uint8)
    pixels[:5, :, 0] = 200
    write_dicom(tmp_path / "1.dcm", pixels)
    scan = read_scan(tmp_path / "1.dcm")
    np.testing.assert_array_equal(scan.image, pixels)
    change = np.zeros((12, 12, 3), np.float32)
    change[:, :, 1] = 10 / 255
    write_derived(tmp_path / "2.dcm", scan, change, scale(scan.image, "full"))
    moved = read_scan(tmp_path / "2.dcm").image.astype(int)
    np.testing.assert_array_equal(moved - pixels, np.broadcast_to([0, 10, 0], pixels.shape))
