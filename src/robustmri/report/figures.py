"""Drawings as SVG: accuracy against eps, intervals as a forest plot. Colours come from
`templates/colours.css`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
from markupsafe import Markup

from robustmri.report.tables import stage_names
from robustmri.report.wording import (
    bounds,
    grey_levels,
    interval,
    norms_of,
    percent,
    points,
    titles_of,
)
from robustmri.results.budget import CLEAN, CORRUPTION, WORST
from robustmri.results.comparison import Paired
from robustmri.results.schema import NormFacts, Result, RobustnessReport

TEMPLATES = Path(__file__).parent / "templates"
COLOURS = 4  # classes s0 ... s3 in figures.css


class Curve(msgspec.Struct, frozen=True):
    """Accuracy of one classifier at rising eps; the first point is eps = 0, its clean accuracy."""

    name: str
    attack: str
    eps: list[float]
    results: list[Result]


class Plot(msgspec.Struct, frozen=True):
    """Curves that share their axes: one norm, one reading of eps."""

    title: str
    norm: NormFacts
    eps_units: str
    curves: list[Curve]


def collect_plots(
    results: Sequence[RobustnessReport], names: Sequence[str] | None = None
) -> list[Plot]:
    """A plot per norm and reading of eps in which some attack was run at two radii or more.

    `names` are those of the curves. Of the attacks it takes the one with the most radii, the worst
    case where several have as many.
    """
    titles, norms = titles_of(results), norms_of(results)
    axes = dict.fromkeys(
        (number.norm, number.eps_units)
        for report in results
        for number in report.results
        if number.eps and number.unit == "slice" and number.norm != CORRUPTION
    )
    plots = []
    for norm, units in axes:
        curves = [
            _curve(report, name, norm, units)
            for report, name in zip(results, names or stage_names(results), strict=True)
        ]
        drawn = [curve for curve in curves if curve is not None]
        if any(len(curve.eps) > 2 for curve in drawn):
            name = drawn[0].attack
            plots.append(Plot(titles.get(name, name), norms[norm], units, drawn))
    return plots


def _curve(report: RobustnessReport, name: str, norm: str, units: str) -> Curve | None:
    clean = [
        number for number in report.results if number.attack == CLEAN and number.unit == "slice"
    ]
    by_attack: dict[str, dict[float, Result]] = {}
    for number in report.results:
        fits = (number.norm, number.eps_units, number.unit, number.target) == (
            norm,
            units,
            "slice",
            "",
        )
        if fits and number.eps and math.isfinite(number.eps):
            by_attack.setdefault(number.attack, {})[number.eps] = number
    if not by_attack:
        return None
    attack = max(by_attack, key=lambda attack: (len(by_attack[attack]), attack == WORST))
    points = sorted(by_attack[attack].items())
    start = [(0.0, clean[0])] if clean else []
    return Curve(
        name, attack, [eps for eps, _ in start + points], [number for _, number in start + points]
    )


def _ticks(largest: float) -> list[float]:
    """Four to eight round steps from 0 to the largest value.

    >>> _ticks(0.04)
    [0.0, 0.01, 0.02, 0.03, 0.04]
    """
    raw = largest / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= raw * 0.999)
    return [round(place * step, 10) for place in range(int(largest / step * 1.001) + 1)]


def _spread(wanted: Sequence[float], gap: float, high: float) -> list[float]:
    """Heights near the wanted ones, at least `gap` apart and none beyond `high`, in the same order.

    >>> _spread([10.0, 12.0, 90.0], gap=20.0, high=80.0)
    [10.0, 30.0, 80.0]
    """
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    placed = [min(height, high) for height in wanted]
    for above, here in pairwise(order):
        placed[here] = max(placed[here], placed[above] + gap)
    placed[order[-1]] = min(placed[order[-1]], high)
    for below, here in pairwise(reversed(order)):
        placed[here] = min(placed[here], placed[below] - gap)
    return placed


def element(name: str, content: object = "", /, **attributes: object) -> Markup:
    """An SVG element with everything escaped; `of` stands for the attribute `class`, `_` for a
    hyphen.
    """
    said = Markup("").join(
        Markup(' {}="{}"').format("class" if key == "of" else key.replace("_", "-"), value)
        for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, said, content)


class Frame(msgspec.Struct, frozen=True):
    """Where a plot's axes lie: pixels of its corners, and the eps at the right one."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    largest: float

    @property
    def narrow(self) -> bool:
        """Whether it is for a phone."""
        return self.width < 500

    def x(self, eps: float) -> float:
        """Pixel of an eps."""
        return round(self.left + (self.right - self.left) * eps / self.largest, 1)

    def y(self, fraction: float) -> float:
        """Pixel of an accuracy."""
        return round(self.top + (self.bottom - self.top) * (1 - fraction), 1)


