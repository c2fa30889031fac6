"""The views of a plan, and the views that each loss reads."""

import pytest

from timm.data.view_plan import ViewPlan, plan_views, with_teacher


def test_without_a_contrastive_loss_one_view_is_made() -> None:
    for classify_view in ("first", "both"):
        assert plan_views(False, classify_view) == ViewPlan(("full",), (0,), None)
    assert plan_views(False, "weak").kinds == ("light",)


@pytest.mark.parametrize(
    ("classify_view", "kinds", "classify", "contrast"),
    [
        ("first", ("full", "full"), (0,), (0, 1)),
        ("both", ("full", "full"), (0, 1), (0, 1)),
        ("weak", ("light", "full", "full"), (0,), (1, 2)),
    ],
)
def test_the_heads_read_the_chosen_view(classify_view: str, kinds: tuple, classify: tuple, contrast: tuple) -> None:
    assert plan_views(True, classify_view) == ViewPlan(kinds, classify, contrast)


def test_the_heads_read_both_views_if_that_adds_none() -> None:
    assert plan_views(contrast=True) == plan_views(contrast=True, classify_view="both")
    assert plan_views(contrast=True, mixing=True) == plan_views(contrast=True, classify_view="first", mixing=True)
    assert plan_views(contrast=False).classify == (0,)


@pytest.mark.parametrize("classify_view", ["first", "both", "weak"])
def test_mixed_images_are_never_contrasted(classify_view: str) -> None:
    plan = plan_views(True, classify_view, mixing=True)
    assert not set(plan.classify) & set(plan.contrast or ())


def test_augmix_contrasts_an_augmented_split_with_a_view_of_another_crop() -> None:
    assert plan_views(True, aug_splits=3) == ViewPlan(("clean", "augmented", "augmented", "full"), (0, 1, 2), (1, 3))
    assert plan_views(False, aug_splits=3) == ViewPlan(("clean", "augmented", "augmented"), (0, 1, 2), None)


@pytest.mark.parametrize(
    ("contrast", "classify_view", "expected", "forwarded"),
    [
        (True, "both", ViewPlan(("full", "full", "light"), (0, 1), (0, 1), 2, (0, 1)), 2),
        (True, "first", ViewPlan(("full", "full", "light"), (0,), (0, 1), 2, (0, 1)), 2),
        (True, "weak", ViewPlan(("light", "full", "full"), (0,), (1, 2), 0, (1, 2)), 3),
        (False, "first", ViewPlan(("full", "light"), (0,), None, 1, (0,)), 1),
        (False, "weak", ViewPlan(("light", "full"), (0,), None, 0, (1,)), 2),
    ],
)
def test_a_teacher_labels_a_light_view_and_the_student_learns_on_the_full_ones(
    contrast: bool, classify_view: str, expected: ViewPlan, forwarded: int
) -> None:
    plan = with_teacher(plan_views(contrast, classify_view))
    assert plan == expected
    assert plan.forwarded == forwarded


def test_without_a_teacher_the_student_reads_every_view() -> None:
    for plan in (plan_views(True, "weak"), plan_views(False), plan_views(True, aug_splits=3), plan_views(True)):
        assert plan.forwarded == len(plan)
