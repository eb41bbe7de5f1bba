"""Regions, saliency and smallest changes: counted by hand, held against closed forms, and once from
file to file.
"""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from robustmri.core.errors import DataError, ResultError, SettingsError
from robustmri.evaluation.confined import summarise_regions
from robustmri.evaluation.further import summarise_sensitivity
from robustmri.evaluation.intervals import mean_interval, quantile_interval, share_interval
from robustmri.evaluation.recount import refuse_contradictions
from robustmri.evaluation.saliency import (
    METHODS,
    check_explainable,
    grad_cam,
    integrated_gradients,
    rank_correlation,
    shuffled,
    summarise_saliency,
)
from robustmri.evaluation.visibility import share_in, structural_similarity
from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.report import write_page
from robustmri.results.cases import CaseTable
from robustmri.results.outcomes import Outcomes, read_table
from robustmri.results.schema import load_result, save_result
from robustmri.verbs.evaluate import evaluate


def test_turned_answers_are_counted_among_those_that_were_right(table):
    rows = table(8, clean_wrong=[7]).add("pgd", 0.04, [0, 1, 2, 7])
    for row in rows.rows:
        row |= {"region": "outside-lesion", "lesion_area": 0.1, "region_area": 0.9}
        row["lesion_energy"] = 0.1 if row["index"] else 0.5
    (found,) = summarise_regions(Outcomes(rows.columns()))
    assert (found.n, found.n_patients) == (7, 4)
    assert found.turned == pytest.approx(3 / 7)
    assert found.patients_turned == pytest.approx(2 / 4)
    groups = ["P0", "P0", "P1", "P1", "P2", "P2", "P3"]
    bounds = share_interval([True, True, True, *[False] * 4], groups)
    assert (found.ci_low, found.ci_high) == (bounds.low, bounds.high)
    assert found.lesion_energy == pytest.approx((0.5 + 6 * 0.1) / 7)


def test_the_smallest_change_of_each_slice_and_what_it_is_called(table):
    sizes = dict(enumerate([0.01, 0.02, 0.03, 0.04, 0.05, 0.06]))
    rows = (
        table(6, clean_wrong=[5])
        .add("fmn", np.inf, [0, 1, 2, 3, 5], distance_linf=sizes, distance_l2=0.6, ssim=0.9)
        .add("pgd", 0.025, [1, 2], distance_linf=0.025, distance_l2=2.0, ssim=0.5)
        .add("pgd", 0.001, [0], target="glioma", ssim=0.5)
    )
    for row in rows.rows:
        row.setdefault("ssim", 1.0)
    cases = CaseTable.of(Outcomes(rows.columns()))
    assert cases.smallest_eps("linf").tolist() == [0.01, 0.02, 0.025, 0.04, np.inf, 0.0]
    nearest = cases.nearest_rows("linf")
    told = cases.outcomes["attack"][nearest[nearest >= 0]].tolist()
    assert told == ["fmn", "fmn", "pgd", "fmn", "fmn"]
    assert nearest[4] == -1
    assert cases.attacked_in("linf").all()
    assert not cases.attacked_in("l2").any()
    found = summarise_sensitivity(cases, "linf", seed=0, pixels=36)
    assert found is not None
    assert (found.n, found.never, found.n_patients) == (5, 1, 3)
    assert found.quantiles == {"0.1": 0.02, "0.25": 0.02, "0.5": 0.025, "0.75": 0.04, "0.9": None}
    assert found.patients["0.5"] == 0.025
    assert found.nearest["meningioma"] == {"glioma": 2}
    assert found.ssim == 0.9
    assert found.psnr == pytest.approx(20.0)
    assert found.grey_levels == pytest.approx(255 * 0.0225)


def test_two_radii_alone_tell_no_smallest_change(table):
    rows = table(6).add("pgd", 0.02, [0]).add("pgd", 0.04, [0, 1])
    assert (
        summarise_sensitivity(CaseTable.of(Outcomes(rows.columns())), "linf", seed=0, pixels=36)
        is None
    )


def test_what_was_not_searched_is_not_told_by_the_radius_that_was_tried(table):
    """A search for the nearest image on a few, beside one radius on all."""
    rows = (
        table(6, clean_wrong=[5])
        .add("pgd", 0.04, range(5))
        .add("fmn", np.inf, [0, 1], distance_linf={0: 0.003, 1: 0.004}, distance_l2=0.1)
    )
    rows.rows = [
        row for row in rows.rows if not (row["attack"] == "fmn" and row["index"] not in (0, 1, 5))
    ]
    found = summarise_sensitivity(CaseTable.of(Outcomes(rows.columns())), "linf", seed=0, pixels=36)
    assert found is not None
    assert (found.n, found.never) == (2, 0)
    assert found.quantiles["0.9"] == 0.004


