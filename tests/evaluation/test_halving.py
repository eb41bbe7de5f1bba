"""Batches that are too large are worked through in halves, with the same result."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from robustmri.evaluation.halving import Room, in_halves, is_out_of_memory


def too_large(limit, said="CUDA out of memory. Tried to allocate 2.00 GiB."):
    """Work that takes one random number a row, and fails above so many rows; what it tried is in
    `tried`.
    """
    tried = []

    def work(rows):
        tried.append(len(rows))
        numbers = torch.randint(2**62, (len(rows),), generator=generator).tolist()
        if len(rows) > limit:
            raise RuntimeError(said)
        return list(zip(rows, numbers, strict=True))

    generator = torch.Generator().manual_seed(0)
    return work, generator, tried


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 9, 10])
def test_every_row_is_done_once_with_its_own_number(limit):
    whole, generator, _ = too_large(10)
    (expected,) = in_halves(whole, range(10), generator)
    work, generator, tried = too_large(limit)
    parts = in_halves(work, range(10), generator)
    assert [pair for part in parts for pair in part] == expected
    assert max(len(part) for part in parts) <= limit
    assert Counter(tried)[10] == 1


def test_what_did_not_fit_is_not_tried_again():
    work, generator, tried = too_large(3)
    room = Room()
    for _ in range(2):
        assert sum(map(len, in_halves(work, range(10), generator, room))) == 10
    assert tried == [10, 5, 3, 2, 3, 2, 3, 2, 3, 2]


def test_a_single_row_that_does_not_fit_is_an_error():
    work, generator, tried = too_large(0)
    with pytest.raises(RuntimeError, match="out of memory"):
        in_halves(work, range(4), generator)
    assert tried == [4, 2, 1]


def test_other_errors_are_not_tried_again():
    work, generator, tried = too_large(0, said="mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="shapes"):
        in_halves(work, range(4), generator)
    assert tried == [4]


def test_the_allocators_are_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory."))


def test_an_accelerator_gives_back_what_the_failed_try_held(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    work, generator, _ = too_large(3)
    in_halves(work, range(10), generator)
    assert len(emptied) == 2  # After 10 and after 5.
