"""The label space of a table, and checks that refuse columns that cannot be attributes."""

import logging
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from catalog.attribute_column import (
    FEW_ROWS,
    are_one_hot,
    class_names,
    count_classes,
    is_flag,
    is_one_image_per_class,
    other_separator,
    rows_with_class,
    why_unlearnable,
    words_for_blank,
)
from catalog.cell_text import normalized_name
from catalog.data_error import DataError, did_you_mean, quoted, without_form
from catalog.label_space import LabelSpace
from catalog.table import Table
from catalog.table_size import MAX_CLASSES

_logger = logging.getLogger(__name__)

_FORM_WARNINGS = 5  # for each attribute; more lines would hide the warnings that follow
_WORD_END = r"[_=.:/ -]+"  # ends the common part of one-hot columns' names, as in color_red


def build_label_space(table: Table, multi_valued: Collection[str] | None = None) -> LabelSpace:
    """Return the label space of a table: attributes in the header's order, classes sorted by name.

    Args:
        table: the table.
        multi_valued: the attributes whose cells hold several values; by default the columns of lists and the columns
            with a `|` in a cell. A table with another separator comes from `with_separator`.

    Raises:
        DataError: if an attribute cannot be learned (`check_attributes`), or a multi-valued one does not exist.
    """
    if multi_valued is None:
        multi_valued = [name for name in table.columns if table.looks_multi_valued(name)]
    multi_valued = [normalized_name(name) for name in multi_valued]
    check_multi_valued_names(table.path, table.attributes, multi_valued)
    _warn_of_other_separators(table, multi_valued)
    check_attributes(table, multi_valued)
    names = {name: class_names(column, name in multi_valued) for name, column in table.columns.items()}
    for attribute, classes in names.items():
        _warn_of_form(table, attribute, classes)
    _warn_of_words_for_blank(table)
    classes_of = {name: tuple(sorted(classes)) for name, classes in names.items()}
    return LabelSpace(classes_of, multi_valued, table.separator)


def extend_label_space(known: LabelSpace, table: Table) -> LabelSpace:
    """Return a label space with the attributes and classes that a table adds; log what is new and what is missing.

    An attribute with new classes has all of them sorted by name.

    Args:
        known: the label space.
        table: the table, whose columns are attributes, each with a label.

    Raises:
        DataError: if a column cannot be an attribute, or has several values in a cell where it had one.
    """
    new = {name: column for name, column in table.columns.items() if name not in known.classes}
    added = build_label_space(replace(table, columns=new)) if new else LabelSpace({})
    multi_valued = {*known.multi_valued, *added.multi_valued}
    old = {name: column for name, column in table.columns.items() if name in known.classes}
    for name, column in old.items():
        if name not in multi_valued and table.looks_multi_valued(name):
            raise DataError(
                f"{table.path.name} column {name!r} has several values in a cell, but the model allows only one: "
                f"train a new model with multi_valued {shlex.quote(name)}"
            )
        if fault := why_unlearnable(column, name in multi_valued):
            raise DataError(
                f"{table.path.name} column {name!r} {fault}: correct its cells, or empty the whole column to keep its "
                "head"
            )

    classes = {**known.classes, **added.classes}
    for name, names in added.classes.items():
        _logger.info(f"{name}: a new attribute with {len(names)} classes")
    for name, column in old.items():
        labeled = {known.class_of(name, one) or one for one in class_names(column, name in multi_valued)}
        fresh, missing = sorted(labeled - set(classes[name])), [one for one in classes[name] if one not in labeled]
        if fresh:
            similar = next(filter(None, (did_you_mean(one, known.classes[name]) for one in fresh)), "")
            _logger.info(f"{name}: new among its classes: {quoted(fresh)}{similar}")
            classes[name] = tuple(sorted({*classes[name], *fresh}))
            _warn_of_form(table, name, sorted(labeled))
        if missing:
            _logger.warning(
                f"{name}: {table.path.name} has no label {quoted(missing)}, so these classes will hardly be predicted: "
                "keep the old labels in the table"
            )
    return LabelSpace(classes, multi_valued, table.separator if multi_valued else known.separator)


def check_multi_valued_names(path: Path, attributes: Sequence[str], multi_valued: Collection[str]) -> None:
    """Raise if a multi-valued attribute does not exist.

    Args:
        path: the table, for messages.
        attributes: its attributes.
        multi_valued: the attributes whose cells hold several values.

    Raises:
        DataError: a name, and the attributes that exist.
    """
    if unknown := [name for name in map(normalized_name, multi_valued) if name not in attributes]:
        raise DataError(
            f"{path.name} has no attribute {unknown[0]!r}, which multi_valued names; it has "
            f"{quoted(attributes) or 'none'}{did_you_mean(unknown[0], attributes)}"
        )


