from __future__ import annotations

import io
import json
import zipfile
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from robustmri.core.errors import DataError, ResultError, RobustMRIError
from robustmri.core.zips import open_zip
from robustmri.data.packed import MOST_BYTES, pack_cohort, unpack_cohort
from robustmri.report.pictures import ARRAYS, load_examples
from robustmri.verbs.unpack import unpack


def write(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bag:
        for name, content in members:
            bag.writestr(name, content)
    return path


def test_what_is_small_enough_is_read(tmp_path):
    with open_zip(write(tmp_path / "z", [("a/b", b"12"), ("c", b"3")]), most_bytes=3) as bag:
        assert bag.read("a/b") == b"12"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..\\x", "C:\\x", "\\x"])
def test_no_name_leads_out_of_the_folder(name, tmp_path):
    path = write(tmp_path / "results.zip", [(name, b"")])
    with pytest.raises(DataError, match="leads out"), open_zip(path, most_bytes=9):
        pass
    with pytest.raises(RobustMRIError):
        unpack(tmp_path, tmp_path / "out")
    assert [one.name for one in tmp_path.iterdir()] == ["results.zip"]


def test_many_bytes_in_a_small_file_are_refused_unread(tmp_path):
    path = write(tmp_path / "z", [("a", bytes(10**7))])
    assert path.stat().st_size < 10**5
    with pytest.raises(DataError, match="10000000 bytes"), open_zip(path, most_bytes=10**6):
        pass


def test_a_member_that_holds_more_than_it_claims_gives_no_more(tmp_path):
    """The size stands twice in the file; both are made to lie."""
    path = write(tmp_path / "z", [("a", bytes(10**6))])
    true, false = (10**6).to_bytes(4, "little"), (10).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(true, false))
    with pytest.raises(DataError, match="damaged"), open_zip(path, most_bytes=99) as bag:
        bag.read("a")


def test_one_without_its_first_byte_is_damaged(tmp_path):
    """Its places then lie before the file."""
    path = write(tmp_path / "z", [("a", b"12")])
    path.write_bytes(path.read_bytes()[1:])
    with pytest.raises(DataError, match="damaged"), open_zip(path, most_bytes=99) as bag:
        bag.read("a")


def test_a_file_that_is_a_folder_too_is_refused(tmp_path):
    write(tmp_path / "summary.zip", [("a", b"1"), ("a/b", b"2")])
    with pytest.raises(DataError, match="damaged"):
        unpack(tmp_path, tmp_path / "out")
    assert [one.name for one in tmp_path.iterdir()] == ["summary.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_twins_are_refused(tmp_path):
    path = write(tmp_path / "z", [("a", b"1"), ("a", b"2")])
    with pytest.raises(DataError, match="two files"), open_zip(path, most_bytes=99):
        pass


@pytest.fixture
def members(tiny_cohort, tmp_path):
    from robustmri.data.cohort import Cohort

    pack_cohort(Cohort.open(tiny_cohort), tmp_path / "packed")
    with zipfile.ZipFile(tmp_path / "packed") as bag:
        return {name: bag.read(name) for name in bag.namelist()}


def claim_size(members):
    head = json.loads(members["cohort.json"]) | {"size": 10**6}
    members["cohort.json"] = json.dumps(head)


def claim_slices(members):
    head = json.loads(members["cohort.json"]) | {"n_cases": MOST_BYTES}
    members["cohort.json"] = json.dumps(head)


def claim_words(members):
    head = json.loads(members["cohort.json"]) | {"n_cases": "3"}
    members["cohort.json"] = json.dumps(head)


def claim_pixels(members):
    """A PNG of 10^9 pixels, of which not one is there."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(stream, "PNG")
    png = bytearray(stream.getvalue())
    png[16:24] = (31623).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    members["images/00000.png"] = bytes(png)


@pytest.mark.parametrize("lie", [claim_size, claim_slices, claim_words, claim_pixels])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_packed_cohort_is_no_larger_than_it_should_be(lie, members, tmp_path):
    lie(members)
    path = write(tmp_path / "lying", members.items())
    with pytest.raises(DataError, match="lying"):
        unpack_cohort(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_are_no_larger_than_the_result_says(tmp_path):
    result = SimpleNamespace(
        examples=[SimpleNamespace(position=0)], cohort=SimpleNamespace(size=64, channels=1)
    )
    for kind, right in ((np.float64, False), (np.uint16, True)):
        planes = dict.fromkeys(ARRAYS, np.zeros((1, 64, 64), kind))
        np.savez_compressed(tmp_path / "examples.npz", **planes)
        if right:
            assert load_examples(tmp_path, result)["clean"].shape == (1, 64, 64)
        else:  # All four together may have eight bytes a pixel.
            with pytest.raises(ResultError, match="expected at most"):
                load_examples(tmp_path, result)


def test_what_is_encrypted_or_packed_otherwise_is_refused(tmp_path):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as bag:
        bag.writestr("one", b"1")
    with pytest.raises(DataError, match="'one' encrypted, or not"), open_zip(path, most_bytes=10):
        pass
    with zipfile.ZipFile(path, "w") as bag:
        bag.writestr("one", b"1")
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="'one' encrypted, or not"), open_zip(path, most_bytes=10):
        pass
