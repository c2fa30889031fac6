"""The Parquet file of probabilities: streamed in row groups, and read by pyarrow with its classes."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.label_space import LabelSpace
from reports import probabilities as probabilities_file
from reports.probabilities import NoProbabilities, write_probabilities

SPACE = LabelSpace({"color": ("red", "blau, ü"), "tags": ("a", "b", "c")}, ["tags"])
ROWS = 11


def draw() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.random((ROWS, k), dtype=np.float32) for name, k in SPACE.num_classes.items()}


def write(path: Path | None, readable: np.ndarray) -> None:
    paths = pa.chunked_array([[f"{row}.png" for row in range(4)], [f"{row}.png" for row in range(4, ROWS)]])
    with write_probabilities(path, SPACE, paths.cast(pa.large_string())) as writer:
        for first in range(0, ROWS, 2):
            rows = slice(first, first + 2)
            writer.add({name: values[rows] for name, values in draw().items()}, readable[rows])


def test_the_file_has_every_probability_and_names_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probabilities_file, "_GROUP", 20)  # 4 rows of 5 probabilities
    readable = np.ones(ROWS, dtype=bool)
    readable[[3, 10]] = False
    write(tmp_path / "soft.parquet", readable)
    file = pq.ParquetFile(tmp_path / "soft.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [4, 4, 3]
    assert LabelSpace.from_dict(json.loads(file.schema_arrow.metadata[b"label_space"])) == SPACE
    columns = file.read().to_pydict()
    assert columns["image_path"] == [f"{row}.png" for row in range(ROWS)]
    for name, values in draw().items():
        for row in range(ROWS):
            assert columns[name][row] == (values[row].tolist() if readable[row] else None)
    assert file.schema_arrow.field("color").type == pa.list_(pa.float32())


def test_an_error_leaves_the_older_file(tmp_path: Path) -> None:
    write(tmp_path / "soft.parquet", np.ones(ROWS, dtype=bool))
    before = (tmp_path / "soft.parquet").read_bytes()
    with (
        pytest.raises(KeyboardInterrupt),
        write_probabilities(tmp_path / "soft.parquet", SPACE, pa.chunked_array([["a"]], pa.large_string())),
    ):
        raise KeyboardInterrupt
    assert (tmp_path / "soft.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["soft.parquet"]


def test_no_path_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(None, np.ones(ROWS, dtype=bool))
    assert not list(tmp_path.iterdir())
    assert type(NoProbabilities()) is NoProbabilities
