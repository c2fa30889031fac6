"""Training views made on the model's device: workers decode and draw, the device crops, resizes and colors.

A worker sends an image's bytes and the draws of its views. If the device holds all images from the start, a worker
sends the draws alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from catalog.decode import Pixels
from timm.data.device_view_ops import BatchViews, ImageStore, encode
from timm.data.prefetch_loader import Erasing, RowPrefetchLoader
from timm.data.preprocessing import DataConfig
from timm.data.simclr_view import SimCLRView
from timm.data.view_plan import ViewPlan


class CachedImage(NamedTuple):
    """An image that the device holds.

    Attributes:
        number: its index on the device.
        height: pixels.
        width: pixels.
        channels: 3 or 1.
    """

    number: int
    height: int
    width: int
    channels: int


class CachedSizes(NamedTuple):
    """The sizes of the images that the device holds, which workers draw from.

    Attributes:
        image_of_row: int64 [rows], the index of each row's image on the device.
        sizes: int64 [images, 2], height and width.
        channels: 3 or 1.
    """

    image_of_row: Tensor
    sizes: Tensor
    channels: int

    def image(self, row: int) -> CachedImage:
        """Return the image of a row."""
        number = int(self.image_of_row[row])
        height, width = self.sizes[number].tolist()
        return CachedImage(number, height, width, self.channels)


class DrawnImage(NamedTuple):
    """An image and the draws of its views.

    Attributes:
        pixels: uint8 [H * W, C]; empty [0, C] for an image that the device holds.
        place: int64 [2], height and width; for an image that the device holds, its index there and 0.
        parameters: float32 [V, PARAMETERS].
    """

    pixels: Tensor
    place: Tensor
    parameters: Tensor


class DrawnBatch(NamedTuple):
    """The images of a batch one after the other, and the draws of their views, view 0 of all images first.

    Attributes:
        pixels: uint8 [pixels of all images, C].
        places: int64 [B, 2], as in `DrawnImage`.
        parameters: float32 [V*B, PARAMETERS].
    """

    pixels: Tensor
    places: Tensor
    parameters: Tensor


class DrawViews:
    """Maker of views that draws a plan's views and leaves the work to the device.

    Args:
        plan: the views.
        full: draws a "full" view.
        light: draws a "light" view.
    """

    def __init__(self, plan: ViewPlan, full: SimCLRView, light: SimCLRView) -> None:
        self.draws = [{"full": full, "light": light}[kind] for kind in plan.kinds]

    def __call__(self, image: Pixels | CachedImage) -> DrawnImage:
        """Return an image uint8 [H, W, C], or one that the device holds, with the draws of its views."""
        if isinstance(image, CachedImage):
            nothing = torch.empty(0, image.channels, dtype=torch.uint8)
            return DrawnImage(nothing, torch.tensor([image.number, 0]), self._draw(image.height, image.width))
        height, width, channels = image.shape
        flat = torch.from_numpy(image.reshape(-1, channels))
        return DrawnImage(flat, torch.tensor([height, width]), self._draw(height, width))

    def _draw(self, height: int, width: int) -> Tensor:
        return torch.tensor([encode(view.draw(height, width)) for view in self.draws])


def collate_drawn(batch: Sequence[tuple[DrawnImage, Tensor]]) -> tuple[DrawnBatch, Tensor]:
    """Batch images and the draws of their views, with their targets [B, C]."""
    images, targets = zip(*batch, strict=True)
    parameters = torch.stack([image.parameters for image in images], dim=1)  # [V, B, PARAMETERS]
    places = torch.stack([image.place for image in images])
    drawn = DrawnBatch(torch.cat([image.pixels for image in images]), places, parameters.flatten(0, 1))
    return drawn, default_collate(list(targets))


class DeviceViewsLoader(RowPrefetchLoader):
    """Loader that makes the views of drawn batches on the device, then normalizes and erases as the prefetcher does.

    Args:
        loader: torch's loader of batches by `collate_drawn`.
        config: preprocessing of the model's images.
        device: where the views are made.
        img_dtype: number format of the views.
        erasing: erases rectangles of a normalized batch in place; None erases nothing.
        view: one of the views' makers, for the size and the interpolations.
        images: the images that the device holds; None if the batches hold the pixels.
    """

    def __init__(
        self,
        loader: Any,
        config: DataConfig,
        device: torch.device,
        img_dtype: torch.dtype,
        erasing: Erasing | None,
        *,
        view: SimCLRView,
        images: ImageStore | None,
    ) -> None:
        super().__init__(loader, config, device, img_dtype, erasing)
        self.views = BatchViews(view.size, view.interpolation, device)
        self.images = images

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for drawn, target in self.loader:
            images = self._normalize(self._make(drawn))
            yield images, target.to(self.device, non_blocking=True)

    def _make(self, drawn: DrawnBatch) -> Tensor:
        """Return the views of a batch, float32 [V*B, C, H, W], 0-255."""
        views = len(drawn.parameters) // len(drawn.places)
        if self.images is not None:
            return self.views(self.images, drawn.places[:, 0].repeat(views), drawn.parameters)
        lengths = drawn.places.prod(dim=1)
        first = lengths.cumsum(0) - lengths
        store = ImageStore(*(part.to(self.device, non_blocking=True) for part in (drawn.pixels, first, drawn.places)))
        return self.views(store, torch.arange(len(first)).repeat(views), drawn.parameters)

    def _normalize(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last).to(self.img_dtype)
        images = images.sub_(self.mean).div_(self.std)
        erased: Tensor = images if self.random_erasing is None else self.random_erasing(images)
        return erased
