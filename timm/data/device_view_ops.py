"""SimCLR's views of a whole batch on the model's device, each view with its parameters.

`timm.data.simclr_view` draws the parameters. A few operations on [M, C, H, W] then make all views. Antialiased resizing
is linear, so two matrices of weights resize a crop, one for its rows and one for its columns, and flip it. Values stay
floats, where the policy on bytes rounds after each operation. They are clipped to 0..255 at the same places.

Nothing here waits for a value from the device. Decisions that launch work, such as which views are blurred, are read
from the parameters before these leave the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL.Image import Resampling
from torch import Tensor

from timm.data.simclr_view import (
    TAILS,
    Drawn,
    Jitter,
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    largest_radius,
    shift_hue,
)

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _NOTHING = range(5)
_NUMBERS: dict[Jitter, int] = {
    adjust_brightness: _BRIGHTNESS,
    adjust_contrast: _CONTRAST,
    adjust_saturation: _SATURATION,
    shift_hue: _HUE,
}
_ROUNDS = 4  # maximum number of jitters of a view
_LUMINANCE = 0.299, 0.587, 0.114  # ITU-R BT.601, as in Pillow, OpenCV and torchvision
_ELEMENTS = 1 << 25  # maximum size of an intermediate tensor: 128 MiB

# Pillow's filters by number: the weight of a pixel at a distance from the middle of the new pixel. The unit is an old
# or a new pixel, whichever is larger.
FILTERS: dict[int, Callable[[Tensor], Tensor]] = {
    Resampling.BILINEAR: lambda x: (1 - x.abs()).clamp(min=0),
    Resampling.BICUBIC: lambda x: _cubic(x.abs()),
}


class ImageStore(NamedTuple):
    """Images of different sizes, one after the other.

    Attributes:
        pixels: uint8 [pixels, C], each image row by row.
        first: int64 [N], index of each image's first pixel.
        sizes: int64 [N, 2], height and width of each image.
    """

    pixels: Tensor
    first: Tensor
    sizes: Tensor


def encode(drawn: Drawn) -> list[float]:
    """Return the draws of a view as the `PARAMETERS` numbers that `BatchViews` takes."""
    jitters = [(_NUMBERS[adjust], amount) for adjust, amount in drawn.jitters]
    jitters += [(_NOTHING, 1.0)] * (_ROUNDS - len(jitters))
    numbers, amounts = zip(*jitters, strict=True)
    return [*drawn.box, drawn.interpolation, drawn.hflip, drawn.vflip, drawn.gray, drawn.sigma, *numbers, *amounts]


_BOX, _MODE, _HFLIP, _VFLIP, _GRAY, _SIGMA = slice(0, 4), 4, 5, 6, 7, 8
_JITTERS, _AMOUNTS = slice(9, 9 + _ROUNDS), slice(9 + _ROUNDS, 9 + 2 * _ROUNDS)
PARAMETERS = 9 + 2 * _ROUNDS


class BatchViews:
    """Maker of the views of images in a store.

    Args:
        size: height and width of a view, pixels.
        interpolation: Pillow's numbers of the interpolations that are drawn, keys of `FILTERS`.
        device: where the views are made.
    """

    def __init__(self, size: tuple[int, int], interpolation: Sequence[int], device: torch.device) -> None:
        self.size = size
        self.modes = sorted(set(interpolation))
        self.device = device
        self.largest_radius = min(largest_radius(size), min(size) - 1)

    def __call__(self, store: ImageStore, rows: Tensor, parameters: Tensor) -> Tensor:
        """Return the views, float32 [M, C, size[0], size[1]], 0-255, on the device.

        Args:
            store: the images, on the device.
            rows: int64 [M], the image of each view in the store, on the CPU.
            parameters: float32 [M, PARAMETERS] of `encode`, on the CPU.
        """
        max_height, max_width = int(parameters[:, 2].max()), int(parameters[:, 3].max())
        largest = max(max_height, self.size[0]) * max(max_width, self.size[1]) * store.pixels.shape[1]
        views = max(1, _ELEMENTS // largest)
        parts = zip(rows.split(views), parameters.split(views), strict=True)
        return torch.cat([self._make(store, *part) for part in parts])

    def _make(self, store: ImageStore, rows: Tensor, parameters: Tensor) -> Tensor:
        sent, rows = self._send(parameters), self._send(rows)
        view = self._resize(store, rows, sent, int(parameters[:, 2].max()), int(parameters[:, 3].max()))
        for turn in range(_ROUNDS):
            numbers = parameters[:, _JITTERS][:, turn]
            if bool((numbers != _NOTHING).any()):
                view = _jitter(view, sent[:, _JITTERS][:, turn], sent[:, _AMOUNTS][:, turn])
            hued = (numbers == _HUE).nonzero().flatten()
            if len(hued) and view.shape[1] == 3:
                hued = self._send(hued)
                view[hued] = _shift_hue(view[hued], sent[hued, _AMOUNTS.start + turn])
        if bool(parameters[:, _GRAY].any()):
            saturation = torch.full_like(sent[:, _GRAY], _SATURATION)
            view = _jitter(view, saturation, 1 - sent[:, _GRAY])
        blurred = parameters[:, _SIGMA].nonzero().flatten()
        if len(blurred) and self.largest_radius:
            blurred = self._send(blurred)
            view[blurred] = self._blur(view[blurred], sent[blurred, _SIGMA])
        return view

    def _send(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _resize(self, store: ImageStore, rows: Tensor, parameters: Tensor, max_height: int, max_width: int) -> Tensor:
        """Cut out and resize the crops, [M, C, size[0], size[1]]; the largest is max_height x max_width pixels."""
        top, left, height, width = parameters[:, _BOX].long().unbind(1)
        # Indices of the crops' pixels, [M, max_height] and [M, max_width]; outside a crop its border is repeated.
        ys = top[:, None] + torch.arange(max_height, device=self.device).clamp(max=(height - 1)[:, None])
        xs = left[:, None] + torch.arange(max_width, device=self.device).clamp(max=(width - 1)[:, None])
        places = store.first[rows, None, None] + ys[:, :, None] * store.sizes[rows, 1, None, None] + xs[:, None, :]
        crops = store.pixels[places].permute(0, 3, 1, 2).float()  # [M, C, max_height, max_width]
        across = self._weights(width, parameters[:, _HFLIP], parameters[:, _MODE], self.size[1], max_width)
        down = self._weights(height, parameters[:, _VFLIP], parameters[:, _MODE], self.size[0], max_height)
        # Overshoots of the kernel are clipped after each pass, as in bytes.
        narrow = (crops @ across[:, None].mT).clamp_(0, 255)
        return (down[:, None] @ narrow).clamp_(0, 255)

    def _weights(self, length: Tensor, flip: Tensor, mode: Tensor, new: int, longest: int) -> Tensor:
        """Return the weights of each old pixel in each new pixel along one axis, [M, new, longest].

        Args:
            length: int64 [M], pixels of each crop along the axis.
            flip: float32 [M], 1 for a mirrored crop.
            mode: float32 [M], Pillow's number of the interpolation.
            new: pixels of a view along the axis.
            longest: maximum of the lengths.
        """
        scale = length / new  # [M]
        middle = (torch.arange(new, device=self.device) + 0.5) * scale[:, None]  # [M, new], in old pixels
        old = torch.arange(longest, device=self.device)
        distance = (old + 0.5 - middle[:, :, None]) / scale.clamp(min=1)[:, None, None]  # [M, new, longest]
        weights = torch.zeros_like(distance)
        for number in self.modes:
            weights += FILTERS[number](distance) * (mode == number)[:, None, None]
        weights *= old < length[:, None, None]
        weights = weights / weights.sum(dim=2, keepdim=True)
        return torch.where(flip[:, None, None] > 0, weights.flip(1), weights)

    def _blur(self, views: Tensor, sigma: Tensor) -> Tensor:
        """Blur [M, C, H, W], each view with its sigma [M]; the border mirrors."""
        radius = self.largest_radius
        steps = torch.arange(-radius, radius + 1, device=self.device)
        kernels = torch.exp(-(steps**2) / (2 * sigma[:, None] ** 2))  # [M, 2 radius + 1]
        kernels = kernels * (steps.abs() <= (TAILS * sigma).ceil()[:, None])
        kernels = (kernels / kernels.sum(dim=1, keepdim=True)).repeat_interleave(views.shape[1], dim=0)[:, None, None]
        flat = views.flatten(0, 1)[None]  # [1, M * C, H, W]: convolved in groups of one
        groups = len(kernels)
        flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="reflect"), kernels, groups=groups)
        flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="reflect"), kernels.mT, groups=groups)
        return flat.view_as(views)


def _jitter(views: Tensor, number: Tensor, amount: Tensor) -> Tensor:
    """Change brightness, contrast or saturation of [M, C, H, W], moving each view away from a base by a factor.

    Args:
        views: values of 0-255.
        number: float32 [M], number of the operation; other operations change nothing.
        amount: float32 [M], factor of the operation.
    """
    gray = _gray(views)
    contrast, saturation = (number == _CONTRAST)[:, None, None, None], (number == _SATURATION)[:, None, None, None]
    base = gray.mean(dim=(2, 3), keepdim=True) * contrast + gray * saturation  # the base of brightness is black
    factor = torch.where(number < _HUE, amount, 1.0)[:, None, None, None]
    return (base + factor * (views - base)).clamp_(0, 255)


def _gray(views: Tensor) -> Tensor:
    """Return the luminance of [M, C, H, W], [M, 1, H, W]."""
    if views.shape[1] == 1:
        return views
    red, green, blue = (weight * views[:, channel] for channel, weight in enumerate(_LUMINANCE))
    return (red + green + blue)[:, None]


def _shift_hue(views: Tensor, amount: Tensor) -> Tensor:
    """Rotate the color circle of [M, 3, H, W] by a share of it for each view, [M], -0.5 to 0.5."""
    red, green, blue = views.unbind(1)
    value, chroma = views.amax(dim=1), views.amax(dim=1) - views.amin(dim=1)
    divisor = torch.where(chroma > 0, chroma, 1.0)
    # In sixths of the circle. If two channels share the maximum, both formulas agree.
    hue = torch.where(value == red, (green - blue) / divisor, 4 + (red - green) / divisor)
    hue = torch.where((value == green) & (value != red), 2 + (blue - red) / divisor, hue)
    hue = hue + 6 * amount[:, None, None]
    channels = [(offset + hue) % 6 for offset in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in channels], dim=1)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, as in Pillow, at distances from 0 (1981, https://doi.org/10.1109/TASSP.1981.1163711)."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
