"""How far an attack may go, and what for; and the names in the table that are no attack."""

from __future__ import annotations

import msgspec

CLEAN, WORST = "none", "worst"
"""Rows of untouched slices, and of the worst that any attack of a budget did."""
CORRUPTION = "corruption"
"""In the place of a norm: what a scanner did; the radius is a severity."""
RANDOM = "random-draw"
"""An attack that draws the parameters of a physical threat once: what happens on average."""
RANDOM_SEARCH = "random-search"
"""The same several times, and the worst of them."""
TITLES = {CLEAN: "No attack", WORST: "Worst case"}


class Budget(msgspec.Struct, frozen=True):
    """How far an attack may go and what for; `eps` is None without a radius, `target` empty for any
    wrong answer.
    """

    norm: str
    eps: float | None
    eps_units: str
    eps_image: float | None
    target: str = ""


NO_BUDGET = Budget("", None, "image", None)
"""Of slices that nobody attacked."""
