"""Caches of decoded images for the tables of a run: measured, announced or refused, made, and shared by processes.

A cache on disk is named for its table and for a key of every image's path, length and time of change. So a later run
finds it while no image has changed, and makes another where one has.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from runtime.errors import UsageError
from runtime.free_space import available_disk, available_memory, gib
from runtime.random_state import gather_objects
from timm.data.image_cache import (
    Extents,
    ImageCache,
    create_in_memory,
    create_on_disk,
    extents_of,
    file_size,
    read_on_disk,
)
from timm.data.image_sources import ImageSources, Stamps, image_sources
from timm.data.two_view_dataset import TwoViewDataset

_logger = logging.getLogger(__name__)

_MOST = {"ram": 0.8, "disk": 0.95}  # of what is free: the run itself takes memory later, and writes checkpoints


@dataclass(frozen=True)
class _Plan:
    """The cache of a table, measured but not made.

    Attributes:
        sources: the images.
        channels: 1 or 3.
        extents: what the file is made from.
        path: where on disk; None in memory.
        stale: caches of the same table that its new one replaces.
        there: bytes that are on disk already.
    """

    sources: ImageSources
    channels: int
    extents: Extents
    path: Path | None = None
    stale: tuple[Path, ...] = ()
    there: int | None = None

    @property
    def needed(self) -> int:
        """Bytes that the file will yet take."""
        return max(0, file_size(self.extents) - (self.there or 0))


def default_cache_folder() -> Path:
    """Return the user's folder for caches, where the next run finds it from whatever folder it is started in."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "simclr-multi-label")


def cache_tables(
    datasets: Sequence[TwoViewDataset], kind: str, folder: Path, workers: int, local_rank: int, processes: int
) -> None:
    """Give each dataset a cache that all processes of this host share; each process must call it.

    The first process of a host measures, announces and makes the caches, and the others open them.

    Args:
        datasets: the tables of the run.
        kind: "ram" or "disk".
        folder: of the caches on disk.
        workers: processes that read the images' headers.
        local_rank: of this process on its host.
        processes: of the run.

    Raises:
        UsageError: on every process, where on one host the caches do not fit or cannot be made.
    """
    files: list[int] = []
    places: list[str] | str = ""
    if local_rank == 0:
        try:
            files, places = _make(datasets, kind, folder, workers)
        except UsageError as error:
            places = str(error)
    hosts: list[tuple[str, int, Any]] = gather_objects((socket.gethostname(), local_rank, places), processes)
    for _, rank, told in hosts:
        if rank == 0 and isinstance(told, str):
            raise UsageError(told)
    if local_rank > 0:
        here = next(told for host, rank, told in hosts if rank == 0 and host == socket.gethostname())
        files = [_open(place, kind) for place in here]
    for dataset, file in zip(datasets, files, strict=True):
        try:
            dataset.cache = ImageCache(file, image_sources(dataset.table, dataset.roots))
        except ValueError as error:  # the name of another container's file, or of a table that was edited just now
            raise UsageError(f"--cache {kind}: {error}: use --cache none, or start again") from error


def _make(datasets: Sequence[TwoViewDataset], kind: str, folder: Path, workers: int) -> tuple[list[int], list[str]]:
    """Return the file of each dataset's cache, and where other processes of this host find it."""
    if not hasattr(os, "memfd_create" if kind == "ram" else "preadv"):
        remedy = "--cache disk or --cache none" if hasattr(os, "preadv") else "--cache none"
        raise UsageError(f"--cache {kind} needs functions of Linux that this system lacks: use {remedy}")
    plans = [_plan(dataset, folder if kind == "disk" else None, workers) for dataset in datasets]
    _announce(plans, kind, folder)
    files, places = [], []
    made: set[Path] = set()  # two splits may be one table
    for plan in plans:
        if plan.path is None:
            files.append(create_in_memory(plan.extents, plan.channels))
            places.append(f"/proc/{os.getpid()}/fd/{files[-1]}")
            continue
        try:
            if plan.there is None and plan.path not in made:
                made.add(plan.path)
                create_on_disk(plan.path, plan.extents, plan.channels)
                for stale in plan.stale:
                    stale.unlink(missing_ok=True)  # a run that has it open keeps it
        except OSError as error:
            raise _no_folder(folder, error) from error
        files.append(_open(str(plan.path), kind))
        places.append(str(plan.path))
    return files, places


