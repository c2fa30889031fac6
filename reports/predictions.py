"""The predictions for many images: kept as arrays, written as CSV, JSON or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalog.label_space import LabelSpace
from catalog.spreadsheet_text import escaped, escaped_text
from runtime.atomic_file import atomic_file, check_writable
from runtime.errors import UsageError

_IMAGE_PATH, _ERROR = "image_path", "error"
_ROWS = 1 << 16  # rows that become Python objects at the same time


class Predictions:
    """The most probable classes of each image and their probabilities, in 8 bytes for each class kept.

    A multi-valued attribute keeps 4 bytes for each value: its probability, or NaN if the value is not predicted.

    Args:
        label_space: the attributes and their classes.
        rows: the number of images.
        topk: the number of classes to keep for each attribute, limited to the number it has.
        allocate: makes an array, given its shape, the value that fills it and its dtype; np.full keeps it in memory.
            The order of the calls follows from the label space.
    """

    def __init__(
        self, label_space: LabelSpace, rows: int, topk: int = 1, allocate: Callable[..., Any] = np.full
    ) -> None:
        self.label_space = label_space
        sizes = label_space.num_classes
        kept = {name: min(topk, count) for name, count in sizes.items() if name not in label_space.multi_valued}
        self.sets = {
            name: allocate((rows, k), np.nan, np.float32)
            for name, k in sizes.items()
            if name in label_space.multi_valued
        }
        self.known = {name: allocate((rows,), True, bool) for name in self.sets}  # whether a set is empty or blank
        self.codes = {name: allocate((rows, k), -1, np.int32) for name, k in kept.items()}
        self.probabilities = {name: allocate((rows, k), np.nan, np.float32) for name, k in kept.items()}
        self.topk = topk

    def put(self, attribute: str, rows: Any, codes: Any, probabilities: Any) -> None:
        """Store the codes and probabilities of some rows, each [rows, k], the most probable class first."""
        self.codes[attribute][rows] = codes
        self.probabilities[attribute][rows] = probabilities

    def put_set(self, attribute: str, rows: Any, probabilities: Any, predicted: Any) -> None:
        """Store a multi-valued attribute's probabilities [rows, K] where bool `predicted` [rows, K] is true."""
        self.sets[attribute][rows] = np.where(predicted, probabilities, np.nan)

    def blank(self, rows: Any, attributes: Iterable[str] | None = None) -> None:
        """Clear the predictions of rows, for some attributes or, by default, for all."""
        for name in self.label_space.attributes if attributes is None else attributes:
            if name in self.sets:
                self.known[name][rows] = False
                self.sets[name][rows] = np.nan
            else:
                self.codes[name][rows] = -1
                self.probabilities[name][rows] = np.nan

    def columns(self) -> list[tuple[str, str, str, int]]:
        """Return for each class kept the names of its two columns, its attribute, and its rank from 0."""
        return [
            (column, f"{column}_probability", name, rank)
            for name in self.label_space.attributes
            for rank in range(1 if name in self.sets else self.codes[name].shape[1])
            for column in [name if self.topk == 1 or name in self.sets else f"{name}_{rank + 1}"]
        ]

    def set_of(self, attribute: str, row: int) -> list[tuple[str, float]]:
        """Return the predicted values of a multi-valued attribute and their probabilities, the most probable first."""
        probabilities = self.sets[attribute][row]
        order = np.argsort(-probabilities, kind="stable")[: np.isfinite(probabilities).sum()]
        names = self.label_space.classes[attribute]
        # float(str()) is the shortest number that equals this float32.
        return [(names[code], float(str(probabilities[code]))) for code in order.tolist()]

    def check_columns(self, path: Path | None = None) -> None:
        """Refuse a file, or a table in memory, with two columns of one name. Call this before hours of work.

        Raises:
            UsageError: if an attribute is named like another's probability, `image_path` or `error`.
        """
        nested = path is not None and path.suffix.lower() == ".json"
        columns = [name for pair in self.columns() for name in pair[:2]]
        names = [_IMAGE_PATH, _ERROR, *(self.label_space.attributes if nested else columns)]
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            apart = path is not None and not nested and twice[0] not in (_IMAGE_PATH, _ERROR)
            remedy = "write to a .json file" if apart else "rename the attribute"
            name = "the table" if path is None else path.name
            raise UsageError(f"{name} would have two columns called {twice[0]!r}: {remedy}")


def check_predictions_path(text: str) -> Path:
    """Return the path of the predictions' file. Call this before hours of predicting.

    Raises:
        UsageError: if the extension is no known format, or the file cannot be written.
    """
    path = Path(text)
    if path.suffix.lower() not in (".csv", *_WRITERS):
        raise UsageError(f"output {text} does not end in .csv, .json or .parquet: choose one of these formats")
    check_writable(path)
    return path


def write_predictions(
    path: Path,
    predictions: Predictions,
    image_paths: pa.ChunkedArray,
    errors: Mapping[int, str],
    spreadsheet_safe: bool = False,
) -> None:
    """Write a row for each image; an older file is replaced at once or not at all.

    Args:
        path: the file; its extension gives the format. CSV and Parquet have a column `error` only if there are errors.
        predictions: the predictions for every image.
        image_paths: the image paths, Arrow strings, one a row.
        errors: by row, the reason why its image could not be read.
        spreadsheet_safe: whether texts of CSV are written so that a spreadsheet runs none of them.
    """
    with atomic_file(path) as unfinished:
        if path.suffix.lower() == ".csv":
            _write_csv(unfinished, predictions, image_paths, errors, spreadsheet_safe)
        else:
            _WRITERS[path.suffix.lower()](unfinished, predictions, image_paths, errors)


