"""How long something would take, asked of the verb itself before it is started."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence

from robustmri.core.errors import SettingsError

OPTION = "--estimate"
SECONDS = 120.0
"""After which no answer is waited for."""


class Estimates:
    """One question at a time: two would measure each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def ask(self, words: Sequence[str]) -> str:
        """What the verb says.

        Args:
            words: the whole command, program first, as a job would run it.

        Raises:
            SettingsError: another question is being answered, it took too long, or the verb
                refused.
        """
        if not self._lock.acquire(blocking=False):
            raise SettingsError("Another estimate is being measured. Ask again in a moment.")
        try:
            said = subprocess.run(
                [*words, OPTION],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
                cwd=os.sep,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SettingsError(
                f"The first batches alone took longer than {SECONDS:.0f} s."
            ) from error
        finally:
            self._lock.release()
        lines = (said.stdout if said.returncode == 0 else said.stderr).strip().splitlines()
        answer = lines[-1] if lines else "It said nothing."
        if said.returncode:
            raise SettingsError(answer.removeprefix("robustmri: "))
        return answer