def draw_accuracy(plot: Plot, *, classes: int, width: int = 760) -> Markup:
    """Accuracy against eps, one line per classifier with its 95 % band, guessing dotted."""
    largest = max(curve.eps[-1] for curve in plot.curves)
    if width < 500:
        frame = Frame(width, 340, 40, width - 12, 34, 266, largest)
    else:
        frame = Frame(width, 400, 52, width - 150, 30, 326, largest)
    parts = [*_draw_axes(plot, frame), *_draw_guessing(classes, frame)]
    parts += [_draw_curve(curve, place, frame) for place, curve in enumerate(plot.curves)]
    parts += _draw_names(plot, classes, frame)
    return drawing(frame.width, frame.height, describe_accuracy(plot), Markup("\n").join(parts))


def drawing(width: int, height: int, said: str, content: Markup) -> Markup:
    """An SVG of that size; `said` is for those who cannot see it."""
    return element(
        "svg", content, of="figure", viewBox=f"0 0 {width} {height}", role="img", aria_label=said
    )


def _draw_axes(plot: Plot, frame: Frame) -> list[Markup]:
    parts = [
        element("text", "Accuracy, % of slices", x=frame.left - (30 if frame.narrow else 40), y=14)
    ]
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = frame.y(fraction)
        kind = "grid" if fraction else "axis"
        parts.append(element("line", of=kind, x1=frame.left, x2=frame.right, y1=y, y2=y))
        parts.append(
            element("text", f"{100 * fraction:.0f}", x=frame.left - 8, y=y + 4.5, text_anchor="end")
        )
    levels = plot.norm.per_pixel and plot.eps_units == "image"
    for tick in _ticks(frame.largest):
        at = {"x": frame.x(tick), "text_anchor": "middle"}
        parts.append(element("text", f"{tick:g}", y=frame.bottom + 20, **at))
        if levels:
            level = grey_levels(tick) + ("/255" if tick and not frame.narrow else "")
            parts.append(element("text", level, of="small", y=frame.bottom + 36, **at))
    said = "eps" if frame.narrow else f"eps: {plot.norm.meaning}"
    if plot.norm.kind == "norm":
        after = plot.eps_units == "normalised"
        said += ", after normalisation" if after else ", of the [0, 1] range"
    said += ", and levels of 255" if levels else ""
    middle = (frame.left + frame.right) / 2
    return [*parts, element("text", said, x=middle, y=frame.height - 14, text_anchor="middle")]


def _draw_guessing(classes: int, frame: Frame) -> list[Markup]:
    y = frame.y(1 / classes)
    x, y_text, anchor = (
        (frame.right - 4, y - 5, "end") if frame.narrow else (frame.right + 12, y + 4, "start")
    )
    return [
        element("line", of="chance", x1=frame.left, x2=frame.right, y1=y, y2=y),
        element("text", f"guessing among {classes}", of="small", x=x, y=y_text, text_anchor=anchor),
    ]


def _draw_curve(curve: Curve, place: int, frame: Frame) -> Markup:
    points = list(zip(curve.eps, curve.results, strict=True))
    upper = [f"{frame.x(eps)},{frame.y(number.ci_high)}" for eps, number in points]
    lower = [f"{frame.x(eps)},{frame.y(number.ci_low)}" for eps, number in points]
    line = [f"{frame.x(eps)},{frame.y(number.accuracy)}" for eps, number in points]
    parts = [
        element("polygon", of="band", points=" ".join(upper + lower[::-1])),
        element("polyline", of="line", points=" ".join(line)),
    ]
    for eps, number in points:
        said = element("title", f"{curve.name}, eps {eps:.4g}: {percent(number.accuracy)}")
        parts.append(
            element("circle", said, of="dot", cx=frame.x(eps), cy=frame.y(number.accuracy), r=4.5)
        )
    return element("g", Markup("").join(parts), of=f"s{place % COLOURS}")