def prediction_table(predictions: Predictions, image_paths: pa.ChunkedArray, errors: Mapping[int, str]) -> pa.Table:
    """Return the table that `write_predictions` writes, in memory.

    Args:
        predictions: the predictions for every image.
        image_paths: the image paths, Arrow strings, one a row.
        errors: by row, the reason why its image could not be read.
    """
    return pa.concat_tables(_batches(predictions, image_paths, errors))


def _batches(predictions: Predictions, image_paths: pa.ChunkedArray, errors: Mapping[int, str]) -> Iterator[pa.Table]:
    """Yield tables of up to `_ROWS` rows: image_path, the columns of `Predictions.columns`, and error if any."""
    for start in range(0, len(image_paths), _ROWS):
        paths = image_paths.slice(start, _ROWS)
        rows = slice(start, start + len(paths))
        columns: dict[str, Any] = {_IMAGE_PATH: paths}
        for column, probability, name, rank in predictions.columns():
            columns[column], columns[probability] = prediction_columns(predictions, name, rank, rows)
        if errors:
            columns[_ERROR] = pa.array([errors.get(row) for row in range(rows.start, rows.stop)], pa.string())
        yield pa.table(columns)


def prediction_columns(predictions: Predictions, attribute: str, rank: int, rows: slice) -> tuple[pa.Array, pa.Array]:
    """Return the classes of an attribute at a rank, from 0, and their probabilities for some rows, as Arrow arrays.

    The classes are dictionary-encoded. A multi-valued attribute has texts instead: its values, and their probabilities,
    joined by the separator.
    """
    if attribute in predictions.sets:
        return _joined_sets(predictions, attribute, rows)
    codes, values = (kept[attribute][rows, rank] for kept in (predictions.codes, predictions.probabilities))
    classes = pa.array(predictions.label_space.classes[attribute], pa.string())
    labels = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), classes)
    return labels, pa.array(values, mask=codes < 0)


def _joined_sets(predictions: Predictions, attribute: str, rows: slice) -> tuple[pa.Array, pa.Array]:
    """Return a multi-valued attribute's values and their probabilities for some rows, each joined by the separator."""
    texts: list[tuple[str | None, str | None]] = []
    separator = predictions.label_space.separator
    for row in range(rows.start, rows.stop):
        pairs = predictions.set_of(attribute, row)
        # As in the tables that we read, a lone separator is the empty set, and blank is unknown.
        values, probabilities = (
            (separator.join(map(str, part)) for part in zip(*pairs, strict=True)) if pairs else (separator, separator)
        )
        texts.append((values, probabilities) if predictions.known[attribute][row] else (None, None))
    names, numbers = zip(*texts, strict=True)
    return pa.array(names, pa.string()), pa.array(numbers, pa.string())


def _write_csv(
    path: Path, predictions: Predictions, image_paths: pa.ChunkedArray, errors: Mapping[int, str], safe: bool
) -> None:
    def text(column: pa.ChunkedArray) -> Any:
        if safe and not pa.types.is_floating(column.type):
            return escaped(column.combine_chunks()).cast(pa.string())
        return column.cast(pa.string())

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for number, batch in enumerate(_batches(predictions, image_paths, errors)):
            if number == 0:
                writer.writerow(map(escaped_text, batch.column_names) if safe else batch.column_names)
            # Arrow's strings, because Python writes a float32 with all digits of a float64; null becomes blank.
            writer.writerows(zip(*(text(column).to_pylist() for column in batch.columns), strict=True))


def _write_parquet(
    path: Path, predictions: Predictions, image_paths: pa.ChunkedArray, errors: Mapping[int, str]
) -> None:
    batches = _batches(predictions, image_paths, errors)
    first = next(batches)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for batch in batches:
            writer.write_table(batch)


def _write_json(path: Path, predictions: Predictions, image_paths: pa.ChunkedArray, errors: Mapping[int, str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        before = "[\n"
        for entry in _entries(predictions, image_paths, errors):
            file.write(before + json.dumps(entry, ensure_ascii=False))
            before = ",\n"
        file.write("\n]\n")


def _entries(
    predictions: Predictions, image_paths: pa.ChunkedArray, errors: Mapping[int, str]
) -> Iterator[dict[str, Any]]:
    """Yield each image's object; an unreadable image has no class for any attribute."""
    classes = predictions.label_space.classes
    for row, image_path in enumerate(image_paths):
        entry: dict[str, Any] = {_IMAGE_PATH: image_path.as_py()}
        for name in classes:
            if name in predictions.sets:
                entry[name] = [{"class": value, "probability": p} for value, p in predictions.set_of(name, row)]
                continue
            pairs = zip(predictions.codes[name][row].tolist(), predictions.probabilities[name][row], strict=True)
            # float(str()) is the shortest number that equals this float32.
            entry[name] = [
                {"class": classes[name][code], "probability": float(str(value))} for code, value in pairs if code >= 0
            ]
        if row in errors:
            entry[_ERROR] = errors[row]
        yield entry


_WRITERS = {".json": _write_json, ".parquet": _write_parquet}
