"""What a model predicts for many images, kept as arrays and written as CSV, JSON or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from catalog.label_space import SEPARATOR, LabelSpace
from runtime.atomic_file import atomic_file, check_writable
from runtime.errors import UsageError

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

_IMAGE_PATH, _ERROR = "image_path", "error"
_ROWS = 1 << 16  # so many are turned into Python's objects at a time


class Predictions:
    """The best classes of each image and their probabilities: 8 bytes for each class kept.

    Of a multi-valued attribute it is each value's probability, 4 bytes, NaN where the value is not predicted.

    Args:
        label_space: the attributes and their classes.
        rows: number of images.
        topk: classes to keep for each attribute, at the most all it has.
    """

    def __init__(self, label_space: LabelSpace, rows: int, topk: int = 1) -> None:
        self.label_space = label_space
        sizes = label_space.num_classes
        kept = {name: min(topk, count) for name, count in sizes.items() if name not in label_space.multi_valued}
        self.sets = {
            name: np.full((rows, k), np.nan, np.float32)
            for name, k in sizes.items()
            if name in label_space.multi_valued
        }
        self.readable = np.ones(rows, dtype=bool)
        self.codes = {name: np.full((rows, k), -1, dtype=np.int32) for name, k in kept.items()}
        self.probabilities = {name: np.full((rows, k), np.nan, dtype=np.float32) for name, k in kept.items()}
        self.topk = topk

    def put(self, attribute: str, rows: Any, codes: Any, probabilities: Any) -> None:
        """Keep what is predicted for some rows: codes and probabilities [rows, k], the most probable first."""
        self.codes[attribute][rows] = codes
        self.probabilities[attribute][rows] = probabilities

    def put_set(self, attribute: str, rows: Any, probabilities: Any, predicted: Any) -> None:
        """Keep a multi-valued attribute's probabilities for some rows, [rows, K], where bool [rows, K] says so."""
        self.sets[attribute][rows] = np.where(predicted, probabilities, np.nan)

    def blank(self, rows: Any) -> None:
        """Forget what was predicted for rows whose image could not be read."""
        self.readable[rows] = False
        for probabilities in self.sets.values():
            probabilities[rows] = np.nan
        for name in self.codes:
            self.codes[name][rows] = -1
            self.probabilities[name][rows] = np.nan

    def columns(self) -> list[tuple[str, str, str, int]]:
        """Return for each class that is kept: the column of its name, that of its probability, attribute, rank."""
        return [
            (column, f"{column}_probability", name, rank)
            for name in self.label_space.attributes
            for rank in range(1 if name in self.sets else self.codes[name].shape[1])
            for column in [name if self.topk == 1 or name in self.sets else f"{name}_{rank + 1}"]
        ]

    def set_of(self, attribute: str, row: int) -> list[tuple[str, float]]:
        """Return a multi-valued attribute's values for an image with their probabilities, the most probable first."""
        own = self.sets[attribute][row]
        order = np.argsort(-own, kind="stable")[: np.isfinite(own).sum()]
        names = self.label_space.classes[attribute]
        # float(str()) is the shortest number that is this float32.
        return [(names[code], float(str(own[code]))) for code in order.tolist()]

    def check_columns(self, path: Path) -> None:
        """Refuse a file in which two columns would have one name, before there are hours of work to write to it.

        Raises:
            UsageError: attributes are called as another's probability, or as `image_path` or `error`.
        """
        nested = path.suffix.lower() == ".json"
        own = list(self.label_space.attributes) if nested else [name for pair in self.columns() for name in pair[:2]]
        names = [_IMAGE_PATH, _ERROR, *own]
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            remedy = "rename the attribute" if nested or twice[0] in (_IMAGE_PATH, _ERROR) else "write to a .json file"
            raise UsageError(f"{path.name} would have two columns called {twice[0]!r}: {remedy}")


