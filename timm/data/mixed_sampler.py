"""The sampler that mixes unlabeled images into every batch.

Follows FixMatch (2020, https://arxiv.org/abs/2001.07685, its ratio mu).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from runtime.errors import UsageError


class MixedSampler(Sampler[int]):
    """Sampler whose batches have `batch` labeled rows, then `extra` unlabeled rows.

    An epoch takes each labeled row once, a turn each unlabeled row; both leave out rows that do not fill a batch. Turns
    continue from epoch to epoch. The order follows from the seed and the epoch alone.

    Args:
        labeled: labeled rows of the dataset.
        unlabeled: unlabeled rows of the dataset.
        batch: labeled rows in a batch of one process.
        extra: unlabeled rows in a batch of one process.
        seed: seed of the order.
        rank: rank of this process.
        processes: number of processes that share the rows.

    Raises:
        UsageError: a step of all processes needs more unlabeled images than there are; one would be its own negative.
    """

    def __init__(
        self,
        labeled: Sequence[int] | np.ndarray[Any, np.dtype[np.int64]],
        unlabeled: Sequence[int] | np.ndarray[Any, np.dtype[np.int64]],
        batch: int,
        extra: int,
        *,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if len(unlabeled) < extra * processes:
            raise UsageError(
                f"there are {len(unlabeled)} images without labels, fewer than the {extra * processes} that a step of "
                "all processes takes: lower unlabeled_ratio"
            )
        self.labeled, self.unlabeled = torch.as_tensor(labeled), torch.as_tensor(unlabeled)
        self.batch, self.extra = batch, extra
        self.seed, self.rank, self.processes = seed, rank, processes
        self.steps = len(labeled) // (batch * processes)
        self.turn = len(unlabeled) // (extra * processes)  # steps
        self.epoch = 0

    def __len__(self) -> int:
        return self.steps * (self.batch + self.extra)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rows = self._shuffled(self.labeled, 0, self.epoch)
        order: dict[int, torch.Tensor] = {}
        for step in range(self.steps):
            yield from self._share(rows, step, self.batch)
            turn, place = divmod(self.epoch * self.steps + step, self.turn)
            if turn not in order:
                order = {turn: self._shuffled(self.unlabeled, 1, turn)}
            yield from self._share(order[turn], place, self.extra)

    def _share(self, rows: torch.Tensor, step: int, count: int) -> list[int]:
        first = (step * self.processes + self.rank) * count
        share: list[int] = rows[first : first + count].tolist()
        return share

    def _shuffled(self, rows: torch.Tensor, kind: int, number: int) -> torch.Tensor:
        seed = np.random.SeedSequence([self.seed % 2**63, kind, number]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(seed[0]) % 2**63)
        return rows[torch.randperm(len(rows), generator=generator)]
