"""SimCLR's augmentation of a whole batch at once, on whatever device it lies: each picture with parameters of its own.

- SimCLR, Chen et al., 2020, https://arxiv.org/abs/2002.05709 (appendix A)

The policy is that of `timm.data.simclr_view`, in float32 instead of bytes. The parameters are drawn on the CPU, so that a
run draws the same on every device and nothing waits for a GPU. Crop, resize and flip are one product of matrices for
each axis: a row holds what each pixel weighs, antialiased, as in Pillow's bilinear resize of the crop.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from timm.data.simclr_view import SimCLRView, random_box

_GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow and torchvision


class BatchViews:
    """Makes a random view of each image of a batch.

    Args:
        policy: sizes, probabilities and ranges.
    """

    def __init__(self, policy: SimCLRView) -> None:
        self.policy = policy

    def __call__(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Return the views, float32 [B, C, *policy.size], 0-255.

        Args:
            images: uint8 [B, H, W, C]; what lies beyond an image's own size is padding.
            sizes: height and width of each image.
        """
        policy = self.policy
        boxes = [random_box(height, width, policy.scale, policy.ratio) for height, width in sizes]
        flips = [(random.random() < policy.hflip, random.random() < policy.vflip) for _ in sizes]
        views = crop_and_resize(images, boxes, policy.size, flips)
        jittered = _chosen(len(sizes), policy.jitter_prob)
        orders = [random.sample(policy.jitters, len(policy.jitters)) for _ in jittered]
        for place in range(len(policy.jitters)):
            for kind in policy.jitters:
                rows = [row for row, order in zip(jittered, orders, strict=True) if order[place] == kind]
                _change(views, rows, _JITTERS[kind], [policy.draw(kind) for _ in rows])
        if not policy.keep_color:
            grey = _chosen(len(sizes), policy.grey_prob)
            _change(views, grey, saturate, [0.0 for _ in grey])
        blurred = _chosen(len(sizes), policy.blur_prob)
        radius = policy.largest_radius
        _change(views, blurred, lambda batch, sigmas: blur(batch, sigmas, radius), [policy.sigma() for _ in blurred])
        return views


def crop_and_resize(
    images: Tensor,
    boxes: Sequence[tuple[int, int, int, int]],
    size: tuple[int, int],
    flips: Sequence[tuple[bool, bool]],
) -> Tensor:
    """Cut a rectangle out of each image, resize it bilinearly, antialiased, and flip it.

    Args:
        images: uint8 [B, H, W, C].
        boxes: top, left, height and width of each rectangle.
        size: height and width of the result.
        flips: of each image, whether left and right change places, and top and bottom.

    Returns:
        float32 [B, C, *size], 0-255, channels last in memory.
    """
    batch, height, width, channels = images.shape
    tops, lefts, heights, widths = (torch.tensor(values) for values in zip(*boxes, strict=True))
    across, down = (torch.tensor(values) for values in zip(*flips, strict=True))
    rows = resize_weights(tops, heights, size[0], height, down).to(images.device, non_blocking=True)
    columns = resize_weights(lefts, widths, size[1], width, across).to(images.device, non_blocking=True)
    shorter = rows @ images.float().view(batch, height, width * channels)  # [B, h, W * C]
    shorter = shorter.view(batch, size[0], width, channels).transpose(1, 2)  # [B, W, h, C]
    result = columns @ shorter.reshape(batch, width, size[0] * channels)  # [B, w, h * C]
    return result.view(batch, size[1], size[0], channels).permute(0, 3, 2, 1).contiguous(memory_format=torch.channels_last)


