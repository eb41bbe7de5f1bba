"""The command line, called as a person would."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from robustmri.app import cli


@pytest.fixture
def robustmri(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Words of a command to its exit status, what it printed, and what it printed as errors."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["robustmri", *map(str, words)])
        capsys.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def run(robustmri: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str]]:
    """The same without what it printed."""
    return lambda *words: robustmri(*words)[::2]
