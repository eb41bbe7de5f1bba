"""Random streams of a batch: each image's own, repeatable, and as random as they say."""

from __future__ import annotations

import pytest
import torch

from robustmri.attacks.streams import advance, normals, open_streams, signs, uniforms


def test_the_hash_is_splitmix64():
    """Its first outputs from seed 0, as in the published C code."""
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    stream = torch.tensor([0])
    for output in expected:  # One more step from a state that is `_GOLDEN` further each time.
        from robustmri.attacks.streams import _GOLDEN, _mix

        stream = stream + _GOLDEN
        assert int(_mix(stream)) & (1 << 64) - 1 == output


@pytest.mark.parametrize("draw", [uniforms, signs, normals])
def test_a_stream_does_not_depend_on_the_batch(draw):
    streams = open_streams(torch.Generator().manual_seed(0), 4, torch.device("cpu"))
    assert torch.equal(draw(streams, 9)[[2]], draw(streams[[2]], 9))
    assert torch.equal(advance(streams)[[2]], advance(streams[[2]]))
    shared = torch.Generator().manual_seed(0)
    singly = torch.cat([open_streams(shared, 1, torch.device("cpu")) for _ in range(4)])
    assert torch.equal(singly, streams)
    assert open_streams(shared, 0, torch.device("cpu")).shape == (0,)


@pytest.mark.parametrize(
    ("draw", "mean", "variance"), [(uniforms, 0.5, 1 / 12), (signs, 0, 1), (normals, 0, 1)]
)
def test_moments_and_independence(draw, mean, variance):
    streams = torch.arange(3)  # Neighbouring seeds must not show.
    rows = []
    for _ in range(4):
        rows.append(draw(streams, 50_000))
        streams = advance(streams)
    numbers = torch.cat(rows)
    # 5 standard errors of 50 000 draws.
    assert (numbers.mean(1) - mean).abs().max() < 5 * (variance / 50_000) ** 0.5
    assert (numbers.var(1) / variance - 1).abs().max() < 5 * (2 / 50_000) ** 0.5
    correlations = torch.corrcoef(numbers) - torch.eye(len(numbers))
    assert correlations.abs().max() < 5 / 50_000**0.5
    assert (
        torch.corrcoef(torch.stack([numbers[0, :-1], numbers[0, 1:]]))[0, 1].abs() < 5 / 50_000**0.5
    )
