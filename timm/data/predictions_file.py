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

from timm.data.label_space import LabelSpace
from timm.utils.usage_error import UsageError
from timm.utils.whole_file import check_writable, whole_file

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

_IMAGE_PATH, _ERROR = "image_path", "error"
_ROWS = 1 << 16  # so many are turned into Python's objects at a time


class Predictions:
    """The best classes of each image and their probabilities: 8 bytes for each class kept.

    Args:
        label_space: the attributes and their classes.
        rows: number of images.
        topk: classes to keep for each attribute, at the most all it has.
    """

    def __init__(self, label_space: LabelSpace, rows: int, topk: int = 1) -> None:
        self.label_space = label_space
        kept = {name: min(topk, count) for name, count in label_space.num_classes.items()}
        self.codes = {name: np.full((rows, k), -1, dtype=np.int32) for name, k in kept.items()}
        self.probabilities = {name: np.full((rows, k), np.nan, dtype=np.float32) for name, k in kept.items()}
        self.topk = topk

    def put(self, attribute: str, rows: Any, codes: Any, probabilities: Any) -> None:
        """Keep what is predicted for some rows: codes and probabilities [rows, k], the most probable first."""
        self.codes[attribute][rows] = codes
        self.probabilities[attribute][rows] = probabilities

    def blank(self, rows: Any) -> None:
        """Forget what was predicted for rows whose image could not be read."""
        for name in self.codes:
            self.codes[name][rows] = -1
            self.probabilities[name][rows] = np.nan

    def columns(self) -> list[tuple[str, str, str, int]]:
        """Return for each class that is kept: the column of its name, that of its probability, attribute, rank."""
        return [
            (column, f"{column}_probability", name, rank)
            for name, codes in self.codes.items()
            for rank in range(codes.shape[1])
            for column in [name if self.topk == 1 else f"{name}_{rank + 1}"]
        ]

    def check_columns(self, path: Path) -> None:
        """Refuse a file in which two columns would have one name, before there are hours of work to write to it.

        Raises:
            UsageError: attributes are called as another's probability, or as `image_path` or `error`.
        """
        nested = path.suffix.lower() == ".json"
        own = list(self.codes) if nested else [name for pair in self.columns() for name in pair[:2]]
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
    with whole_file(path) as unfinished:
        _WRITERS[path.suffix.lower()](unfinished, predictions, image_paths, errors)


def _batches(predictions: Predictions, image_paths: pa.ChunkedArray, errors: Mapping[int, str]) -> Iterator[pa.Table]:
    """Yield tables of some rows each: image_path, the columns of `Predictions.columns`, and perhaps error."""
    classes = {name: pa.array(names, pa.string()) for name, names in predictions.label_space.classes.items()}
    for start in range(0, len(image_paths), _ROWS):
        paths = image_paths.slice(start, _ROWS)
        rows = slice(start, start + len(paths))
        columns: dict[str, Any] = {_IMAGE_PATH: paths}
        for column, probability, name, rank in predictions.columns():
            codes, values = (kept[name][rows, rank] for kept in (predictions.codes, predictions.probabilities))
            columns[column] = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), classes[name])
            columns[probability] = pa.array(values, mask=codes < 0)
        if errors:
            columns[_ERROR] = pa.array([errors.get(row) for row in range(rows.start, rows.stop)], pa.string())
        yield pa.table(columns)


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
        for name, codes in predictions.codes.items():
            pairs = zip(codes[row].tolist(), predictions.probabilities[name][row], strict=True)
            # float(str()) is the shortest number that is this float32.
            entry[name] = [
                {"class": classes[name][code], "probability": float(str(value))} for code, value in pairs if code >= 0
            ]
        if row in errors:
            entry[_ERROR] = errors[row]
        yield entry


_WRITERS = {".csv": _write_csv, ".json": _write_json, ".parquet": _write_parquet}
