"""Makers of views: from a decoded image to the view, or the views of a plan, that a dataset returns for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from catalog.decode import Pixels
from catalog.scaled_jpeg import ScaledJpeg
from timm.data import create_transform
from timm.data.byte_operations import allow_black
from timm.data.byte_transforms import RandomCrop, from_pixels
from timm.data.preprocessing import DataConfig
from timm.data.simclr_view import SimCLRView
from timm.data.transforms import RandomResizedCropAndInterpolation
from timm.data.view_plan import ViewPlan

# Takes an image uint8 [H, W, C] and returns a view, a tuple of views, or the draws that the device makes views from.
# Makers of random resized crops also take a `ScaledJpeg`.
ViewMaker = Callable[[Any], Any]

LightView = Callable[[Pixels | ScaledJpeg], Tensor]

# A light view keeps most of the picture, so that it still shows what the attribute is about.
_LIGHT_SCALE = (0.5, 1.0)


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images, with the names and defaults of timm's `create_transform`.

    Attributes:
        no_aug: resize only.
        re_prob: probability of erasing a part of a view, 0-1.
        re_mode: "const", "rand" or "pixel".
        re_count: maximum number of erased rectangles in a view.
        re_split: leave the first view of each image whole.
        train_crop_mode: timm's name of the crop; None for the random resized crop.
        scale: share of the image's area in a crop, from and to.
        ratio: width over height of a crop, from and to.
        hflip: probability of mirroring.
        vflip: probability of turning upside down.
        color_jitter: strength for brightness, contrast, saturation and hue, or one number for the first three.
        color_jitter_prob: probability of the jitter; None for always.
        grayscale_prob: probability of a gray view.
        gaussian_blur_prob: probability of a blurred view.
        auto_augment: timm's name of a policy, or None.
        num_aug_splits: AugMix's number of splits, 0 without AugMix.
        interpolation: "bilinear", "bicubic" or "random".
    """

    no_aug: bool = False
    re_prob: float = 0.0
    re_mode: str = "const"
    re_count: int = 1
    re_split: bool = False
    train_crop_mode: str | None = None
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] | None = None
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float | tuple[float, ...] | None = 0.4
    color_jitter_prob: float | None = None
    grayscale_prob: float = 0.0
    gaussian_blur_prob: float = 0.0
    auto_augment: str | None = None
    num_aug_splits: int = 0
    interpolation: str = "bilinear"


class PlannedViews:
    """Maker of a plan's views of one decoded image.

    Args:
        plan: the views.
        full: makes a "full" view; with AugMix its three parts (crop, augment, to tensor).
        light: makes a "light" view; None in a plan without one.
    """

    def __init__(self, plan: ViewPlan, full: Any, light: Any) -> None:
        self.plan = plan
        self.light = light
        self.crop, self.augment, self.finish = full if isinstance(full, (tuple, list)) else (full, _same, _same)

    def __call__(self, pixels: Pixels | ScaledJpeg) -> Tensor | tuple[Tensor, ...]:
        """Return the views as a tuple; a single view without one."""
        if isinstance(pixels, ScaledJpeg):
            self._draw_ahead(pixels)
        shared = self.crop(pixels) if "clean" in self.plan.kinds else None
        views = tuple(self._view(kind, pixels, shared) for kind in self.plan.kinds)
        return views if len(views) > 1 else views[0]

    def _draw_ahead(self, image: ScaledJpeg) -> None:
        """Draw all crops of an image before the first is cut, in the same order, so that it is decoded once."""
        kinds = self.plan.kinds
        cropped = (["clean"] if "clean" in kinds else []) + [kind for kind in kinds if kind in ("full", "light")]
        crops = [(self.light if kind == "light" else self.crop).transforms[0] for kind in cropped]
        drawn = [crop.draw(*image.shape[:2]) for crop in crops]
        image.crops = iter(drawn)
        for crop, one in zip(crops, drawn, strict=True):
            image.expect([one.box], crop.size)

    def _view(self, kind: str, pixels: Pixels | ScaledJpeg, shared: Any) -> Tensor:
        if kind == "light":
            assert self.light is not None
            light: Tensor = self.light(pixels)
            return light
        if kind == "clean":
            view: Tensor = self.finish(shared)
        elif kind == "augmented":
            view = self.finish(self.augment(shared))
        else:
            view = self.finish(self.augment(self.crop(pixels)))
        return view


