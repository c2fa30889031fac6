"""Compare making two views of each photograph, from the file to normalized float tensors, on one core."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from harness import Comparison, Result, Work
from photographs import photographs, resized
from PIL import Image
from torch import Tensor
from torchvision import transforms

from catalog.decode import load_pixels
from catalog.scaled_jpeg import ScaledJpeg, open_pixels
from timm.data import create_transform
from timm.data.byte_transforms import from_pixels
from timm.data.device_view_ops import BatchViews, ImageStore, encode
from timm.data.prefetch_loader import in_rows
from timm.data.resize_crop import as_tensor
from timm.data.simclr_view import SimCLRView

SIZE = 224
LARGE = (1000, 3000)  # pixels of the longer side of a photograph
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Views = Callable[[Path], Any]


def run(small: bool) -> list[Result]:
    """Compare SimCLR's policy, also on large photographs, the original's RandAugment, and decoding alone."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    files = photographs(50 if small else 200)
    rounds = 3 if small else 7
    note = f"{len(files)} photographs, two views each of {SIZE} pixels, one core"
    found = [
        Comparison("SimCLR's views", _works(files, SIMCLR), len(files), rounds, note).run(),
        *(_large(side, small) for side in LARGE),
        Comparison("views by RandAugment", _works(files, RAND_AUGMENT), len(files), rounds, note).run(),
        Comparison("decoding alone", _works(files, DECODING), len(files), rounds, "the same photographs").run(),
    ]
    if DEVICE.type == "cuda":  # nobody caches images on the device if it is a CPU
        found.append(Comparison("views of cached images", _device_works(files), len(files), rounds, note).run())
    return found


def _large(side: int, small: bool) -> Result:
    """Compare SimCLR's policy on photographs with a longer side of `side` pixels."""
    files = resized(photographs(4 if small else 48), side)
    note = f"{len(files)} photographs of {side} pixels, two views each of {SIZE} pixels, one core"
    return Comparison("SimCLR's views", _works(files, LARGE_SIMCLR), len(files), 3 if small else 7, note).run()


def _works(files: list[Path], contenders: dict[str, Callable[[], Views]]) -> dict[str, Callable[[], Work]]:
    def worker(make: Callable[[], Views]) -> Callable[[], Work]:
        def prepared() -> Work:
            views = make()

            def once() -> None:
                random.seed(0)
                np.random.seed(0)  # noqa: NPY002 - timm's policies draw from this generator
                torch.manual_seed(0)
                for file in files:
                    views(file)

            return once

        return prepared

    return {name: worker(make) for name, make in contenders.items()}


def _normalized(view: Tensor) -> Tensor:
    """Return bytes [3, H, W] as the normalized floats that the loader feeds a model."""
    mean, std = _STATISTICS
    return view.float().sub_(mean).div_(std)


_STATISTICS = [in_rows(torch.tensor(values).view(1, 3, 1, 1) * 255, SIZE)[0] for values in (MEAN, STD)]


def ours() -> Views:
    """Return the views of --views simclr."""
    view = SimCLRView((SIZE, SIZE), interpolation=[Image.Resampling.BILINEAR])

    def views(file: Path) -> list[Tensor]:
        pixels = load_pixels(file)
        return [_normalized(as_tensor(view(pixels))) for _ in range(2)]

    return views


def ours_reduced() -> Views:
    """Return the views of --views simclr --decode reduced."""
    view = SimCLRView((SIZE, SIZE), interpolation=[Image.Resampling.BILINEAR])

    def views(file: Path) -> list[Tensor]:
        image = open_pixels(file)
        drawn = [view.draw(*image.shape[:2]) for _ in range(2)]
        if isinstance(image, ScaledJpeg):
            image.expect([one.box for one in drawn], view.size)
        return [_normalized(as_tensor(view.make(image, one))) for one in drawn]

    return views


def ours_rand_augment() -> Views:
    """Return the views of --aa rand-m9-mstd0.5, the policy of the original's command."""
    transform = from_pixels(_timm_rand_augment())

    def views(file: Path) -> list[Tensor]:
        pixels = load_pixels(file)
        return [_normalized(transform(pixels)) for _ in range(2)]

    return views


