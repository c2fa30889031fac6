"""Tables of images: one row an image, an `image_path` column, and a column for each attribute.

    table = read_table(find_split("data", "train"))
    label_space = build_label_space(table)
    targets = encode_targets(table, label_space, strict=True)

A table stays in Arrow's buffers, never in Python lists: a million rows load in a second or two, and forked workers
share them, where reading a list would copy its pages by counting references.
"""

import csv
import difflib
import logging
import os
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from catalog.data_error import DataError
from catalog.label_space import BITS, SEPARATOR, UNSEEN, LabelSpace, values_of
from runtime.errors import first_line

_logger = logging.getLogger(__name__)
pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

IMAGE_PATH = "image_path"
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
FORMATS = (*_DELIMITERS, ".parquet")

# Below this many labeled rows, as in a first try, every class may well be different by chance.
_FEW_ROWS = 8
_TWINS_NAMED = 5  # of an attribute: more lines would hide those that follow
_ALIASES = {"val": ("val", "validation"), "validation": ("validation", "val")}
_PATH_LIKE = re.compile(r"(image|img|file|picture|photo)*(path|name|file)?s?")
_YES, _NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}


@dataclass(frozen=True, eq=False)
class Table:
    """A table of images, read and checked.

    Args:
        path: The file it was read from.
        image_paths: Arrow strings, one a row, none blank.
        columns: The attributes in the header's order: each a dictionary-encoded Arrow array in which null is blank.
        chosen: Whether the user named the attributes, rather than the header.
        lists: The attributes whose cells are lists in the file, here joined by `|`.
        unlabeled: How many rows at the end are not of the file: images without labels that were added to it.
        rows: Which rows of the file these are, where some were left out.
    """

    path: Path
    image_paths: pa.LargeStringArray
    columns: dict[str, pa.DictionaryArray]
    chosen: bool = False
    lists: frozenset[str] = frozenset()
    unlabeled: int = 0
    rows: npt.NDArray[np.int64] | None = None

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attribute columns, in the header's order."""
        return tuple(self.columns)

    def __len__(self) -> int:
        return len(self.image_paths)

    def image_path(self, row: int) -> str:
        """Returns a row's image path as the table has it."""
        return str(self.image_paths[row].as_py())

    def line(self, row: int) -> int:
        """Returns the line of the file, from 1, on which a row starts; in Parquet, which has no lines, its number.

        The file is read again to find it, so this is for messages.
        """
        row = row if self.rows is None else int(self.rows[row])
        if self.path.suffix.lower() not in _DELIMITERS:
            return row + 1
        return _line(self.path, row)

    def take(self, rows: npt.NDArray[np.int64]) -> "Table":
        """Returns a table of some of the file's rows, in this order."""
        columns = {name: column.take(pa.array(rows)) for name, column in self.columns.items()}
        return replace(self, image_paths=self.image_paths.take(pa.array(rows)), columns=columns, rows=rows)

    def place(self, row: int) -> str:
        """Returns where a row is, for a message: "train.csv line 7"."""
        return f"{self.path.name} {'line' if self.path.suffix.lower() in _DELIMITERS else 'row'} {self.line(row)}"


