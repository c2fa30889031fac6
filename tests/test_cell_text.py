"""Cells without what nobody sees: whitespace, invisible characters, composed accents, and whole numbers."""

import pyarrow as pa
import pytest
from table_files import cells, numbered, write_file

from catalog.cell_text import normalized_cells, normalized_name
from catalog.table import read_table


@pytest.mark.parametrize(
    ("cell", "normalized"),
    [
        ("Navy Blue", "Navy Blue"),
        ("  Navy\u00a0 \tBlue\n", "Navy Blue"),
        ("Navy\u3000Blue", "Navy Blue"),
        ("Na\u200bvy\ufeff Blue\u2060", "Navy Blue"),
        ("cafe\u0301", "caf\u00e9"),
        ("co\u00adtton", "cotton"),
        ("cotton\u200d", "cotton"),
        ("\u200b \u00a0", ""),
        ("\u200ered\u200f", "red"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("\U0001f469\u200d\U0001f4bb", "\U0001f469\u200d\U0001f4bb"),
        ("1.0", "1"),
        ("-12.0", "-12"),
        ("1.50", "1.50"),
        ("1.00", "1.00"),
        ("01.0", "01.0"),
        ("v1.0", "v1.0"),
    ],
)
def test_a_cell_loses_what_nobody_sees_and_keeps_joiners_that_shape_letters(cell, normalized):
    assert normalized_cells(pa.array(["plain", cell, None])).to_pylist() == ["plain", normalized, None]


def test_a_column_name_keeps_its_number():
    assert normalized_name(" size\u00a0\u00a01.0\u200b") == "size 1.0"
    assert normalized_name("1.0") == "1.0"


def test_a_table_merges_classes_that_look_the_same_and_keeps_image_paths(tmp_path):
    rows = ["caf\u00e9  1\u200b.jpg,Navy\u00a0 Blue", "cafe\u0301.jpg,Navy Blue\u200b", "1.0,\u200b"]
    table = read_table(write_file(tmp_path / "train.csv", "image_path,co\u0301lor\n" + "\n".join(rows) + "\n"))
    assert table.attributes == ("c\u00f3lor",)
    assert cells(table) == [["caf\u00e9  1\u200b.jpg", "Navy Blue"], ["cafe\u0301.jpg", "Navy Blue"], ["1.0", None]]
    assert table.columns["c\u00f3lor"].dictionary.to_pylist() == ["Navy Blue"]


def test_chosen_attributes_match_in_either_form_of_an_accent(tmp_path):
    path = write_file(tmp_path / "train.csv", numbered("co\u0301lor,size", ["red,1", "blue,2"]))
    assert (
        read_table(path, ["c\u00f3lor"]).attributes == read_table(path, ["co\u0301lor"]).attributes == ("c\u00f3lor",)
    )
