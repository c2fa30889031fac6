"""Which views of an image are made in training, and which of them each loss reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from catalog.decode import Pixels

Transform = Callable[[Pixels], Tensor]

# What the attribute heads read; "light" is a crop and a flip, nothing that changes a color.
CLASSIFIED_VIEWS = {"first": ("full",), "both": ("full", "full"), "weak": ("light",)}


@dataclass(frozen=True)
class ViewPlan:
    """The views of an image, in the order they are batched.

    Attributes:
        kinds: how each view is made: "full", "light", or for AugMix "clean" and "augmented", which share one crop.
        classify: indices of the views that the attribute heads learn from.
        contrast: indices of the two views that the contrastive loss pairs, or None without it.
    """

    kinds: tuple[str, ...]
    classify: tuple[int, ...]
    contrast: tuple[int, int] | None

    def __len__(self) -> int:
        return len(self.kinds)


def plan_views(contrast: bool, classify_view: str | None = None, mixing: bool = False, aug_splits: int = 0) -> ViewPlan:
    """Return the fewest views that serve both losses.

    Args:
        contrast: whether there is a contrastive loss.
        classify_view: "first", "both" or "weak": what the attribute heads read. None is both where that makes no view
            more (benchmarks/README.md: they learn more of two), else the first.
        mixing: mixup or cutmix; mixed images are for the heads alone, as two images in one have no single positive.
        aug_splits: AugMix's number of splits (one clean, the others augmented), 0 without AugMix.
    """
    if aug_splits:
        splits = ("clean", *["augmented"] * (aug_splits - 1))
        return ViewPlan(
            (*splits, "full") if contrast else splits, tuple(range(aug_splits)), (1, aug_splits) if contrast else None
        )
    classified = CLASSIFIED_VIEWS[classify_view or ("both" if contrast and not mixing else "first")]
    if not contrast:
        # Without a second view to pair, two views of one image are a batch of twice the size at half the variety.
        return ViewPlan(classified[:1], (0,), None)
    heads = tuple(range(len(classified)))
    if mixing or classify_view == "weak":
        return ViewPlan((*classified, "full", "full"), heads, (len(classified), len(classified) + 1))
    return ViewPlan(("full", "full"), heads, (0, 1))


class ViewTransform:
    """Makes a plan's views of one decoded image.

    Args:
        plan: the views.
        full: the training transform of pixels, or with AugMix its three parts (crop, augment, to tensor).
        light: the transform of "light" views.
    """

    def __init__(self, plan: ViewPlan, full: Any, light: Transform | None) -> None:
        self.plan = plan
        self.light = light
        self.crop, self.augment, self.finish = full if isinstance(full, (tuple, list)) else (full, _same, _same)

    def __call__(self, pixels: Pixels) -> Tensor | tuple[Tensor, ...]:
        """Return the views, or the view where there is but one."""
        shared = self.crop(pixels) if "clean" in self.plan.kinds else None
        views = tuple(self._view(kind, pixels, shared) for kind in self.plan.kinds)
        return views if len(views) > 1 else views[0]

    def _view(self, kind: str, pixels: Pixels, shared: Any) -> Tensor:
        if kind == "light":
            assert self.light is not None
            return self.light(pixels)
        if kind == "clean":
            view: Tensor = self.finish(shared)
        elif kind == "augmented":
            view = self.finish(self.augment(shared))
        else:
            view = self.finish(self.augment(self.crop(pixels)))
        return view


def _same(image: Any) -> Any:
    return image
