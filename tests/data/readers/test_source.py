from __future__ import annotations

import errno
from pathlib import Path

import pytest

from robustmri.core.errors import RobustMRIError, SettingsError
from robustmri.data.readers.source import LeftOut, RawSlice, read_each
from robustmri.data.sources import open_source


def test_the_phantom_and_its_settings() -> None:
    source = open_source("phantom:patients=4,slices=2,size=32,seed=3")
    assert source.synthetic
    assert len(source) == 8
    assert len(open_source("phantom")) > 8
    assert open_source(Path("phantom")).synthetic
    with pytest.raises(SettingsError, match="Did you mean 'patients'"):
        open_source("phantom:patient=4")
    with pytest.raises(SettingsError, match="expected a whole number, got 'many'"):
        open_source("phantom:slices=many")


def test_whatever_a_decoder_raises_only_costs_its_own_file() -> None:
    def read_one(name: str) -> RawSlice:
        raise {"a": OSError("line one\nline two"), "b": KeyError("cjdata"), "c": RecursionError()}[
            name
        ]

    assert list(read_each(["a", "b", "c"], read_one, lambda name: f"{name}.mat")) == [
        LeftOut("a.mat", "cannot be read: line one line two"),
        LeftOut("b.mat", "cannot be read: 'cjdata'"),
        LeftOut("c.mat", "cannot be read: RecursionError"),
    ]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "out of memory"),
        (OSError("out of memory when reading image file"), "out of memory when reading"),
        (OSError(errno.EMFILE, "Too many open files"), r"Too many open files.*ulimit -n"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links"), "Remove this link"),
    ],
)
def test_what_the_system_raises_costs_the_run(error: Exception, says: str) -> None:
    def read_one(name: str) -> RawSlice:
        raise error

    with pytest.raises(RobustMRIError, match=rf"a\.mat could not be read: .*{says}"):
        list(read_each(["a"], read_one, lambda name: f"{name}.mat"))


def test_a_seek_to_nowhere_is_damage() -> None:
    def read_one(name: str) -> RawSlice:
        raise OSError(errno.EINVAL, "Invalid argument")

    (left,) = read_each(["a"], read_one, str)
    assert isinstance(left, LeftOut)
    assert "Invalid argument" in left.reason


def test_ctrl_c_is_not_a_bad_file() -> None:
    def read_one(name: str) -> RawSlice:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(read_each(["a"], read_one, str))
