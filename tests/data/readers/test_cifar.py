"""CIFAR-10's binary files, byte for byte as its page describes them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from formats import write_cifar
from robustmri.core.errors import DataError
from robustmri.data.readers.cifar import ADDRESS, NAMES, Cifar10
from robustmri.data.readers.source import LeftOut
from robustmri.data.sources import open_source
from robustmri.verbs.prepare import prepare

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
LABELS = [0, 9, 3, 3, 5, 0]
BRIGHTNESS = np.array([0.299, 0.587, 0.114])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As the archive unpacks."""
    own = tmp_path / "cifar-10-batches-bin"
    write_cifar(own / "data_batch_1.bin", PIXELS[:4], LABELS[:4])
    write_cifar(own / "test_batch.bin", PIXELS[4:], LABELS[4:])
    (own / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    (own / "readme.html").write_text("<html>")
    return tmp_path


@pytest.mark.parametrize("place", ["", "cifar-10-batches-bin"])
def test_each_photograph_is_read_to_the_value(folder: Path, place: str) -> None:
    source = open_source(folder / place)
    assert isinstance(source, Cifar10)
    items = list(source.read())
    slices, left = items[:6], items[6:]
    assert [item.label for item in slices] == [NAMES[label] for label in LABELS]
    assert [item.case_id for item in slices][3:5] == ["data_batch_1_3", "test_batch_0"]
    assert left == [LeftOut("readme.html", "not a batch of CIFAR-10 by its name")]
    for item, pixels in zip(slices, PIXELS, strict=True):
        grey = item.image if item.image.ndim == 2 else item.image @ BRIGHTNESS
        np.testing.assert_allclose(grey, pixels @ BRIGHTNESS, atol=0.51)


def test_every_second_of_each_file_if_asked(folder: Path) -> None:
    chosen = list(open_source(folder, slices="every:2").read())
    assert [item.source for item in chosen][:3] == [
        "data_batch_1.bin/0",
        "data_batch_1.bin/2",
        "test_batch.bin/0",
    ]
    one = list(open_source(folder / "cifar-10-batches-bin" / "test_batch.bin").read())
    assert [item.label for item in one] == ["dog", "airplane"]


def test_it_becomes_a_cohort(folder: Path, tmp_path: Path) -> None:
    cohort = prepare(folder, tmp_path / "cohort", size=32, split="none")
    assert (len(cohort), cohort.classes) == (6, ("airplane", "cat", "dog", "truck"))
    assert "not kept" in " ".join(cohort.notes)


@pytest.mark.parametrize("name", ["data_batch_1", "cifar-10-batches-py/test_batch"])
def test_pickles_are_refused_with_the_address_of_the_binary_version(
    tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(pickle.dumps({b"data": 1}))
    with pytest.raises(DataError, match=f"could run code.*{ADDRESS}"):
        open_source(tmp_path)


def test_damaged_files_are_said(folder: Path) -> None:
    own = folder / "cifar-10-batches-bin"
    with open(own / "data_batch_1.bin", "ab") as stream:
        stream.write(b"?")
    write_cifar(own / "test_batch.bin", PIXELS[4:], [10, 1])
    items = list(open_source(folder).read())
    reasons = [f"{item.source}: {item.reason}" for item in items if isinstance(item, LeftOut)]
    assert "data_batch_1.bin: it has 12293 bytes" in reasons[0]
    assert "test_batch.bin/0: its class is none of ten" in reasons[1]
    assert [item.label for item in items if not isinstance(item, LeftOut)] == ["automobile"]
    (own / "batches.meta.txt").write_text("cat dog")
    with pytest.raises(DataError, match="names 2 classes, expected 10"):
        list(open_source(folder).read())
