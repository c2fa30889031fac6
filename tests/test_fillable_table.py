"""What can be filled in a table is known, or refused, before any image is read."""

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import refusal, write_file

from catalog.fillable_table import check_output, default_output, read_fillable_table
from catalog.label_space import LabelSpace

SPACE = LabelSpace({"color": ("blue", "red"), "tags": ("x", "y")}, ["tags"], ";")


def test_blank_cells_are_those_that_training_takes_as_unknown(tmp_path: Path) -> None:
    path = write_file(tmp_path / "t.csv", 'image_path,note, color ,tags\na,1,red,\nb,2," ",x;y\nc,3,teal,;\n')
    source = read_fillable_table(path, SPACE)
    assert source.attributes == ("color", "tags")
    assert source.spelled == {"color": " color ", "tags": "tags"}
    assert source.given("color").tolist() == [True, False, True]
    assert source.given("tags").tolist() == [False, True, True]
    assert source.table.columns["tags"].to_pylist() == [None, "x|y", "|"]
    assert source.separator == ";"


def test_a_missing_attribute_is_blank_in_every_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_file(tmp_path / "t.csv", "image_path,Colour\na,red\nb,\n")
    source = read_fillable_table(path, SPACE)
    assert source.given("color").tolist() == [False, False]
    assert "t.csv has no column 'color': it is added, and blank in every row until now; did you mean 'Colour'?" in (
        caplog.text
    )


def test_attributes_can_be_chosen(tmp_path: Path) -> None:
    path = write_file(tmp_path / "t.csv", "image_path,color,tags,color_source\na,red,,\n")
    message = refusal(read_fillable_table, path, SPACE)
    assert message == (
        "t.csv has a column 'color_source', which filling adds: if the table was filled before, fill the table as it "
        "was; else rename the column"
    )
    assert read_fillable_table(path, SPACE, ["tags"]).attributes == ("tags",)
    message = refusal(read_fillable_table, path, SPACE, ["colour"])
    assert message == "the model has no attribute 'colour'; did you mean 'color'? (its attributes are 'color', 'tags')"


def test_an_attribute_that_is_named_like_an_added_column_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "t.csv", "image_path,a\nx,1\n")
    space = LabelSpace({"a": ("1", "2"), "a_source": ("u", "v")})
    assert "the model has an attribute 'a_source', the name of a column that filling adds" in (
        refusal(read_fillable_table, path, space)
    )


def test_a_parquet_column_of_another_type_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    pq.write_table(pa.table({"image_path": ["a"], "color": pa.array([1])}), tmp_path / "t.parquet")
    assert "holds int64, and the model's class 'blue' is none" in refusal(
        read_fillable_table, tmp_path / "t.parquet", SPACE
    )


def test_the_output_has_the_format_of_the_table(tmp_path: Path) -> None:
    for source, target in (("a.csv", "b.csv.gz"), ("a.tsv.gz", "b.tsv"), ("a.parquet", "b.parquet")):
        check_output(Path(source), Path(target))
    (tmp_path / "parts").mkdir()
    check_output(tmp_path / "parts", Path("b.parquet"))
    message = refusal(check_output, Path("d/a.csv"), Path("b.parquet"))
    assert message == "output b.parquet is another format than a.csv, whose cells are kept: give one like a.csv"
    assert "a name that ends in .parquet" in refusal(check_output, Path("a-*.parquet"), Path("b.csv"))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("d/a.csv", "d/a-filled.csv"),
        ("a.b.CSV.GZ", "a.b-filled.CSV.GZ"),
        ("a-*.parquet", "a-filled.parquet"),
        ("parts", "parts-filled.parquet"),
    ],
)
def test_the_default_output_is_beside_the_table(source: str, target: str) -> None:
    assert default_output(Path(source)) == Path(target)