def test_intervals_of_means_and_quantiles_are_by_patient():
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(40), 5)
    values = np.repeat(generator.gamma(2.0, size=40), 5)
    alone = mean_interval(values, np.arange(200))
    together = mean_interval(values, clusters)
    assert together.high - together.low > 1.8 * (alone.high - alone.low)
    assert together.low < values.mean() < together.high
    median = quantile_interval(values, clusters)
    assert median.low < np.median(values) < median.high
    assert {median.low, median.high} <= set(values)
    assert quantile_interval([1.0, 2.0], ["a", "a"]).method == "one patient: no interval"
    assert mean_interval([1.0, 2.0], ["a", "a"]).method == "one patient: no interval"


def smooth_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4 * 64, 3),
    ).eval()


def test_integrated_gradients_add_up():
    network, images = smooth_network(), torch.rand(3, 1, 8, 8)
    classes = torch.tensor([0, 2, 1])
    found = integrated_gradients(network, images, classes).flatten(1).sum(1)
    with torch.no_grad():
        rise = (network(images) - network(torch.zeros_like(images))).gather(1, classes[:, None])
    torch.testing.assert_close(found, rise[:, 0], rtol=0, atol=1e-3)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    parts = integrated_gradients(linear, images, classes)
    expected = images * linear[1].weight[classes].reshape(images.shape)
    torch.testing.assert_close(parts, expected.detach())


def test_grad_cam_is_where_the_channel_that_counts_is():
    """The second convolution hands its only channel on; its mean is the logit of class 1."""
    network = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False),
        nn.Conv2d(1, 1, 1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(1, 2, bias=False),
    )
    for place, weights in {0: [[1.0]], 1: [[1.0]], 4: [[-1.0], [1.0]]}.items():
        network[place].weight.data = torch.tensor(weights).reshape(network[place].weight.shape)
    images = torch.zeros(1, 1, 8, 8)
    images[..., 2:4, 2:4] = 1.0
    found = grad_cam(network, images, torch.tensor([1]))
    torch.testing.assert_close(found / found.max(), images)
    assert not grad_cam(network, images, torch.tensor([0])).any(), "what speaks against it is cut"
    assert grad_cam(network[1:], images, torch.tensor([1])) is None


def test_a_shuffled_network_has_the_same_numbers_and_other_maps():
    spec = ClassifierSpec(backbone="toy", classes=("a", "b", "c"), size=8)
    classifier = Classifier(smooth_network(), spec).eval()
    other = shuffled(classifier, seed=0)
    for one, mixed in zip(classifier.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.flatten().sort().values, mixed.flatten().sort().values)
    images, classes = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    maps, blank = (
        METHODS["integrated-gradients"].attribute(n, images, classes) for n in (classifier, other)
    )
    assert (rank_correlation(maps, maps) > 0.999).all()
    assert (rank_correlation(maps, blank) < 0.9).all()
    assert (rank_correlation(maps, -maps) < -0.9).all()


def test_likeness_of_maps_is_spearmans():
    """Of smooth maps, of maps that are mostly 0, and of one that is 0 everywhere."""
    from scipy.stats import spearmanr

    spots = torch.zeros(2, 1, 24, 24)
    spots[0, 0, :8, :8], spots[1, 0, 14:22, 14:22] = torch.rand(2, 8, 8) + 0.1
    maps = torch.cat([torch.rand(2, 1, 24, 24), spots, spots[:1]])
    others = torch.cat([torch.rand(2, 1, 24, 24), spots[[1, 1]], torch.zeros(1, 1, 24, 24)])
    found = rank_correlation(maps, others)
    pairs = zip(maps[:4].flatten(1).numpy(), others[:4].flatten(1).numpy(), strict=True)
    np.testing.assert_allclose(found[:4], [spearmanr(*pair).statistic for pair in pairs])
    assert found[2] < 0, "what is 0 in both is no agreement by itself"
    assert found[4].isnan()


def test_an_empty_map_of_the_shuffled_network_counts_as_unlike():
    told = {"method": ["grad-cam"] * 3, "group": ["a", "b", "c"], "chance": [0.1] * 3}
    told |= {"in_lesion": [0.5, 0.5, np.nan], "in_lesion_shuffled": [0.2, np.nan, 0.2]}
    told["likeness"] = [0.6, np.nan, 0.6]
    columns = {
        name: np.array(values, dtype=object if isinstance(values[0], str) else float)
        for name, values in told.items()
    }
    (found,) = summarise_saliency(Outcomes(columns))
    assert found.n == 2
    assert (found.in_lesion_shuffled, found.likeness) == (0.1, 0.3)


