"""What filling a table did, in sentences for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from catalog.data_error import quoted


@dataclass(frozen=True)
class FilledAttribute:
    """What was done for one attribute.

    Attributes:
        name: the attribute.
        blank: number of cells without a label.
        filled: number of these that are filled.
        unreadable: number of blank cells whose image could not be read.
        expected: expected share of right cells among the filled ones, and the ends of its interval, 0-1; NaN for none.
        held_out: number of labeled cells that warrant it.
        warranted: whether they warrant any threshold.
        fewest: number of labeled cells from which anything can be warranted.
        by_class: the classes with a threshold of their own.
        classes: number of all classes.
    """

    name: str
    blank: int
    filled: int
    unreadable: int
    expected: tuple[float, float, float]
    held_out: int
    warranted: bool
    fewest: int
    by_class: Sequence[str]
    classes: int


def fill_lines(found: Sequence[FilledAttribute], precision: float, holdout: str) -> list[str]:
    """Return the sentences: for each attribute what was filled and what is expected of it, and what warrants it.

    Args:
        found: the attributes.
        precision: the promised precision, 0-1.
        holdout: name of the table that warrants it.
    """
    return [line for one in found for line in _lines(one, precision, holdout)]


def _lines(one: FilledAttribute, precision: float, holdout: str) -> list[str]:
    if not one.blank:
        return [f"{one.name}: no cell is blank"]
    unreadable = f", {one.unreadable:,} have no readable image" if one.unreadable else ""
    cells = f"{one.blank:,} blank cell{'' if one.blank == 1 else 's'}"
    if not one.filled:
        return [f"{one.name}: none of {cells} filled{unreadable}: {_why(one, precision, holdout)}"]
    mean, low, high = (100 * value for value in one.expected)
    share = f"{one.filled / one.blank:.0%}"
    shown = f"{one.filled:,} of {cells} ({share})" if share in ("0%", "100%") else f"{share} of {cells}"
    right = f"{mean:.1f}% expected right (95% interval {_down(low)} to {_up(high)})"
    return [
        f"{one.name}: {shown} filled, {right}{unreadable}",
        f"  warranted {_scope(one)}, by {one.held_out:,} labeled cells of {holdout}",
    ]


def _why(one: FilledAttribute, precision: float, holdout: str) -> str:
    """Return why nothing is filled."""
    if one.blank == one.unreadable:
        return "no image could be read"
    if one.warranted:
        return f"the model is less sure of each than {holdout} warrants"
    reason = f"at least {one.fewest} are needed" if one.held_out < one.fewest else "the model errs too often on them"
    return f"{one.held_out:,} labeled cells of {holdout} do not warrant precision {precision:g}, as {reason}"


def _scope(one: FilledAttribute) -> str:
    """Return for which cells together the precision is warranted."""
    if not one.by_class:
        return "for the attribute as a whole, and not for each class"
    names = quoted(one.by_class)
    if len(one.by_class) == one.classes:
        return f"for each class ({names})"
    return f"for each of {names}, and for the other {one.classes - len(one.by_class)} classes together"


def _down(percent: float) -> str:
    return f"{math.floor(percent * 10 + 1e-6) / 10:.1f}"


def _up(percent: float) -> str:
    return f"{math.ceil(percent * 10 - 1e-6) / 10:.1f}"