def _plan(dataset: TwoViewDataset, folder: Path | None, workers: int) -> _Plan:
    """Measure the images of a table, or take their sizes from its cache on disk."""
    sources, channels = image_sources(dataset.table, dataset.roots), dataset.channels
    show = _logger.isEnabledFor(logging.INFO)  # only the primary process logs
    stamps = sources.stamps(workers, show)
    if folder is None:
        return _Plan(sources, channels, extents_of(sources.areas(workers, show), channels, stamps))
    table = hashlib.sha256(os.fsencode(dataset.table.path.resolve())).hexdigest()[:12]
    name = f"{dataset.table.path.stem}-{table}-{channels}"
    path = folder / f"{name}-{_key(sources, stamps)}.pixels"
    try:
        kept = read_on_disk(path)
    except OSError as error:
        raise _no_folder(folder, error) from error
    if kept is not None and np.array_equal(kept[:, 1:], stamps):
        return _Plan(sources, channels, kept, path, there=_taken(path))
    extents = extents_of(sources.areas(workers, show), channels, stamps)
    stale = [file for file in folder.glob("*.pixels") if file.name.startswith(f"{name}-") and file != path]
    return _Plan(sources, channels, extents, path, tuple(stale))


def _key(sources: ImageSources, stamps: Stamps) -> str:
    """Return what two tables share only if they have the same images, in the same order, and none has changed."""
    # Only of roots that have an image: the working directory is one, and may be another the next time.
    used = [sources.roots[number] for number in np.unique(stamps[:, 2]) if number >= 0]
    key = hashlib.sha256("\0".join(used).encode(errors="surrogateescape"))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("path", sources.paths.type)])) as stream:
        stream.write_batch(pa.record_batch([sources.paths], names=["path"]))
    key.update(sink.getvalue())
    key.update(np.ascontiguousarray(stamps, dtype="<i8").tobytes())
    return key.hexdigest()[:32]


def _announce(plans: Sequence[_Plan], kind: str, folder: Path) -> None:
    """Log what the caches will take, in a line.

    Raises:
        UsageError: it is more than there is.
    """
    free = available_memory() if kind == "ram" else available_disk(folder)
    if free is None:
        raise UsageError("--cache ram: this system does not tell how much memory is free: use --cache disk")
    needed = sum(plan.needed for plan in plans)
    total = sum(file_size(plan.extents) for plan in plans)
    images = sum(len(plan.sources) for plan in plans)
    # What is stale goes once the new files are there, before they fill.
    free += sum(_taken(file) for file in {file for plan in plans for file in plan.stale})
    place = "in memory that this host's processes share" if kind == "ram" else f"in {folder}"
    if needed > free * _MOST[kind]:
        others = {"ram": "--cache disk, ", "disk": "--cache-dir on a larger disk, "}[kind]
        raise UsageError(
            f"--cache {kind} takes {gib(needed)} for {images:,} decoded images, more than {_MOST[kind]:.0%} of the "
            f"{gib(free)} that are free {'in memory' if kind == 'ram' else place}: use {others}--cache none, or "
            "smaller images"
        )
    reused = f", of which {gib(total - needed)} are there already" if total > needed else ""
    _logger.info(f"Cache: {images:,} decoded images take {gib(total)} {place}{reused}; {gib(free)} are free")


def _taken(file: Path) -> int:
    """Return the bytes that a file takes on its disk, which are fewer than its size while it fills."""
    try:
        return file.stat().st_blocks * 512
    except FileNotFoundError:  # another run has just removed it
        return 0


def _open(place: str, kind: str) -> int:
    try:
        return os.open(place, os.O_RDWR)
    except OSError as error:
        raise UsageError(
            f"--cache {kind}: cannot open {place} ({error.strerror}), which the first process of this host has made: "
            "run the processes in one container and as one user, or use --cache none"
        ) from error


def _no_folder(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"--cache disk: cannot keep images in {folder} ({error.strerror}): name another folder with --cache-dir"
    )
