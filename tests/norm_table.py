"""The table of norms. A new norm is a new row here, and the tests of norms and of attacks run on
it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class NormRow:
    """A norm beside the textbook's, and how far attacks on small images go in it.

    Attributes:
        order: of the textbook's norm.
        dual: order of the norm of gradients; None where no direction is the steepest.
        steepest: direction for the gradient (3, -4).
        eps: radius at which attacks on 64 pixels have something to do.
    """

    order: float
    dual: float | None
    steepest: tuple[float, float] | None
    eps: float


NORM_ROWS = {
    "linf": NormRow(math.inf, 1, (1.0, -1.0), 0.1),
    "l2": NormRow(2, 2, (0.6, -0.8), 0.8),
    "l1": NormRow(1, math.inf, (0.0, -1.0), 4.0),
    "l0": NormRow(0, None, None, 8.0),
}
