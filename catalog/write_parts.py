"""Writing the parts of a table, all or none, in the format of the table that they are taken from."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from catalog.data_error import DataError
from catalog.repeated_images import file_paths
from catalog.splits import ALIASES, FORMATS
from catalog.table import Table, read_table
from runtime.atomic_file import atomic_file

_AT_ONCE = 1 << 15  # rows that are converted to text at a time


def check_places(folder: Path, names: tuple[str, ...], ending: str, source: Path | None, overwrite: bool) -> None:
    """Raise unless tables can be written into a folder without losing any, and be found there.

    Args:
        folder: the folder.
        names: names of the tables, without ending.
        ending: their ending.
        source: the table that is split; None for folders of images.
        overwrite: whether tables may be replaced.

    Raises:
        DataError: a table exists.
    """
    for name in names:
        for stem in ALIASES.get(name, (name,)):
            for path in filter(Path.exists, (folder / f"{stem}{end}" for end in FORMATS)):
                if path.name != f"{name}{ending}":
                    raise DataError(
                        f"the existing {path} would be a second table {name}: delete {path.name}, or write into "
                        "another folder"
                    )
                _check_replaced(path, name, source, overwrite)


def check_left(folder: Path, names: Collection[str], table: Table) -> None:
    """Raise if a table that is not replaced holds rows that are split: its images would be in two tables.

    Args:
        folder: folder of the tables to write.
        names: names of the tables to write, without ending.
        table: the table that is split.

    Raises:
        DataError: there is such a table.
    """
    split = set(file_paths(table).to_pylist())
    for name in {"train", "val", "test"} - set(names):
        stems = ALIASES.get(name, (name,))
        for path in filter(Path.is_file, (folder / f"{stem}{end}" for stem in stems for end in FORMATS)):
            shared = split.intersection(file_paths(read_table(path, require_attributes=False)).to_pylist())
            if shared and not (table.path.exists() and path.samefile(table.path)):
                raise DataError(
                    f"{path} stays, and {len(shared):,} of its images are among the rows to split, so they would be in "
                    "two tables: delete it, or write into another folder"
                )


def _check_replaced(path: Path, name: str, source: Path | None, overwrite: bool) -> None:
    """Raise unless a table may be replaced."""
    is_source = source is not None and path.samefile(source)
    kept = path.with_name(path.name.replace(name, "all", 1))
    others = [one for one in (path.with_name(f"all{end}") for end in FORMATS) if one.exists()]
    if is_source and (name != "train" or others):
        raise DataError(f"{path} is the table to split, and would be replaced: write into another folder")
    if not overwrite:
        rest = f" (all its rows are kept in {kept.name})" if is_source else ""
        state = "is the table to split, and would hold only its training rows" if is_source else "exists"
        raise DataError(f"{path} {state}: use overwrite to replace it{rest}, or write into another folder")


def write_parts(folder: Path, tables: Mapping[str, pa.Table], ending: str, whole: Path | None) -> None:
    """Write tables; none is replaced before all are written.

    Args:
        folder: folder of the tables; it is created.
        tables: tables by name.
        ending: their ending, which gives the format.
        whole: a table that is copied as `all` first, since one of the tables replaces it; None for none.
    """
    with ExitStack() as unfinished:
        for name, table in reversed(list(tables.items())):  # the last one to be replaced is the first
            _write(table, unfinished.enter_context(atomic_file(folder / f"{name}{ending}")), ending)
        if whole is not None:
            shutil.copyfile(whole, unfinished.enter_context(atomic_file(folder / f"all{ending}")))


def _write(table: pa.Table, path: Path, ending: str) -> None:
    if ending == ".parquet":
        pq.write_table(table, path)
        return
    with pa.OSFile(str(path), "wb") as file:
        if ending.endswith(".gz"):
            with pa.CompressedOutputStream(file, "gzip") as compressed:
                _write_text(table, compressed, "\t" if ending.startswith(".tsv") else ",")
        else:
            _write_text(table, file, "\t" if ending.startswith(".tsv") else ",")


def _write_text(table: pa.Table, file: pa.NativeFile, delimiter: str) -> None:
    """Write a table as text, with quotes only where a batch of rows needs them."""
    header = io.StringIO()
    csv.writer(header, delimiter=delimiter, lineterminator="\n").writerow(table.column_names)
    file.write(header.getvalue().encode())
    plain = [pa.string() if pa.types.is_dictionary(field.type) else field.type for field in table.schema]
    table = table.cast(pa.schema(list(zip(table.column_names, plain, strict=True))))
    for batch in table.to_batches(_AT_ONCE):
        try:
            text = _text_of(batch, delimiter, "none")
        except pa.ArrowInvalid:  # a cell has a quote, a delimiter or the end of a line
            text = _text_of(batch, delimiter, "needed")
        file.write(text)


def _text_of(batch: pa.RecordBatch, delimiter: str, quoting: str) -> pa.Buffer:
    text = pa.BufferOutputStream()
    options = pa_csv.WriteOptions(include_header=False, batch_size=_AT_ONCE, delimiter=delimiter, quoting_style=quoting)
    pa_csv.write_csv(batch, text, options)
    return text.getvalue()
