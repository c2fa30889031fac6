"""What to say where the views that the heads read change what an attribute is about: its color, or left and right."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence

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
_MOST = 0.6  # of the classes: "Multi" and "Other" are no colors
_SIDES = {"left", "right"}


def view_warnings(args: Namespace, label_space: LabelSpace) -> list[str]:
    """Return a sentence for each way in which the heads' views may hide what attributes are about, each once.

    Args:
        args: the flags of train.py.
        label_space: the attributes and their classes.
    """
    if not args.classification_loss_weight:
        return []
    advice = []
    colored = [name for name, classes in label_space.classes.items() if is_about_color(name, classes)]
    if colored and changes_color(args):
        advice.append(
            f"{_named(colored)} about color, which the views that the heads read change: {_keeps_color(args)}"
        )
    sided = [name for name, classes in label_space.classes.items() if tells_sides(classes)]
    if sided and args.hflip > 0 and not args.no_aug:
        advice.append(f"{_named(sided)} about left and right, which a mirrored image swaps: use --hflip 0")
    return advice


def _keeps_color(args: Namespace) -> str:
    """Return which flags, beside those given, keep the colors of what the heads read."""
    if args.views == "simclr":
        keeping = "--views simclr-keepcolor leaves hue and saturation alone"
    else:
        left_out = [flag for flag, value in (("--aa", args.aa), ("--grayscale-prob", args.grayscale_prob)) if value]
        keeping = f"use --color-jitter 0{' without ' + ' and '.join(left_out) if left_out else ''}"
    if not args.simclr_loss_weight or args.aug_splits:  # then there is one view, or splits of it
        return keeping
    return f"{keeping}, or --classify-view weak gives the heads a view of their own that is only cropped and flipped"


def is_about_color(name: str, classes: Sequence[str]) -> bool:
    """Whether an attribute is about color, by its name (color, baseColour, ...) or by most of its classes."""
    words = [_words(text) for text in classes]
    return bool(_NAME.search(name.strip())) or sum(bool(found & _COLORS) for found in words) >= _MOST * len(classes)


def tells_sides(classes: Sequence[str]) -> bool:
    """Whether two classes differ in left and right alone."""
    found = [_words(text) for text in classes]
    without = [words - _SIDES for words in found if len(words & _SIDES) == 1]
    sides = [min(words & _SIDES) for words in found if len(words & _SIDES) == 1]
    pairs = set(zip(map(frozenset, without), sides, strict=True))
    return any((words, "left") in pairs and (words, "right") in pairs for words, _ in pairs)


def changes_color(args: Namespace) -> bool:
    """Whether the views that the heads read change colors: hues, saturation, or all to grey."""
    if args.classify_view == "weak" or args.no_aug:
        return False
    if args.views != "timm":
        return bool(args.views == "simclr")
    if args.grayscale_prob or args.aa:  # policies posterize, solarize, invert
        return True
    jitter: list[float] = args.color_jitter if isinstance(args.color_jitter, list) else [args.color_jitter] * 3
    return max(jitter[2:], default=0.0) > _SLIGHT


_SLIGHT = 0.2  # of saturation or hue: shades of one color


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def _named(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'are' if len(names) > 1 else 'is'}"
