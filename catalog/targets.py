"""The targets of a table's images: the codes of their labels in a label space."""

import logging
import shlex
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.attribute_column import class_names, looks_blank
from catalog.data_error import DataError, did_you_mean, quoted, without_form
from catalog.label_space import BITS, SEPARATOR, UNSEEN, LabelSpace, values_of
from catalog.table import Table

_logger = logging.getLogger(__name__)

_COMPARED = 5  # unknown classes that are compared with all known ones, which takes long


def encode_targets(table: Table, label_space: LabelSpace, strict: bool) -> npt.NDArray[np.int64]:
    """Return the targets of a table's images.

    Args:
        table: the table; columns that the label space lacks are ignored.
        label_space: the attributes and classes of the model.
        strict: whether an unknown class or a missing attribute is an error, as in training. Otherwise it is logged;
            the class becomes `UNSEEN`, and the attribute is `UNKNOWN` in every row. An attribute whose labels are all
            unknown is an error even so, if they differ from known classes in form only: the score would be 0.

    Returns:
        int64 [rows, C]: the code of a class, or the bits of a multi-valued attribute's set; `UNKNOWN` for a blank cell.

    Raises:
        DataError: if `strict` and a class or attribute is missing, if the table has none of the attributes, or if all
            labels of an attribute are in another form than the classes.
    """
    _check_attributes(table, label_space, strict)
    blank = pa.nulls(len(table), pa.string())
    columns = {name: label_space.encode(name, table.columns.get(name, blank)) for name in label_space.attributes}
    unseen = {
        attribute: rows
        for attribute, encoded in columns.items()
        if len(rows := np.flatnonzero(_is_unseen(encoded, label_space, attribute)))
    }
    if unseen and strict:
        attribute, rows = min(unseen.items(), key=lambda found: found[1][0])
        raise _unseen_class(table, label_space, int(rows[0]), attribute)
    for attribute, rows in unseen.items():
        _report_unseen(table, label_space, attribute, len(rows))
    return np.concatenate([np.empty((len(table), 0), dtype=np.int64), *columns.values()], axis=1)


def _check_attributes(table: Table, label_space: LabelSpace, strict: bool) -> None:
    """Raise a DataError, or warn, about attributes of the label space that a table lacks."""
    missing = [attribute for attribute in label_space.attributes if attribute not in table.columns]
    if missing and (strict or len(missing) == len(label_space)):
        raise DataError(
            f"{table.path.name} has no column {quoted(missing)}, which the label space has: add it, blank where "
            f"unknown (the table's attributes are {quoted(table.attributes) or 'none'})"
        )
    if missing:
        similar = did_you_mean(missing[0], [name for name in table.attributes if name not in label_space.attributes])
        _logger.warning(f"{table.path.name} has no column {quoted(missing)}: taken as blank in every row{similar}")


def _is_unseen(encoded: npt.NDArray[np.int64], label_space: LabelSpace, attribute: str) -> npt.NDArray[np.bool_]:
    """Return which rows of an attribute's targets have a class that the label space lacks, bool [rows]."""
    if attribute not in label_space.multi_valued:
        unseen: npt.NDArray[np.bool_] = encoded[:, 0] == UNSEEN
        return unseen
    outside = 1 << len(label_space.classes[attribute]) % BITS
    in_last: npt.NDArray[np.bool_] = (encoded[:, -1] >= 0) & (encoded[:, -1] & outside > 0)
    return in_last


def _unseen_class(table: Table, label_space: LabelSpace, row: int, attribute: str) -> DataError:
    """Return the error for a row with a class that the label space lacks."""
    name = table.columns[attribute][row].as_py()
    known = label_space.classes[attribute]
    remedy = "; correct it, or add it to the table that the classes come from"
    if attribute in label_space.multi_valued:
        name = next(value for value in values_of(name) if label_space.class_of(attribute, value) is None)
    if attribute not in label_space.multi_valued and SEPARATOR in name:
        remedy = f"; {_multi_valued_remedy(attribute)}"
    else:
        remedy = _blank_remedy([name]) or did_you_mean(name, known) or remedy
    return DataError(f"{table.place(row)}: {attribute} {name!r} is not one of {len(known)} known classes{remedy}")


def _report_unseen(table: Table, label_space: LabelSpace, attribute: str, count: int) -> None:
    """Report classes that the label space lacks; `count` images have one of them.

    Raises:
        DataError: if the table has no known class, and one of its classes differs from a known one in form only.
    """
    multi_valued, known = attribute in label_space.multi_valued, label_space.classes[attribute]
    names = class_names(table.columns[attribute], multi_valued)
    unseen = [name for name in names if label_space.class_of(attribute, name) is None]
    looks_multi_valued = not multi_valued and any(SEPARATOR in name for name in unseen)
    remedy = f"; {_multi_valued_remedy(attribute)}" if looks_multi_valued else _similar(unseen, known)
    if len(unseen) == len(names):
        forms = {without_form(name) for name in known}
        message = (
            f"{table.path.name}: none of the {count} labels of {attribute!r} is a class that the model knows (it has "
            f"{quoted(unseen)}, the model {quoted(known)})"
        )
        if not looks_multi_valued and any(without_form(name) in forms for name in unseen):
            raise DataError(f"{message}: spell these labels as the model does, or delete the column{remedy}")
        _logger.warning(f"ATTENTION: {message}: all are counted as wrong{remedy}")
        return
    _logger.warning(
        f"{table.path.name}: {count} images have a class of {attribute!r} that the model does not know "
        f"({quoted(unseen)}): counted as wrong{remedy}"
    )


def _similar(unseen: Sequence[str], known: Sequence[str]) -> str:
    """Return the remedy for unknown classes: "; did you mean 'Teal' where it has 'teal'?" for the first similar one."""
    forms = {without_form(name) for name in known}
    first = next((name for name in unseen if without_form(name) in forms), None)
    if first is None and (remedy := _blank_remedy(unseen)):
        return remedy
    tried = [first] if first is not None else unseen[:_COMPARED]
    found = ((name, did_you_mean(name, known)) for name in tried)
    name, similar = next(((name, similar) for name, similar in found if similar), ("", ""))
    return f"{similar[:-1]} where it has {name!r}?" if similar else ""


def _blank_remedy(unseen: Sequence[str]) -> str:
    """Return the remedy for the first class that is a word for a missing value, or ""."""
    word = next(filter(looks_blank, unseen), None)
    return "" if word is None else f"; leave the cell blank where {word!r} means that the label is unknown"


def _multi_valued_remedy(attribute: str) -> str:
    return f"where its cells hold several values, train from the start with multi_valued {shlex.quote(attribute)}"