def test_shares_and_likeness():
    weights = torch.ones(3, 1, 4, 4)
    weights[1] = 0
    masks = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    masks[:2, :, :2, :2] = True
    inside, area = share_in(weights, masks)
    assert inside[0] == area[0] == 0.25
    assert inside[1:].isnan().all(), "neither without weight nor without a mask"
    in_colour, _ = share_in(weights.expand(3, 3, 4, 4), masks)
    assert in_colour[0] == 0.25
    images = torch.rand(2, 1, 16, 16)
    noisy = (images + 0.1 * torch.rand(2, 1, 16, 16)).clamp(0, 1)
    noisy[0] = images[0]
    found = structural_similarity(noisy, images)
    assert found[0] == 1.0
    assert 0.5 < found[1] < 0.999


@pytest.mark.parametrize("shape", [(2, 1, 40, 40), (1, 3, 20, 13), (1, 1, 10, 9)], ids=str)
def test_likeness_is_monais(shape):
    """Without its import, and for a fifth of its time."""
    from monai.metrics.regression import SSIMMetric

    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    others = (images + 0.1 * torch.rand(shape, generator=torch.Generator().manual_seed(1))) / 1.1
    side = min(11, *shape[-2:])
    expected = SSIMMetric(spatial_dims=2, data_range=1.0, win_size=side - 1 + side % 2)
    found = structural_similarity(images, others)
    torch.testing.assert_close(found, expected(images, others).flatten(), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("tiny_networks")
def test_all_of_it_from_file_to_page(tiny_run, tiny_cohort, tmp_path):
    folder, settings = tmp_path / "result", {"attacks": ("fgsm", "fmn"), "limit": 9}
    options = {"fmn": {"steps": 20}, "pgd": {"steps": 5}}
    regions = ("image", "outside-lesion", "background", "border")
    further = {"regions": regions, "saliency": 6, "corruptions": ("spikes",)}
    result = evaluate(tiny_run, tiny_cohort, folder, **settings, options=options, **further)
    confined = read_table(folder, "regions").to_pydict()
    assert set(confined["attack"]) == {"none", "pgd"}
    assert [one.region for one in result.regions] == list(regions)
    everywhere, outside, background, border = result.regions
    assert everywhere.area == 1
    assert everywhere.turned >= max(outside.turned, background.turned, border.turned)
    assert outside.lesion_energy == background.lesion_energy == 0
    assert border.lesion_energy > border.lesion_area
    assert {one.method for one in result.saliency} == set(METHODS)
    for one in result.saliency:
        assert one.n == 6
        assert one.ci_low <= one.in_lesion <= one.ci_high
        assert 0 < one.chance < 0.2
    (sensitivity,) = result.sensitivity
    assert sensitivity.norm == "linf"
    assert 0 < sensitivity.quantiles["0.5"] < 0.5
    assert 0 < sensitivity.ssim < 1
    refuse_contradictions(folder)
    shown = write_page([folder], tmp_path / "shown.html").read_text()
    for words in ("may not touch the lesion turns", "Integrated gradients", "How little it takes"):
        assert words in shown
    maps = shown.count("bright where it speaks for the answer")
    assert maps == 2 * len({one.label for one in result.examples})
    withheld = write_page([folder], tmp_path / "withheld.html", images=False).read_text()
    assert "Integrated gradients" in withheld
    assert "<img" not in withheld
    better = msgspec.structs.replace(outside, turned=0.123)
    changed = msgspec.structs.replace(result, regions=[everywhere, better, background, border])
    save_result(changed, folder)
    with pytest.raises(ResultError, match="regions differ"):
        refuse_contradictions(folder)
    # A result of an earlier release has none of it, and opens.
    old = {"regions": [], "saliency": [], "sensitivity": []}
    save_result(msgspec.structs.replace(result, **old), folder)
    refuse_contradictions(folder)
    page = write_page([folder], tmp_path / "old.html").read_text()
    assert "Where it can be fooled" not in page
    assert load_result(folder).regions == []


@pytest.mark.usefixtures("tiny_networks")
@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"regions_attack": "fmn"}, SettingsError, "has no radius"),
        ({"regions_attack": "no-such"}, SettingsError, "no attack"),
    ],
)
def test_what_cannot_be_confined_is_refused_before_the_work(
    settings, error, said, tiny_run, tiny_cohort, tmp_path
):
    with pytest.raises(error, match=said):
        evaluate(tiny_run, tiny_cohort, tmp_path / "out", regions=("lesion",), **settings)
    assert not (tmp_path / "out").exists()


def test_saliency_needs_gradients_and_an_outline(planned):
    plan = planned(saliency=4)
    cohort = SimpleNamespace(cases=[SimpleNamespace(lesion_box=None)] * 12)
    spec = ClassifierSpec(backbone="theirs", classes=("a", "b"), size=8)
    with pytest.raises(DataError, match="no slice has one"):
        check_explainable(SimpleNamespace(spec=spec), cohort, plan)
    spec = msgspec.structs.replace(spec, gradients=False)
    with pytest.raises(SettingsError, match="only answers"):
        check_explainable(SimpleNamespace(spec=spec), cohort, plan)
    check_explainable(SimpleNamespace(spec=spec), cohort, planned())
