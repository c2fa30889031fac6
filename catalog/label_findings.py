"""Findings about tables and labels: columns, classes, and combinations of classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from catalog.attribute_column import rows_with_class
from catalog.audited_rows import AuditedRows, collected_warnings
from catalog.build_label_space import build_label_space
from catalog.data_error import DataError, did_you_mean
from catalog.finding import Finding
from catalog.label_counts import AttributeCounts, PairCounts

_EXPECTED = 2.0  # rows that a combination would have if attributes were independent, from which its rarity is reported


def table_findings(rows: AuditedRows, attributes: Sequence[AttributeCounts]) -> Iterator[Finding]:
    """Yield the findings about the tables and their columns.

    Args:
        rows: the rows.
        attributes: the counts of each attribute.
    """
    for split, remarks in enumerate(rows.remarks):
        for text in remarks:
            yield Finding("remark", text, split=split)
    for one in attributes:
        if one.fault:
            yield Finding("column", f"the column {one.fault}", attribute=one.name, split=0)
    for split, names in enumerate(rows.lacking):
        for name in names:
            detail = f"{rows.tables[split].path.name} has no column {name!r}"
            yield Finding("missing-column", detail, attribute=name, split=split)

    # what building the label space of a training would say
    table = rows.tables[0]
    faulty = {one.name for one in attributes if one.fault}
    kept = {name: column for name, column in table.columns.items() if name in rows.columns and name not in faulty}
    with collected_warnings() as warnings:
        try:
            build_label_space(replace(table, columns=kept), [name for name in kept if name in rows.multi_valued])
        except DataError as error:
            warnings.append(str(error))
    for text in warnings:
        yield Finding("remark", text, split=0)


def class_findings(rows: AuditedRows, attributes: Sequence[AttributeCounts], rare: int) -> Iterator[Finding]:
    """Yield the findings about classes: those that are rare in training, and those that it never sees.

    Args:
        rows: the rows.
        attributes: the counts of each attribute.
        rare: number of training images below which a class is rare.
    """
    for one in attributes:
        if one.fault or one.name in rows.lacking[0]:
            continue
        known = [name for name, count in zip(one.classes, one.counts[0].tolist(), strict=True) if count]
        for code, name in enumerate(one.classes):
            trained = int(one.counts[0, code])
            if 0 < trained < rare:
                detail = f"{name!r} has {trained} of {one.labeled[0]} labeled rows of {rows.names[0]}"
                yield Finding("rare-class", detail, attribute=one.name, split=0)
            for split in np.flatnonzero(one.counts[:, code] if not trained else []).tolist():
                of_class = rows_with_class(rows.columns[one.name], name)
                row = int(of_class[rows.split[of_class] == split][0])
                detail = f"{name!r} has {_rows(int(one.counts[split, code]))}, the first being this one"
                yield Finding("unseen-class", detail + did_you_mean(name, known), row, attribute=one.name)


def combination_findings(pairs: Sequence[PairCounts]) -> Iterator[Finding]:
    """Yield the combinations of two classes that occur once or never, although both classes are frequent.

    Args:
        pairs: the combinations of each two attributes.
    """
    for pair in pairs:
        names = f"{pair.first.name} x {pair.second.name}"
        frequent = pair.expected >= _EXPECTED
        for times in (1, 0):
            places = np.argwhere(frequent & (pair.counts == times))
            for one, other in sorted(places.tolist(), key=lambda place: -pair.expected[tuple(place)]):
                words = f"{pair.first.classes[one]!r} with {pair.second.classes[other]!r}"
                usual = f"{pair.expected[one, other]:.0f} rows if the two attributes were independent"
                if times:
                    row = int(pair.rows_of(one, other)[0])
                    yield Finding("rare-combination", f"{words} once; {usual}", row, attribute=names)
                else:
                    yield Finding("absent-combination", f"{words} never; {usual}", attribute=names)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
