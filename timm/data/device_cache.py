"""All images of a table, decoded once and kept in the device's memory."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from catalog.image_cache import image_sources
from runtime.errors import UsageError
from runtime.free_space import available_memory, gib
from runtime.progress import progress_bar
from timm.data.device_view_ops import ImageStore
from timm.data.device_views import CachedSizes
from timm.data.loader_workers import start_worker
from timm.data.shared_memory import Prefetch, fitting_prefetch
from timm.data.two_view_dataset import TwoViewDataset

_logger = logging.getLogger(__name__)

_LIMIT = 0.5  # share of the free memory; the model, its activations and the optimizer need the rest


def load_onto_device(
    dataset: TwoViewDataset, device: torch.device, workers: int, processes: int
) -> tuple[ImageStore, CachedSizes]:
    """Decode all images of a table onto a device; mark unreadable images in the dataset.

    Args:
        dataset: the images of the table.
        device: the device that keeps them.
        workers: processes that decode.
        processes: ranks on this host; each keeps the images, on the CPU in the same memory.

    Returns:
        The images, without pixels for unreadable ones; and the sizes that workers draw from.

    Raises:
        UsageError: the images do not fit.
        DataError: too many images are unreadable.
    """
    sources = image_sources(dataset.table, dataset.roots)
    show = _logger.isEnabledFor(logging.INFO)  # only the primary process logs
    areas = torch.from_numpy(sources.areas(workers, show))
    _check_room(int(areas.sum()) * dataset.channels, len(sources), device, processes)
    rows = np.unique(sources.of_row, return_index=True)[1]  # the first row of each image
    pixels = torch.empty(int(areas.sum()), dataset.channels, dtype=torch.uint8, device=device)
    sizes = torch.zeros(len(rows), 2, dtype=torch.int64)
    first = areas.cumsum(0) - areas
    unreadable = np.zeros(len(rows), dtype=bool)
    prefetch = fitting_prefetch(workers, int(areas.max()) * dataset.channels, processes)
    with progress_bar(len(rows), "Decoding images", "image", show) as bar:
        for number, image in enumerate(_decoded(dataset, rows, prefetch)):
            if image is not None and image.shape[0] * image.shape[1] == int(areas[number]):
                sizes[number] = torch.tensor(image.shape[:2])
                begin = int(first[number])
                pixels[begin : begin + int(areas[number])] = image.flatten(0, 1).to(device)
            else:
                unreadable[number] = True
            bar.update()
    dataset.unreadable |= torch.from_numpy(unreadable[sources.of_row].astype(np.uint8))
    dataset.check_readable()
    store = ImageStore(pixels, first.to(device), sizes.to(device))
    return store, CachedSizes(torch.from_numpy(sources.of_row.astype(np.int64)), sizes, dataset.channels)


def _check_room(needed: int, images: int, device: torch.device, processes: int) -> None:
    """Log the memory that the images take.

    Raises:
        UsageError: they take more than the limit.
    """
    if device.type == "cuda":
        free, copies = torch.cuda.mem_get_info(device)[0], 1
    else:
        free, copies = available_memory() or 0, processes
    if needed * copies > free * _LIMIT:
        raise UsageError(
            f"cache device: {images:,} decoded images take {gib(needed * copies)}, more than {_LIMIT:.0%} of the "
            f"{gib(free)} that are free on {device}: use cache ram, cache disk or smaller images"
        )
    _logger.info(f"Cache: {images:,} decoded images take {gib(needed)} on {device}; {gib(free)} are free")


class _Images(Dataset[Tensor | None]):
    """The decoded images of some rows, [H, W, C]; None for an unreadable image."""

    def __init__(self, dataset: TwoViewDataset, rows: Any) -> None:
        self.dataset = dataset
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Tensor | None:
        try:
            return torch.from_numpy(np.ascontiguousarray(self.dataset.decode(int(self.rows[number]))))
        except OSError:
            return None


def _decoded(dataset: TwoViewDataset, rows: Any, prefetch: Prefetch) -> Any:
    """Return a loader of the decoded images of some rows."""
    return DataLoader(
        _Images(dataset, rows),
        batch_size=None,
        num_workers=prefetch.workers,
        prefetch_factor=prefetch.ahead if prefetch.workers else None,
        worker_init_fn=partial(start_worker, seeding="part"),
        collate_fn=_same,
        generator=torch.Generator(),  # a separate one: a run draws the same numbers with and without a cache
    )


def _same(image: Any) -> Any:
    return image
