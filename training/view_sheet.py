"""A picture of the views of a batch: an image's views side by side, its labels below them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from reports.figure_text import drawable

IMAGES = 16
LINES = 24  # texts below an image
GAP, LINE = 2, 12  # pixels: gap around each picture, height of a line of text
_FONT = "DejaVu Sans"  # matplotlib brings it


def view_sheet(
    images: Tensor,
    target: Tensor,
    kinds: Sequence[str],
    data_config: Mapping[str, Any],
    describe: Callable[[Sequence[int]], list[str]],
) -> Image.Image:
    """Return a picture of a batch's first images.

    Args:
        images: [V*B, C, H, W], normalized, view 0 first.
        target: int64 [B, C], the labels.
        kinds: name of each of the V views.
        data_config: its `mean` and `std` undo the normalization.
        describe: returns an image's labels in words, one text per attribute.
    """
    views = len(kinds)
    mean, std = (torch.tensor(data_config[key], device=images.device).view(-1, 1, 1) for key in ("mean", "std"))
    by_image = images.float().view(views, -1, *images.shape[1:])[:, :IMAGES].transpose(0, 1)
    pixels = (by_image * std + mean).clamp(0, 1).mul(255).add(0.5).clamp(0, 255).to(torch.uint8).cpu()
    captions = [_first_lines(describe(row)) for row in target[: len(pixels)].tolist()]
    return _sheet(pixels, list(kinds), captions)


def _first_lines(caption: list[str]) -> list[str]:
    """Return the first texts of a caption, as the labels of thousands of attributes make a picture too tall to save."""
    if len(caption) <= LINES:
        return caption
    return [*caption[: LINES - 1], f"and {len(caption) - LINES + 1:,} more"]


def _sheet(pixels: Tensor, kinds: list[str], captions: list[list[str]]) -> Image.Image:
    """Lay out the views uint8 [B, V, C, H, W] of each image, as many images in a row as fit eight views."""
    count, views, _, height, width = pixels.shape
    by_row = min(max(1, 8 // views), count)
    lines = max(len(caption) for caption in captions)
    block = GAP + views * (width + GAP), height + GAP + lines * LINE  # size of an image's views and labels
    rows = -(-count // by_row)
    sheet = Image.new("RGB", (GAP + by_row * (block[0] - GAP), LINE + GAP + rows * block[1]))
    for column in range(by_row * views):
        _write(sheet, kinds[column % views], GAP + column * (width + GAP), 0, width, "#ffd080")
    for index in range(count):
        left, top = index % by_row * (block[0] - GAP), LINE + GAP + index // by_row * block[1]
        for view in range(views):
            sheet.paste(to_pil_image(pixels[index, view]).convert("RGB"), (GAP + left + view * (width + GAP), top))
        for line, text in enumerate(captions[index]):
            _write(sheet, text, GAP + left, top + height + line * LINE, block[0] - 2 * GAP, "white")
    return sheet


def _write(sheet: Image.Image, text: str, left: int, top: int, width: int, color: str) -> None:
    """Write a text, cut off at its width."""
    strip = Image.new("RGB", (max(1, width), LINE))
    ImageDraw.Draw(strip).text((0, 0), drawable(text, [_FONT]), fill=color, font=_font())
    sheet.paste(strip, (left, top))


@cache
def _font() -> ImageFont.FreeTypeFont:
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont(_FONT), LINE - 3)
