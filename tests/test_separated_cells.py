"""Cells that separate several values by another text than `|`."""

import pyarrow as pa
import pyarrow.parquet as pq
from table_files import cells, numbered, refusal, write_file

from catalog.build_label_space import build_label_space, extend_label_space
from catalog.label_space import LabelSpace
from catalog.separated_cells import with_separator
from catalog.table import Table, read_table
from catalog.targets import encode_targets

TAGS = ["long; warm", "warm", ";", "", "warm;long", "long"]


def table_of(path, separator=";"):
    rows = [f"{tags},{size}" for tags, size in zip(TAGS, ["s|m", "l", "l", "s|m", "l", "s|m"], strict=True)]
    text = numbered("tags,size", rows).replace(";", separator)
    return read_table(write_file(path / "train.csv", text))


def test_a_table_with_another_separator_gives_the_targets_of_the_same_table_with_bars(tmp_path):
    table = with_separator(table_of(tmp_path), ";")
    space = build_label_space(table)
    assert space == LabelSpace({"tags": ("long", "warm"), "size": ("l", "s|m")}, {"tags"})
    assert space.separator == ";"
    bars = LabelSpace({"tags": ("long", "warm")}, {"tags"})
    expected = encode_targets(table_of(tmp_path, "|"), bars, strict=True)
    assert encode_targets(table, space, strict=True)[:, :1].tolist() == expected.tolist()


def test_only_columns_with_the_separator_or_those_named_hold_several_values(tmp_path):
    table = table_of(tmp_path)
    assert with_separator(table, "|") is table
    assert with_separator(table, ";").lists == {"tags"}
    assert with_separator(table, ";", []).lists == frozenset()
    assert build_label_space(with_separator(table, ";", []), []).multi_valued == frozenset()
    assert with_separator(with_separator(table, ";"), ";", ["tags"]).columns["tags"][0].as_py() == "long| warm"


def test_lists_keep_their_values_under_any_separator(tmp_path):
    table = read_table(write_file(tmp_path / "train.csv", numbered("tags", ['"[""a;b"", ""c""]"', '"[""c""]"'])))
    assert cells(with_separator(table, ",")) == [["0.jpg", "a;b|c"], ["1.jpg", "c"]]
    message = refusal(build_label_space, with_separator(table, ";"))
    assert message == "value 'a;b' of tags contains the separator ';': choose another separator"


def test_a_bar_inside_a_cell_with_another_separator_is_refused_with_its_line(tmp_path):
    table = read_table(write_file(tmp_path / "train.csv", numbered("tags", ["a;b", "a", "a|b;c"])))
    assert refusal(with_separator, table, ";") == (
        "train.csv line 4: tags 'a|b;c' contains '|', but separator is ';': write only one of the two between the "
        "values of this column"
    )


def test_the_separator_is_saved_with_the_label_space_and_describes_images(tmp_path):
    space = build_label_space(with_separator(table_of(tmp_path), ";"))
    saved = LabelSpace.from_dict(space.to_dict())
    assert saved.separator == ";"
    assert "separator" not in LabelSpace({"tags": ("a", "b")}, {"tags"}).to_dict()
    assert saved.describe([0b011, 0]) == ["long;warm", "l"]
    assert saved.describe([0, 0])[0] == ";"


def test_a_table_that_adds_an_attribute_is_read_with_the_known_separator(tmp_path):
    known = LabelSpace({"size": ("l", "s|m")}, separator=";")
    space = extend_label_space(known, with_separator(table_of(tmp_path), known.separator))
    assert space.multi_valued == {"tags"}
    assert space.separator == ";"


def test_the_separator_of_parquet_text_is_read_too(tmp_path):
    table = table_of(tmp_path)
    arrow = {"image_path": table.image_paths, **table.columns}
    pq.write_table(pa.table(arrow), tmp_path / "train.parquet")
    parquet: Table = with_separator(read_table(tmp_path / "train.parquet"), ";")
    assert cells(parquet) == cells(with_separator(table, ";"))
