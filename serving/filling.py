"""Filling the blank cells of an attribute that a promise warrants, and what stays blank for people to label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog.fillable_table import FillableTable
from catalog.filled_table import FilledColumn
from catalog.label_space import SEPARATOR, LabelSpace
from reports.fill_files import QueuedCell
from reports.fill_report import FilledAttribute
from serving.cell_reading import Cells, Reading
from serving.class_promise import HeldOut, Promise, ToFill, choose_promise
from serving.label_queue import queue_order
from serving.selective import FAILURE, fewest_cells

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Filling:
    """What is done with an attribute.

    Attributes:
        column: its cells.
        report: the counts, and what is expected.
        open: the read images whose cell stays blank, positions in the reading.
    """

    column: FilledColumn
    report: FilledAttribute
    open: Rows


def fill_attribute(
    name: str,
    source: FillableTable,
    rows: Rows,
    cells: Cells,
    held_out: HeldOut,
    label_space: LabelSpace,
    *,
    precision: float,
    by_class: bool | None,
) -> Filling:
    """Return what is filled of an attribute.

    Args:
        name: the attribute.
        source: the table.
        rows: the rows of the table that were read, int64 [N], all with a blank cell among them.
        cells: the predictions for these.
        held_out: the held-out cells.
        label_space: the attributes and classes.
        precision: the promised share of right cells among the filled ones, between 0 and 1.
        by_class: whether to promise by class, or for the attribute as a whole; None for whichever fits.
    """
    several, classes = name in source.multi_valued, label_space.classes[name]
    given = source.given(name)
    blank = ~given[rows]
    predicted = np.where(blank, cells.predicted, -1)
    groups = 1 if several else len(classes)
    promise = choose_promise(held_out, ToFill(cells.confidence, predicted), groups, precision, by_class)
    filled = promise.warranted(predicted, cells.confidence)

    # the cells
    texts, probabilities = {}, {}
    for place in np.flatnonzero(filled).tolist():
        row = int(rows[place])
        texts[row], probabilities[row] = _cell(cells, place, classes, source.separator)
    column = FilledColumn(
        name=name,
        spelled=source.spelled.get(name),
        given=given,
        cells=texts,
        probabilities=probabilities,
        several=several,
        separator=source.separator,
        as_list=name in source.as_lists,
    )
    report = FilledAttribute(
        name=name,
        blank=int(blank.sum()),
        filled=int(filled.sum()),
        unreadable=int((blank & (cells.predicted < 0)).sum()),
        expected=promise.expected(predicted[filled]),
        held_out=promise.cells,
        warranted=any(one.value < math.inf for one in promise.groups.values()),
        fewest=fewest_cells(precision, FAILURE),
        by_class=_with_own_promise(promise, classes),
        classes=len(classes),
    )
    return Filling(column, report, np.flatnonzero(blank & ~filled & (cells.predicted >= 0)))


def _with_own_promise(promise: Promise, classes: Sequence[str]) -> list[str]:
    """Return the classes that the promise holds for one by one: also the only one without a group of its own."""
    own = promise.by_class
    return list(classes) if own and len(own) == len(classes) - 1 else [classes[code] for code in own]


def _cell(cells: Cells, place: int, classes: Sequence[str], separator: str) -> tuple[str, str]:
    """Return a prediction and its probability as text; several values the most probable first, as in predictions."""
    if cells.values is None:
        # str() of a float32 is the shortest number that equals it
        return classes[int(cells.codes[place, 0])], str(cells.confidence[place])
    values = cells.values[place]
    order = np.argsort(-values, kind="stable")[: int(np.isfinite(values).sum())].tolist()
    names = SEPARATOR.join(classes[code] for code in order)
    return names or SEPARATOR, separator.join(str(values[code]) for code in order) or separator


def queued_cells(
    fillings: Mapping[str, Filling], source: FillableTable, rows: Rows, reading: Reading, label_space: LabelSpace
) -> Iterator[QueuedCell]:
    """Yield the cells that stay blank, the most valuable to label first; unreadable images are left out.

    Args:
        fillings: what was done with each attribute.
        source: the table.
        rows: the rows of the table that were read, int64 [N].
        reading: the predictions for these, with representations.
        label_space: the attributes and classes.
    """
    assert reading.features is not None
    names = list(fillings)
    places = np.concatenate([fillings[name].open for name in names])
    attributes = np.repeat(np.arange(len(names)), [len(fillings[name].open) for name in names])
    doubt = np.concatenate([reading.cells[name].doubt[fillings[name].open] for name in names])
    for index in queue_order(doubt, reading.features[places], attributes).tolist():
        name, place = names[attributes[index]], int(places[index])
        cells, classes = reading.cells[name], label_space.classes[name]
        pairs = zip(cells.codes[place].tolist(), cells.probabilities[place].tolist(), strict=True)
        guesses = [(classes[code], probability) for code, probability in pairs]
        yield QueuedCell(source.table.image_path(int(rows[place])), name, guesses)
