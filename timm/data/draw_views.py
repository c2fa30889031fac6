"""What workers do where the device makes the views: decode an image, and draw what is to be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from catalog.decode import Pixels
from timm.data.device_view_ops import encode
from timm.data.simclr_view import SimCLRView
from timm.data.view_plan import ViewPlan


class ResidentSizes(NamedTuple):
    """What a worker must know of images that are on the device.

    Attributes:
        of_row: int64 [rows], the number of each row's image there.
        sizes: int64 [images, 2], height and width.
        channels: 3 or 1.
    """

    of_row: Tensor
    sizes: Tensor
    channels: int


class DrawnImage(NamedTuple):
    """An image and what was drawn for its views.

    Attributes:
        pixels: uint8 [H * W, C]; of an image that is on the device none, [0, C].
        place: int64 [2], height and width; of an image that is on the device its number there, and 0.
        parameters: float32 [V, PARAMETERS].
    """

    pixels: Tensor
    place: Tensor
    parameters: Tensor


class DrawnBatch(NamedTuple):
    """The images of a batch one after the other, and what was drawn for its views, view 0 of all images first.

    Attributes:
        pixels: uint8 [pixels of all, C].
        places: int64 [B, 2], as in `DrawnImage`.
        parameters: float32 [V * B, PARAMETERS].
    """

    pixels: Tensor
    places: Tensor
    parameters: Tensor


class DrawViews:
    """Draws the views of a plan for an image, in place of making them.

    Args:
        plan: the views.
        full: draws the "full" ones.
        light: draws the "light" ones.
        resident: what is known of images that are on the device; None if they are read.
    """

    def __init__(
        self, plan: ViewPlan, full: SimCLRView, light: SimCLRView, resident: ResidentSizes | None = None
    ) -> None:
        self.resident = resident
        self.draws = [{"full": full, "light": light}[kind] for kind in plan.kinds]

    def __call__(self, pixels: Pixels) -> DrawnImage:
        """Return an image uint8 [H, W, C] with what was drawn for it."""
        height, width, channels = pixels.shape
        flat = torch.from_numpy(pixels.reshape(-1, channels))
        return DrawnImage(flat, torch.tensor([height, width]), self._draw(height, width))

    def of_resident(self, row: int) -> DrawnImage:
        """Return what was drawn for the image of a row that is on the device."""
        assert self.resident is not None
        number = int(self.resident.of_row[row])
        nothing = torch.empty(0, self.resident.channels, dtype=torch.uint8)
        return DrawnImage(nothing, torch.tensor([number, 0]), self._draw(*self.resident.sizes[number].tolist()))

    def _draw(self, height: int, width: int) -> Tensor:
        return torch.tensor([encode(view.draw(height, width)) for view in self.draws])


def collate_drawn(batch: Sequence[tuple[DrawnImage, Tensor]]) -> tuple[DrawnBatch, Tensor]:
    """Batch images and the draws of their views, with their targets [B, C]."""
    images, targets = zip(*batch, strict=True)
    parameters = torch.stack([image.parameters for image in images], dim=1)  # [V, B, PARAMETERS]
    places = torch.stack([image.place for image in images])
    drawn = DrawnBatch(torch.cat([image.pixels for image in images]), places, parameters.flatten(0, 1))
    return drawn, default_collate(list(targets))
