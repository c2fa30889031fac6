"""Caches of decoded images for the tables of a run: built by one process of a host, read by all.

A cache gives 1.6 to 2.3 times the training views per second where decoding takes most of the time: photographs of 1,000
pixels or more, or small views of smaller ones. It gives 1.3 times for views of 224 pixels from photographs of 256
(`python benchmarks/run.py cache`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from catalog.image_cache import ImageCache, ImageSources, Index, decode_into, image_sources
from runtime.errors import UsageError
from runtime.free_space import available_disk, available_memory, gib
from runtime.random_state import gather_objects
from timm.data.two_view_dataset import TwoViewDataset

_logger = logging.getLogger(__name__)

_LIMIT = {"ram": 0.8, "disk": 0.95}  # share of the free space; the rest is for the run's memory and checkpoints
_PIXELS, _INDEX = "pixels", "index.npy"  # the two files of a cache on disk


def cache_tables(
    datasets: Sequence[TwoViewDataset], kind: str, folder: Path, workers: int, local_rank: int, processes: int
) -> None:
    """Give each dataset a cache that all processes of this host share; every process must call this.

    The first process of a host decodes the images; the others wait, then open its files.

    Args:
        datasets: the tables of the run.
        kind: "ram" or "disk".
        folder: folder of the caches on disk.
        workers: processes that decode; 0 decodes in this one.
        local_rank: rank of this process on its host.
        processes: number of processes of the run.

    Raises:
        UsageError: on every process, if the caches of one host do not fit or cannot be built.
    """
    built: list[tuple[str, Index]] | str = ""
    in_memory: list[int] = []  # descriptors; other processes reach them through /proc
    if local_rank == 0:
        try:
            built = _build(datasets, kind, folder, workers, in_memory)
        except UsageError as error:
            built = str(error)
    hosts: list[tuple[str, int, Any]] = gather_objects((socket.gethostname(), local_rank, built), processes)
    for _, rank, answer in hosts:
        if rank == 0 and isinstance(answer, str):
            raise UsageError(answer)
    here = next(answer for host, rank, answer in hosts if rank == 0 and host == socket.gethostname())
    for dataset, (place, index) in zip(datasets, here, strict=True):
        sources = image_sources(dataset.table, dataset.roots)
        if len(sources) != len(index):  # the place is in another container, or the table was edited just now
            raise UsageError(
                f"--cache {kind}: {place} holds {len(index)} images, but {dataset.table.path} has {len(sources)}: "
                "start the run again, or use --cache none"
            )
        dataset.cache = ImageCache(_open(place, kind), index, dataset.channels, sources.of_row)
    gather_objects(None, processes)  # by now every process has opened the files
    for file in in_memory:
        os.close(file)


class _Table(NamedTuple):
    """A table that needs a cache, measured.

    Attributes:
        sources: the images.
        channels: 1 or 3.
        cache: folder of the cache on disk; None in memory.
        areas: pixels of each source, int64 [sources]; None if the cache is on disk already.
    """

    sources: ImageSources
    channels: int
    cache: Path | None
    areas: npt.NDArray[np.int64] | None


def _build(
    datasets: Sequence[TwoViewDataset], kind: str, folder: Path, workers: int, in_memory: list[int]
) -> list[tuple[str, Index]]:
    """Return the place and index of each table's decoded images; decode images that no earlier run has."""
    if not hasattr(os, "memfd_create" if kind == "ram" else "preadv"):
        remedy = "--cache disk or --cache none" if hasattr(os, "preadv") else "--cache none"
        raise UsageError(f"--cache {kind} needs functions of Linux that this system lacks: use {remedy}")
    show = _logger.isEnabledFor(logging.INFO)  # only the primary process logs
    try:
        tables = [_measure(dataset, folder if kind == "disk" else None, workers, show) for dataset in datasets]
        _check_room(tables, kind, folder)
        return [
            _in_memory(table, workers, show, in_memory)
            if table.cache is None
            else _on_disk(table, table.cache, workers, show)
            for table in tables
        ]
    except BrokenProcessPool as error:
        raise UsageError(
            f"--cache {kind}: a process that decodes was killed, most likely for lack of memory: lower --workers"
        ) from error
    except OSError as error:
        where = f"in {folder} ({error.strerror}): name another folder with --cache-dir, or use --cache none"
        where = f"in memory ({error.strerror}): use --cache none" if kind == "ram" else where
        raise UsageError(f"--cache {kind}: cannot keep images {where}") from error