def read_table(
    path: str | os.PathLike[str], attributes: Collection[str] | None = None, require_attributes: bool = True
) -> Table:
    """Reads a .csv, .tsv or .parquet table.

    Cells are stripped of surrounding whitespace; an empty one, and Parquet's null, is blank. Every other text is a
    class name, "NA" and "null" too. Empty lines are ignored. Parquet's numbers are read as CSV writes them: the whole
    number 3 is "3", even where blanks made the column floating-point, and booleans are "True" and "False". Its lists of
    names are joined by `|`; an empty list is a lone `|`.

    Args:
        path: The file; its extension says the format.
        attributes: The columns to read as attributes; by default every column but `image_path`.
        require_attributes: Whether a table with no attribute is an error; pretraining and inference need none. Where
            it is not, nor are columns that hold no names, unless they are named: they are left out with a warning.

    Raises:
        DataError: If the file is missing, is no such table, or a row has no image path.
    """
    path = Path(path)
    _check_file(path)
    is_text = path.suffix.lower() in _DELIMITERS
    raw_header = _text_header(path) if is_text else _parquet_header(path)
    header = _check_header(path, raw_header)
    names = _choose_attributes(path, list(header), attributes, require_attributes)
    raw_names = [header[name] for name in (IMAGE_PATH, *names)]
    lenient = attributes is None and not require_attributes
    lists: Collection[str] = ()
    if is_text:
        cells = _read_text(path, raw_header, raw_names)
    else:
        cells, lists = _read_parquet(path, raw_names, lenient)

    image_paths = pc.utf8_trim_whitespace(cells[raw_names[0]]).cast(pa.large_string()).combine_chunks()
    image_paths = pc.fill_null(image_paths, "")
    blank = pc.equal(image_paths, "")
    if is_text and len(header) == 1:
        image_paths = image_paths.filter(pc.invert(blank))  # with a single column, a blank cell is an empty line
    elif (row := pc.index(blank, True).as_py()) >= 0:
        place = f"line {_line(path, row)}" if is_text else f"row {row + 1}"
        raise DataError(f"{path.name} {place}: {IMAGE_PATH} is blank: fill it in or delete the row")
    if not len(image_paths):
        raise _no_rows(path)
    columns = {name: _encode(cells[header[name]]) for name in names if header[name] in cells}
    of_lists = frozenset(name for name in columns if header[name] in lists)
    return Table(path, image_paths, columns, chosen=attributes is not None, lists=of_lists)


def check_attributes(table: Table, multi_valued: Collection[str] = ()) -> None:
    """Checks that a label space can be made of a table's attributes, and warns of those that look like free text.

    This is for the table that the classes come from: a validation table may well have one class only.

    Args:
        table: The table.
        multi_valued: Its attributes whose cells hold several values.

    Raises:
        DataError: If an attribute has fewer than two classes, is an id, or is one-hot columns.
    """
    if not table.chosen:
        _check_one_hot(table)
    faults = {name: _fault(column, name in multi_valued) for name, column in table.columns.items()}
    sound = [attribute for attribute, fault in faults.items() if not fault]
    for attribute, fault in faults.items():
        if fault:
            remedy = f"leave it out with --attributes {shlex.join(sound)}" if sound else "it has no other to learn"
            raise DataError(f"{table.path.name} column {attribute!r} {fault}: {remedy}")
        classes, labeled = _count(table.columns[attribute], attribute in multi_valued)
        if labeled >= _FEW_ROWS and classes > labeled / 2:
            _logger.warning(
                f"{table.path.name} column {attribute!r} has {classes} classes in {labeled} labeled rows: "
                "it looks like an id or free text, not an attribute"
            )


def with_sound_attributes(table: Table) -> Table:
    """Returns a table without attributes that cannot be learned, each named in a warning, for losses without labels."""
    faults = {
        name: _fault(column, name in table.lists or _has_separator(column)) for name, column in table.columns.items()
    }
    for name, fault in faults.items():
        if fault:
            _logger.warning(f"{table.path.name} column {name!r} {fault}: it is left out, as no loss reads labels")
    return replace(table, columns={name: column for name, column in table.columns.items() if not faults[name]})


def build_label_space(table: Table, multi_valued: Collection[str] | None = None) -> LabelSpace:
    """Returns the label space of a table: attributes in the header's order, classes sorted by name.

    Args:
        table: The table.
        multi_valued: The attributes whose cells hold several values; by default those that are lists, or have a `|` in
            a cell.

    Raises:
        DataError: If an attribute cannot be learned (`check_attributes`), or is said to be multi-valued and not there.
    """
    if multi_valued is None:
        multi_valued = [name for name, cells in table.columns.items() if name in table.lists or _has_separator(cells)]
    if strangers := [name for name in multi_valued if name not in table.columns]:
        raise DataError(
            f"{table.path.name} has no attribute {strangers[0]!r}, which is said to be multi-valued; it has "
            f"{_quoted(table.attributes) or 'none'}"
        )
    check_attributes(table, multi_valued)
    names = {name: _class_names(column, name in multi_valued) for name, column in table.columns.items()}
    for attribute, classes in names.items():
        _warn_of_case(table, attribute, classes)
    return LabelSpace({name: tuple(sorted(classes)) for name, classes in names.items()}, multi_valued)