def check_attributes(table: Table, multi_valued: Collection[str] = ()) -> None:
    """Check that a table's attributes make a label space, and warn of those that look like free text.

    A class for each image is an error in a column that the header chose, and a warning in one that the user named.

    Call this only for the table that defines the classes; a validation table may have a single class.

    Args:
        table: the table.
        multi_valued: the attributes whose cells hold several values.

    Raises:
        DataError: if an attribute has fewer than two classes, is an id, or is one of several one-hot columns.
    """
    if not table.chosen:
        _check_one_hot(table)
    faults = {name: why_unlearnable(column, name in multi_valued) for name, column in table.columns.items()}
    learnable = [attribute for attribute, fault in faults.items() if not fault]
    for attribute, fault in faults.items():
        one_image_each = is_one_image_per_class(table.columns[attribute], attribute in multi_valued)
        if fault and one_image_each and table.chosen:
            _logger.warning(
                f"{table.path.name} column {attribute!r} has one image for each of its classes: the heads learn each "
                "image by heart, so score them on other images of the same classes, or choose another column"
            )
            continue
        if fault:
            remedy = "it has no other to learn"
            if learnable:
                remedy = f"leave it out and choose attributes {shlex.join(learnable)}"
            elif one_image_each:
                remedy = f"choose attributes {shlex.quote(attribute)} if each image is a class of its own"
            raise DataError(f"{table.path.name} column {attribute!r} {fault}: {remedy}")
        classes, labeled = count_classes(table.columns[attribute], attribute in multi_valued)
        if classes > MAX_CLASSES and not table.chosen:
            others = f" {shlex.join(rest)}" if (rest := [name for name in learnable if name != attribute]) else ""
            raise DataError(
                f"{table.path.name} column {attribute!r} has {classes:,} classes, more than {MAX_CLASSES:,}, and "
                f"each is an output of the model: choose attributes{others} without this column, or also name "
                f"{attribute!r} there if every class is meant"
            )
        if labeled >= FEW_ROWS and classes > labeled / 2:
            _logger.warning(
                f"{table.path.name} column {attribute!r} has {classes} classes in {labeled} labeled rows: "
                "it looks like an id or free text, not an attribute"
            )


def without_unlearnable_attributes(table: Table) -> Table:
    """Return a table without the attributes that no model can learn, each named in a warning.

    Use this if no loss reads labels: a column that cannot be learned is then harmless.
    """
    faults = {name: why_unlearnable(column, table.looks_multi_valued(name)) for name, column in table.columns.items()}
    for name, fault in faults.items():
        if fault:
            _logger.warning(f"{table.path.name} column {name!r} {fault}: it is left out, as no loss reads labels")
    return replace(table, columns={name: column for name, column in table.columns.items() if not faults[name]})


def _warn_of_form(table: Table, attribute: str, classes: Sequence[str]) -> None:
    """Warn of classes that differ only in form, such as case, and name the first row with the rarest spelling."""
    by_form: dict[str, list[str]] = {}
    for name in classes:
        by_form.setdefault(without_form(name), []).append(name)
    ambiguous = [spellings for spellings in by_form.values() if len(spellings) > 1]
    for spellings in ambiguous[:_FORM_WARNINGS]:
        rows = {name: rows_with_class(table.columns[attribute], name) for name in spellings}
        rare, *_, usual = sorted(spellings, key=lambda name: len(rows[name]))
        _logger.warning(
            f"{table.place(int(rows[rare][0]))}: {attribute} {rare!r} and {usual!r} are two classes that differ only "
            f"in {_difference(rare, usual)}: use one spelling if they are one class"
        )
    if others := len(ambiguous[_FORM_WARNINGS:]):
        _logger.warning(f"{table.path.name} column {attribute!r}: {others} other names differ only in form too")


def _warn_of_other_separators(table: Table, multi_valued: Collection[str]) -> None:
    """Warn of columns whose cells seem to hold several values, separated by something other than `|`."""
    for name, column in table.columns.items():
        if name not in multi_valued and (found := other_separator(column)):
            _logger.warning(
                f"{table.path.name} column {name!r}: its cells seem to hold several of {found[1]} values, separated by "
                f"{found[0]!r}, and each whole cell is one class: {_separator_remedy(found[0])}"
            )


def _separator_remedy(separator: str) -> str:
    return f"if an image has several values, give separator {shlex.quote(separator)}, or write '|' instead"


def _warn_of_words_for_blank(table: Table) -> None:
    """Warn once of cells such as "nan", which are classes although they probably mean that nothing is known."""
    found = {name: words for name, column in table.columns.items() if (words := words_for_blank(column))}
    if found:
        counts = "; ".join(
            f"{name}: " + ", ".join(f"{word!r} in {count} rows" for word, count in words.items())
            for name, words in found.items()
        )
        _logger.warning(
            f"{table.path.name} has words for a missing value, which are classes like others ({counts}): leave the "
            "cell blank where the label is unknown"
        )


def _difference(one: str, other: str) -> str:
    """Return what two names with the same `without_form` differ in."""
    if one.casefold() == other.casefold():
        return "case"
    return "the form of the number" if re.search("[0-9]", one) and not re.search("[^0-9.,+-]", one) else "form"


def _check_one_hot(table: Table) -> None:
    """Raise a DataError if several yes-or-no columns are one attribute: each labeled row has exactly one yes."""
    flags = {name: column for name, column in table.columns.items() if is_flag(column)}
    prefixes = {name[: match.end()] for name in flags for match in re.finditer(_WORD_END, name)}
    groups = [[name for name in flags if name.startswith(prefix)] for prefix in prefixes]
    groups = [group for group in groups if len(group) >= 2]
    if len(flags) >= 3:  # without a common prefix, two columns may be one-hot by chance
        groups.append(list(flags))
    # The largest group comes first: in color_dark_red, color_dark_blue and color_white, the attribute is color.
    for names in sorted(groups, key=len, reverse=True):
        if are_one_hot([flags[name] for name in names]):
            prefix = max((p for p in prefixes if all(name.startswith(p) for name in names)), key=len, default="")
            attribute = re.sub(f"{_WORD_END}$", "", prefix)
            raise DataError(
                f"{table.path.name}: columns {quoted(names)} look like one attribute in one-hot form: replace these "
                f"columns by one column{f' {attribute!r}' if attribute else ''} of class names, such as "
                f"{names[0].removeprefix(prefix)!r}, or, if each is an attribute of its own, name these in attributes"
            )
