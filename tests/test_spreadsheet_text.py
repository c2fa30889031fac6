"""Texts that a spreadsheet would run: written safely, and read as they were."""

import csv

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_files import cells, numbered, read_rows, write_file

from catalog.label_space import LabelSpace
from catalog.spreadsheet_text import escaped, escaped_row, escaped_text, unescaped_text
from catalog.table import read_table
from reports.predictions import Predictions, write_predictions
from reports.results import write_results

TEXTS = st.text(st.sampled_from("'=+-@\t\r\nab "), max_size=6)


@given(TEXTS)
def test_escaping_is_undone_by_reading_and_leaves_nothing_to_run(text):
    assert unescaped_text(escaped_text(text)) == text
    assert not escaped_text(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


@pytest.mark.parametrize("text", ["Navy Blue", "a=b", "'quoted'", "", "3-1", "é"])
def test_other_texts_stay(text):
    assert escaped_text(text) == unescaped_text(text) == text


def test_numbers_stay_and_dictionaries_keep_their_rows():
    assert escaped_row({"=a": -1.5, "b": "-c", "d": None}) == {"'=a": -1.5, "b": "'-c", "d": None}
    column = pa.array(["=x", None, "=x"]).dictionary_encode()
    assert escaped(column).to_pylist() == ["'=x", None, "'=x"]


def test_safe_predictions_run_nothing_and_are_read_as_they_were(tmp_path):
    space = LabelSpace({"=a": ("=1+1", "ok"), "tags": ("-x", "y")}, {"tags"})
    predictions = Predictions(space, 2)
    predictions.put("=a", slice(None), [[0], [1]], [[0.5], [0.75]])
    predictions.put_set("tags", slice(None), [[0.9, 0.8], [0.9, 0.1]], [[True, True], [True, False]])
    paths = pa.chunked_array([["@b.jpg", "c.jpg"]], pa.large_string())
    write_predictions(tmp_path / "p.csv", predictions, paths, {1: "=bad"}, spreadsheet_safe=True)
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image_path", "'=a", "'=a_probability", "tags", "tags_probability", "error"]
    assert rows[1][:4] == ["'@b.jpg", "'=1+1", "0.5", "'-x|y"]
    table = read_table(tmp_path / "p.csv", ["=a", "tags"])
    assert cells(table) == [["@b.jpg", "=1+1", "-x|y"], ["c.jpg", "ok", "-x"]]
    write_predictions(tmp_path / "p.csv", predictions, paths, {})
    assert read_rows(tmp_path / "p.csv")[0]["=a"] == "=1+1"


def test_safe_results_run_nothing(tmp_path):
    write_results(tmp_path / "r.csv", {"checkpoint": "=a.pth", "loss": -0.5}, spreadsheet_safe=True)
    assert read_rows(tmp_path / "r.csv") == [{"checkpoint": "'=a.pth", "loss": "-0.5"}]


def test_tables_lose_the_apostrophe_before_such_texts_only(tmp_path):
    rows = ["'=x", "'quoted'", "''-y", "'", "=x"]
    table = read_table(write_file(tmp_path / "a.csv", numbered("'=c", rows)))
    assert table.attributes == ("=c",)
    assert [row[1] for row in cells(table)] == ["=x", "'quoted'", "'-y", "'", "=x"]
