"""How far an attack may go, and what for."""

from __future__ import annotations

import msgspec


class Budget(msgspec.Struct, frozen=True):
    """How far an attack may go and what for; `eps` is None without a radius, `target` empty for any
    wrong answer.
    """

    norm: str
    eps: float | None
    eps_units: str
    eps_image: float | None
    target: str = ""


CLEAN = Budget("", None, "image", None)
"""Of slices that nobody attacked."""
