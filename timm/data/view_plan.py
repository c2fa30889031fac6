"""The views of a training image, and the views that each loss reads."""

from __future__ import annotations

from dataclasses import dataclass

# The views that the attribute heads read; a "light" view is a crop and a flip, which changes no color.
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
        classify_view: views that the attribute heads read: "first", "both" or "weak". None is both if that adds no
            view (benchmarks/README.md: heads learn more from two), else the first.
        mixing: mixup or cutmix; only the heads read mixed images, because a mix of two has no single positive.
        aug_splits: AugMix's number of splits (one clean, the others augmented), 0 without AugMix.
    """
    if aug_splits:
        splits = ("clean", *["augmented"] * (aug_splits - 1))
        return ViewPlan(
            (*splits, "full") if contrast else splits, tuple(range(aug_splits)), (1, aug_splits) if contrast else None
        )
    classified = CLASSIFIED_VIEWS[classify_view or ("both" if contrast and not mixing else "first")]
    if not contrast:
        # Without pairs to contrast, a second view of an image doubles the batch and adds little variety.
        return ViewPlan(classified[:1], (0,), None)
    heads = tuple(range(len(classified)))
    if mixing or classify_view == "weak":
        return ViewPlan((*classified, "full", "full"), heads, (len(classified), len(classified) + 1))
    return ViewPlan(("full", "full"), heads, (0, 1))
