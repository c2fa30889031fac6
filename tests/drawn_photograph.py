"""Images for tests of duplicates: each seed gives another subject, with shades, edges and colors."""

import numpy as np
from PIL import Image, ImageDraw


def photograph(seed: int, width: int = 240, height: int = 320) -> Image.Image:
    """Return an image whose shades and shapes follow from the seed."""
    rng = np.random.default_rng(seed)
    shades = rng.integers(40, 216, (4, 3, 3), dtype=np.uint8)
    image = Image.fromarray(shades).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(14):
        left, top = int(rng.integers(0, width - 20)), int(rng.integers(0, height - 20))
        right, bottom = left + int(rng.integers(12, width // 2)), top + int(rng.integers(12, height // 3))
        draw = (pen.rectangle, pen.ellipse)[int(rng.integers(2))]
        draw((left, top, right, bottom), fill=tuple(map(int, rng.integers(0, 256, 3))))
    return image