def encode_targets(table: Table, label_space: LabelSpace, strict: bool) -> npt.NDArray[np.int64]:
    """Returns the targets of a table's images.

    Args:
        table: What to encode; columns that the label space lacks are ignored.
        label_space: The attributes and classes of the model.
        strict: Whether every class and attribute must be known, as in training. Otherwise what is not known is logged,
            and a class is `UNSEEN`, an attribute that the table lacks `UNKNOWN`.

    Returns:
        int64 [rows, C]: a class's code, `UNKNOWN` for a blank cell; of a multi-valued attribute the bits of its set.

    Raises:
        DataError: If `strict` and a class or an attribute is not known, or if the table has none of the attributes.
    """
    missing = [attribute for attribute in label_space.attributes if attribute not in table.columns]
    if missing and (strict or len(missing) == len(label_space)):
        raise DataError(
            f"{table.path.name} has no column {_quoted(missing)}, which the label space has: add it, blank where "
            f"unknown (the table's attributes are {_quoted(table.attributes) or 'none'})"
        )
    if missing:
        meant = _nearest(missing[0], [name for name in table.attributes if name not in label_space.attributes])
        _logger.warning(f"{table.path.name} has no column {_quoted(missing)}: taken as blank in every row{meant}")
    blank = pa.nulls(len(table), pa.string())
    columns = [label_space.encode(a, table.columns.get(a, blank)) for a in label_space.attributes]
    targets = np.concatenate([np.empty((len(table), 0), dtype=np.int64), *columns], axis=1)
    unseen = {
        attribute: rows
        for attribute, encoded in zip(label_space.attributes, columns, strict=True)
        if len(rows := np.flatnonzero(_is_unseen(encoded, label_space, attribute)))
    }
    if unseen and strict:
        attribute, rows = min(unseen.items(), key=lambda found: found[1][0])
        raise _unseen_class(table, label_space, int(rows[0]), attribute)
    for attribute, rows in unseen.items():
        known = set(label_space.classes[attribute])
        names = _class_names(table.columns[attribute], attribute in label_space.multi_valued)
        strangers = [name for name in names if name not in known]
        several = attribute not in label_space.multi_valued and any(SEPARATOR in name for name in strangers)
        remedy = f"; {_say_multi_valued(attribute)}" if several else ""
        _logger.warning(
            f"{table.path.name}: {len(rows)} images have a class of {attribute!r} that the model does not know "
            f"({_quoted(strangers)}): counted as wrong{remedy}"
        )
    return targets


def _is_unseen(encoded: npt.NDArray[np.int64], label_space: LabelSpace, attribute: str) -> npt.NDArray[np.bool_]:
    """Returns in which rows of an attribute's columns a class is that the label space lacks."""
    if attribute not in label_space.multi_valued:
        unseen: npt.NDArray[np.bool_] = encoded[:, 0] == UNSEEN
        return unseen
    outside = 1 << len(label_space.classes[attribute]) % BITS
    in_last: npt.NDArray[np.bool_] = (encoded[:, -1] >= 0) & (encoded[:, -1] & outside > 0)
    return in_last


def find_split(data_dir: str | os.PathLike[str], name: str) -> Path:
    """Returns the table of a split.

    Args:
        data_dir: The folder with the tables.
        name: "train", "val" ("validation" is the same), "test" or any other table's name without its extension; or a
            file, as it is or within `data_dir`.

    Raises:
        DataError: If there is no such table, or there are several.
    """
    folder = Path(data_dir)
    for stem in _ALIASES.get(name, (name,)):
        if table := _find(folder, stem):
            return table
    for file in (Path(name), folder / name):
        if file.is_file():
            return file
    if not folder.is_dir():
        raise DataError(f"no such data folder: {folder}")
    name = "val" if name == "validation" else name  # what README calls it; --val-split has timm's default
    looked_for = name if Path(name).suffix else f"{name}.csv, {name}.tsv or {name}.parquet"
    raise DataError(f"{folder} has no {looked_for}: {_nearby(folder)}")


