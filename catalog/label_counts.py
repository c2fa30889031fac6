"""How often each class, and each combination of two classes, occurs in the tables that are audited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from catalog.attribute_column import class_names, why_unlearnable
from catalog.audited_rows import AuditedRows
from catalog.label_space import values_of

_MOST_CLASSES = 1_000  # an attribute with more has no combinations counted
_MOST_ATTRIBUTES = 40  # whose combinations are counted

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class AttributeCounts:
    """The classes of an attribute, the most frequent first.

    Attributes:
        name: the attribute.
        classes: the names of its classes.
        counts: rows with each class, int64 [splits, K].
        labeled: rows with a label, int64 [splits].
        rows: all rows, int64 [splits].
        multi_valued: whether a row may have several classes.
        fault: why the training table's column cannot be learned, or None.
        entry_rows: the row of each label, int64 [labels]; a multi-valued cell has a label for each value.
        entry_codes: the class of each label, int64 [labels].
    """

    name: str
    classes: tuple[str, ...]
    counts: Numbers
    labeled: Numbers
    rows: Numbers
    multi_valued: bool
    fault: str | None
    entry_rows: Numbers
    entry_codes: Numbers


@dataclass(frozen=True, eq=False)
class PairCounts:
    """The combinations of the classes of two attributes.

    Attributes:
        first: the first attribute.
        second: the second attribute.
        counts: rows with each combination, int64 [K of the first, K of the second].
        expected: rows that each would have if the attributes were independent, float [K, K].
    """

    first: AttributeCounts
    second: AttributeCounts
    counts: Numbers
    expected: npt.NDArray[np.float64]

    def rows_of(self, one: int, other: int) -> Numbers:
        """Return the rows with a combination, int64 [rows]."""
        with_one = self.first.entry_rows[self.first.entry_codes == one]
        return np.intersect1d(with_one, self.second.entry_rows[self.second.entry_codes == other])


def count_labels(rows: AuditedRows) -> list[AttributeCounts]:
    """Return the counts of each attribute, in the header's order."""
    return [_count(rows, name) for name in rows.columns]


def count_pairs(attributes: Sequence[AttributeCounts]) -> list[PairCounts]:
    """Return the combinations of each two attributes that a model can learn.

    Attributes of more than 1,000 classes are left out, and so are those after the fortieth.
    """
    chosen = [one for one in attributes if not one.fault and 1 < len(one.classes) <= _MOST_CLASSES]
    return [_count_pair(first, second) for first, second in combinations(chosen[:_MOST_ATTRIBUTES], 2)]


def count_whole_combinations(rows: AuditedRows, attributes: Sequence[AttributeCounts]) -> tuple[int, int]:
    """Return how many combinations of all attributes' labels the labeled rows have, and how many occur once.

    Rows that differ in which cells are blank have different combinations.
    """
    codes = [rows.codes(one.name) for one in attributes if not one.fault]
    if not codes:
        return 0, 0
    table = np.stack(codes, axis=1)
    table = table[(table >= 0).any(axis=1)]
    _, counts = np.unique(table, axis=0, return_counts=True)
    return len(counts), int((counts == 1).sum())


def _count(rows: AuditedRows, name: str) -> AttributeCounts:
    column = rows.columns[name]
    multi_valued = name in rows.multi_valued
    names = class_names(column, multi_valued)
    number = {one: code for code, one in enumerate(names)}
    cells = column.dictionary.to_pylist()
    values = [[number[one] for one in (values_of(cell) if multi_valued else [cell])] for cell in cells]

    # one entry for each value of each row
    positions = column.indices.fill_null(len(cells)).to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.array([*map(len, values), 0], np.int64)
    starts = np.cumsum(lengths) - lengths
    flat = np.array([code for one in values for code in one], np.int64)
    counts = lengths[positions]
    entry_rows = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(entry_rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    codes = flat[np.repeat(starts[positions], counts) + within]

    # the most frequent class first
    splits, kinds = len(rows.tables), len(names)
    totals = np.bincount(codes, minlength=kinds)
    order = sorted(range(kinds), key=lambda code: (-totals[code], names[code]))
    rank = np.empty(kinds, np.int64)
    rank[order] = np.arange(kinds)
    codes = rank[codes]
    by_split = np.bincount(rows.split[entry_rows] * kinds + codes, minlength=splits * kinds)
    first = rows.tables[0].columns.get(name)
    return AttributeCounts(
        name=name,
        classes=tuple(names[code] for code in order),
        counts=by_split.reshape(splits, kinds),
        labeled=np.bincount(rows.split[positions < len(cells)], minlength=splits),
        rows=np.bincount(rows.split, minlength=splits),
        multi_valued=multi_valued,
        fault=None if first is None else why_unlearnable(first, multi_valued),
        entry_rows=entry_rows,
        entry_codes=codes,
    )


def _count_pair(first: AttributeCounts, second: AttributeCounts) -> PairCounts:
    # each entry of the first attribute meets every entry of its row in the second
    starts = np.searchsorted(second.entry_rows, first.entry_rows, side="left")
    counts = np.searchsorted(second.entry_rows, first.entry_rows, side="right") - starts
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    ones = np.repeat(first.entry_codes, counts)
    others = second.entry_codes[np.repeat(starts, counts) + within]
    shape = len(first.classes), len(second.classes)
    table = np.bincount(ones * shape[1] + others, minlength=shape[0] * shape[1]).reshape(shape)
    both = np.intersect1d(first.entry_rows, second.entry_rows)
    margins = [
        np.bincount(one.entry_codes[np.isin(one.entry_rows, both)], minlength=len(one.classes))
        for one in (first, second)
    ]
    return PairCounts(first, second, table, np.outer(*margins) / max(len(both), 1))
