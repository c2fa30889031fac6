"""Advice about views that hide what an attribute is about."""

import pytest

from catalog.label_space import LabelSpace
from options.train import parse_train_args
from options.train_kwargs import view_kwargs
from training.view_warnings import (
    ViewSettings,
    changes_color,
    is_about_color,
    is_about_sides,
    soft_target_warnings,
    view_warnings,
)

# 47 colors of the real data set, and classes about something else.
COLORS = [
    *("Beige", "Black", "Blue", "Bronze", "Brown", "Burgundy", "Charcoal", "Coffee Brown", "Copper", "Cream", "Gold"),
    *("Fluorescent Green", "Green", "Grey", "Grey Melange", "Khaki", "Lavender", "Lime Green", "Magenta", "Maroon"),
    *("Mauve", "Metallic", "Multi", "Mushroom Brown", "Mustard", "NA", "Navy Blue", "Nude", "Off White", "Olive"),
    *("Orange", "Peach", "Pink", "Purple", "Red", "Rose", "Rust", "Sea Green", "Silver", "Skin", "Steel", "Tan"),
    *("Taupe", "Teal", "Turquoise Blue", "White", "Yellow"),
]
ARTICLES = ["Tshirts", "Shirts", "Casual Shoes", "Watches", "Handbags", "Rain Jacket", "Nail Polish", "Foundation"]


def settings(*words: str) -> ViewSettings:
    return ViewSettings(**view_kwargs(parse_train_args(["DATA", *words])))


@pytest.mark.parametrize("name", ["color", "colour", "baseColour", "base_color", "Color", "colors", "frame color"])
def test_an_attribute_is_about_color_by_its_name(name: str) -> None:
    assert is_about_color(name, ["1", "2"])


@pytest.mark.parametrize(
    ("name", "classes", "about"),
    [
        ("shade", COLORS, True),
        ("finish", ["red", "navy blue", "other"], True),
        ("article", ARTICLES, False),
        ("gender", ["Boys", "Girls", "Men", "Unisex", "Women"], False),
        ("kids", ["adult", "kids"], False),
        ("article", ["T-Shirt", "Longsleeve", "Pants", "Shoes", "Shirt", "Dress", "Shorts", "Outwear"], False),
        ("metal", ["steel", "oak", "glass"], False),
        ("discoloration", ["yes", "no"], False),
    ],
)
def test_an_attribute_is_about_color_by_most_of_its_classes(name: str, classes: list[str], about: bool) -> None:
    assert is_about_color(name, classes) == about


@pytest.mark.parametrize(
    ("classes", "sides"),
    [
        (["left", "right"], True),
        (["Left shoe", "Right shoe", "pair"], True),
        (["driver-left", "driver-right"], True),
        (["left", "front"], False),
        (["bright", "leftover"], False),
        (["left shoe", "right glove"], False),
    ],
)
def test_an_attribute_is_about_sides_if_two_classes_differ_only_in_them(classes: list[str], sides: bool) -> None:
    assert is_about_sides(classes) == sides


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ("", True),  # timm's jitter of 0.4
        ("--color-jitter 0", False),
        ("--color-jitter 0.1", False),
        ("--color-jitter 0.4 0.4 0 0", False),
        ("--color-jitter 0 0 0 0.5", True),
        ("--color-jitter 0 --grayscale-prob 0.2", True),
        ("--color-jitter 0 --aa rand-m9", True),
        ("--views simclr", True),
        ("--views simclr-keepcolor", False),
        ("--classify-view weak", False),
        ("--no-aug -wls 0", False),
    ],
)
def test_views_that_change_colors_are_known(words: str, changed: bool) -> None:
    assert changes_color(settings(*words.split())) == changed


@pytest.mark.parametrize(
    ("words", "skipped", "warned"),
    [
        ("--views simclr", [], True),
        ("--views simclr --classify-view weak", [], True),  # the student still learns on the full views
        ("--views simclr", ["shade"], False),
        ("--views simclr-keepcolor", [], False),
        ("--color-jitter 0.1", [], False),
    ],
)
def test_soft_targets_about_color_on_views_that_change_it_are_warned_of(
    words: str, skipped: list[str], warned: bool
) -> None:
    space = LabelSpace({"article": tuple(ARTICLES), "shade": tuple(COLORS)})
    found = soft_target_warnings(settings(*words.split()), space, skipped)
    assert len(found) == warned
    assert all("shade is about color" in sentence and "--pseudo-skip shade" in sentence for sentence in found)


@pytest.mark.parametrize(
    ("words", "remedies"),
    [
        ("", ["--color-jitter 0", "--classify-view weak"]),
        ("-wls 0", ["--color-jitter 0"]),
        ("--aa rand-m9", ["--color-jitter 0 without --aa", "--classify-view weak"]),
        ("-wls 0 --aa rand-m9 --grayscale-prob 0.1", ["--color-jitter 0 without --aa and --grayscale-prob"]),
        ("--aug-splits 3 --aa augmix-m3 -wls 0", ["--color-jitter 0 without --aa"]),
        ("--views simclr", ["--views simclr-keepcolor", "--classify-view weak"]),
        ("--views simclr -wls 0", ["--views simclr-keepcolor"]),
    ],
)
def test_the_advice_keeps_color_with_the_other_flags_unchanged(words: str, remedies: list[str]) -> None:
    (advice,) = view_warnings(settings(*words.split()), LabelSpace({"color": ("red", "blue")}))
    assert [flag for flag in ("--views", "--color-jitter", "--classify-view") if flag in advice] == [
        remedy.split()[0] for remedy in remedies
    ]
    for remedy in remedies:
        assert remedy in advice
        flag, value, *without = remedy.split()
        kept = [word for word in words.split() if word not in ("rand-m9", "augmix-m3", "0.1") or not without]
        kept = [word for word in kept if word not in without]
        assert not changes_color(settings(*kept, flag, value))


def test_advice_names_the_attributes_and_the_flags_and_is_silent_where_nothing_is_wrong() -> None:
    space = LabelSpace({"color": ("red", "blue"), "side": ("left", "right"), "kind": ("a", "b")})
    about_color, about_sides = view_warnings(settings("--views", "simclr"), space)
    assert about_color.startswith("color is about color, ")
    assert "--classify-view weak" in about_color
    assert "--views simclr-keepcolor" in about_color
    assert about_sides == "side is about left and right, but flips swap them: use --hflip 0"
    calm = ["--classify-view", "weak", "--hflip", "0"]
    assert view_warnings(settings(*calm), space) == []
    assert view_warnings(settings("-wlc", "0"), space) == []
    assert view_warnings(settings(), LabelSpace({"kind": ("a", "b")})) == []
