"""A promised precision for each class with enough held-out cells and for the other classes together, or for them all.

A threshold for a whole attribute may hide a class that is often wrong behind one that is seldom wrong. So the cells are
grouped by the class that is predicted, and `serving.fixed_sequence` chooses a threshold for each group. A class is a
group of its own if enough held-out cells are predicted to have it; the others are one group. Which classes have a group
depends on the numbers of predictions alone, and given these numbers the cells of a group are independent draws. The
groups share the failure probability equally (Bonferroni), so all promises of an attribute hold at the same time, and
the attribute as a whole keeps the promise too, whatever its mix of classes.

Groups need more held-out cells than one threshold. `choose_promise` makes both, with half of the failure probability
each, and takes the one for the whole attribute only if groups would fill far fewer cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.fixed_sequence import Threshold, choose_in_sequence
from serving.selective import FAILURE, Floats, check_precision, fewest_cells

_ENOUGH = 3.0  # a class has a group of its own from this multiple of the fewest cells that warrant anything
_KEPT = 0.9  # share of the cells that one threshold fills, from which groups are preferred
OTHERS = -1  # the group of the classes without one of their own

Codes = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The labeled cells of one attribute that the model was not trained on.

    Attributes:
        confidence: confidence of each prediction, [N].
        predicted: code of the predicted class, int [N]; 0 in every cell of a multi-valued attribute.
        right: whether the prediction is the label, bool [N].
    """

    confidence: Floats
    predicted: Codes
    right: Mask


@dataclass(frozen=True, eq=False)
class ToFill:
    """The predictions for the blank cells of one attribute.

    Attributes:
        confidence: confidence of each prediction, [M]; NaN without one.
        predicted: code of the predicted class, int [M]; -1 without one.
    """

    confidence: Floats
    predicted: Codes


@dataclass(frozen=True)
class Promise:
    """The thresholds of one attribute.

    Attributes:
        groups: the threshold of each group, by the code of its class, or `OTHERS`.
        group_of: the group of each class, [K].
    """

    groups: dict[int, Threshold]
    group_of: tuple[int, ...]

    @property
    def by_class(self) -> tuple[int, ...]:
        """The codes of the classes with a threshold of their own."""
        return tuple(code for code in self.groups if code != OTHERS)

    @property
    def cells(self) -> int:
        """The number of held-out cells."""
        return sum(one.cells for one in self.groups.values())

    def warranted(self, predicted: Codes, confidence: Floats) -> Mask:
        """Return which cells may be filled, bool [N].

        Args:
            predicted: code of the predicted class, int [N]; negative for none.
            confidence: confidence of the prediction, [N]; NaN is never enough.
        """
        groups = groups_of(self.group_of, predicted)
        filled = np.zeros(len(predicted), dtype=bool)
        for group, one in self.groups.items():
            filled |= (groups == group) & (confidence > one.value)
        return filled & (predicted >= 0)

    def expected(self, predicted: Codes) -> tuple[float, float, float]:
        """Return the expected precision of filled cells and the ends of its interval, 0-1; NaN without any cell.

        They are means over the groups, weighted by the cells that are filled.

        Args:
            predicted: codes of the classes of the filled cells, int [N].
        """
        groups = groups_of(self.group_of, predicted)
        parts = [(int((groups == group).sum()), one) for group, one in self.groups.items()]
        total = sum(count for count, _ in parts)
        if not total:
            return math.nan, math.nan, math.nan
        shares = [(count / total, one) for count, one in parts if count]
        return (
            sum(share * one.expected for share, one in shares),
            sum(share * one.low for share, one in shares),
            sum(share * one.high for share, one in shares),
        )


def choose_promise(
    cells: HeldOut, to_fill: ToFill, classes: int, precision: float, by_class: bool | None = None
) -> Promise:
    """Return the promise for an attribute.

    Args:
        cells: the held-out cells.
        to_fill: the predictions for the blank cells.
        classes: number of classes, K; 1 for a multi-valued attribute.
        precision: the promised share of right cells among the filled ones, between 0 and 1.
        by_class: whether to promise by class, or for the attribute as a whole; None for by class, unless that fills
            less than 0.9 of the cells that could be filled otherwise.

    Raises:
        UsageError: the precision is not between 0 and 1.
    """
    check_precision(precision)
    if by_class is not None:
        return make_promise(cells, to_fill, classes, precision, by_class, FAILURE)
    grouped = make_promise(cells, to_fill, classes, precision, True, FAILURE / 2)
    if not grouped.by_class:  # which depends on no label, so a single promise is tested
        return make_promise(cells, to_fill, classes, precision, False, FAILURE)
    whole = make_promise(cells, to_fill, classes, precision, False, FAILURE / 2)
    by_groups, at_once = (one.warranted(to_fill.predicted, to_fill.confidence).sum() for one in (grouped, whole))
    return grouped if by_groups >= _KEPT * at_once else whole


def make_promise(
    cells: HeldOut, to_fill: ToFill, classes: int, precision: float, by_class: bool, failure: float
) -> Promise:
    """Return the thresholds of an attribute.

    Args:
        cells: the held-out cells.
        to_fill: the predictions for the blank cells, which give the thresholds to test.
        classes: number of classes, K.
        precision: the promised share of right cells among the filled ones, between 0 and 1.
        by_class: whether classes may have thresholds of their own; otherwise the attribute has a single one.
        failure: largest probability that the promise of any group is broken, and that the precision of any group is
            outside its interval.
    """
    counts = np.bincount(cells.predicted, minlength=classes)
    own = own_groups(counts.tolist(), precision, failure) if by_class and classes > 1 else []
    group_of = tuple(code if code in own else OTHERS for code in range(classes))
    names = [*own, *([OTHERS] if len(own) < classes else [])]
    ours, theirs = (groups_of(group_of, codes) for codes in (cells.predicted, to_fill.predicted))
    share = failure / len(names)
    chosen = {}
    for name in names:
        rows = ours == name
        confidence = to_fill.confidence[theirs == name]
        chosen[name] = choose_in_sequence(
            cells.confidence[rows], cells.right[rows], confidence, precision, share, share
        )
    return Promise(chosen, group_of)


def own_groups(counts: Sequence[int], precision: float, failure: float) -> list[int]:
    """Return the codes of the classes that have a group of their own, in ascending order.

    Args:
        counts: number of held-out cells that are predicted to have each class, [K].
        precision: the promised precision.
        failure: probability that is shared among the groups.
    """
    ranked = sorted(range(len(counts)), key=lambda code: (-counts[code], code))
    for number in range(len(counts), 0, -1):
        groups = number + (number < len(counts))
        if counts[ranked[number - 1]] >= _ENOUGH * fewest_cells(precision, failure / groups):
            return sorted(ranked[:number])
    return []


def groups_of(group_of: Sequence[int], predicted: Codes) -> Codes:
    """Return the group of each cell, int [N]; the number of classes for a cell without a prediction.

    Args:
        group_of: the group of each class, [K].
        predicted: codes of classes, int [N]; -1 for none.
    """
    of_cell: Codes = np.array([*group_of, len(group_of)])[predicted]
    return of_cell