def check_predictions_path(text: str) -> Path:
    """Return where predictions go; called before there are any.

    Raises:
        UsageError: the ending says no format, or the file cannot be written.
    """
    path = Path(text)
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(f"--output {text} does not end in .csv, .json or .parquet, which say how to write it")
    check_writable(path)
    return path


def write_predictions(
    path: Path, predictions: Predictions, image_paths: pa.ChunkedArray, errors: Mapping[int, str]
) -> None:
    """Write a row for each image, replacing what was there at once.

    Args:
        path: its ending says how. CSV and Parquet get a column `error` only where there are errors.
        predictions: of every image.
        image_paths: Arrow strings, one a row.
        errors: why the images are blank that are, by row.
    """
    with atomic_file(path) as unfinished:
        _WRITERS[path.suffix.lower()](unfinished, predictions, image_paths, errors)


def _batches(predictions: Predictions, image_paths: pa.ChunkedArray, errors: Mapping[int, str]) -> Iterator[pa.Table]:
    """Yield tables of some rows each: image_path, the columns of `Predictions.columns`, and perhaps error."""
    classes = {name: pa.array(names, pa.string()) for name, names in predictions.label_space.classes.items()}
    for start in range(0, len(image_paths), _ROWS):
        paths = image_paths.slice(start, _ROWS)
        rows = slice(start, start + len(paths))
        columns: dict[str, Any] = {_IMAGE_PATH: paths}
        for column, probability, name, rank in predictions.columns():
            if name in predictions.sets:
                columns |= dict(zip((column, probability), _joined_sets(predictions, name, rows), strict=True))
                continue
            codes, values = (kept[name][rows, rank] for kept in (predictions.codes, predictions.probabilities))
            columns[column] = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), classes[name])
            columns[probability] = pa.array(values, mask=codes < 0)
        if errors:
            columns[_ERROR] = pa.array([errors.get(row) for row in range(rows.start, rows.stop)], pa.string())
        yield pa.table(columns)


def _joined_sets(predictions: Predictions, attribute: str, rows: slice) -> tuple[pa.Array, pa.Array]:
    """Return for some rows a multi-valued attribute's values and their probabilities, each split by "|"."""
    texts: list[tuple[str | None, str | None]] = []
    for row in range(rows.start, rows.stop):
        pairs = predictions.set_of(attribute, row)
        # A lone separator is the set without values, and a blank one that is not known: as in the tables read.
        values, probabilities = (
            (SEPARATOR.join(map(str, part)) for part in zip(*pairs, strict=True)) if pairs else (SEPARATOR, SEPARATOR)
        )
        texts.append((values, probabilities) if predictions.readable[row] else (None, None))
    names, numbers = zip(*texts, strict=True)
    return pa.array(names, pa.string()), pa.array(numbers, pa.string())


def _write_csv(path: Path, predictions: Predictions, image_paths: pa.ChunkedArray, errors: Mapping[int, str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for number, batch in enumerate(_batches(predictions, image_paths, errors)):
            if number == 0:
                writer.writerow(batch.column_names)
            # As strings, because Python would write a float32 with all the digits of a float64; null becomes blank.
            writer.writerows(zip(*(column.cast(pa.string()).to_pylist() for column in batch.columns), strict=True))


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
    """Yield each image's object; of an unreadable image no attribute has a class."""
    classes = predictions.label_space.classes
    for row, image_path in enumerate(image_paths):
        entry: dict[str, Any] = {_IMAGE_PATH: image_path.as_py()}
        for name in classes:
            if name in predictions.sets:
                entry[name] = [{"class": value, "probability": p} for value, p in predictions.set_of(name, row)]
                continue
            pairs = zip(predictions.codes[name][row].tolist(), predictions.probabilities[name][row], strict=True)
            # float(str()) is the shortest number that is this float32.
            entry[name] = [
                {"class": classes[name][code], "probability": float(str(value))} for code, value in pairs if code >= 0
            ]
        if row in errors:
            entry[_ERROR] = errors[row]
        yield entry


_WRITERS = {".csv": _write_csv, ".json": _write_json, ".parquet": _write_parquet}
