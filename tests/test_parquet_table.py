"""Reading of Parquet tables: types of columns, pandas' index, and refusals of bad files."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from table_files import cells, refusal, write_file

from catalog.table import read_table


def test_the_index_of_pandas_is_not_an_attribute(tmp_path):
    frame = pd.DataFrame({"image_path": ["a", "b"], "color": ["x", "y"]}, index=[5, 7])
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").attributes == ("color",)


def test_blank_columns_and_all_types_of_strings_are_read(tmp_path):
    columns = {
        "image_path": pa.array(["a", "b", "c"], pa.large_string()),
        "nothing": pa.nulls(3),
        "no float": pa.array([None, float("nan"), None], pa.float32()),
        "dictionary": pa.array([1, None, 2]).dictionary_encode(),
        "spaces": pa.array(["x ", " ", "x"], pa.string_view()),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=2)
    blank = None
    assert cells(read_table(tmp_path / "t.parquet")) == [
        ["a", blank, blank, "1", "x"],
        ["b", blank, blank, blank, blank],
        ["c", blank, blank, "2", "x"],
    ]


def test_bad_parquet_tables_are_refused_in_one_sentence(tmp_path):
    path = tmp_path / "t.parquet"
    assert "t.parquet is not a Parquet file, or is damaged" in refusal(read_table, write_file(path, "image_path,a\n"))
    pq.write_table(pa.table({"image_path": ["a"], "image": [{"bytes": b"x"}]}), path)
    assert "t.parquet column 'image' holds struct<bytes: binary>, not names" in refusal(read_table, path)
    pq.write_table(pa.table({"image_path": ["a"], "image": [b"\xff"]}), path)
    assert "t.parquet column 'image' holds binary, not names" in refusal(read_table, path)
    pq.write_table(pa.table({"image_path": ["a", None], "color": ["x", "y"]}), path)
    assert "t.parquet row 2: image_path is blank" in refusal(read_table, path)
    pq.write_table(pa.table({"path": ["a"], "color": ["x"]}), path)
    assert "t.parquet has no column image_path: rename 'path' to it" in refusal(read_table, path)
    pq.write_table(pa.table({"image_path": pa.array([], pa.string()), "color": pa.array([], pa.string())}), path)
    assert "t.parquet has a header and no rows" in refusal(read_table, path)
    pq.write_table(pa.table([["a"], ["x"], ["y"]], ["image_path", "color", "color"]), path)
    assert "t.parquet: column 'color' is there twice" in refusal(read_table, path)
    pq.write_table(pa.table({"image_path": ["a"] * 99, "color": ["x"] * 99}), path)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    assert "t.parquet is damaged" in refusal(read_table, write_file(path, bytes(content)))


def test_a_number_is_the_same_text_in_parquet_and_csv_whatever_the_other_rows_have(tmp_path):
    values = [1.0, 1.5, 1000000.0, None, -3.0]
    names = [f"{i}.jpg" for i in range(len(values))]
    pq.write_table(pa.table({"image_path": names, "size": values}), tmp_path / "t.parquet")
    text = "\n".join(f"{name},{'' if value is None else value}" for name, value in zip(names, values, strict=True))
    read = [read_table(tmp_path / "t.parquet"), read_table(write_file(tmp_path / "t.csv", f"image_path,size\n{text}"))]
    for table in read:
        assert table.columns["size"].to_pylist() == ["1", "1.5", "1000000", None, "-3"]
