from __future__ import annotations

import numpy as np
import pytest

from robustmri.core.errors import DataError, SettingsError
from robustmri.data.intensity import resize, scale, to_uint16


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_every_depth_spans_zero_to_one(dtype: type) -> None:
    scaled = scale(np.array([[3, 7], [5, 103]], dtype=dtype))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [[0, 0.04], [0.02, 1]], atol=1e-7)


@pytest.mark.parametrize("dtype", [">u2", "<u2"])
def test_the_full_range_of_16_bits_in_either_order_of_bytes(dtype: str) -> None:
    image = np.array([[0, 13107], [26214, 39321]], dtype=dtype)
    np.testing.assert_allclose(scale(image, "full"), [[0, 0.2], [0.4, 0.6]], atol=1e-7)


def test_twelve_bits_are_kept() -> None:
    stored = to_uint16(scale(np.arange(4096, dtype=np.int16).reshape(64, 64)))
    assert len(np.unique(stored)) == 4096
    assert (stored.min(), stored.max()) == (0, 65535)


def test_a_power_of_two_in_the_scale_changes_no_bit() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.int16)
    np.testing.assert_array_equal(scale(grey), scale(grey * 16))


def test_percentile_clips_the_outliers() -> None:
    grey = np.arange(1000, dtype=np.float64).reshape(20, 50)
    grey[0, 0], grey[-1, -1] = -1e6, 1e6
    scaled = scale(grey, "percentile")
    assert (scaled.min(), scaled.max()) == (0.0, 1.0)
    np.testing.assert_allclose(scaled[10, 0], 0.5, atol=0.01)
    assert scale(grey, "minmax")[10, 0] == pytest.approx(0.5, abs=1e-3)
    assert np.ptp(scale(grey, "minmax")[5:15]) < 1e-3


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (np.full((4, 4), 7), "constant image: every pixel is 7"),
        (np.array([[0.0, np.nan], [np.inf, 1.0]]), "2 of 4 pixels are NaN or infinite"),
        (np.zeros((4, 4, 2)), "expected a 2-D grey image, or three channels"),
        (np.zeros((0, 4)), "expected a 2-D grey image"),
        (np.array([[1e308, -1e308]]), "too far apart for floating point"),
        (np.array([[2**63, 2**63 + 1]], dtype=np.uint64), "cannot be told apart"),
        (np.array([[1j, 2.0]]), "real numbers, got complex128"),
        (np.array([["a", "b"]]), "real numbers, got <U1"),
    ],
)
def test_images_without_a_meaning_are_named(image: np.ndarray, word: str) -> None:
    with pytest.raises(DataError, match=word):
        scale(image)


def test_percentile_without_contrast_is_named() -> None:
    image = np.zeros((100, 100))
    image[0, 0] = 1
    with pytest.raises(DataError, match="no contrast"):
        scale(image, "percentile")


def test_unknown_rule() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'minmax'"):
        scale(np.eye(3), "min-max")


@pytest.mark.parametrize(("before", "after"), [(100, 33), (24, 32), (50, 49), (7, 7)])
def test_resizing_averages_exact_areas(before: int, after: int) -> None:
    image = np.random.default_rng(1).random((before, before)).astype(np.float32)
    # A grid that both sizes divide.
    common = np.kron(image, np.ones((after, after), dtype=np.float32))
    reference = common.reshape(after, before, after, before).mean(axis=(1, 3), dtype=np.float64)
    np.testing.assert_allclose(resize(image, after), reference, atol=1e-6)


def test_whole_factor_is_the_block_mean() -> None:
    image = np.random.default_rng(2).random((64, 64)).astype(np.float32)
    np.testing.assert_allclose(
        resize(image, 16), image.reshape(16, 4, 16, 4).mean(axis=(1, 3)), atol=1e-6
    )


def test_the_short_side_is_padded_with_background_and_centred() -> None:
    resized = resize(np.ones((4, 8)), 8)
    np.testing.assert_array_equal(resized[2:6], 1)
    np.testing.assert_array_equal(resized[[0, 1, 6, 7]], 0)
    np.testing.assert_array_equal(resize(np.ones((8, 4)), 8), resized.T)
