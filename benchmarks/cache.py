"""Compare two views of a cached image (--cache ram) with two views of the same image decoded from its file."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from harness import Comparison, Result, Work
from photographs import photographs, resized
from PIL import Image

from catalog.decode import Pixels, load_pixels
from catalog.image_cache import ImageCache, decode_into, image_sources
from catalog.table import read_table
from timm.data.resize_crop import as_tensor
from timm.data.simclr_view import SimCLRView

SIDES = (256, 1000, 3000)  # pixels of the longer side of a photograph
SIZES = (64, 224)  # pixels of a view


def run(small: bool) -> list[Result]:
    """Compare for photographs and views of several sizes."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    found = []
    for side in SIDES[:1] if small else SIDES:
        files = resized(photographs(8 if small else 48), side)
        cache = _cache(files)
        for size in SIZES:
            name = f"photographs of {side} pixels, views of {size}"
            works = {"cached": _work(cache.get, len(files), size), "decoded": _work(_decoder(files), len(files), size)}
            found.append(Comparison(name, works, len(files), 3 if small else 7, "one core").run())
    return found


def _cache(files: list[Path]) -> ImageCache:
    """Return a cache of the files in memory."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "train.csv")
        table.write_text("\n".join(["image_path,kind", *(f"{file},{'ab'[file.name > 'm']}" for file in files)]) + "\n")
        sources = image_sources(read_table(table))
    file = os.memfd_create("benchmark")
    index = decode_into(f"/proc/{os.getpid()}/fd/{file}", sources, sources.areas(0, False), 3, 0, show=False)
    return ImageCache(file, index, 3, sources.of_row)


def _decoder(files: list[Path]) -> Callable[[int], Pixels]:
    return lambda row: load_pixels(files[row])


def _work(load: Callable[[int], Pixels | None], count: int, size: int) -> Callable[[], Work]:
    def prepared() -> Work:
        view = SimCLRView((size, size), interpolation=[Image.Resampling.BILINEAR])

        def once() -> None:
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002
            torch.manual_seed(0)
            for row in range(count):
                pixels = load(row)
                assert pixels is not None
                for _ in range(2):
                    as_tensor(view(pixels))

        return once

    return prepared