def resize_weights(starts: Tensor, lengths: Tensor, size: int, whole: int, flipped: Tensor) -> Tensor:
    """Return what each pixel of a line weighs in each pixel of its resized part, [B, size, whole].

    Args:
        starts: where the part begins, [B].
        lengths: its length, [B], at least 1.
        size: pixels to resize it to.
        whole: pixels of the line.
        flipped: whether it is turned around, [B].
    """
    scales = lengths / size  # [B]
    index = torch.arange(size).expand(len(starts), size)
    index = torch.where(flipped[:, None], size - 1 - index, index)
    centres = starts[:, None] + (index + 0.5) * scales[:, None]  # [B, size]
    pixels = torch.arange(whole) + 0.5  # [whole]
    # A triangle as wide as two pixels of the coarser side. Beyond the part there is nothing.
    distances = (pixels - centres[:, :, None]).abs() / scales.clamp(min=1)[:, None, None]
    weights = (1 - distances).clamp(min=0)
    inside = (pixels > starts[:, None]) & (pixels < (starts + lengths)[:, None])  # [B, whole]
    weights = weights * inside[:, None]
    return weights / weights.sum(dim=2, keepdim=True)


def brighten(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply each image of [B, C, H, W], 0-255, by its factor, [B]."""
    return (images * _each(factors)).clamp(0, 255)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Move each image of [B, C, H, W], 0-255, away from the mean of its grey values."""
    mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return _blend(images, mean, factors)


def saturate(images: Tensor, factors: Tensor) -> Tensor:
    """Move each pixel of [B, C, H, W], 0-255, away from its own grey value."""
    return images if images.shape[1] == 1 else _blend(images, _grey(images), factors)


def turn_hue(images: Tensor, amounts: Tensor) -> Tensor:
    """Turn the color circle of each image of [B, C, H, W], 0-255, by a share of it, [B]."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(dim=1)
    value, least = images.amax(dim=1), images.amin(dim=1)
    chroma = value - least
    safe = chroma.clamp(min=1e-6)
    # The hue in sixths of the circle; of grey it does not matter.
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sixths = sixths + 6 * amounts[:, None, None]
    # Smith, 1978: each primary falls from the value by the chroma, as a trapezium over the circle.
    places = [(sixths + offset) % 6 for offset in (5, 3, 1)]
    channels = [value - chroma * torch.minimum(place, 4 - place).clamp(0, 1) for place in places]
    return torch.stack(channels, dim=1)


def blur(images: Tensor, sigmas: Tensor, radius: int) -> Tensor:
    """Blur each image of [B, C, H, W] with a Gaussian of its own standard deviation, [B], pixels."""
    batch, channels, height, width = images.shape
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernels = torch.softmax(-(offsets**2) / (2 * sigmas[:, None] ** 2), dim=1)  # [B, taps]
    kernels = kernels.repeat_interleave(channels, dim=0)[:, None]  # [B * C, 1, taps]
    planes = images.reshape(1, batch * channels, height, width)
    padded = F.pad(planes, (radius, radius, radius, radius), mode="reflect")
    across = F.conv2d(padded, kernels[:, :, None], groups=batch * channels)
    both = F.conv2d(across, kernels[..., None], groups=batch * channels)
    return both.view(batch, channels, height, width)


_JITTERS = [brighten, contrast, saturate, turn_hue]


def _chosen(count: int, probability: float) -> list[int]:
    return [row for row in range(count) if random.random() < probability]


def _change(views: Tensor, rows: list[int], change: Callable[[Tensor, Tensor], Tensor], amounts: list[float]) -> None:
    """Change some rows of a batch in place, each by an amount of its own."""
    if rows:
        index = torch.tensor(rows).to(views.device, non_blocking=True)
        views[index] = change(views[index], torch.tensor(amounts).to(views.device, non_blocking=True))


def _blend(images: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    return torch.lerp(other.expand_as(images), images, _each(factors)).clamp(0, 255)


def _grey(images: Tensor) -> Tensor:
    """Return the grey values [B, 1, H, W]."""
    if images.shape[1] == 1:
        return images
    weights: Any = images.new_tensor(_GREY_WEIGHTS)
    return (images * weights.view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]
