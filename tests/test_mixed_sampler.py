"""The order that mixes unlabeled images into every batch."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import UsageError
from timm.data.mixed_sampler import MixedSampler


@given(
    labeled=st.integers(1, 60), unlabeled=st.integers(1, 60), batch=st.integers(1, 8), extra=st.integers(1, 8),
    processes=st.integers(1, 3), seed=st.integers(-5, 2**40),
)  # fmt: skip
def test_each_batch_has_its_share_and_no_image_twice(labeled, unlabeled, batch, extra, processes, seed) -> None:
    def sampler(rank: int) -> MixedSampler:
        rows = range(labeled), range(labeled, labeled + unlabeled)
        return MixedSampler(*rows, batch, extra, seed=seed, rank=rank, processes=processes)

    if unlabeled < extra * processes:
        with pytest.raises(UsageError, match="lower unlabeled_ratio"):
            sampler(0)
        return
    ranks = [sampler(rank) for rank in range(processes)]
    steps, turns = labeled // (batch * processes), []
    for epoch in range(4):
        rows, mixed = [], []
        for rank in ranks:
            rank.set_epoch(epoch)
            order = list(rank)
            assert order == list(rank)
            assert len(order) == len(rank) == steps * (batch + extra)
            batches = [order[i : i + batch + extra] for i in range(0, len(order), batch + extra)]
            assert all(max(b[:batch]) < labeled <= min(b[batch:]) for b in batches)
            assert all(max(b) < labeled + unlabeled for b in batches)
            rows += [row for b in batches for row in b[:batch]]
            mixed.append([b[batch:] for b in batches])
        assert len(rows) == len(set(rows)) == steps * batch * processes, "each row comes once in an epoch"
        turns += [list(chain(*step)) for step in zip(*mixed, strict=True)]
    length = unlabeled // (extra * processes)
    for start in range(0, len(turns), length):
        turn = list(chain(*turns[start : start + length]))
        assert len(turn) == len(set(turn)), "no image comes again before the others have come"


def test_each_epoch_turn_and_seed_has_its_own_order() -> None:
    def orders(seed: int) -> list[list[int]]:
        sampler, found = MixedSampler(range(16), range(16, 24), 8, 4, seed=seed), []
        for epoch in range(3):
            sampler.set_epoch(epoch)
            found.append(list(sampler))
        return found

    first = orders(1)
    assert first == orders(1)
    assert len({tuple(order) for order in [*first, *orders(2)]}) == 6
    images = [[row for row in order if row >= 16] for order in first]
    assert len({tuple(turn) for turn in images}) == 3
