"""Which rows of an index fit filters of their labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.label_space import SEPARATOR, LabelSpace
from catalog.row_filter import FilterColumn, fitting_rows, parse_condition
from serving.index_folder import IndexInfo

_logger = logging.getLogger("search")


def filter_columns(info: IndexInfo, space: LabelSpace, rows: pa.Table) -> dict[str, FilterColumn]:
    """Return what filters read of each attribute, those with labels first.

    Args:
        info: what the index is.
        space: the attributes that the model predicts.
        rows: the rows of the index.
    """
    found = {}
    for name in dict.fromkeys([*info.labels, *space.attributes]):
        several = name in space.multi_valued
        given = _combined(rows[name]) if name in info.labels else None
        predicted = probability = None
        separator = SEPARATOR  # a column of the tables alone may have several values, too
        if name in space.classes:
            predicted = _combined(rows[f"{name}:predicted"])
            probability = None if several else rows[f"{name}:probability"]
            separator = space.separator if several else ""
        found[name] = FilterColumn(given, predicted, probability, space.classes.get(name, ()), separator)
    return found


def rows_that_fit(
    where: Sequence[str], columns: Mapping[str, FilterColumn], readable: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Return which readable rows fit all filters, bool [N]; log how many fit each, and by what.

    Args:
        where: the filters, as they are typed.
        columns: the result of `filter_columns`.
        readable: which rows may be returned, bool [N].

    Raises:
        DataError: a filter is wrong.
    """
    fits = readable.copy()
    for one in [parse_condition(text, columns) for text in where]:
        fitting, labeled = fitting_rows(one, columns[one.attribute])
        fits &= fitting
        count, by_label = int((fitting & readable).sum()), int((labeled & readable).sum())
        how = "" if one.source else f" ({by_label:,} by label, {count - by_label:,} by prediction)"
        _logger.info(f"{one.text}: {count:,} of {len(readable):,} images{how}")
    return fits


def _combined(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return a dictionary-encoded column of several parts as one array."""
    return column.unify_dictionaries().combine_chunks()