def training_views(
    plan: ViewPlan,
    config: DataConfig,
    augmentation: Augmentation,
    prefetched: bool,
    simclr_policy: Mapping[str, Any] | None = None,
) -> PlannedViews:
    """Return the maker of a plan's training views.

    Args:
        plan: the views.
        config: preprocessing of the model's images.
        augmentation: timm's augmentation.
        prefetched: return bytes, which the loader normalizes; else normalized floats.
        simclr_policy: `strength` and `keep_color` of SimCLR's full views; None uses timm's augmentation.
    """
    allow_black()
    light = _light_view(config, augmentation, prefetched) if "light" in plan.kinds else None
    view = None if simclr_policy is None else simclr_view(config, augmentation, simclr_policy)
    options = asdict(augmentation)
    num_splits, re_split = options.pop("num_aug_splits"), options.pop("re_split")
    full = create_transform(
        tuple(config["input_size"]),
        is_training=True,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        re_num_splits=(num_splits or 2) if re_split else 0,  # without the prefetcher timm's transform erases
        use_prefetcher=prefetched,
        separate=num_splits > 0,
        **options,
    )
    return PlannedViews(plan, from_pixels(full, view), light)


def evaluation_view(config: DataConfig, prefetched: bool) -> ViewMaker:
    """Return the maker of the single view that a model is evaluated on.

    Args:
        config: preprocessing of the model's images.
        prefetched: return bytes, which the loader normalizes; else normalized floats.
    """
    transform = create_transform(
        tuple(config["input_size"]),
        is_training=False,
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
        use_prefetcher=prefetched,
    )
    view: ViewMaker = from_pixels(transform)
    return view


def simclr_view(
    config: DataConfig, augmentation: Augmentation, policy: Mapping[str, Any], light: bool = False
) -> SimCLRView:
    """Return SimCLR's policy with the crops and flips of timm's augmentation.

    Args:
        config: preprocessing of the model's images.
        augmentation: crops, flips and interpolation.
        policy: `strength` and `keep_color`, or `distort`.
        light: crop as for a light view.
    """
    size = tuple(config["input_size"][1:])
    crop = RandomCrop(RandomResizedCropAndInterpolation(size, interpolation=augmentation.interpolation))
    scale, ratio = _LIGHT_SCALE if light else augmentation.scale, augmentation.ratio
    assert scale is not None, "SimCLR's views need the scale of a crop"
    assert ratio is not None, "SimCLR's views need the ratio of a crop"
    return SimCLRView(
        size,
        interpolation=crop.interpolation,
        scale=(scale[0], scale[1]),
        ratio=(ratio[0], ratio[1]),
        hflip=augmentation.hflip,
        vflip=augmentation.vflip,
        **policy,
    )


def _light_view(config: DataConfig, augmentation: Augmentation, prefetched: bool) -> LightView:
    """Return the maker of a crop and a flip, which changes no color."""
    transform = create_transform(
        tuple(config["input_size"]),
        is_training=True,
        no_aug=augmentation.no_aug,
        scale=_LIGHT_SCALE,
        ratio=augmentation.ratio,
        hflip=augmentation.hflip,
        vflip=augmentation.vflip,
        color_jitter=None,  # type: ignore[arg-type]  # timm takes None for no jitter
        interpolation=augmentation.interpolation,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        use_prefetcher=prefetched,
    )
    view: LightView = from_pixels(transform)
    return view


def _same(image: Any) -> Any:
    return image
