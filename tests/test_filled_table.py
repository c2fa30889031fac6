"""A filled table has every other cell, the order of its rows and columns, and its types, as they were."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import refusal, write_file

from catalog.filled_table import FilledColumn, check_types, write_filled_table
from catalog.label_space import LabelSpace


def column(name: str, given: Sequence[bool], cells: dict[int, str], **settings: Any) -> FilledColumn:
    spelled = settings.pop("spelled", name)
    return FilledColumn(name, spelled, np.array(given), cells, dict.fromkeys(cells, "0.98"), **settings)


def filled_text(
    tmp_path: Path, content: str | bytes, *columns: FilledColumn, name: str = "t.csv", **settings: Any
) -> str:
    source = write_file(tmp_path / name, content)
    write_filled_table(source, tmp_path / "out", columns, settings.pop("errors", {}), **settings)
    return (tmp_path / "out").read_bytes().decode()


def test_rows_in_which_nothing_is_filled_keep_their_bytes(tmp_path: Path) -> None:
    content = (
        '\ufeffid,"image_path",color ,price\r\n007,"a.jpg",Teal,1.50\r\n\r\n 8,"b, c.jpg",, "x"\r\n9,"d""e.jpg",, \r\n'
    )
    text = filled_text(tmp_path, content, column("color", [True, False, False], {2: "Navy, Blue"}, spelled="color "))
    assert text == (
        '\ufeffid,"image_path",color ,price,color_source,color_probability\r\n007,"a.jpg",Teal,1.50,given,\r\n\r\n'
        ' 8,"b, c.jpg",, "x",blank,\r\n9,"d""e.jpg","Navy, Blue", ,filled,0.98\r\n'
    )


def test_cells_with_line_ends_and_a_last_line_without_one_are_kept(tmp_path: Path) -> None:
    content = 'note,image_path,color\n"two\nlines",a.jpg,\n"",b.jpg,red'
    text = filled_text(tmp_path, content, column("color", [False, True], {0: "blue"}))
    assert text == (
        'note,image_path,color,color_source,color_probability\n"two\nlines",a.jpg,blue,filled,0.98\n"",b.jpg,red,given,'
    )


@pytest.mark.parametrize(
    ("name", "head", "between"), [("t.tsv", "", "\t"), ("t.csv", "sep=;\n", ";"), ("t.csv.gz", "", ",")]
)
def test_the_delimiter_stays(tmp_path: Path, name: str, head: str, between: str) -> None:
    content = f"{head}image_path,color\na.jpg,\n".replace(",", between).encode()
    compress = name.endswith(".gz")
    source = write_file(tmp_path / name, gzip.compress(content) if compress else content)
    write_filled_table(source, tmp_path / "out", [column("color", [False], {0: "red"})], {}, compress=compress)
    written = (tmp_path / "out").read_bytes()
    text = (gzip.decompress(written) if compress else written).decode()
    assert text == f"{head}image_path,color,color_source,color_probability\na.jpg,red,filled,0.98\n".replace(
        ",", between
    )


def test_a_missing_attribute_is_added_and_errors_have_a_column(tmp_path: Path) -> None:
    new = column("color", [False] * 3, {0: "=red"}, spelled=None)
    content = "image_path\na.jpg\nb.jpg\n\nc.jpg\n"
    text = filled_text(tmp_path, content, new, errors={2: "no such file"}, spreadsheet_safe=True)
    assert text == (
        "image_path,color,color_source,color_probability,fill_error\na.jpg,'=red,filled,0.98,\n"
        "b.jpg,,blank,,\n\nc.jpg,,blank,,no such file\n"
    )


def test_sets_have_the_separator_or_the_notation_of_lists(tmp_path: Path) -> None:
    content = "image_path,tags,kinds\na.jpg,,\nb.jpg,x;y,\"['u']\"\nc.jpg,,\n"
    tags = column("tags", [False, True, False], {0: "x|y", 2: "|"}, several=True, separator=";")
    kinds = column("kinds", [False, True, False], {0: "u|v", 2: "|"}, several=True, as_list=True)
    lines = filled_text(tmp_path, content, tags, kinds).splitlines()
    assert lines[1] == 'a.jpg,x;y,"[""u"", ""v""]",filled,0.98,filled,0.98'
    assert lines[3] == "c.jpg,;,[],filled,0.98,filled,0.98"


def test_a_table_that_has_changed_is_refused(tmp_path: Path) -> None:
    source = write_file(tmp_path / "t.csv", "image_path,color\na.jpg,\n")
    message = refusal(write_filled_table, source, tmp_path / "out", [column("color", [False] * 2, {})], {})
    assert message == "t.csv has changed while it was read (1 rows, before 2): start again"


PARQUET = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.int16()),
        "image_path": pa.array(["a.jpg", "b.jpg", "c.jpg"], pa.large_string()),
        "text": pa.array(["red", None, " "]),
        "number": pa.array([3, None, 4], pa.int64()),
        "real": pa.array([3.5, float("nan"), None], pa.float32()),
        "flag": pa.array([True, None, False]),
        "kind": pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), pa.array(["hi", "lo"]), ordered=True),
        "tags": pa.array([["x"], None, []], pa.list_(pa.string())),
        "blob": pa.array([b"1", None, b"3"]),
    }
).replace_schema_metadata({b"owner": b"us"})
CELLS = {"text": "blue", "number": "7", "real": "4", "flag": "True", "kind": "mid", "tags": "x|y"}


def test_parquet_keeps_types_order_metadata_and_groups_of_rows(tmp_path: Path) -> None:
    source = tmp_path / "t.parquet"
    pq.write_table(PARQUET, source, row_group_size=2)
    columns = [column(name, [True, False, True], {1: cell}, several=name == "tags") for name, cell in CELLS.items()]
    new = column("new", [False] * 3, {2: "a|b"}, spelled=None, several=True, separator=";")
    write_filled_table(source, tmp_path / "out", [*columns, new], {0: "damaged"})
    out = pq.read_table(tmp_path / "out")
    assert out.schema.names[: len(PARQUET.schema.names) + 1] == [*PARQUET.schema.names, "new"]
    assert [out.schema.field(name) for name in PARQUET.schema.names] == list(PARQUET.schema)
    assert out.schema.metadata[b"owner"] == b"us"
    assert pq.ParquetFile(tmp_path / "out").num_row_groups == 2
    values = {"text": "blue", "number": 7, "real": 4.0, "flag": True, "kind": "mid", "tags": ["x", "y"]}
    for name in PARQUET.schema.names:
        expected = PARQUET[name].to_pylist()
        expected[1] = values.get(name, expected[1])
        assert str(out[name].to_pylist()) == str(expected)  # NaN equals none
    assert out["new"].to_pylist() == [None, None, "a;b"]
    assert out["text_source"].to_pylist() == ["given", "filled", "given"]
    assert out["text_probability"].type == pa.float32()
    assert out["text_probability"].to_pylist() == [None, pytest.approx(0.98), None]
    assert out["fill_error"].to_pylist() == ["damaged", None, None]
    assert list(pd.read_parquet(tmp_path / "out")["kind"].cat.categories[:2]) == ["hi", "lo"]


def test_parts_become_one_table(tmp_path: Path) -> None:
    for number in range(2):
        pq.write_table(PARQUET.select(["image_path", "text"]), tmp_path / f"t-0000{number}.parquet")
    filled = column("text", [True, False, True] * 2, {1: "blue", 4: "teal"})
    write_filled_table(tmp_path / "t-*.parquet", tmp_path / "out", [filled], {})
    assert pq.read_table(tmp_path / "out")["text"].to_pylist() == ["red", "blue", " ", "red", "teal", " "]


def test_a_column_that_cannot_hold_a_class_is_refused_before_any_work(tmp_path: Path) -> None:
    pq.write_table(PARQUET, tmp_path / "t.parquet")
    classes = LabelSpace(dict.fromkeys(("text", "number", "real", "kind"), ("3", "4")) | {"flag": ("True", "False")})
    check_types(tmp_path / "t.parquet", {name: name for name in classes.attributes}, classes)
    message = refusal(check_types, tmp_path / "t.parquet", {"number": "number"}, LabelSpace({"number": ("3", "big")}))
    assert message == (
        "t.parquet column 'number' holds int64, and the model's class 'big' is none: save the column as strings"
    )
