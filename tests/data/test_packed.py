from __future__ import annotations

import zipfile
from dataclasses import asdict, replace

import numpy as np
import pytest

from robustmri.core.errors import DataError
from robustmri.data.cohort import Cohort
from robustmri.data.packed import pack_cohort, unpack_cohort
from robustmri.data.prepare import write_cohort
from robustmri.data.split import Split, make_split
from robustmri.verbs.prepare import prepare
from scans import SliceList, slices_of


@pytest.mark.parametrize("grey_error", [0, 1, 3])
def test_what_comes_out_is_what_was_promised(grey_error, tiny_cohort, tmp_path):
    cohort = Cohort.open(tiny_cohort)
    packed = pack_cohort(cohort, tmp_path / "cohort.zip", grey_error=grey_error)
    there = unpack_cohort(tmp_path / "cohort.zip", tmp_path / "there")
    assert packed.bytes == (tmp_path / "cohort.zip").stat().st_size
    off = np.abs(there.images / 257.0 - cohort.images / 257.0)
    assert off.max() <= grey_error + 0.5
    assert off.mean() == pytest.approx(packed.mean_error, abs=1e-3)
    assert (there.images == 0)[cohort.images == 0].all(), "background stays exactly 0"
    assert [asdict(case) for case in there.cases] == [asdict(case) for case in cohort.cases]
    everyone = range(len(cohort))
    assert np.array_equal(there.masks(everyone), cohort.masks(everyone))
    assert there.fingerprint != cohort.fingerprint
    split, before = Split.load(there.root), Split.load(tiny_cohort)
    split.check(there)
    assert (split.train, split.test) == (before.train, before.test)


def test_a_cohort_without_outlines_travels_without_them(tmp_path):
    items = [replace(item, mask=None) for item in slices_of(9)]
    cohort = write_cohort(SliceList(items), tmp_path / "cohort", size=16, split=make_split)
    pack_cohort(cohort, tmp_path / "cohort.zip")
    there = unpack_cohort(tmp_path / "cohort.zip", tmp_path / "there")
    assert there.masks([0]) is None
    assert len(there) == len(items)


def test_the_same_cohort_gives_the_same_file(tiny_cohort, tmp_path):
    for name in "ab":
        pack_cohort(Cohort.open(tiny_cohort), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_more_loss_is_smaller(tiny_cohort, tmp_path):
    sizes = [
        pack_cohort(Cohort.open(tiny_cohort), tmp_path / "cohort.zip", grey_error=error).bytes
        for error in (0, 1, 2)
    ]
    assert sizes == sorted(sizes, reverse=True)
    with pytest.raises(DataError, match="0 to 8"):
        pack_cohort(Cohort.open(tiny_cohort), tmp_path / "x.zip", grey_error=9)


def test_a_damaged_file_is_refused(tiny_cohort, tmp_path):
    path = tmp_path / "cohort.zip"
    pack_cohort(Cohort.open(tiny_cohort), path)
    with zipfile.ZipFile(path) as bag:
        members = {name: bag.read(name) for name in bag.namelist()}
    first, second = "images/00000.png", "images/00001.png"
    members[first], members[second] = members[second], members[first]
    with zipfile.ZipFile(path, "w") as bag:
        for name, content in members.items():
            bag.writestr(name, content)
    with pytest.raises(DataError, match="changed after it was written"):
        unpack_cohort(path, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match="is not a zip"):
        unpack_cohort(path, tmp_path / "there")


def test_a_cohort_is_a_source(tiny_cohort, tmp_path):
    """To split it in another way or to make it smaller."""
    before = Cohort.open(tiny_cohort)
    after = prepare(tiny_cohort, tmp_path / "smaller", size=16, split="folds", fold=2)
    assert after.size == 16
    assert [case.case_id for case in after.cases] == [case.case_id for case in before.cases]
    assert [case.patient_id for case in after.cases] == [case.patient_id for case in before.cases]
    assert after.masks(range(len(after))).any()
    assert Split.load(after.root).fold == 2
