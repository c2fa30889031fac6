"""The order of an epoch's rows on several processes."""

from itertools import product
from typing import Any

import pytest
from torch.utils.data import DistributedSampler

from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.mixed_sampler import MixedSampler
from training.loop import set_row_order

SEEDS, EPOCHS = range(40, 46), range(6)
ROWS = list(range(64))


def order(sampler: Any, seed: int, epoch: int) -> tuple[int, ...]:
    set_row_order(sampler, seed, epoch)
    return tuple(sampler)


@pytest.mark.parametrize("kind", [DistributedSampler, RepeatAugSampler])
def test_no_epoch_of_a_seed_has_the_order_of_another_seeds_epoch(kind: Any) -> None:
    first, second = (kind(ROWS, num_replicas=2, rank=rank) for rank in (0, 1))
    assert len({order(first, seed, epoch) for seed, epoch in product(SEEDS, EPOCHS)}) == len(SEEDS) * len(EPOCHS)
    if kind is DistributedSampler:  # the processes share the order, so their parts complete each other
        assert sorted(order(first, 42, 3) + order(second, 42, 3)) == ROWS


def test_an_order_of_labeled_and_unlabeled_rows_depends_on_seed_and_epoch() -> None:
    samplers = {seed: MixedSampler(ROWS[:32], ROWS[32:], 4, 2, seed=seed, processes=2) for seed in SEEDS}
    orders = {order(samplers[seed], seed, epoch) for seed, epoch in product(SEEDS, EPOCHS)}
    assert len(orders) == len(SEEDS) * len(EPOCHS)


def test_unlabeled_rows_continue_from_epoch_to_epoch() -> None:
    sampler = MixedSampler(ROWS[:8], ROWS[32:], 4, 4, seed=1)  # an epoch takes 8 of 32 unlabeled rows
    epochs = [order(sampler, 4 * 10, epoch) for epoch in range(4)]  # from a seed at which a turn begins
    assert sorted(row for rows in epochs for row in rows if row >= 32) == ROWS[32:]


def test_a_sampler_that_draws_from_torchs_generator_is_left_alone() -> None:
    set_row_order(object(), 42, 1)
