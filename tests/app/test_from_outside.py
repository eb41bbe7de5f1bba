"""What happens to a run from outside, to every verb; `tests/random_kills.py` and
`tests/outside_faults.py` say how.

With `pytest -m slow -s -k "kills and report"` one verb is tried, and its counts are shown.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from every_verb import verbs

TESTS = Path(__file__).parents[1]
ALONE = ("unshare", "--user", "--map-root-user", "--mount")
KILLS = os.environ.get("ROBUSTMRI_KILLS", "200")
"""Of all verbs together."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
each_verb = pytest.mark.parametrize("verb", verbs(Path()))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """What all verbs start from, made by the first of them."""
    return tmp_path_factory.mktemp("from-outside") / "given"


def lines_of(*words):
    """What a script printed, a line each, but for the seed; shown with `pytest -s`."""
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
    _, *told = [json.loads(line) for line in done.stdout.splitlines()]
    return told


@each_verb
def test_kills_at_random_moments_cost_nothing(verb, given):
    (told,) = lines_of(
        *(sys.executable, "random_kills.py", KILLS, "--verbs", verb, "--given", given)
    )
    assert not told["differ"]
    assert not told["failed"]
    assert told["kills"] > 0


@each_verb
def test_faults_from_outside_are_told_in_a_line_and_cost_nothing(verb, given):
    mounts = (
        shutil.which("unshare") and not subprocess.run([*ALONE, "true"], check=False).returncode
    )
    faults = "two at once,folder removed,clock jumps" + ",full,read-only" * bool(mounts)
    alone = ALONE if mounts else ()
    told = lines_of(
        *(*alone, sys.executable, "outside_faults.py", "--faults", faults),
        *("--verbs", verb, "--given", given),
    )
    assert len(told) == len(faults.split(","))
    assert [one for one in told if one["wrong"]] == []
