"""The command line, called as a person would."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from robustmri.app import cli


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Words of a command to its exit status and what it printed as errors."""

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["robustmri", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run
