"""Filters of rows by their labels: `color=Red`, `article!=Tshirts`, `color:predicted=Red`, `color:probability>=0.9`.

A row is compared by its label. Where it has none, its predicted class stands for the label. `:given` and `:predicted`
choose one of the two. A row without either fits neither `=` nor `!=`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from catalog.cell_text import normalized_cells, normalized_name
from catalog.data_error import DataError, did_you_mean, quoted
from catalog.label_space import SEPARATOR, values_of

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

Rows = npt.NDArray[np.bool_]

_OPERATOR = re.compile(r"!=|>=|<|=")
_GIVEN, _PREDICTED, _PROBABILITY = "given", "predicted", "probability"
_NAMED = 8  # attributes or classes in a message


@dataclass(frozen=True, eq=False)
class FilterColumn:
    """An attribute of an index's rows.

    Attributes:
        given: the labels, dictionary-encoded strings, null where unknown; None if no table had the attribute.
        predicted: the predicted classes, likewise; None if the model does not predict the attribute.
        probability: the probability of the predicted class, float32; None without one, or for several values.
        classes: the model's classes.
        separator: the text between the values of a cell; "" if a cell holds a single value.
    """

    given: pa.DictionaryArray | None
    predicted: pa.DictionaryArray | None
    probability: pa.Array | None
    classes: tuple[str, ...] = ()
    separator: str = ""


@dataclass(frozen=True)
class Condition:
    """A filter, parsed.

    Attributes:
        text: as it was typed.
        attribute: the attribute.
        source: "given", "predicted", "probability", or "" for the label or else the predicted class.
        operator: "=", "!=", ">=" or "<".
        value: the class, or the probability.
    """

    text: str
    attribute: str
    source: str
    operator: str
    value: str


def parse_condition(text: str, columns: Mapping[str, FilterColumn]) -> Condition:
    """Return a filter after checking every part of it.

    Args:
        text: the filter. Attributes and classes may have the characters of operators in their names.
        columns: the attributes by name.

    Raises:
        DataError: it is no filter, or names an unknown attribute or class.
    """
    readings = [
        Condition(text, *side, found[0], text[found.end() :].strip())
        for found in _OPERATOR.finditer(text)
        if (side := _attribute_of(text[: found.start()], columns))
    ]
    if not readings:
        raise _unreadable(text, columns)
    mistakes = [_mistake(one, columns[one.attribute]) for one in readings]
    for one, mistake in zip(readings, mistakes, strict=True):
        if not mistake:
            return one
    raise DataError(mistakes[0])


def fitting_rows(condition: Condition, column: FilterColumn) -> tuple[Rows, Rows]:
    """Return which rows fit a filter, and which of them by a label rather than a predicted class, both bool [N]."""
    if condition.source == _PROBABILITY:
        probability = pc.fill_null(column.probability, np.nan).to_numpy(zero_copy_only=False)
        limit = float(condition.value)
        fits: Rows = probability >= limit if condition.operator == ">=" else probability < limit
        return fits, np.zeros(len(fits), bool)
    sources = {_GIVEN: column.given, _PREDICTED: column.predicted}
    found = [
        _compared(one, condition.value, column)
        for kind, one in sources.items()
        if one is not None and condition.source in ("", kind)
    ]
    known, has = found[0]
    by_label = known if column.given is not None and condition.source != _PREDICTED else np.zeros(len(known), bool)
    for also_known, also_has in found[1:]:
        has = np.where(known, has, also_has)
        known = known | also_known
    fits = known & (has if condition.operator == "=" else ~has)
    return fits, fits & by_label


def _attribute_of(text: str, columns: Mapping[str, FilterColumn]) -> tuple[str, str] | None:
    """Return the attribute and the source that the left side of a filter names, or None."""
    name = normalized_name(text)
    if name in columns:
        return name, ""
    name, _, source = name.rpartition(":")
    known = (_GIVEN, _PREDICTED, _PROBABILITY)
    return (name.strip(), source.strip()) if source.strip() in known and name.strip() in columns else None


def _unreadable(text: str, columns: Mapping[str, FilterColumn]) -> DataError:
    """Return the error for a filter that names no known attribute."""
    found = _OPERATOR.search(text)
    if not found or not text[: found.start()].strip():
        return DataError(f"{text!r} is no filter: write attribute=class or attribute!=class, such as color=Red")
    name, _, source = text[: found.start()].strip().rpartition(":")
    if name.strip() in columns:
        return DataError(
            f"{text!r}: there is no {source.strip()!r} of {name.strip()!r}: choose {_GIVEN}, {_PREDICTED} or "
            f"{_PROBABILITY}"
        )
    name = text[: found.start()].strip()
    similar = did_you_mean(name, columns)
    names = quoted(list(columns), _NAMED) or "none"
    return DataError(f"{text!r}: the index has no attribute {name!r}{similar} (its attributes are {names})")


def _mistake(condition: Condition, column: FilterColumn) -> str:
    """Return what is wrong with a filter whose attribute is known, or ""."""
    text, name = repr(condition.text), condition.attribute
    if condition.source == _PROBABILITY:
        return _probability_mistake(condition, column)
    if condition.operator not in ("=", "!="):
        return f"{text}: classes are compared by = and !=, and {condition.operator} is for {name}:{_PROBABILITY}"
    if not condition.value:
        return f"{text} names no class of {name!r}: write it behind the {condition.operator}"
    sources = {_GIVEN: column.given, _PREDICTED: column.predicted}
    if condition.source and sources[condition.source] is None:
        why = "no table gave labels for it" if condition.source == _GIVEN else "the model does not predict it"
        return f"{text}: {name!r} has no {condition.source} classes, as {why}"
    known = _known_classes(column)
    value = _normal(condition.value)
    if condition.value not in known and value not in known:
        return f"{text}: {name!r} has no class {condition.value!r}{did_you_mean(condition.value, known)}{_some(known)}"
    return ""


def _probability_mistake(condition: Condition, column: FilterColumn) -> str:
    text, name = repr(condition.text), condition.attribute
    if column.probability is None:
        why = "the model does not predict it" if column.predicted is None else "it may have several values"
        return f"{text}: {name!r} has no single probability, as {why}"
    if condition.operator not in (">=", "<"):
        return f"{text}: a probability is compared by >= or <, such as {name}:{_PROBABILITY}>=0.9"
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", condition.value) or float(condition.value) > 1:
        return f"{text}: {condition.value!r} is no probability from 0 to 1"
    return ""


def _known_classes(column: FilterColumn) -> dict[str, None]:
    """Return the classes that a row can have, in order: the model's, then others that labels have."""
    known = dict.fromkeys(column.classes)
    for one in (column.given, column.predicted):
        for cell in [] if one is None else one.dictionary.to_pylist():
            known |= dict.fromkeys(_values(cell, column))
    return known


def _some(known: Mapping[str, None]) -> str:
    return f" (it has {quoted(list(known), _NAMED)})" if known else ""


def _values(cell: str, column: FilterColumn) -> list[str]:
    """Return the values in a cell; the whole cell is one too where no model says that there may be several."""
    if not column.separator:
        return [cell]
    values = values_of(cell.replace(column.separator, SEPARATOR))
    return values if column.predicted is not None or cell in values else [*values, cell]


def _normal(value: str) -> str:
    return str(normalized_cells(pa.array([value], pa.string()))[0].as_py())


def _compared(cells: pa.DictionaryArray, value: str, column: FilterColumn) -> tuple[Rows, Rows]:
    """Return which rows have a known cell, and which have the value in it, both bool [N]."""
    wanted = {value, _normal(value)}
    has = [bool(wanted & {*_values(cell, column)}) for cell in cells.dictionary.to_pylist()]
    codes = cells.indices.fill_null(len(has)).to_numpy(zero_copy_only=False)
    return codes < len(has), np.array([*has, False])[codes]