def find_label_table(data_dir: str | os.PathLike[str], train_path: str | os.PathLike[str]) -> Path:
    """Returns the table that the classes come from: `all` in the data folder if there is one, else the training split.

    Raises:
        DataError: If there is an `all` in several formats.
    """
    return _find(Path(data_dir), "all") or Path(train_path)


def image_roots(table: Table, limit: int = 100) -> tuple[Path, ...]:
    """Returns the folders that image paths are relative to, the likelier first: the table's and the working directory.

    Absolute paths work with either, since a folder joined with one is that path.

    Args:
        table: Whose images to look for.
        limit: How many rows to try, evenly spaced; if none has an image, all rows are tried until one has.

    Raises:
        DataError: If no row's image exists.
    """
    roots = tuple(dict.fromkeys((table.path.parent.resolve(), Path.cwd())))
    sample = dict.fromkeys(np.linspace(0, len(table) - 1, min(limit, len(table)), dtype=np.int64).tolist())
    found = [sum(_is_file(root, table.image_path(row)) for row in sample) for root in roots]
    if not any(found):
        found = next(filter(any, ([_is_file(r, table.image_path(i)) for r in roots] for i in range(len(table)))), [])
    if not found:
        tried = f"in {roots[0]}" if len(roots) == 1 else f"in {roots[0]} nor in {roots[1]}"
        raise DataError(
            f"{table.path.name}: no readable image at all: first path {table.image_path(0)!r} is "
            f"{'not' if len(roots) == 1 else 'neither'} {tried}; write paths relative to the table's folder"
        )
    return tuple(root for _, root in sorted(zip(found, roots, strict=True), key=lambda pair: -pair[0]))


# Reading: one function for each format's header and one for its cells.


def _text_header(path: Path) -> list[str]:
    """Returns the header's cells; refuses what is no text table at all."""
    with path.open("rb") as file:
        start = file.read(1 << 16)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path.name} is UTF-16: save it as UTF-8")
    if b"\0" in start:
        raise _not_text(path)
    try:
        return next(_rows(path, errors="strict"))[1]
    except StopIteration:
        raise DataError(f"{path.name} is empty: its first line must be a header with {IMAGE_PATH}") from None
    except UnicodeDecodeError:
        _check_utf8(path)
        raise


def _parquet_header(path: Path) -> list[str]:
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError):
        raise DataError(f"{path.name} is not a Parquet file, or is damaged: write it again, or as .csv") from None
    return [name for name in names if not re.fullmatch(r"__index_level_\d+__", name)]  # pandas' index is no attribute


