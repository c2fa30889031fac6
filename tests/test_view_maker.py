"""Each maker of views: which transform makes which view of a plan."""

import torch
from PIL import Image

from timm.data.view_maker import PlannedViews
from timm.data.view_plan import plan_views


def _counting(name: str, calls: list[str]):
    def transform(image):
        calls.append(name)
        return image

    return transform


def test_the_splits_of_augmix_share_one_crop_and_the_clean_one_is_not_augmented() -> None:
    calls: list[str] = []
    steps = tuple(_counting(name, calls) for name in ("crop", "augment", "finish"))
    views = PlannedViews(plan_views(True, aug_splits=3), steps, None)(Image.new("RGB", (4, 4)))
    assert len(views) == 4
    assert calls == [
        "crop", "finish", "augment", "finish", "augment", "finish", "crop", "augment", "finish",
    ]  # fmt: skip


def test_a_light_view_uses_the_light_transform_alone() -> None:
    calls: list[str] = []
    transform = PlannedViews(plan_views(True, "weak"), _counting("full", calls), lambda image: torch.zeros(1))
    assert torch.equal(transform(Image.new("RGB", (4, 4)))[0], torch.zeros(1))
    assert calls == ["full", "full"]
