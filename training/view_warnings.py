"""Warnings about views that hide what an attribute is about: color, or left and right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from catalog.label_space import LabelSpace

_COLORS = frozenset(
    re.findall(
        r"\w+",
        """
        aqua beige black blonde blue bronze brown burgundy burned charcoal coffee copper cream crimson cyan fluorescent
        fuchsia gold golden gray green grey indigo ivory khaki lavender lilac lime magenta maroon mauve metallic mint
        multi mustard navy nude ochre olive orange peach pink purple red rose rust salmon scarlet silver skin steel tan
        taupe teal turquoise violet white yellow
        """,
    )
)
_NAME = re.compile(r"colou?rs?$|^colou?r|hue$", re.IGNORECASE)
_MOST = 0.6  # share of the classes; "Multi" and "Other" are not colors
_SIDES = {"left", "right"}
_SLIGHT = 0.2  # jitter of saturation or hue that leaves a color its name


@dataclass(frozen=True)
class ViewSettings:
    """What a run does to its views.

    Args:
        views: policy of the views: "timm", "simclr" or "simclr-keepcolor".
        classify_view: view that the heads read: "first", "both" or "weak"; None for the default.
        no_aug: whether augmentation is off.
        aug_splits: number of AugMix's splits, 0 without.
        hflip: probability of a horizontal flip.
        color_jitter: strength of the jitter, one number or several: brightness, contrast, saturation, hue.
        grayscale_prob: probability of a gray view.
        aa: automatic augmentation policy; None or "" for none.
        contrast: whether there is a contrastive loss.
        classify: whether there is a classification loss.
    """

    views: str
    classify_view: str | None
    no_aug: bool
    aug_splits: int
    hflip: float
    color_jitter: float | list[float]
    grayscale_prob: float
    aa: str | None
    contrast: bool
    classify: bool


def view_warnings(settings: ViewSettings, label_space: LabelSpace) -> list[str]:
    """Return a sentence for each kind of attribute that the heads' views may hide."""
    if not settings.classify:
        return []
    advice = []
    colored = [name for name, classes in label_space.classes.items() if is_about_color(name, classes)]
    if colored and changes_color(settings):
        advice.append(
            f"{_named(colored)} about color, but the heads read views that change color: {_keeps_color(settings)}"
        )
    sided = [name for name, classes in label_space.classes.items() if is_about_sides(classes)]
    if sided and settings.hflip > 0 and not settings.no_aug:
        advice.append(f"{_named(sided)} about left and right, but flips swap them: use --hflip 0")
    return advice


def soft_target_warnings(settings: ViewSettings, label_space: LabelSpace, skipped: Sequence[str]) -> list[str]:
    """Return a sentence if an attribute about color gets soft targets on views that change color."""
    colored = [
        name for name, classes in label_space.classes.items() if name not in skipped and is_about_color(name, classes)
    ]
    if not colored or not changes_color(replace(settings, classify_view=None)):
        return []
    return [
        f"{_named(colored)} about color, but soft targets are learned on views that change color: use --pseudo-skip "
        f"{' '.join(colored)}, or views that keep color"
    ]


def _keeps_color(settings: ViewSettings) -> str:
    """Return the flags that would keep the colors of the views that the heads read."""
    if settings.views == "simclr":
        keeping = "--views simclr-keepcolor leaves hue and saturation alone"
    else:
        flags = ("--aa", settings.aa), ("--grayscale-prob", settings.grayscale_prob)
        left_out = [flag for flag, value in flags if value]
        keeping = f"use --color-jitter 0{' without ' + ' and '.join(left_out) if left_out else ''}"
    if not settings.contrast or settings.aug_splits:  # the heads read the only view, or its splits
        return keeping
    return f"{keeping}, or give the heads a view that is only cropped and flipped with --classify-view weak"


def is_about_color(name: str, classes: Sequence[str]) -> bool:
    """Return whether an attribute is about color, by its name (color, baseColour, ...) or by most of its classes."""
    words = [_words(text) for text in classes]
    return bool(_NAME.search(name.strip())) or sum(bool(found & _COLORS) for found in words) >= _MOST * len(classes)


def is_about_sides(classes: Sequence[str]) -> bool:
    """Return whether two classes differ in left and right alone."""
    found = [_words(text) for text in classes]
    without = [words - _SIDES for words in found if len(words & _SIDES) == 1]
    sides = [min(words & _SIDES) for words in found if len(words & _SIDES) == 1]
    pairs = set(zip(map(frozenset, without), sides, strict=True))
    return any((words, "left") in pairs and (words, "right") in pairs for words, _ in pairs)


def changes_color(settings: ViewSettings) -> bool:
    """Return whether the views that the heads read change hue or saturation, or turn gray."""
    if settings.classify_view == "weak" or settings.no_aug:
        return False
    if settings.views != "timm":
        return settings.views == "simclr"
    if settings.grayscale_prob or settings.aa:  # policies posterize, solarize, invert
        return True
    jitter = settings.color_jitter if isinstance(settings.color_jitter, list) else [settings.color_jitter] * 3
    return max(jitter[2:], default=0.0) > _SLIGHT


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def _named(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'are' if len(names) > 1 else 'is'}"