def _measure(dataset: TwoViewDataset, folder: Path | None, workers: int, show: bool) -> _Table:
    """Measure the images of a table, unless their cache is on disk; remove outdated caches of the table there.

    A cache's name holds hashes of the table's path and of every image's path, length and modification time.
    """
    sources, channels = image_sources(dataset.table, dataset.roots), dataset.channels
    if folder is None:
        return _Table(sources, channels, None, sources.areas(workers, show))
    table = hashlib.sha256(os.fsencode(dataset.table.path.resolve())).hexdigest()[:12]
    name = f"{dataset.table.path.stem}-{table}-{channels}-"
    cache = folder / (name + sources.key())
    if _read_index(cache, len(sources), channels) is not None:
        return _Table(sources, channels, cache, None)
    for outdated in folder.glob(f"{name}*"):
        shutil.rmtree(outdated, ignore_errors=True)  # a run that has it open keeps its pixels
    return _Table(sources, channels, cache, sources.areas(workers, show))


def _in_memory(table: _Table, workers: int, show: bool, in_memory: list[int]) -> tuple[str, Index]:
    # Not a file in /dev/shm, where a container has room for only 64 MiB.
    in_memory.append(os.memfd_create("image-cache"))
    place = f"/proc/{os.getpid()}/fd/{in_memory[-1]}"
    assert table.areas is not None
    return place, decode_into(place, table.sources, table.areas, table.channels, workers, show)


def _on_disk(table: _Table, cache: Path, workers: int, show: bool) -> tuple[str, Index]:
    """Return a cache on disk; build it first if there is none. It gets its name when it is complete."""
    index = _read_index(cache, len(table.sources), table.channels)
    if index is None:
        assert table.areas is not None
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix=".", ignore_cleanup_errors=True) as unfinished:
            pixels = Path(unfinished, _PIXELS)
            pixels.touch()
            index = decode_into(str(pixels), table.sources, table.areas, table.channels, workers, show)
            np.save(Path(unfinished, _INDEX), index)
            with pixels.open("rb") as file:
                os.fsync(file)  # after a power failure, the name must not stand for unwritten pixels
            try:
                Path(unfinished).rename(cache)
            except OSError:
                if _read_index(cache, len(table.sources), table.channels) is None:  # else another run was faster
                    raise
    return str(cache / _PIXELS), index


def _read_index(cache: Path, count: int, channels: int) -> Index | None:
    """Return the index of a cache on disk; None if the cache is missing, incomplete, or of another number of images."""
    try:
        index: Index = np.load(cache / _INDEX, allow_pickle=False)
        size = (cache / _PIXELS).stat().st_size
    except (FileNotFoundError, ValueError, EOFError):
        return None
    if index.shape != (count, 3) or index.dtype != np.int64:
        return None
    return index if size >= (index[:, 0] + index[:, 1] * index[:, 2] * channels).max() else None


def _check_room(tables: Sequence[_Table], kind: str, folder: Path) -> None:
    """Log the space that the caches take.

    Raises:
        UsageError: they take more than the limit.
    """
    free = available_memory() if kind == "ram" else available_disk(folder)
    if free is None:
        raise UsageError("--cache ram: this system does not say how much memory is free: use --cache disk")
    new = [table for table in tables if table.areas is not None]
    images = sum(len(table.sources) for table in new)
    needed = sum(int(table.areas.sum()) * table.channels for table in new if table.areas is not None)
    place = "memory" if kind == "ram" else str(folder)
    if needed > free * _LIMIT[kind]:
        others = {"ram": "--cache disk, ", "disk": "--cache-dir on a larger disk, "}[kind]
        raise UsageError(
            f"--cache {kind} takes {gib(needed)} for {images:,} decoded images, more than {_LIMIT[kind]:.0%} of the "
            f"{gib(free)} that are free in {place}: use {others}--cache none, or smaller images"
        )
    _logger.info(
        f"Cache: {images:,} decoded images take {gib(needed)} in {place}; {gib(free)} are free"
        if new
        else f"Cache: all decoded images are in {place} already"
    )


def _open(place: str, kind: str) -> int:
    try:
        return os.open(place, os.O_RDONLY)
    except OSError as error:
        raise UsageError(
            f"--cache {kind}: cannot open {place}, made by the first process of this host ({error.strerror}): run all "
            "processes in one container and as one user, or use --cache none"
        ) from error