def _shorten(name: str, most: int = 18) -> str:
    """The name as far as there is room for it; the page's key has all of it."""
    return name if len(name) <= most else name[: most - 3].rstrip() + "..."


def _draw_names(plot: Plot, classes: int, frame: Frame) -> list[Markup]:
    """Names beside the ends of the lines, or above them on a phone: no legend to look up."""
    last = [curve.results[-1] for curve in plot.curves]
    parts = []
    guessing = frame.y(1 / classes)
    if frame.narrow:
        wanted = [frame.y(number.accuracy) - 22 for number in last]
        heights = _spread([*wanted, guessing - 5], 18, frame.bottom - 12)
        for place, (curve, height, number) in enumerate(
            zip(plot.curves, heights, last, strict=False)
        ):
            said, x = f"{_shorten(curve.name)} {percent(number.accuracy)}", frame.right - 4
            parts.append(
                element(
                    "text", said, of=f"label s{place % COLOURS}", x=x, y=height, text_anchor="end"
                )
            )
        return parts
    heights = _spread(
        [frame.y(number.accuracy) - 2 for number in last] + [guessing], 38, frame.bottom - 14
    )
    for place, (curve, height, number) in enumerate(zip(plot.curves, heights, last, strict=False)):
        parts.append(
            element(
                "text",
                _shorten(curve.name),
                of=f"label s{place % COLOURS}",
                x=frame.right + 12,
                y=height,
            )
        )
        parts.append(element("text", percent(number.accuracy), x=frame.right + 12, y=height + 17))
    return parts


def describe_accuracy(plot: Plot) -> str:
    """The plot in words, for those who cannot see it."""
    said = []
    for curve in plot.curves:
        points = zip(curve.eps, curve.results, strict=True)
        numbers = ", ".join(
            f"{percent(number.accuracy)} at eps {eps:.4g}" for eps, number in points
        )
        said.append(f"{curve.name}: {numbers}")
    return f"Accuracy under {plot.title} against eps. {'; '.join(said)}."


def draw_intervals(numbers: Sequence[Result | None], names: Sequence[str]) -> Markup:
    """One row of the forest plot: a point and its 95 % whisker per classifier, 0 at 8 and 100 % at
    232 units.
    """
    parts, said = [], []
    for place, (number, name) in enumerate(zip(numbers, names, strict=True)):
        if number is None:
            continue
        low, at, high = (
            8 + 224 * share for share in (number.ci_low, number.accuracy, number.ci_high)
        )
        y = 12 + 15 * place
        whisker = element("line", of="whisker", x1=f"{low:.1f}", x2=f"{high:.1f}", y1=y, y2=y)
        dot = element("circle", of="dot", cx=f"{at:.1f}", cy=y, r=5.5)
        parts.append(element("g", whisker + dot, of=f"s{place % COLOURS}"))
        said.append(f"{name}: {percent(number.accuracy)}, 95 % interval {interval(number)}")
    return drawing(240, 15 * len(numbers) + 9, "; ".join(said), Markup("").join(parts))


def draw_difference(number: Paired) -> Markup:
    """One row of the plot of differences: a point and its 95 % whisker; minus 100 points at 8, 0 at
    120 and 100 points at 232 units.
    """
    low, at, high = (120 + 112 * share for share in (number.low, number.difference, number.high))
    whisker = element("line", of="whisker", x1=f"{low:.1f}", x2=f"{high:.1f}", y1=12, y2=12)
    dot = element("circle", of="dot", cx=f"{at:.1f}", cy=12, r=5.5)
    said = f"{points(number.difference)} points, 95 % interval {bounds(number.low, number.high)}"
    turn = "s1" if number.low > 0 else "s0" if number.high < 0 else "same"
    return drawing(240, 24, said, element("g", whisker + dot, of=turn))