def _read_text(path: Path, raw_header: list[str], raw_names: list[str]) -> dict[str, pa.ChunkedArray]:
    """Reads the columns of these names from a text table, as its header spells them."""
    data = path.read_bytes()
    if b"\0" in data:
        raise _not_text(path)
    types = {name: pa.dictionary(pa.int32(), pa.string()) for name in raw_names} | {raw_names[0]: pa.large_string()}
    try:
        cells = pa_csv.read_csv(
            pa.BufferReader(data),
            # Arrow passes over empty lines above the header by itself, but not over those of whitespace.
            read_options=pa_csv.ReadOptions(skip_rows=_header_line(path) - 1),
            parse_options=pa_csv.ParseOptions(
                delimiter=_DELIMITERS[path.suffix.lower()],
                newlines_in_values=True,
                invalid_row_handler=lambda row: "skip" if _is_empty(row.actual_columns, row.text) else "error",
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=types, include_columns=raw_names, null_values=[], strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise _bad_text(path, len(raw_header), error) from None
    # Arrow takes an unclosed quote silently, and the rows that it swallows are lost. Only rows of several lines, empty
    # lines, or an odd quote can be one, so most tables are spared the slow look.
    if (quotes := data.count(b'"')) and (quotes % 2 or _count_lines(data) != len(cells) + 1):
        for _ in _rows(path, strict=True):
            pass
    return {name: cells[name] for name in raw_names}


def _read_parquet(path: Path, raw_names: list[str], lenient: bool) -> tuple[dict[str, pa.ChunkedArray], list[str]]:
    """Reads the columns of these names from a Parquet table, as strings; also returns which of them are lists.

    If lenient, columns that hold no names are left out.
    """
    try:
        # ParquetFile, because read_table would make columns of folders called "a=b".
        cells = pq.ParquetFile(path).read(columns=raw_names)
    except (pa.ArrowException, OSError) as error:
        if int(pa.__version__.split(".")[0]) < 26 and "Expected all lists to be of size" in str(error):
            raise DataError(
                f"{path.name} has lists of a fixed length and cells without one, which pyarrow {pa.__version__} cannot "
                "read: pip install 'pyarrow>=26', or write lists of any length"
            ) from None
        raise DataError(f"{path.name} is damaged ({first_line(error)}): write it again, or as .csv") from None
    columns = {}
    for name in raw_names:
        try:
            columns[name] = _as_strings(path, name, cells[name])
        except DataError as error:
            if not lenient or name == raw_names[0]:
                raise
            _logger.warning(f"{str(error).rpartition(': ')[0]}: left out")
    return columns, [name for name in columns if _is_list(cells[name].type)]


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _as_strings(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Casts a Parquet column to strings as CSV would have them."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)  # also drops pandas' categories that no row has
    try:
        if pa.types.is_boolean(column.type):
            return pc.if_else(column, "True", "False")
        if pa.types.is_floating(column.type):
            floats = column.cast(pa.float64())
            column = pc.if_else(pc.is_nan(floats), None, column)
            if pc.all(pc.and_(pc.is_finite(floats), pc.equal(floats, pc.floor(floats)))).as_py() is not False:
                column = column.cast(pa.int64())
        if _is_list(column.type) and _can_name(column.type.value_type):
            return _joined(path, name, column.combine_chunks())
        if not pa.types.is_nested(column.type):
            return column.cast(pa.string())
    except pa.ArrowException:
        pass
    raise DataError(
        f"{path.name} column {name!r} holds {column.type}, not names: choose the other columns with --attributes"
    )


def _can_name(kind: pa.DataType) -> bool:
    """Says whether values of a type can be names in a list: a list of floats is a vector, not a set."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind))


def _joined(path: Path, name: str, lists: pa.Array) -> pa.ChunkedArray:
    """Joins lists of names by `|`, as sets are in CSV; an empty one is a lone `|`, and a null in a list is no value."""
    values = pc.list_flatten(lists)
    values = (values.dictionary_decode() if pa.types.is_dictionary(values.type) else values).cast(pa.string())
    rows = pc.list_parent_indices(lists)
    if (wrong := pc.index(pc.match_substring(values, SEPARATOR), True).as_py()) >= 0:
        raise DataError(
            f"{path.name} row {rows[wrong].as_py() + 1}: {name} has a value {values[wrong].as_py()!r}, and "
            f"{SEPARATOR} separates values: write it without"
        )
    present = values.is_valid()
    lengths = np.bincount(rows.filter(present).to_numpy(), minlength=len(lists))
    offsets = pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int64())
    sets = pa.LargeListArray.from_arrays(offsets, values.filter(present))
    joined = pc.binary_join(sets, SEPARATOR)
    joined = pc.if_else(pc.equal(joined, ""), SEPARATOR, joined)
    return pa.chunked_array([pc.if_else(lists.is_valid(), joined, None)])


def _encode(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Strips a column's cells, makes empty ones null, and dictionary-encodes it; in memory that no list holds."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = encoded.unify_dictionaries().combine_chunks()
    names = pc.utf8_trim_whitespace(encoded.dictionary)
    # Stripping can make two entries one, so the few names are encoded again and the many rows pointed to them.
    names = pc.if_else(pc.equal(names, ""), None, names).dictionary_encode()
    return pa.DictionaryArray.from_arrays(names.indices.take(encoded.indices), names.dictionary.cast(pa.string()))


def _rows(path: Path, strict: bool = False, errors: str = "replace") -> Iterator[tuple[int, list[str]]]:
    """Yields the line on which each row of a text table starts, from 1, and its cells; slow, so for messages.

    Args:
        path: The table.
        strict: Whether text after a closing quote is an error, the sign of an earlier quote that was not closed.
        errors: What to do with bytes that are not UTF-8; by default nothing, since another check reports them.
    """
    start = 1
    with path.open(encoding="utf-8-sig", errors=errors, newline="") as file:
        reader = csv.reader(file, delimiter=_DELIMITERS[path.suffix.lower()], strict=strict)
        try:
            for row in reader:
                if not _is_empty(len(row), "".join(row)):
                    yield start, row
                start = reader.line_num + 1
        except csv.Error:
            raise DataError(
                f"{path.name} line {start}: a quote in this row is never closed: close it, and double every quote "
                "inside a quoted cell"
            ) from None


def _is_empty(cells: int, text: str) -> bool:
    """Says whether a row is an empty line: nothing but whitespace, or one blank cell in quotes."""
    return cells <= 1 and not text.replace('"', "").strip()


def _count_lines(data: bytes) -> int:
    ends = data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
    return ends + (not data.endswith((b"\n", b"\r")))


def _header_line(path: Path) -> int:
    return next(_rows(path))[0]


def _line(path: Path, row: int) -> int:
    """Returns the line on which a text table's row starts, not counting the header among the rows."""
    return next(start for i, (start, _) in enumerate(_rows(path)) if i == row + 1)


# Faults of a file and of its header.


def _check_file(path: Path) -> None:
    """Raises a DataError unless there is a file there, with something in it, in a format we read."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a table: {_nearby(path)}")
    if not path.is_file():
        raise DataError(f"no such table: {path} ({_nearby(path.parent)})")
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path.name} is not a table we read: save it as .csv, .tsv or .parquet")
    if not path.stat().st_size:
        raise DataError(f"{path.name} is empty: its first line must be a header with {IMAGE_PATH}")


def _check_header(path: Path, raw_header: list[str]) -> dict[str, str]:
    """Returns each column's name, stripped, and how the file spells it; raises a DataError unless it is a header."""
    names = [name.strip() for name in raw_header]
    where = f"{path.name} line {_header_line(path)}" if path.suffix.lower() in _DELIMITERS else path.name
    if IMAGE_PATH not in names:
        raise DataError(f"{where} has no column {IMAGE_PATH}: {_rename(names)} (found {_quoted(names, 20)})")
    if "" in names:
        raise DataError(
            f"{where}: column {names.index('') + 1} has no name: name it or delete it "
            "(pandas writes such a column unless told index=False)"
        )
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise DataError(f"{where}: column {twice[0]!r} is there twice: rename or delete one")
    return dict(zip(names, raw_header, strict=True))


def _rename(names: list[str]) -> str:
    """Returns what to do about a header that lacks the image path."""
    if len(names) == 1 and (delimiter := next((d for d in ";\t|," if d in names[0]), None)):
        return f"its cells seem to be separated by {delimiter!r}: separate .csv with commas and .tsv with tabs"
    alike = [name for name in names if name and _PATH_LIKE.fullmatch(re.sub(r"[^a-z]", "", name.lower()))]
    alike += difflib.get_close_matches(IMAGE_PATH, names, 1)
    return f"rename {alike[0]!r} to it" if alike else "add one, with each image's path"


def _choose_attributes(path: Path, header: list[str], wanted: Collection[str] | None, required: bool) -> list[str]:
    """Returns which columns to read as attributes, in the header's order."""
    columns = [name for name in header if name != IMAGE_PATH]
    for name in wanted or ():
        if name not in columns:
            raise DataError(
                f"{path.name} has no attribute {name!r}{_nearest(name, columns)}"
                f" (its attributes are {_quoted(columns, 20) or 'none'})"
            )
    chosen = columns if wanted is None else [name for name in columns if name in wanted]
    if required and not chosen:
        raise DataError(f"{path.name} has no attribute to learn: add a column for one besides {IMAGE_PATH}")
    return chosen


def _bad_text(path: Path, width: int, error: Exception) -> DataError:
    """Returns what is wrong with a text table that Arrow refused, with the line, which Arrow does not know."""
    _check_utf8(path)
    rows = 0
    for line, row in _rows(path, strict=True):
        rows += 1
        if len(row) != width:
            remedy = (
                "quote cells that have the separator in them" if len(row) > width else "keep blank cells' separators"
            )
            return DataError(f"{path.name} line {line} has {_cells(len(row))}, the header has {width}: {remedy}")
    return DataError(f"{path.name} cannot be read: {first_line(error)}") if rows > 1 else _no_rows(path)


def _check_utf8(path: Path) -> None:
    """Raises a DataError for the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                message = f'{path.name} line {number} is not UTF-8: save it as UTF-8 (in Excel, "CSV UTF-8")'
                raise DataError(message) from None


def _no_rows(path: Path) -> DataError:
    return DataError(f"{path.name} has a header and no rows: add one row for each image")


def _not_text(path: Path) -> DataError:
    return DataError(f"{path.name} is not a text table, it has NUL bytes: save it as .csv from the program it is of")


# Faults of attributes.


def _fault(column: pa.DictionaryArray, multi_valued: bool) -> str | None:
    """Returns why a column cannot be learned, as the rest of a sentence; None if it can."""
    classes, labeled = _count(column, multi_valued)
    if not labeled:
        return "is blank in every row"
    if multi_valued:
        if not classes:
            return "has no value in any row"
        if labeled >= _FEW_ROWS and classes == _count_values(column):
            return f"has no value twice in its {labeled} labeled rows, so it is an id or text and not an attribute"
        return None
    if classes == 1:
        return f"has one class only, {column.dictionary[0].as_py()!r}"
    if labeled >= _FEW_ROWS and classes == labeled:
        return f"is different in each of its {labeled} labeled rows, so it is an id and not an attribute"
    return None


def _count(column: pa.DictionaryArray, multi_valued: bool) -> tuple[int, int]:
    """Returns the numbers of classes and of labeled rows."""
    return len(_class_names(column, multi_valued)), len(column) - column.null_count


def _count_values(column: pa.DictionaryArray) -> int:
    """Returns how many values a multi-valued column has in all its rows together."""
    rows = np.bincount(column.indices.drop_null().to_numpy(), minlength=len(column.dictionary))
    return sum(n * len(values_of(cell)) for n, cell in zip(rows.tolist(), column.dictionary.to_pylist(), strict=True))


def _class_names(column: pa.DictionaryArray, multi_valued: bool) -> list[str]:
    """Returns the classes in a column, each once."""
    cells = column.dictionary.to_pylist()
    return list(dict.fromkeys(value for cell in cells for value in values_of(cell))) if multi_valued else cells


def _warn_of_case(table: Table, attribute: str, classes: Sequence[str]) -> None:
    """Names the classes that differ in upper and lower case alone, and where the rarer of each two is met first."""
    spellings: dict[str, list[str]] = {}
    for name in classes:
        spellings.setdefault(name.casefold(), []).append(name)
    twins = [alike for alike in spellings.values() if len(alike) > 1]
    for alike in twins[:_TWINS_NAMED]:
        rows = {name: _rows_with(table.columns[attribute], name) for name in alike}
        rare, *_, usual = sorted(alike, key=lambda name: len(rows[name]))
        _logger.warning(
            f"{table.place(int(rows[rare][0]))}: {attribute} {rare!r} is another class than {usual!r}, from which "
            "it differs in case alone: write them alike if they are one"
        )
    if others := len(twins[_TWINS_NAMED:]):
        _logger.warning(f"{table.path.name} column {attribute!r}: so do classes of {others} other names")


def _rows_with(column: pa.DictionaryArray, name: str) -> npt.NDArray[np.int64]:
    """Returns the rows whose cell is a class, or has it among its values."""
    codes = [i for i, cell in enumerate(column.dictionary.to_pylist()) if name in (cell, *values_of(cell))]
    return np.flatnonzero(np.isin(column.indices.fill_null(-1).to_numpy(zero_copy_only=False), codes))


def _has_separator(column: pa.DictionaryArray) -> bool:
    return any(SEPARATOR in cell for cell in column.dictionary.to_pylist())


def _check_one_hot(table: Table) -> None:
    """Raises a DataError if several yes-or-no columns are one attribute: exactly one is yes in every labeled row."""
    flags = {name: column for name, column in table.columns.items() if _is_flag(column)}
    prefixes = {name[: match.end()] for name in flags for match in re.finditer(r"[_=.:/ -]+", name)}
    groups = [[name for name in flags if name.startswith(prefix)] for prefix in prefixes]
    groups = [group for group in groups if len(group) >= 2]
    if len(flags) >= 3:  # without a common prefix, two columns may well be so by chance
        groups.append(list(flags))
    # The largest group first: of color_dark_red, color_dark_blue and color_white, the attribute is color.
    for names in sorted(groups, key=len, reverse=True):
        if _is_one_hot([flags[name] for name in names]):
            prefix = max((p for p in prefixes if all(name.startswith(p) for name in names)), key=len, default="")
            attribute = re.sub(r"[_=.:/ -]+$", "", prefix)
            raise DataError(
                f"{table.path.name}: columns {_quoted(names)} are one attribute in one-hot form: write one column"
                f"{f' {attribute!r}' if attribute else ''} whose cells are the class names, such as "
                f"{names[0].removeprefix(prefix)!r}, or name them with --attributes if they are separate"
            )


def _is_flag(column: pa.DictionaryArray) -> bool:
    names = {name.lower() for name in column.dictionary.to_pylist()} if len(column.dictionary) <= 4 else set("?")
    return bool(names & _YES) and names <= _YES | _NO


def _is_one_hot(columns: Sequence[pa.DictionaryArray]) -> bool:
    """Says whether in each row that has any label, exactly one of the columns is yes, and blank is no."""
    yes = np.zeros(len(columns[0]), dtype=np.int64)
    labeled = np.zeros(len(columns[0]), dtype=bool)
    for column in columns:
        is_yes = [name.lower() in _YES for name in column.dictionary.to_pylist()]
        yes += np.array([*is_yes, False])[column.indices.fill_null(len(is_yes)).to_numpy(zero_copy_only=False)]
        labeled |= column.is_valid().to_numpy(zero_copy_only=False)
    return bool((yes[labeled] == 1).all())


def _unseen_class(table: Table, label_space: LabelSpace, row: int, attribute: str) -> DataError:
    """Returns the error for a class that training does not know."""
    name = table.columns[attribute][row].as_py()
    known = label_space.classes[attribute]
    remedy = "; correct it, or add it to the table that the classes come from"
    if attribute in label_space.multi_valued:
        name = next(value for value in values_of(name) if value not in known)
        remedy = _nearest(name, known) or remedy
    elif SEPARATOR in name:
        remedy = f"; {_say_multi_valued(attribute)}"
    else:
        remedy = _nearest(name, known) or remedy
    return DataError(f"{table.place(row)}: {attribute} {name!r} is not one of {len(known)} known classes{remedy}")


def _say_multi_valued(attribute: str) -> str:
    return f"where its cells hold several values, train from the start with --multi-valued {shlex.quote(attribute)}"


# Finding files, and wording.


def _find(folder: Path, stem: str) -> Path | None:
    """Returns the table of this name in a folder; None if there is none."""
    found = [file for suffix in FORMATS if (file := folder / f"{stem}{suffix}").is_file()]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise DataError(f"{folder} has several tables called {stem}: name the file you mean ({names})")
    return found[0] if found else None


def _nearby(folder: Path) -> str:
    """Returns which tables a folder has, for a message."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    names = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in FORMATS)
    return f"found {', '.join(names[:10])}{', ...' if names[10:] else ''}" if names else f"no tables in {folder}"


def _is_file(root: Path, image_path: str) -> bool:
    return os.path.isfile(root / image_path)  # noqa: PTH113 - Path.is_file raises on a name that is too long


def _nearest(name: str, names: Iterable[str]) -> str:
    """Returns "; did you mean 'Teal'?", or nothing if no name is near."""
    by_lower = {other.lower(): other for other in names}
    near = difflib.get_close_matches(name.lower(), by_lower, 1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def _quoted(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(map(repr, names[:limit])) + (", ..." if len(names) > limit else "")


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"
