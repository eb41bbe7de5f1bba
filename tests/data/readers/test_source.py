from __future__ import annotations

from pathlib import Path

import pytest

from robustmri.core.errors import SettingsError
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


def test_ctrl_c_is_not_a_bad_file() -> None:
    def read_one(name: str) -> RawSlice:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(read_each(["a"], read_one, str))
