"""Resize of ONNX: each axis by a matrix of weights, in all its ways to place the new points."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustmri.core.errors import CheckpointError
from robustmri.models.graph_shapes import Attributes, Inputs, whole_numbers

OLDEST_OPSET = 11
"""Before, its inputs and its rules were others."""


def resize(inputs: Inputs, attributes: Attributes, opset: int) -> Tensor:
    """Nearest, linear or cubic; antialiasing and regions of interest are not known.

    Raises:
        CheckpointError: a setting that is not known here.
    """
    _refuse_unknown(attributes, opset)
    x = inputs[0]
    sizes = inputs[3] if len(inputs) > 3 else None
    scales = inputs[2] if len(inputs) > 2 else None
    if sizes is not None and sizes.numel():
        wanted = whole_numbers(sizes)
        factors = [new / old for new, old in zip(wanted, x.shape, strict=True)]
    elif scales is not None and scales.numel():
        factors = [float(one) for one in scales.tolist()]
        wanted = [math.floor(n * factor) for n, factor in zip(x.shape, factors, strict=True)]
    else:
        raise CheckpointError("Resize without sizes and without scales.")
    for axis, (length, factor) in enumerate(zip(wanted, factors, strict=True)):
        if length != x.shape[axis] or factor != 1:
            weights = _weights(x.shape[axis], length, factor, attributes)
            x = (x.movedim(axis, -1) @ weights.T.to(x)).movedim(-1, axis)
    made: Tensor = x
    return made


def _refuse_unknown(attributes: Attributes, opset: int) -> None:
    if opset < OLDEST_OPSET:
        raise CheckpointError(f"Resize of operator set {opset} is not known.")
    for name, usual in (
        ("antialias", 0),
        ("exclude_outside", 0),
        ("keep_aspect_ratio_policy", "stretch"),
        ("axes", None),
    ):
        if attributes.get(name, usual) != usual:
            raise CheckpointError(f"Resize with {name} is not known.")


def _weights(old: int, new: int, factor: float, attributes: Attributes) -> Tensor:
    """What each new point takes of each old one, shape (new, old)."""
    places = _places(old, new, factor, attributes)
    mode = attributes.get("mode", "nearest")
    if mode == "nearest":
        taps = [(_nearest(places, attributes), torch.ones_like(places))]
    else:
        first = places.floor()
        t = places - first
        if mode == "linear":
            taps = [(first, 1 - t), (first + 1, t)]
        elif mode == "cubic":
            a = float(attributes.get("cubic_coeff_a", -0.75))
            taps = [(first + k, _cubic((t - k).abs(), a)) for k in (-1, 0, 1, 2)]
        else:
            raise CheckpointError(f"Resize in mode {mode!r} is not known.")
    weights = torch.zeros(new, old, dtype=torch.float64)
    rows = torch.arange(new)
    for where, share in taps:
        weights.index_put_((rows, where.long().clamp(0, old - 1)), share, accumulate=True)
    return weights


def _places(old: int, new: int, factor: float, attributes: Attributes) -> Tensor:
    """Where the new points lie among the old ones."""
    points = torch.arange(new, dtype=torch.float64)
    way = attributes.get("coordinate_transformation_mode", "half_pixel")
    if way == "half_pixel" or (way == "pytorch_half_pixel" and new > 1):
        return (points + 0.5) / factor - 0.5
    if way == "pytorch_half_pixel" or (way == "align_corners" and new == 1):
        return torch.zeros_like(points)
    if way == "align_corners":
        return points * (old - 1) / (new - 1)
    if way == "asymmetric":
        return points / factor
    raise CheckpointError(f"Resize with coordinates {way!r} is not known.")


def _nearest(places: Tensor, attributes: Attributes) -> Tensor:
    way = attributes.get("nearest_mode", "round_prefer_floor")
    if way == "floor":
        return places.floor()
    if way == "ceil":
        return places.ceil()
    if way == "round_prefer_ceil":
        return (places + 0.5).floor()
    if way == "round_prefer_floor":
        return (places - 0.5).ceil()
    raise CheckpointError(f"Resize with nearest_mode {way!r} is not known.")


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys 1981: weight of a point at this distance."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))
