"""What happens to a run from outside, to every verb; `tests/random_kills.py` and
`tests/outside_faults.py` say how.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ALONE = ("unshare", "--user", "--map-root-user", "--mount")
KILLS = os.environ.get("ROBUSTMRI_KILLS", "200")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def lines_of(*words):
    """What a script printed, a line each; shown with `pytest -s`."""
    done = subprocess.run(
        words,
        cwd=TESTS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_kills_at_random_moments_cost_nothing():
    _, *told = lines_of(sys.executable, "random_kills.py", KILLS)
    assert [one["verb"] for one in told if one["differ"] or one["failed"]] == []
    assert sum(one["kills"] for one in told) >= int(KILLS)


def test_faults_from_outside_are_told_in_a_line_and_cost_nothing():
    mounts = (
        shutil.which("unshare") and not subprocess.run([*ALONE, "true"], check=False).returncode
    )
    faults = "two at once,folder removed,clock jumps" + ",full,read-only" * bool(mounts)
    alone = ALONE if mounts else ()
    _, *told = lines_of(*alone, sys.executable, "outside_faults.py", "--faults", faults)
    assert [one for one in told if one["wrong"]] == []
