"""Images without labels beside a training table, and the order that mixes them into every batch.

As in FixMatch (arXiv:2001.07685, its mu) a batch has the table's rows and so many times as many unlabelled images.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Sampler

from timm.data.data_error import DataError
from timm.data.image_files import ImageList, list_images
from timm.data.table import Table
from timm.utils.usage_error import UsageError


def unlabeled_per_batch(ratio: float, batch_size: int) -> int:
    """Return how many unlabelled images a batch of a process has beside so many of the table's rows."""
    return round(ratio * batch_size)


def with_unlabeled(table: Table, inputs: Sequence[str]) -> Table:
    """Return a table with more rows at its end, all of whose cells are blank: images that it does not have yet.

    Args:
        table: the training table.
        inputs: folders, tables, image files, and patterns of these (`shop/*.jpg`, `**` for folders below); the labels
            of tables are not read.

    Raises:
        DataError: an input is missing, or all its images are in the table already.
    """
    here = {_join(root, path) for root in _folders(table) for path in _texts(table)}
    paths = dict.fromkeys(path for images in list_images(_expanded(inputs)) for path in _absolute(images))
    new = pa.array([path for path in paths if path not in here], type=pa.large_string())
    if not len(new):
        raise DataError(f"--unlabeled {' '.join(inputs)}: all its images are in {table.path.name} already")
    image_paths = pa.concat_arrays([table.image_paths.cast(pa.large_string()), new])
    columns = {
        name: pa.concat_arrays([column, pa.DictionaryArray.from_arrays(_blanks(column, len(new)), column.dictionary)])
        for name, column in table.columns.items()
    }
    return replace(table, image_paths=image_paths, columns=columns, unlabeled=len(new))


def shared_images(table: Table, other: Table) -> int:
    """Return how many of the rows that `with_unlabeled` added to a table are images of another one."""
    theirs = {_join(root, path) for root in _folders(other) for path in _texts(other)}
    return sum(path in theirs for path in table.image_paths[len(table) - table.unlabeled :].to_pylist())


def _blanks(column: pa.DictionaryArray, count: int) -> pa.Array:
    return pa.nulls(count, column.type.index_type)


def _folders(table: Table) -> tuple[str, str]:
    return str(table.path.parent.resolve()), str(Path.cwd())


def _texts(table: Table) -> list[str]:
    texts: list[str] = table.image_paths.to_pylist()
    return texts


def _expanded(inputs: Sequence[str]) -> list[str]:
    """Return the inputs with patterns replaced by what they find."""
    found: list[str] = []
    for text in inputs:
        matches = [text] if Path(text).exists() or not glob.has_magic(text) else _matches(text)
        if not matches:
            raise DataError(f"--unlabeled {text}: nothing matches the pattern")
        found += matches
    return found


def _matches(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - a pattern may be absolute, and with `**`


def _absolute(images: ImageList) -> Iterator[str]:
    """Yield the absolute path of each image, in the first of its roots that has it."""
    roots = [str(root.resolve()) for root in images.roots]
    for path in images.paths.to_pylist():
        places = [_join(root, path) for root in roots]
        yield next((place for place in places[:-1] if Path(place).exists()), places[-1])


def _join(folder: str, path: str) -> str:
    return os.path.normpath(os.path.join(folder, path))  # noqa: PTH118 - of millions, a Path takes several times as long


class MixedSampler(Sampler[int]):
    """The order of rows in which every batch has `batch` labelled rows and then `extra` unlabelled ones.

    In an epoch each of the labelled rows comes once, but for those that do not fill a batch. The unlabelled ones come
    in turns that go on from epoch to epoch; in a turn each comes once, but for those that do not fill a batch. The
    order follows from the seed and the epoch alone.

    Args:
        labeled: rows of the data set.
        unlabeled: further ones.
        batch: labelled rows in a batch of one process.
        extra: unlabelled ones beside them.
        seed: of the order.
        rank: of this process.
        processes: how many share the rows.

    Raises:
        UsageError: there are too few unlabelled images for one batch of each process: one would be its own negative.
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
                "all processes takes: lower --unlabeled-ratio"
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
        """Begin an epoch: its number, or for another order of all epochs that plus a number."""
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