def _timm_rand_augment() -> Any:
    return create_transform((3, SIZE, SIZE), is_training=True, auto_augment="rand-m9-mstd0.5", use_prefetcher=True)


def _device_works(files: list[Path]) -> dict[str, Callable[[], Work]]:
    """Return the work of --augment-on device with --cache device, and the same work in a worker."""

    # on the device
    def on_device() -> Work:
        view = SimCLRView((SIZE, SIZE), interpolation=[Image.Resampling.BILINEAR])
        images = [torch.from_numpy(load_pixels(file)) for file in files]
        sizes = torch.tensor([image.shape[:2] for image in images])
        lengths = sizes.prod(dim=1)
        pixels = torch.cat([image.flatten(0, 1) for image in images])
        store = ImageStore(*(part.to(DEVICE) for part in (pixels, lengths.cumsum(0) - lengths, sizes)))
        make = BatchViews((SIZE, SIZE), view.interpolation, DEVICE)
        mean, std = (statistic.to(DEVICE) for statistic in _STATISTICS)

        def once() -> None:
            for batch in torch.arange(len(files)).split(32):
                rows = batch.repeat(2)
                drawn = [encode(view.draw(*sizes[row].tolist())) for row in rows]
                make(store, rows, torch.tensor(drawn)).sub_(mean).div_(std)
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()

        return once

    # in a worker
    def by_workers() -> Work:
        view = SimCLRView((SIZE, SIZE), interpolation=[Image.Resampling.BILINEAR])
        images = [load_pixels(file) for file in files]

        def once() -> None:
            for pixels in images:
                for _ in range(2):
                    _normalized(as_tensor(view(pixels)))

        return once

    return {"--augment-on device": on_device, "a worker, from --cache ram": by_workers}


def lightly() -> Views:
    """Return the views of lightly's SimCLRTransform."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly.transforms import SimCLRTransform
    transform = SimCLRTransform(input_size=SIZE)
    return lambda file: transform(_opened(file))


def solo_learn() -> Views:
    """Return the views of solo-learn's SimCLR recipe for ImageNet, made by torchvision as in solo-learn."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, scale=(0.08, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([transforms.GaussianBlur(23, (0.1, 2.0))], p=0.5),
            transforms.RandomHorizontalFlip(p=0.5),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return _twice(transform)


def torchvision_v2() -> Views:
    """Return the same views by torchvision's v2 transforms on byte tensors, the fastest way in its documentation."""
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(SIZE, scale=(0.08, 1.0), antialias=True),
            v2.RandomHorizontalFlip(p=0.5),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], p=0.5),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return _twice(transform)


def timm_flags() -> Views:
    """Return the views of timm's flags at SimCLR's strength, as the original sets them."""
    transform = create_transform(
        (3, SIZE, SIZE),
        is_training=True,
        interpolation="bilinear",
        color_jitter=(0.8, 0.8, 0.8, 0.2),
        color_jitter_prob=0.8,
        grayscale_prob=0.2,
        gaussian_blur_prob=0.5,
    )
    return _twice(transform)


def timm_rand_augment() -> Views:
    """Return two views by timm's transform."""
    transform = _timm_rand_augment()
    return _twice(lambda image: _normalized(transform(image)))


def _twice(transform: Callable[[Image.Image], Any]) -> Views:
    def views(file: Path) -> list[Any]:
        image = _opened(file)
        return [transform(image) for _ in range(2)]

    return views


def _opened(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


SIMCLR = {
    "ours": ours,
    "lightly": lightly,
    "solo-learn's recipe": solo_learn,
    "torchvision v2": torchvision_v2,
    "timm's flags": timm_flags,
}
LARGE_SIMCLR = {
    "--decode reduced": ours_reduced,
    "--decode full": ours,
    "lightly": lightly,
    "torchvision v2": torchvision_v2,
    "timm's flags": timm_flags,
}
RAND_AUGMENT = {"ours": ours_rand_augment, "timm, twice": timm_rand_augment}
DECODING: dict[str, Callable[[], Views]] = {"ours": lambda: load_pixels, "Pillow": lambda: _opened}
