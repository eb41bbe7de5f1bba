"""Shapes of the tensors that travel between rooms.

Images are grey values in [0, 1], so 1/255 is one 8-bit grey level; `*space` is height and width (or
three axes).
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

Images = Float[Tensor, "n c *space"]
Labels = Int[Tensor, " n"]
Logits = Float[Tensor, "n k"]
PerImage = Float[Tensor, " n"]
