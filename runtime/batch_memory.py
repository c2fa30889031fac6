"""A check of a batch against the memory that is available."""

from __future__ import annotations

from runtime.errors import UsageError
from runtime.free_space import available_memory, gib


def check_batch_fits(images: int, size: tuple[int, int, int], views: int = 1, on_host: bool = True) -> None:
    """Refuse a batch whose images alone exceed the memory, before workers make it and the system ends them.

    Args:
        images: images in a batch.
        size: channels, height and width of an image.
        views: views of an image.
        on_host: whether the model runs on the CPU, where the batch is also held as float32.

    Raises:
        UsageError: the batch does not fit.
    """
    channels, height, width = size
    needed = images * views * channels * height * width * (5 if on_host else 1)
    free = available_memory()
    if free is not None and needed > free:
        raise UsageError(
            f"a batch of {images:,} images of {height} x {width} pixels takes {gib(needed)} before any activation, and "
            f"{gib(free)} are available: use a smaller batch_size or img_size"
        )
