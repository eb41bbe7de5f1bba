from __future__ import annotations

import base64
import io
import xml.etree.ElementTree as ElementTree

import msgspec
import numpy as np
import pytest
from PIL import Image

from robustmri.report.figures import collect_plots, draw_accuracy, draw_intervals
from robustmri.report.pictures import encode_png, load_examples, make_picture, trace_outline
from robustmri.results.schema import NormFacts, load_result


def decode(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("L"))


@pytest.fixture
def plots(pair):
    return collect_plots([load_result(folder) for folder in pair])


def test_curve_starts_at_the_clean_accuracy_and_takes_the_worst_case(pair, plots):
    assert len(plots) == 1
    for folder, curve in zip(pair, plots[0].curves, strict=True):
        result = load_result(folder)
        assert curve.attack == "worst"
        assert curve.eps == [0.0, 0.005, 0.01, 0.02, 0.03, 0.04]
        assert curve.results[0].attack == "none"
        assert all(number in result.results for number in curve.results)


def test_readings_of_eps_are_not_mixed(build):
    result = load_result(build("both", normalised=True))
    assert [(plot.norm.title, plot.eps_units) for plot in collect_plots([result])] == [
        ("l-infinity", "image")
    ]


@pytest.mark.parametrize("width", [360, 760])
def test_everything_lies_inside_the_plot(plots, width):
    root = ElementTree.fromstring(draw_accuracy(plots[0], classes=3, width=width))
    _, _, right, bottom = map(float, root.get("viewBox").split())
    assert right == width
    dots = root.findall(".//circle")
    assert len(dots) == 12
    heights = {}
    for dot in dots:
        said = dot.find("title").text
        assert 0 <= float(dot.get("cx")) <= right
        assert 0 <= float(dot.get("cy")) <= bottom
        heights[said.rsplit(" ", 2)[1]] = float(dot.get("cy"))
    order = sorted(heights, key=float)
    assert [heights[share] for share in order] == sorted(heights.values(), reverse=True)
    for text in root.findall(".//text"):
        assert 0 <= float(text.get("x")) <= right
        assert 0 <= float(text.get("y")) <= bottom


def test_forest_point_lies_within_its_whisker(pair):
    numbers = [load_result(folder).results[0] for folder in pair]
    root = ElementTree.fromstring(draw_intervals([*numbers, None], ["one", "two", "three"]))
    whiskers, points = root.findall(".//line"), root.findall(".//circle")
    assert len(whiskers) == len(points) == 2
    for whisker, point, number in zip(whiskers, points, numbers, strict=True):
        assert float(whisker.get("x1")) <= float(point.get("cx")) <= float(whisker.get("x2"))
        assert float(point.get("cx")) == pytest.approx(8 + 224 * number.accuracy, abs=0.05)
    assert "three" not in root.get("aria-label")


def test_picture_shows_the_slice_as_it_is(pair):
    result = load_result(pair[0])
    arrays = load_examples(pair[0], result)
    example = result.examples[2]
    picture = make_picture(example, arrays)
    clean = arrays["clean"][example.position] / 65535
    np.testing.assert_allclose(decode(picture.clean) / 255, clean, atol=0.5 / 255 + 1e-9)
    np.testing.assert_allclose(
        decode(picture.attacked) / 255, arrays["attacked"][example.position], atol=0.5 / 255 + 1e-6
    )
    np.testing.assert_array_equal(decode(picture.sign) > 200, arrays["sign"][example.position] > 0)
    still = arrays["clean"].astype(np.float32) / np.float32(65535)
    unchanged = decode(make_picture(example, {**arrays, "attacked": still}).change)
    assert set(np.unique(unchanged)) <= {127, 128}


def test_png_is_lossless_and_small():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(decode(encode_png(image)), image)


def corners(path):
    """Loops of the outline as lists of their points, the curve's control points left out."""
    return [
        [
            tuple(map(float, part.split()[-2:]))
            for part in loop.strip("M").replace("Q", "|").split("|")
        ]
        for loop in path.split("Z")
        if loop
    ]


def test_outline_goes_once_around_each_border():
    mask = np.zeros((12, 12), dtype=bool)
    mask[2:9, 3:10] = True
    mask[4:6, 5:7] = False
    mask[11, 11] = True
    loops = corners(trace_outline(mask))
    assert sorted(len(loop) - 1 for loop in loops) == [4, 8, 28]
    assert all(loop[0] == loop[-1] for loop in loops)
    assert trace_outline(np.zeros((5, 5), dtype=bool)) == ""


def test_outline_of_pixels_that_touch_at_a_corner_is_closed():
    loops = corners(trace_outline(np.eye(4, dtype=bool)))
    assert sum(len(loop) - 1 for loop in loops) == 16
    assert all(loop[0] == loop[-1] for loop in loops)


def test_outline_of_any_mask_is_as_long_as_its_border():
    mask = np.random.default_rng(0).random((20, 20)) > 0.5
    padded = np.pad(mask, 1)
    border = (padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum()
    assert sum(len(loop) - 1 for loop in corners(trace_outline(mask))) == border


@pytest.mark.parametrize(
    ("norm", "said"),
    [
        ({"title": "l2", "meaning": "l2 size"}, "eps: l2 size, of the [0, 1] range"),
        ({"title": "turn", "meaning": "rotation in degrees", "kind": "physical"}, "in degrees<"),
    ],
)
def test_an_axis_says_what_eps_counts(plots, norm, said):
    facts = NormFacts(per_pixel=False, **norm)
    assert said in str(draw_accuracy(msgspec.structs.replace(plots[0], norm=facts), classes=3))
