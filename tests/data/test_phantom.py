"""The phantom: anatomy in its place, physics checked by hand, patients that do not depend on each
other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robustmri.core.errors import SettingsError
from robustmri.data.phantom import PhantomSource
from robustmri.data.phantom.brain import brain_surface, skull_cavity
from robustmri.data.phantom.canvas import Blob, Canvas, Tube
from robustmri.data.phantom.head import Head, mirrored
from robustmri.data.phantom.lesions import draw_adenoma, draw_lesion
from robustmri.data.phantom.shapes import Waves, ellipsoid, merge, push_along, tube
from robustmri.data.phantom.signal import TISSUES, Scanner, Tissue, spin_echo
from robustmri.data.phantom.source import CLASSES, PLANES
from robustmri.data.readers.source import RawSlice


@pytest.fixture(scope="module")
def slices() -> list[RawSlice]:
    return [
        item
        for item in PhantomSource(patients=9, slices_per_patient=6, size=96).read()
        if isinstance(item, RawSlice)
    ]


def scaled(item: RawSlice) -> np.ndarray:
    image = item.image.astype(float)
    return (image - image.min()) / np.ptp(image)


def test_slices_are_complete(slices: list[RawSlice]) -> None:
    source = PhantomSource(patients=9, slices_per_patient=6, size=96)
    assert len(slices) == len(source) == 54
    assert source.synthetic
    assert source.patient_ids
    assert source.name == "phantom"
    assert len({item.case_id for item in slices}) == len({item.sha256 for item in slices}) == 54
    for patient in range(9):
        own = slices[6 * patient : 6 * patient + 6]
        assert len({item.patient_id for item in own}) == 1
        assert {item.label for item in own} == {CLASSES[patient % 3]}
        assert {item.plane for item in own} == set(PLANES)
    assert len({item.patient_id for item in slices}) == 9


def test_slices_look_like_stored_mri(slices: list[RawSlice]) -> None:
    for item in slices:
        assert item.image.shape == (96, 96)
        assert item.image.dtype == np.uint16
        assert 1000 < item.image.max() <= 4095
        assert (item.image[:4, :4] < 0.1 * item.image.max()).all()  # air


def test_every_slice_cuts_the_lesion(slices: list[RawSlice]) -> None:
    for item in slices:
        assert item.mask is not None
        assert item.mask.dtype == bool
        assert item.mask.shape == item.image.shape
        assert 12 < item.mask.sum() < 0.12 * item.mask.size, item.case_id


def test_lesions_stand_out(slices: list[RawSlice]) -> None:
    from scipy.ndimage import binary_dilation

    for label in CLASSES:
        contrasts = []
        for item in slices:
            if item.label == label:
                image = scaled(item)
                near = binary_dilation(item.mask, iterations=4) & ~binary_dilation(item.mask)
                contrasts.append(np.percentile(image[item.mask], 75) - np.median(image[near]))
        assert np.median(contrasts) > 0.2, label


def test_patient_depends_on_seed_and_number_alone() -> None:
    alone = PhantomSource(patients=2, slices_per_patient=2, size=32, seed=5).read_patient(1)
    among = list(PhantomSource(patients=4, slices_per_patient=2, size=32, seed=5).read())[2:4]
    for first, second in zip(alone, among, strict=True):
        assert isinstance(second, RawSlice)
        assert first.case_id == second.case_id
        assert first.sha256 == second.sha256
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.mask, second.mask)
    other = PhantomSource(patients=2, slices_per_patient=2, size=32, seed=6).read_patient(1)
    assert other[0].sha256 != alone[0].sha256


@pytest.mark.parametrize(
    "settings",
    [{"patients": 0}, {"slices_per_patient": 0}, {"size": 8}, {"seed": -1}],
    ids=lambda s: next(iter(s)),
)
def test_impossible_settings_are_named(settings: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match=next(iter(settings))):
        PhantomSource(**settings)


@pytest.mark.parametrize("patient", range(12))
def test_meningioma_lies_on_the_dura_and_glioma_within_the_brain(patient: int) -> None:
    rng = np.random.default_rng(patient)
    head = Head.draw(rng)
    for label in CLASSES:
        lesion = draw_lesion(label, rng)
        steps = np.linspace(-2, 2, 33) * lesion.radius_mm
        cube = (
            np.stack(np.meshgrid(*(lesion.centre[:, None] + steps), indexing="ij"))
            .reshape(3, -1)
            .astype(np.float32)
        )
        cavity = skull_cavity(mirrored(cube))
        brain = brain_surface(mirrored(lesion.displace(cube)), head.gap_mm, cavity)
        inside = lesion.outline(cube, cavity, brain) < 0
        middle = cube[:, inside].mean(1)
        assert inside.any()
        if label == "meningioma":
            assert cavity[inside].max() <= 0
            assert cavity[inside].max() > -4 or abs(cube[0, inside]).min() < 2, (
                "neither on the skull nor on the falx"
            )
            unmoved = brain_surface(mirrored(cube), head.gap_mm, cavity)
            assert (unmoved[inside] < 0).mean() > (brain[inside] < 0).mean(), (
                "the brain does not give way"
            )
        elif label == "glioma":
            assert brain[inside].max() <= 0.5
            assert cavity[inside].max() < 0
        else:
            assert abs(middle[0]) < 5
            assert np.linalg.norm(middle - (0, 20, -33)) < 15


def test_a_lump_on_the_dura_presses_inwards_and_leaves_the_other_side_alone() -> None:
    base, normal = np.array([10, 20, 30], np.float32), np.array([0, 0.6, 0.8], np.float32)
    depth = np.linspace(0.1, 150, 600)
    line = (base[:, None] - normal[:, None] * depth).astype(np.float32)
    moved = push_along(line, base, normal, height_mm=20, radius_mm=15)
    came_from = -(normal @ (moved - base[:, None]))
    assert (np.diff(came_from) > 0).all(), "tissue folds over itself"
    # Where the lump ends, the surface of the brain arrives; far below nothing moves.
    assert came_from[np.argmin(np.abs(depth - 20))] == pytest.approx(0, abs=0.3)
    np.testing.assert_allclose(moved[:, -1], line[:, -1], atol=0.5)
    behind = (base[:, None] + normal[:, None] * depth).astype(np.float32)
    np.testing.assert_array_equal(
        push_along(behind, base, normal, height_mm=20, radius_mm=15), behind
    )


def test_a_glioma_pushes_outwards_without_folding() -> None:
    rng = np.random.default_rng(3)
    for _ in range(4):
        lesion = draw_lesion("glioma", rng)
        for direction in rng.normal(size=(6, 3)):
            direction /= np.linalg.norm(direction)
            along = np.linspace(0.1, 200, 400)
            line = (lesion.centre[:, None] + direction[:, None] * along).astype(np.float32)
            came_from = direction @ (lesion.displace(line) - lesion.centre[:, None])
            assert (np.diff(came_from) > -1e-3).all()
            assert (came_from <= along + 1e-3).all()
            assert came_from[-1] == pytest.approx(200, abs=0.5)


def test_spin_echo_has_its_limits() -> None:
    tissue = Tissue(0.8, (1000, 1200), (80, 70))
    full = spin_echo(tissue, tesla=1.5, tr_ms=1e6, te_ms=0.0, gadolinium_mm=0.0)
    assert full == pytest.approx(0.8)
    half = spin_echo(
        tissue, tesla=1.5, tr_ms=1000 * np.log(2), te_ms=80 * np.log(2), gadolinium_mm=0.0
    )
    assert half == pytest.approx(0.8 * 0.5 * 0.5)
    # Contrast agent brightens at clinical concentrations and darkens at high ones, where T2 takes
    # over.
    low, clinical, high = (
        spin_echo(tissue, tesla=3.0, tr_ms=600, te_ms=12, gadolinium_mm=c) for c in (0.0, 0.5, 30.0)
    )
    assert low < clinical
    assert high < clinical


@pytest.mark.parametrize("tesla", [1.5, 3.0])
def test_tissues_are_ordered_as_on_enhanced_t1(tesla: float) -> None:
    def level(name: str) -> float:
        return spin_echo(
            TISSUES[name],
            tesla=tesla,
            tr_ms=550,
            te_ms=12,
            gadolinium_mm=TISSUES[name].gadolinium_mm,
        )

    order = ["air", "bone", "csf", "necrosis", "oedema", "grey", "white", "gland", "fat"]
    levels = [level(name) for name in order]
    assert levels == sorted(levels)
    for tumour in ("meningioma", "glioma", "adenoma", "blood", "choroid"):
        assert level(tumour) > 1.4 * level("white"), tumour


def test_noise_in_air_is_rayleigh_distributed() -> None:
    scanner = Scanner.draw(np.random.default_rng(0))
    points = np.zeros((3, 200_000), np.float32)
    image = scanner.acquire(np.zeros(200_000, np.float32), points, np.random.default_rng(1))
    # Mean of a Rayleigh variable; four standard errors of 200 000 draws are 0.5 %, rounding to grey
    # levels is unbiased.
    assert image.mean() == pytest.approx(
        scanner.noise * scanner.gain * np.sqrt(np.pi / 2), rel=0.01
    )


def test_pose_can_be_undone() -> None:
    head = Head.draw(np.random.default_rng(4))
    for point in [(0.0, 20.0, -35.0), (50.0, -30.0, 20.0)]:
        there = head.to_scanner(point)
        np.testing.assert_allclose(head.to_standard(there[:, None])[:, 0], point, atol=0.01)


def test_distances() -> None:
    points = np.array([[0, 30, 0, 0], [0, 0, 12, 0], [0, 0, 0, 5]], np.float32)
    np.testing.assert_allclose(ellipsoid(points, (0, 0, 0), (30, 10, 5))[1], 0, atol=1e-4)
    assert ellipsoid(points, (0, 0, 0), (30, 10, 5))[0] == pytest.approx(-5, rel=1e-3)
    np.testing.assert_allclose(
        tube(points, (0, 0, 0), (0, 0, 10), (2, 2)), [-2, 28, 10, -2], atol=1e-5
    )
    np.testing.assert_allclose(merge(np.float32([3, 0]), np.float32([9, 0]), 4), [3, -1])


def test_waves_have_unit_variance_and_the_gradient_they_claim() -> None:
    rng = np.random.default_rng(0)
    waves = Waves(rng, 20)
    points = rng.uniform(-500, 500, size=(3, 50_000)).astype(np.float32)
    # The variance is a sum over 24 waves whose own averages converge slowly: 5 % is ten standard
    # errors.
    assert waves(points).var() == pytest.approx(1, rel=0.05)
    few = points[:, :50] / 10
    field, gradient = waves.with_gradient(few)
    np.testing.assert_allclose(field, waves(few), atol=1e-5)
    step = np.array([[0.05], [0], [0]], np.float32)
    slope = (waves(few + step) - waves(few - step)) / 0.1
    np.testing.assert_allclose(gradient[0], slope, atol=2e-3)


@pytest.mark.parametrize(
    "part", [Blob("fat", (5, 0, 0), (4, 6, 3)), Tube("fat", (0, 0, 0), (8, 3, 1), (2, 4))]
)
def test_painting_near_a_part_is_painting_it_everywhere(part: Blob | Tube) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-15, 15, size=(3, 5000)).astype(np.float32)
    near, everywhere = (Canvas(points, {"fat": 0.7}, edge_mm=2.0) for _ in range(2))
    near.paint_part(part, points, size=1.2, amount=0.9)
    everywhere.paint("fat", part.distance(points, 1.2), 0.9)
    assert near.signal.max() == pytest.approx(0.63)
    # Beyond the box only an ellipsoid's first-order distance can claim a trace of coverage.
    np.testing.assert_allclose(near.signal, everywhere.signal, atol=0.02)


def test_an_adenoma_below_the_chiasm_lifts_nothing() -> None:
    adenoma = draw_adenoma(np.random.default_rng(0))
    points = np.random.default_rng(1).uniform(-60, 60, (3, 50)).astype(np.float32)
    height = adenoma.top[2] + adenoma.top_axes[2] + 27
    low = replace(adenoma, top=adenoma.top - np.float32([0, 0, height]))
    np.testing.assert_array_equal(low.displace(points), points)
    high = replace(adenoma, top=low.top + np.float32([0, 0, 5]))
    assert not np.array_equal(high.displace(points), points)
