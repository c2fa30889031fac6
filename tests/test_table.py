"""Reading of tables in any format, choice of attributes, and rows that are taken and added."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_files import cells, numbered, refusal, write_file

from catalog.build_label_space import build_label_space
from catalog.table import read_table


def test_every_column_except_image_path_is_an_attribute_in_header_order(tmp_path):
    table = read_table(
        write_file(tmp_path / "train.csv", "gender,image_path,article\nMen,a.jpg,Shirt\nWomen,b.jpg,Hat\n")
    )
    assert table.attributes == ("gender", "article")
    assert cells(table) == [["a.jpg", "Men", "Shirt"], ["b.jpg", "Women", "Hat"]]
    assert len(table) == 2


def test_chosen_attributes_are_read_in_header_order(tmp_path):
    path = write_file(tmp_path / "train.csv", "image_path,a,b,c\nx.jpg,1,2,3\n")
    assert cells(read_table(path, attributes=["c", "a"])) == [["x.jpg", "1", "3"]]
    assert cells(read_table(path, attributes=[], require_attributes=False)) == [["x.jpg"]]


def test_na_and_null_are_class_names_and_only_blank_is_unknown(tmp_path):
    names = ["NA", "nan", "None", "null", "NULL", "N/A", "#N/A", "", "  ", '""', "NaN", "-", "0"]
    table = read_table(write_file(tmp_path / "train.csv", numbered("color", names)))
    assert table.columns["color"].to_pylist() == [None if name in ("", "  ", '""') else name for name in names]
    table = read_table(write_file(tmp_path / "train.csv", numbered("color", names * 2)))
    assert set(build_label_space(table).classes["color"]) == {name for name in names if name.strip(' "')}


def test_cells_and_header_are_stripped_and_equal_classes_are_one(tmp_path):
    table = read_table(
        write_file(tmp_path / "train.csv", "image_path , color\n a.jpg ,red\nb.jpg,\u00a0red \nc.jpg,blue\t\n")
    )
    assert cells(table) == [["a.jpg", "red"], ["b.jpg", "red"], ["c.jpg", "blue"]]
    assert build_label_space(table).classes == {"color": ("blue", "red")}


def test_tsv_and_parquet_equal_csv(tmp_path):
    frame = pd.DataFrame(
        {
            "image_path": [f"{i}.jpg" for i in range(4)],
            "color": ["NA", "red, dark", None, 'a "b"\nc'],
            "size": [38, 40, 38, 41],
            "stars": [3.0, None, 5.0, 3.0],
            "price": [0.5, 1.0, None, 2.25],
            "new": [True, False, True, False],
            "season": pd.Categorical(["Fall", None, "Summer", "Fall"], categories=["Winter", "Fall", "Summer"]),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    frame.astype({"stars": "Int64"}).to_csv(tmp_path / "t.csv", index=False)
    frame.astype({"stars": "Int64"}).to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    expected = cells(read_table(tmp_path / "t.csv"))
    assert [row[3] for row in expected] == ["3", None, "5", "3"]
    assert cells(read_table(tmp_path / "t.tsv")) == expected
    parquet = read_table(tmp_path / "t.parquet")
    assert cells(parquet) == [[*row[:4], {"1.0": "1"}.get(row[4], row[4]), *row[5:]] for row in expected]
    assert build_label_space(parquet).classes["season"] == ("Fall", "Summer")
    assert parquet.place(1) == "t.parquet row 2"


def test_a_missing_table_is_refused_with_the_tables_that_exist(tmp_path):
    assert "no tables in" in refusal(read_table, tmp_path / "train.csv")
    for name in ("val.csv", "train.tsv", "image.jpg"):
        write_file(tmp_path / name, "x")
    assert refusal(read_table, tmp_path / "train.csv").endswith("train.csv (found train.tsv, val.csv)")
    assert "is a folder, not a table: found train.tsv, val.csv" in refusal(read_table, tmp_path)
    assert "there is no folder" in refusal(read_table, tmp_path / "nowhere" / "train.csv")
    assert "image.jpg is not a table we read: save it as .csv, .tsv or .parquet" in refusal(
        read_table, tmp_path / "image.jpg"
    )


def test_an_unknown_attribute_is_refused_with_the_nearest_name(tmp_path):
    path = write_file(tmp_path / "train.csv", "image_path,color,gender\na,b,c\n")
    text = refusal(read_table, path, attributes=["Colour"])
    assert text == "train.csv has no attribute 'Colour'; did you mean 'color'? (its attributes are 'color', 'gender')"


def test_a_table_with_one_class_can_be_read(tmp_path):
    assert len(read_table(write_file(tmp_path / "val.csv", numbered("color", ["red", "red"])))) == 2


def test_taken_rows_keep_their_places(tmp_path):
    path = write_file(tmp_path / "train.csv", 'image_path,color\na,red\n"b",""\n\nc,teal\nd,red\n')
    some = read_table(path).take(np.array([2, 0]))
    assert [some.image_path(row) for row in range(2)] == ["c", "a"]
    assert some.columns["color"].to_pylist() == ["teal", "red"]
    assert [some.place(row) for row in range(2)] == ["train.csv line 5", "train.csv line 2"]


def test_rows_taken_twice_keep_their_places(tmp_path):
    table = read_table(write_file(tmp_path / "train.csv", numbered("color", ["red", "blue", "red", "teal", "blue"])))
    twice = table.take(np.array([4, 3, 1])).take(np.array([2, 0]))
    assert cells(twice) == [["1.jpg", "blue"], ["4.jpg", "blue"]]
    assert [twice.line(row) for row in range(2)] == [3, 6]
    assert [twice.place(row) for row in range(2)] == ["train.csv line 3", "train.csv line 6"]


def test_an_image_that_was_added_has_no_line_and_its_path_is_its_place(tmp_path):
    table = read_table(write_file(tmp_path / "train.csv", numbered("color", ["red", "blue"])))
    more = table.with_images(pa.array(["new.jpg"], pa.large_string()))
    assert cells(more) == [["0.jpg", "red"], ["1.jpg", "blue"], ["new.jpg", None]]
    assert more.added.tolist() == [False, False, True]
    assert [more.place(row) for row in range(3)] == ["train.csv line 2", "train.csv line 3", "new.jpg"]
    with pytest.raises(ValueError, match=r"row 2 was added to the table and has no line in train\.csv"):
        more.line(2)
    with_labels = more.take(np.array([1, 0]))
    assert not with_labels.added.any()
    assert with_labels.place(0) == "train.csv line 3"


@given(st.data())
def test_any_order_of_taking_and_adding_rows_equals_the_same_on_a_list(tmp_path_factory, data):
    names = ["red", "", "blue", "red"]
    path = write_file(tmp_path_factory.getbasetemp() / "rows.csv", numbered("color", names))
    table = read_table(path)
    expected = [(f"{i}.jpg", name or None, f"rows.csv line {i + 2}", False) for i, name in enumerate(names)]
    for step in range(data.draw(st.integers(0, 4))):
        if data.draw(st.booleans()):
            added = [f"{step}-{i}.png" for i in range(data.draw(st.integers(1, 3)))]
            table = table.with_images(pa.array(added, pa.large_string()))
            expected += [(image, None, image, True) for image in added]
        else:
            rows = data.draw(st.lists(st.integers(0, len(table) - 1), min_size=1, max_size=8))
            table = table.take(np.array(rows))
            expected = [expected[row] for row in rows]
    found = [(*cells(table)[row], table.place(row), bool(table.added[row])) for row in range(len(table))]
    assert found == expected


def test_a_table_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = write_file(tmp_path / "train.csv", "image_path,color\na.jpg,red\n")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", denied)
    assert refusal(read_table, path) == f"{path} cannot be read (Permission denied): allow this user to read it"


def test_parquet_parts_are_one_table_whatever_type_a_column_has_in_each(tmp_path):
    folder = tmp_path / "train.parquet"
    folder.mkdir()
    parts = [
        {"image_path": ["a", "b"], "size": [1, 2], "tags": [["x"], []]},
        {"image_path": pa.array([], pa.string()), "size": pa.array([], pa.int64()), "tags": pa.nulls(0)},
        {"image_path": ["c"], "size": [3.0], "tags": pa.nulls(1)},
    ]
    for number, part in enumerate(parts):
        pq.write_table(pa.table(part), folder / f"part-{number}.parquet")
        pq.write_table(pa.table(part), tmp_path / f"val-{number}.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "._part-0.parquet").write_bytes(b"x")
    expected = [["a", "1", "x"], ["b", "2", "|"], ["c", "3", None]]
    table = read_table(folder)
    assert cells(table) == expected
    assert table.lists == {"tags"}
    assert table.place(2) == "train.parquet row 3"
    assert cells(read_table(tmp_path / "val-*.parquet")) == expected


def test_parts_with_other_columns_are_refused(tmp_path):
    for number, name in enumerate(("color", "colour")):
        pq.write_table(pa.table({"image_path": ["a"], name: ["x"]}), tmp_path / f"{number}.parquet")
    assert refusal(read_table, tmp_path) == (
        f"{tmp_path.name}: only some of its parts have a column 'color' (1.parquet lacks it): write all parts with the "
        "same columns"
    )
