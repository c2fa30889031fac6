"""The views of a training image, and the views that each loss reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

# The views that the attribute heads read; a "light" view is a crop and a flip, which changes no color.
CLASSIFIED_VIEWS = {"first": ("full",), "both": ("full", "full"), "weak": ("light",)}


@dataclass(frozen=True)
class ViewPlan:
    """The views of an image, in the order they are batched.

    Attributes:
        kinds: how each view is made: "full", "light", or for AugMix "clean" and "augmented", which share one crop.
        classify: indices of the views that the attribute heads learn from.
        contrast: indices of the two views that the contrastive loss pairs, or None without it.
        teacher: index of the "light" view that a teacher labels, or None without one.
        taught: indices of the views on which the student learns soft targets; empty without them.
    """

    kinds: tuple[str, ...]
    classify: tuple[int, ...]
    contrast: tuple[int, int] | None
    teacher: int | None = None
    taught: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def forwarded(self) -> int:
        """The number of views that the student reads: all but a last one that only the teacher reads."""
        read: tuple[int, ...] = (*self.classify, *(self.contrast or ()), *self.taught)
        return 1 + max(read)


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


def with_teacher(plan: ViewPlan) -> ViewPlan:
    """Return a plan with a light view for a teacher, and soft targets on every full view.

    A light view that the heads read already serves the teacher too; else one is added, which the student never reads.

    Args:
        plan: a plan without AugMix and mixing.
    """
    kinds = plan.kinds if "full" in plan.kinds else (*plan.kinds, "full")
    kinds = kinds if "light" in kinds else (*kinds, "light")
    full = tuple(index for index, kind in enumerate(kinds) if kind == "full")
    return replace(plan, kinds=kinds, teacher=kinds.index("light"), taught=full)
