"""A table that would take all memory or time is refused in one sentence, before it is read to its end."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import cells, numbered, refusal, write_file

from catalog import table_size
from catalog.build_label_space import build_label_space
from catalog.table import read_table

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _one_mebibyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMCLR_MAX_TABLE_MIB", "1")


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv.gz"])
def test_text_beyond_the_bound_is_refused_and_a_variable_raises_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text = numbered("color,shape", ["red with a long name,disc", "blue with a long name,square"] * 20_000).encode()
    text = text.replace(b",", b"\t") if "tsv" in name else text
    path = write_file(tmp_path / name, gzip.compress(text) if name.endswith(".gz") else text)
    expected = f"{name} has more than 1 MiB (bytes of text): split it, or set SIMCLR_MAX_TABLE_MIB=2"
    assert refusal(read_table, path) == expected
    monkeypatch.setenv("SIMCLR_MAX_TABLE_MIB", "4")
    assert len(read_table(path)) == 40_000
    monkeypatch.setenv("SIMCLR_MAX_TABLE_MIB", "4G")
    assert "SIMCLR_MAX_TABLE_MIB=4G is not a whole number of MiB" in refusal(read_table, path)


def test_a_small_file_that_unpacks_to_a_line_without_end_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "t.csv.gz", gzip.compress(b"a" * (16 * MIB)))
    assert "t.csv.gz line 1 has no end within 4 MiB, and it should be a header with image_path" in refusal(
        read_table, path
    )


def test_many_short_cells_are_refused_for_the_memory_that_they_take(tmp_path: Path) -> None:
    path = write_file(tmp_path / "t.csv", numbered(",".join("abcdefgh"), [",".join("xyxyxyxy")] * 20_000))
    assert refusal(read_table, path).startswith(
        "t.csv has 20,001 rows and 9 columns to read, which take 2 MiB, more than the 1 MiB allowed: split it"
    )
    assert len(read_table(path, ["a"])) == 20_000


def test_parquet_is_refused_for_the_rows_that_it_claims(tmp_path: Path) -> None:
    names = pa.DictionaryArray.from_arrays(np.zeros(10**6, np.int8), ["a.jpg"])
    pq.write_table(pa.table({"image_path": names, "color": names}), tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 10_000
    assert refusal(read_table, tmp_path / "t.parquet").startswith(
        "t.parquet has 1,000,000 rows and 2 columns to read, which take 34 MiB, more than the 1 MiB allowed"
    )


@pytest.mark.parametrize("column", ["image_path", "color", "tags"])
def test_parquet_is_refused_for_long_values_that_many_rows_repeat(tmp_path: Path, column: str) -> None:
    rows = 2000
    columns = {name: pa.array(["a", "b"] * (rows // 2)) for name in ("image_path", "color")}
    long = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), ["x" * 150_000])
    columns[column] = pa.ListArray.from_arrays(np.arange(rows + 1), long) if column == "tags" else long
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=1000)
    expected = {
        "image_path": "t.parquet has more than 1 MiB (bytes of image paths)",
        "color": "t.parquet column 'color' has a cell of 150,000 bytes, more than 131,072",
        "tags": "t.parquet has more than 1 MiB (bytes of cells in memory)",
    }
    before = pa.default_memory_pool().max_memory()
    assert refusal(read_table, tmp_path / "t.parquet").startswith(expected[column])
    assert pa.default_memory_pool().max_memory() < before + 200 * MIB  # 2000 values take 300 MB


def test_parquet_within_the_bound_is_read_whatever_its_dictionaries(tmp_path: Path) -> None:
    names = pa.array(["a", "b", "c", "d"]).dictionary_encode()
    colors = pa.DictionaryArray.from_arrays(pa.array([2, None, 2, 0]), ["red", "nobody", "blue"])
    pq.write_table(pa.table({"image_path": names, "color": colors}), tmp_path / "t.parquet", row_group_size=3)
    table = read_table(tmp_path / "t.parquet")
    assert cells(table) == [["a", "blue"], ["b", None], ["c", "blue"], ["d", "red"]]
    assert table.columns["color"].dictionary.to_pylist() == ["blue", "red"]


@pytest.mark.parametrize("size", [200_000, 3 * MIB])
def test_a_cell_of_a_book_is_one_sentence_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setenv("SIMCLR_MAX_TABLE_MIB", "16")
    path = write_file(tmp_path / "t.csv", numbered("color", ["red", "x" * size, "blue"]))
    place = "t.csv line 3 has more than 1 MiB" if size > MIB else "t.csv column 'color' has a cell of 200,000 bytes"
    assert refusal(read_table, path).startswith(place)


def test_a_column_of_books_that_nobody_chose_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_file(tmp_path / "t.csv", "image_path,color,note\na.jpg,red," + "x" * 200_000 + "\n")
    assert cells(read_table(path, ["color"])) == [["a.jpg", "red"]]
    assert caplog.messages == []
    assert cells(read_table(path, None, require_attributes=False)) == [["a.jpg", "red"]]  # as a validation table
    (warning,) = caplog.messages
    assert warning.startswith("t.csv column 'note' has a cell of 200,000 bytes")


def test_a_column_with_too_many_classes_needs_to_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.build_label_space.MAX_CLASSES", 10)
    path = write_file(tmp_path / "t.csv", numbered("code,color", [f"{i % 11},{i % 2}" for i in range(44)]))
    expected = "t.csv column 'code' has 11 classes, more than 10, and the model an output for each: leave it out and "
    assert refusal(build_label_space, read_table(path)) == (
        expected + "choose attributes color, or name it there if it is meant"
    )
    assert build_label_space(read_table(path, ["code"])).num_classes == {"code": 11}


def test_the_usual_bounds_hold_millions_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIMCLR_MAX_TABLE_MIB")
    table_size.check_cells(Path("t.csv"), 8_000_000, 10)
    table_size.check_cells(Path("t.csv"), 4_000, 20_000)
