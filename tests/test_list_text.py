"""Cells in the notation of Python's and JSON's lists become sets."""

import pyarrow as pa
import pytest
from table_files import cells, refusal, write_file

from catalog.build_label_space import build_label_space
from catalog.list_text import joined_lists
from catalog.table import read_table


def test_a_column_of_lists_in_text_is_multi_valued(tmp_path, caplog):
    rows = ["a.jpg;\"['striped', 'cotton']\"", 'b.jpg;"[""cotton""]"', "c.jpg;[]", "d.jpg;"]
    text = "\n".join(["image_path\ttags", *(row.replace(";", "\t") for row in rows)])
    with caplog.at_level("INFO"):
        table = read_table(write_file(tmp_path / "train.tsv", text))
    assert [row[1] for row in cells(table)] == ["striped|cotton", "cotton", "|", None]
    assert build_label_space(table).multi_valued == {"tags"}
    assert caplog.messages == ["train.tsv column 'tags': its cells are lists, which are read as several values"]


@pytest.mark.parametrize(
    ("texts", "sets"),
    [
        (["[1, 2]", "[]", None, '["a", null]'], ["1|2", "|", None, "a"]),
        (["['a']", "b"], None),
        (["['a' 'b']"], None),
        (["[0.5, 0.25]"], None),
        (["[[1]]"], None),
        (["[a]"], None),
        ([None], None),
    ],
)
def test_only_lists_of_names_become_sets(tmp_path, texts, sets):
    found = joined_lists(tmp_path / "t.csv", "tags", pa.array(texts, pa.string()))
    assert (None if found is None else found.to_pylist()) == sets


def test_a_value_with_the_separator_is_refused(tmp_path):
    text = refusal(joined_lists, tmp_path / "t.csv", "tags", pa.array(["['a|b']"]))
    assert text == "t.csv: value 'a|b' of tags contains |, which separates values: remove the |"
