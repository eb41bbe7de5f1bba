"""The nearest neighbour's certificate: exact between two, never broken among many."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import torch

from robustmri.core.errors import ResultError
from robustmri.evaluation.nearest_neighbour import REMEMBERED, SIDE, remember
from robustmri.evaluation.recount import refuse_contradictions
from robustmri.results.schema import load_result
from robustmri.threat.norms import NORMS
from robustmri.verbs.evaluate import evaluate
from robustmri.verbs.pool import pool

FILE = f"{REMEMBERED}.parquet"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some(count, size, seed=0):
    """Images around two grey patterns, and which one."""
    patterns = torch.rand(2, 1, size, size, generator=seeded(7))
    labels = torch.arange(count) % 2
    noise = torch.rand(count, 1, size, size, generator=seeded(seed))
    return (0.5 * patterns[labels] + 0.5 * noise).double(), labels


def named(known, labels, images):
    pooled = [
        torch.nn.functional.adaptive_avg_pool2d(part, SIDE).flatten(1) for part in (known, images)
    ]
    return labels[torch.cdist(pooled[1], pooled[0]).argmin(1)]


def towards(known, images, norm):
    """The change of size 1 that favours one known image most over another, spread over the pixels
    of each average.
    """
    apart = torch.nn.functional.adaptive_avg_pool2d(known[1:] - known[:1], SIDE)
    wide = torch.nn.functional.interpolate(apart, images.shape[-2:])
    return NORMS[norm].steepest(wide)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("size", [32, 64])
def test_of_two_neighbours_the_radius_is_exact(norm, size):
    known, labels = some(2, size)
    images = known[:1] + 0.02 * torch.rand(known[:1].shape, generator=seeded(3))
    found = remember(known, labels, images, labels[:1], norm=norm)
    way = towards(known, images, norm)
    assert found.right.all()
    for share, kept in ((0.999, True), (1.001, False)):
        moved = images + share * found.radius.reshape(-1, 1, 1, 1) * way
        assert (named(known, labels, moved) == labels[:1]).all() == kept


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("size", [32, 40])
def test_no_change_within_the_radius_alters_the_answer(norm, size):
    """Also where the averages overlap, 40 px to 32; towards each of the others, and at random."""
    known, labels = some(40, size)
    images, wanted = some(10, size, seed=1)
    found = remember(known, labels, images, wanted, norm=norm)
    assert found.right.sum() > 5
    assert (found.radius[~found.right] == 0).all()
    for image, own, radius in zip(images, wanted, found.radius, strict=True):
        others = known[labels != own]
        friend = known[labels == own][
            torch.cdist(
                *(
                    torch.nn.functional.adaptive_avg_pool2d(part, SIDE).flatten(1)
                    for part in (image[None], known[labels == own])
                )
            ).argmin()
        ]
        ways = [towards(torch.stack([friend, other]), image[None], norm) for other in others]
        moved = image + 0.999 * radius * torch.cat(ways)
        if radius > 0:
            assert (named(known, labels, moved) == own).all()


def test_who_is_alone_cannot_be_taken_for_another():
    known, _ = some(2, 32)
    found = remember(known, torch.zeros(2).long(), known, torch.tensor([0, 1]))
    assert found.right.tolist() == [True, False]
    assert found.radius.tolist() == [torch.inf, 0.0]


@pytest.fixture(scope="module")
def result(tiny_run, tiny_cohort, tmp_path_factory, use_tiny_networks):
    folder = tmp_path_factory.mktemp("remembered") / "result"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        evaluate(tiny_run, tiny_cohort, folder, attacks=("fgsm",), eps=("0.04", "8/255"))
    return folder


def test_it_stands_beside_every_evaluation(result):
    baseline = load_result(result).baseline
    assert [one.attack for one in baseline.results] == ["none", "certified", "certified"]
    assert [one.eps for one in baseline.results[1:]] == [0.04, pytest.approx(8 / 255)]
    clean, wide, narrow = (one.accuracy for one in baseline.results)
    assert clean >= narrow >= wide
    refuse_contradictions(result)


def test_a_pool_of_one_says_the_same(result, tmp_path):
    pooled = pool([result], tmp_path / "pooled", title="All")
    assert pooled.baseline == load_result(result).baseline
    assert (tmp_path / "pooled" / FILE).is_file()


def test_figures_that_do_not_follow_are_refused(result, tmp_path):
    pool([result], tmp_path / "pooled", title="All")
    path = tmp_path / "pooled" / "robustness.json"
    text = path.read_text()
    accuracy = load_result(result).baseline.results[0].accuracy
    at = text.index('"baseline"')
    path.write_text(text[:at] + text[at:].replace(str(accuracy), "0.123", 1))
    with pytest.raises(ResultError, match="nearest neighbour"):
        refuse_contradictions(tmp_path / "pooled")
    path.write_text(text)
    table = pq.read_table(tmp_path / "pooled" / FILE)
    (tmp_path / "pooled" / FILE).unlink()
    with pytest.raises(ResultError, match="holds no nearest_neighbour"):
        refuse_contradictions(tmp_path / "pooled")
    assert set(table.column_names) == {"index", "group", "right", "radius"}


@pytest.mark.usefixtures("tiny_networks")
def test_sparse_changes_and_unknown_trainings_have_no_such_figure(tiny_run, tiny_cohort, tmp_path):
    out = tmp_path / "sparse"
    evaluate(tiny_run, tiny_cohort, out, attacks=("pgd-l0",), norm="l0", eps=("20",), limit=4)
    assert load_result(out).baseline is None
    assert not (out / FILE).exists()
