"""Training views made on the device of the model: workers decode and draw, the device crops, resizes and colors.

What a worker sends is an image's bytes and, for each view, what was drawn for it. With `--cache device` the bytes of
all images lie on the device from the start, and only what was drawn travels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from timm.data.device_view_ops import BatchViews, ImageStore
from timm.data.draw_views import DrawnBatch
from timm.data.loader import PrefetchLoader
from timm.data.simclr_view import SimCLRView


class DeviceViewsLoader(PrefetchLoader):
    """timm's prefetching loader, that makes the views where it would normalize them.

    Args:
        theirs: timm's, around a loader that batches by `collate_drawn`; its normalization and erasing are kept.
        view: one of the views' makers, for the size and the interpolations.
        resident: the images, where the batches hold none.
    """

    def __init__(self, theirs: PrefetchLoader, view: SimCLRView, resident: ImageStore | None) -> None:
        self.__dict__ |= vars(theirs)
        self.views = BatchViews(view.size, view.interpolation, theirs.device)
        self.resident = resident

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for drawn, target in self.loader:
            images = self._normalize(self._make(drawn))
            yield images, target.to(self.device, non_blocking=True)

    def _make(self, drawn: DrawnBatch) -> Tensor:
        """Return the views of a batch, float32 [V*B, C, H, W] of 0..255."""
        views = len(drawn.parameters) // len(drawn.places)
        if self.resident is not None:
            return self.views(self.resident, drawn.places[:, 0].repeat(views), drawn.parameters)
        lengths = drawn.places.prod(dim=1)
        first = lengths.cumsum(0) - lengths
        store = ImageStore(*(part.to(self.device, non_blocking=True) for part in (drawn.pixels, first, drawn.places)))
        return self.views(store, torch.arange(len(first)).repeat(views), drawn.parameters)

    def _normalize(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last).to(self.img_dtype)
        images = images.sub_(self.mean).div_(self.std)
        erased: Any = images if self.random_erasing is None else self.random_erasing(images)
        return erased  # type: ignore[no-any-return]
