"""The photographs for the benchmarks: files from --images, or generated pictures that are as hard to decode."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
FOLDER = "BENCHMARK_IMAGES"  # environment variable with a folder of photographs, which a benchmark's processes inherit


def photographs(count: int) -> list[Path]:
    """Return `count` files, evenly spread over the folder of --images, or generated once under build/."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return _generated(count)
    files = sorted(file for file in Path(folder).rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    if len(files) < count:
        raise SystemExit(f"--images {folder}: {len(files)} JPEGs, but {count} are needed: name a larger folder")
    return files[:: len(files) // count][:count]


def resized(files: list[Path], side: int) -> list[Path]:
    """Return copies with a longer side of `side` pixels; they are made once, under build/."""
    folder = HERE.parent / "build" / f"benchmark-photographs-{side}"
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for number, file in enumerate(files):
        copies.append(folder / f"{len(files)}-{number}.jpg")
        if not copies[-1].exists():
            with Image.open(file) as image:
                scale = side / max(image.size)
                size = (round(image.width * scale), round(image.height * scale))
                image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(copies[-1], quality=90)
    return copies


def _generated(count: int) -> list[Path]:
    """Generate pictures 256 pixels high whose power falls with the square of the frequency, as in photographs."""
    folder = HERE.parent / "build" / "benchmark-photographs"
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index}.jpg" for index in range(count)]
    for index, file in enumerate(files):
        if not file.exists():
            rng = np.random.default_rng(index)
            height, width = 256, int(rng.choice([256, 341, 384]))
            rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
            falling = 1 / np.maximum(np.hypot(rows, columns), 1 / max(height, width))
            noise = rng.normal(size=(3, height, width))
            shades = np.fft.ifft2(np.fft.fft2(noise) * falling).real
            shades = 0.8 * shades[:1] + 0.2 * shades  # the channels share most of their light, as in photographs
            low, high = np.quantile(shades, [0.01, 0.99])
            pixels = np.clip((shades - low) / (high - low) * 255, 0, 255).astype(np.uint8)
            Image.fromarray(pixels.transpose(1, 2, 0)).save(file, quality=85)
    return files
