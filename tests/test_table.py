import csv
import io
import logging
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.data_error import DataError
from catalog.label_space import UNKNOWN, UNSEEN, LabelSpace
from catalog.table import (
    build_label_space,
    encode_targets,
    find_label_table,
    find_split,
    image_roots,
    read_table,
)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def cells(table):
    return [[table.image_path(i), *(c[i].as_py() for c in table.columns.values())] for i in range(len(table))]


def numbered(header, rows):
    """Returns a CSV with an image path in front of each row."""
    return "\n".join([f"image_path,{header}", *(f"{i}.jpg,{row}" for i, row in enumerate(rows))]) + "\n"


def message(action, *arguments, **options):
    with pytest.raises(DataError) as error:
        action(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# Reading.


def test_every_column_but_the_image_path_is_an_attribute_in_the_headers_order(tmp_path):
    table = read_table(write(tmp_path / "train.csv", "gender,image_path,article\nMen,a.jpg,Shirt\nWomen,b.jpg,Hat\n"))
    assert table.attributes == ("gender", "article")
    assert cells(table) == [["a.jpg", "Men", "Shirt"], ["b.jpg", "Women", "Hat"]]
    assert len(table) == 2


def test_chosen_attributes_are_read_in_the_headers_order(tmp_path):
    path = write(tmp_path / "train.csv", "image_path,a,b,c\nx.jpg,1,2,3\n")
    assert cells(read_table(path, attributes=["c", "a"])) == [["x.jpg", "1", "3"]]
    assert cells(read_table(path, attributes=[], require_attributes=False)) == [["x.jpg"]]


def test_na_and_null_are_class_names_and_only_blank_is_unknown(tmp_path):
    names = ["NA", "nan", "None", "null", "NULL", "N/A", "#N/A", "", "  ", '""', "NaN", "-", "0"]
    table = read_table(write(tmp_path / "train.csv", numbered("color", names)))
    assert table.columns["color"].to_pylist() == [None if name in ("", "  ", '""') else name for name in names]
    table = read_table(write(tmp_path / "train.csv", numbered("color", names * 2)))
    assert set(build_label_space(table).classes["color"]) == {name for name in names if name.strip(' "')}


def test_cells_and_header_are_stripped_and_equal_classes_are_one(tmp_path):
    table = read_table(
        write(tmp_path / "train.csv", "image_path , color\n a.jpg ,red\nb.jpg,\u00a0red \nc.jpg,blue\t\n")
    )
    assert cells(table) == [["a.jpg", "red"], ["b.jpg", "red"], ["c.jpg", "blue"]]
    assert build_label_space(table).classes == {"color": ("blue", "red")}


def test_empty_lines_are_ignored_and_lines_still_counted(tmp_path):
    content = '\n \nimage_path,color\r\n\r\na.jpg,"red,\n""dark"""\n   \n""\nb.jpg,blue\n\n'
    table = read_table(write(tmp_path / "train.csv", content))
    assert cells(table) == [["a.jpg", 'red,\n"dark"'], ["b.jpg", "blue"]]
    assert [table.line(i) for i in range(2)] == [5, 9]
    assert table.place(1) == "train.csv line 9"


def test_empty_lines_of_a_single_column_are_ignored(tmp_path):
    path = write(tmp_path / "test.csv", 'image_path\n\na.jpg\n  \n""\nb.jpg\n')
    table = read_table(path, require_attributes=False)
    assert cells(table) == [["a.jpg"], ["b.jpg"]]
    assert [table.line(i) for i in range(2)] == [3, 6]
    assert encode_targets(table, LabelSpace({}), strict=True).shape == (2, 0)


TEXT = st.text(
    st.one_of(st.sampled_from(",\"'\n\r\t ;aé中😀\u00a0"), st.characters(exclude_categories=["Cs"])), max_size=6
)
CELL = TEXT.filter(lambda text: "\0" not in text)
NAME = CELL.map(str.strip).filter(
    lambda name: name and "\r" not in name and name[0] != "\ufeff" and name != "image_path"
)


@given(
    attributes=st.lists(NAME, min_size=1, max_size=3, unique=True),
    data=st.data(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    bom=st.booleans(),
    delimiter=st.sampled_from([",", "\t"]),
)
def test_a_text_table_reads_as_the_csv_module_reads_it(
    tmp_path_factory, attributes, data, end, quoting, bom, delimiter
):
    row = st.tuples(CELL.filter(str.strip), *(CELL for _ in attributes))
    rows = [["image_path", *attributes], *data.draw(st.lists(row, min_size=1, max_size=5))]
    if quoting == csv.QUOTE_MINIMAL:  # the csv module then quotes the line terminator's characters only
        rows = [[re.sub("[\r\n]", end, cell) for cell in row] for row in rows]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=quoting, delimiter=delimiter).writerows(rows)
    path = tmp_path_factory.getbasetemp() / ("t.csv" if delimiter == "," else "t.tsv")
    path.write_bytes(text.getvalue().encode("utf-8-sig" if bom else "utf-8"))

    table = read_table(path)

    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file, delimiter=delimiter)
    assert ["image_path", *table.attributes] == header
    assert cells(table) == [[path.strip(), *(cell.strip() or None for cell in row)] for path, *row in rows]
    assert pickle.loads(pickle.dumps(table)).columns == table.columns


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_lines_are_counted_through_cells_of_several_lines(tmp_path_factory, breaks):
    rows, expected, line = [], [], 2
    for count in breaks:
        rows.append('a.jpg,"x' + "\n" * count + 'y"')
        expected.append(line)
        line += 1 + count
    path = write(tmp_path_factory.getbasetemp() / "lines.csv", "\n".join(["image_path,text", *rows]))
    table = read_table(path)
    assert [table.line(i) for i in range(len(table))] == expected


def test_a_table_of_many_blocks_reads_as_a_small_one(tmp_path):
    rows = [f"class {i % 300}" if i % 7 else "" for i in range(100_000)]
    path = write(tmp_path / "train.csv", numbered("color", rows))
    assert path.stat().st_size > 2**20, "Arrow reads a text table in blocks of this size"
    table = read_table(path)
    assert table.columns["color"].to_pylist() == [row or None for row in rows]
    assert table.image_path(99_999) == "99999.jpg"
    assert table.line(99_999) == 100_001
    targets = encode_targets(table, build_label_space(table), strict=True)
    assert (targets[:, 0] == UNKNOWN).sum() == sum(not row for row in rows)


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


def test_pandas_index_is_no_attribute_of_a_parquet_table(tmp_path):
    frame = pd.DataFrame({"image_path": ["a", "b"], "color": ["x", "y"]}, index=[5, 7])
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").attributes == ("color",)


def test_blank_parquet_columns_and_other_strings_are_read(tmp_path):
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


# Bad tables.


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "train.csv is empty: its first line must be a header with image_path"),
        ("\n \n", "train.csv is empty"),
        ("image_path,color", "train.csv has a header and no rows"),
        ("image_path,color\n\n", "train.csv has a header and no rows"),
        (
            "color,size\nred,3\n",
            "train.csv line 1 has no column image_path: add one, with each image's path (found 'color', 'size')",
        ),
        (
            "\nfilename,color\na,b\n",
            "train.csv line 2 has no column image_path: rename 'filename' to it (found 'filename', 'color')",
        ),
        ("Image_Path,color\na,b\n", "rename 'Image_Path' to it"),
        ("color,img\na,b\n", "rename 'img' to it"),
        ("image_file,color\na,b\n", "rename 'image_file' to it"),
        ("image_pth,color\na,b\n", "rename 'image_pth' to it"),
        ("image_path;color\na;b\n", "its cells seem to be separated by ';'"),
        ("image_path\na.jpg\n", "train.csv has no attribute to learn: add a column for one besides image_path"),
        ("image_path,a,b,a\nx,1,2,3\n", "train.csv line 1: column 'a' is there twice: rename or delete one"),
        ("image_path,a, \nx,1,2\n", "train.csv line 1: column 3 has no name"),
        (",image_path,a\n0,x,1\n", "train.csv line 1: column 1 has no name: name it or delete it (pandas"),
        (
            'image_path,a,b,c\nx,"1\n2\n3",2,3\n\ny,1,2\n',
            "train.csv line 6 has 3 cells, the header has 4: keep blank cells' separators",
        ),
        ("image_path,a\nx,1\ny,red, dark\n", "train.csv line 3 has 3 cells, the header has 2: quote cells that have"),
        ("image_path,a\nx,1\ny\n", "train.csv line 3 has 1 cell, the header has 2"),
        ('image_path,a\nx,1\ny,"2\nz,3\nw,4\n', "train.csv line 3: a quote in this row is never closed: close it"),
        ('image_path,a\nx,1\ny,"2\nz,"3"\nw,4\n', "train.csv line 3: a quote in this row is never closed"),
        ('image_path,a\nx,1\n"y,2\nz,3\n', "train.csv line 3: a quote in this row is never closed"),
        ('image_path,"a\nx,1\n', "train.csv line 1: a quote in this row is never closed"),
        ('image_path,a\nx,"1\n', "train.csv line 2: a quote in this row is never closed"),
        ('image_path,a\nx,"1\n' + "y,2\n" * 500_000, "train.csv line 2: a quote in this row is never closed"),
        ("image_path,a\nx,1\ny,é\n".encode("latin-1"), "train.csv line 3 is not UTF-8: save it as UTF-8"),
        ("image_path,é\nx,1\n".encode("latin-1"), "train.csv line 1 is not UTF-8: save it as UTF-8"),
        ("image_path,a\nx,1\n".encode("utf-16"), "train.csv is UTF-16: save it as UTF-8"),
        ("image_path,a\nx,1\n,2\n", "train.csv line 3: image_path is blank: fill it in or delete the row"),
        ('image_path,a\nx,"1\n2"\n  ,2\n', "train.csv line 4: image_path is blank"),
        (b"PK\x03\x04\x14\0\x06\0", "train.csv is not a text table, it has NUL bytes"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "train.csv is not a text table"),
        (b"image_path,a\n" + b"x,1\n" * 50_000 + b"\0\n", "train.csv is not a text table"),
    ],
)
def test_a_bad_text_table_is_refused_in_one_sentence(tmp_path, content, expected):
    assert expected in message(read_table, write(tmp_path / "train.csv", content))


def test_rows_swallowed_by_a_quote_in_an_ignored_column_are_noticed(tmp_path):
    path = write(tmp_path / "train.csv", 'image_path,a,b\nx,1,"2\ny,3,4\nz,5,6"\n"w",7,8\n')
    assert len(read_table(path, attributes=["a"])) == 2  # quotes match: this is a cell of three lines
    path = write(tmp_path / "train.csv", 'image_path,a,b\nx,1,"2\ny,3,4\nz,5,"6"\n')
    assert "train.csv line 2: a quote in this row is never closed" in message(read_table, path, attributes=["a"])


def test_a_quote_within_an_unquoted_cell_is_no_fault(tmp_path):
    path = write(tmp_path / "train.csv", 'image_path,size\na.jpg,5" heel\nb.jpg,6" heel\n\nc.jpg,7" heel\n')
    assert read_table(path).columns["size"].to_pylist() == ['5" heel', '6" heel', '7" heel']


def test_a_bad_tsv_is_refused_with_its_line(tmp_path):
    assert "t.tsv line 3 has 1 cell, the header has 2" in message(
        read_table, write(tmp_path / "t.tsv", "image_path\ta\nx\t1\ny,1\n")
    )
    assert "its cells seem to be separated by ','" in message(
        read_table, write(tmp_path / "t.tsv", "image_path,a\nx,1\n")
    )


def test_a_missing_table_is_refused_with_what_is_there(tmp_path):
    assert "no tables in" in message(read_table, tmp_path / "train.csv")
    for name in ("val.csv", "train.tsv", "image.jpg"):
        write(tmp_path / name, "x")
    assert message(read_table, tmp_path / "train.csv").endswith("train.csv (found train.tsv, val.csv)")
    assert "is a folder, not a table: found train.tsv, val.csv" in message(read_table, tmp_path)
    assert "there is no folder" in message(read_table, tmp_path / "nowhere" / "train.csv")
    assert "image.jpg is not a table we read: save it as .csv, .tsv or .parquet" in message(
        read_table, tmp_path / "image.jpg"
    )


def test_an_unknown_attribute_is_refused_with_the_nearest(tmp_path):
    path = write(tmp_path / "train.csv", "image_path,color,gender\na,b,c\n")
    text = message(read_table, path, attributes=["Colour"])
    assert text == "train.csv has no attribute 'Colour'; did you mean 'color'? (its attributes are 'color', 'gender')"


def test_bad_parquet_tables_are_refused_in_one_sentence(tmp_path):
    path = tmp_path / "t.parquet"
    assert "t.parquet is not a Parquet file, or is damaged" in message(read_table, write(path, "image_path,a\n"))
    pq.write_table(pa.table({"image_path": ["a"], "image": [{"bytes": b"x"}]}), path)
    assert "t.parquet column 'image' holds struct<bytes: binary>, not names" in message(read_table, path)
    pq.write_table(pa.table({"image_path": ["a"], "image": [b"\xff"]}), path)
    assert "t.parquet column 'image' holds binary, not names" in message(read_table, path)
    pq.write_table(pa.table({"image_path": ["a", None], "color": ["x", "y"]}), path)
    assert "t.parquet row 2: image_path is blank" in message(read_table, path)
    pq.write_table(pa.table({"path": ["a"], "color": ["x"]}), path)
    assert "t.parquet has no column image_path: rename 'path' to it" in message(read_table, path)
    pq.write_table(pa.table({"image_path": pa.array([], pa.string()), "color": pa.array([], pa.string())}), path)
    assert "t.parquet has a header and no rows" in message(read_table, path)
    pq.write_table(pa.table([["a"], ["x"], ["y"]], ["image_path", "color", "color"]), path)
    assert "t.parquet: column 'color' is there twice" in message(read_table, path)
    pq.write_table(pa.table({"image_path": ["a"] * 99, "color": ["x"] * 99}), path)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    assert "t.parquet is damaged" in message(read_table, write(path, bytes(content)))


# Attributes that cannot be learned.


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            numbered("gender,kind,color art", ["Men,x,red", "Women,x,blue", "Men,,red"]),
            "train.csv column 'kind' has one class only, 'x': leave it out with --attributes gender 'color art'",
        ),
        (
            numbered("kind,color", [",red", " ,blue"]),
            "train.csv column 'kind' is blank in every row: leave it out with --attributes color",
        ),
        (numbered("kind", ["x", "x"]), "train.csv column 'kind' has one class only, 'x': it has no other to learn"),
        (
            numbered("id,gender,other id", [f"{i},{'MW'[i % 2]},{i}" for i in range(8)]),
            "train.csv column 'id' is different in each of its 8 labeled rows, so it is an id and not an attribute: "
            "leave it out with --attributes gender",
        ),
        (
            numbered("color_red,color_dark_blue,gender", ["1,0,M", "0,1,W", ",,M", "0,1,M"]),
            "train.csv: columns 'color_red', 'color_dark_blue' are one attribute in one-hot form: write one column "
            "'color' whose cells are the class names, such as 'red'",
        ),
        (numbered("color=red,color=blue", ["True,False", "False,True"]), "write one column 'color' whose cells"),
        (
            numbered("red,green,blue", ["1,0,0", "0,,1", ",1,"]),
            "write one column whose cells are the class names, such as 'red'",
        ),
        (numbered("is_red,is_green,is_blue", ["yes,no,no", "no,no,yes", "no,Yes,No"]), "write one column 'is'"),
        (numbered("main_color_red,main_color_blue", ["1.0,0.0", "0.0,1.0"]), "write one column 'main_color'"),
    ],
)
def test_attributes_that_cannot_be_learned_are_refused_with_a_remedy(tmp_path, content, expected):
    table = read_table(write(tmp_path / "train.csv", content))
    assert expected in message(build_label_space, table)


@pytest.mark.parametrize(
    "content",
    [
        numbered("has_hat,has_bag", ["1,0", "1,1", "0,1"]),
        numbered("new,sold", ["1,0", "0,1", "1,0"]),
        numbered("a,b,c", ["1,0,0", "0,1,0", "0,0,1", "0,0,0"]),
        numbered("id", map(str, range(7))),
    ],
)
def test_separate_flags_and_few_rows_are_attributes(tmp_path, content):
    table = read_table(write(tmp_path / "train.csv", content))
    assert build_label_space(table).attributes == table.attributes


def test_one_hot_columns_that_the_user_names_are_attributes(tmp_path):
    path = write(tmp_path / "train.csv", numbered("color_red,color_blue", ["1,0", "0,1"]))
    assert len(build_label_space(read_table(path, attributes=["color_red", "color_blue"]))) == 2


def test_a_column_with_nearly_as_many_classes_as_rows_is_warned_of(tmp_path, caplog):
    rows = [f"name {min(i, 7)}" for i in range(10)]
    build_label_space(read_table(write(tmp_path / "train.csv", numbered("name", rows))))
    assert [record.message for record in caplog.records] == [
        "train.csv column 'name' has 8 classes in 10 labeled rows: it looks like an id or free text, not an attribute"
    ]


def test_reading_a_table_of_one_class_is_fine_until_it_makes_a_label_space(tmp_path):
    assert len(read_table(write(tmp_path / "val.csv", numbered("color", ["red", "red"])))) == 2


def test_classes_are_sorted_by_name(tmp_path):
    path = write(tmp_path / "train.csv", numbered("b,a", ["y,10", "x,9", "Z,9"]))
    assert build_label_space(read_table(path)).to_dict() == {
        "attributes": ["b", "a"],
        "classes": [["Z", "x", "y"], ["10", "9"]],
    }


# Targets.


@given(st.lists(st.tuples(*[st.sampled_from(["", " ", "red", "Red", "NA", "teal", "é"])] * 2), min_size=1, max_size=12))
def test_targets_equal_looking_each_cell_up(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "targets.csv"
    table = read_table(write(path, numbered("b,a", [",".join(row) for row in rows])))
    space = LabelSpace({"a": ("NA", "red", "é"), "b": ("Red", "red")})
    expected = []
    for b, a in rows:
        row = []
        for attribute, cell in (("a", a.strip()), ("b", b.strip())):
            classes = space.classes[attribute]
            row.append(UNKNOWN if not cell else classes.index(cell) if cell in classes else UNSEEN)
        expected.append(row)
    logging.disable()
    try:
        targets = encode_targets(table, space, strict=False)
    finally:
        logging.disable(logging.NOTSET)
    assert targets.dtype == np.int64
    assert targets.tolist() == expected


def test_an_unseen_class_is_an_error_in_training_with_its_line_and_the_nearest(tmp_path):
    path = write(tmp_path / "train.csv", 'image_path,color,size\na,Teal,"1\n"\n\nb,teal,2\nc,xyz,9\n')
    space = LabelSpace({"size": ("1", "2"), "color": ("Teal", "red")})
    text = message(encode_targets, read_table(path), space, strict=True)
    assert text == "train.csv line 5: color 'teal' is not one of 2 known classes; did you mean 'Teal'?"
    space = LabelSpace({"color": ("Teal", "teal"), "size": ("1", "2")})
    text = message(encode_targets, read_table(path), space, strict=True)
    assert text.startswith("train.csv line 6: color 'xyz' is not one of 2 known classes; correct it, or add it to")


def test_an_unseen_class_is_reported_in_evaluation(tmp_path, caplog):
    names = [f"new {i}" for i in range(6)]
    path = write(tmp_path / "val.csv", numbered("color,size", [*(f"{n},1" for n in names), "new 0,2", "red,3"]))
    targets = encode_targets(read_table(path), LabelSpace({"color": ("red", "blue"), "size": ("1", "2")}), strict=False)
    assert targets.tolist() == [[-1, 0]] * 6 + [[-1, 1], [0, -1]]
    assert [record.message for record in caplog.records] == [
        "val.csv: 7 images have a class of 'color' that the model does not know "
        "('new 0', 'new 1', 'new 2', 'new 3', 'new 4', ...): counted as wrong",
        "val.csv: 1 images have a class of 'size' that the model does not know ('3'): counted as wrong",
    ]


def test_classes_that_differ_in_case_alone_are_named_with_the_place_of_the_rarer(tmp_path, caplog):
    rows = ["Red,a|b", "Blue,B", "red,", ",b", "Red,c", "BLUE,c|A", "BLUE,a"]
    table = read_table(write(tmp_path / "train.csv", numbered("color,tags", rows)))
    assert build_label_space(table).num_classes == {"color": 4, "tags": 5}
    assert caplog.messages == [
        "train.csv line 4: color 'red' is another class than 'Red', from which it differs in case alone: write them "
        "alike if they are one",
        "train.csv line 3: color 'Blue' is another class than 'BLUE', from which it differs in case alone: write them "
        "alike if they are one",
        "train.csv line 7: tags 'A' is another class than 'a', from which it differs in case alone: write them alike "
        "if they are one",
        "train.csv line 3: tags 'B' is another class than 'b', from which it differs in case alone: write them alike "
        "if they are one",
    ]


def test_of_many_classes_that_differ_in_case_alone_five_are_named(tmp_path, caplog):
    rows = [name for letter in "abcdefgh" for name in (letter, letter.upper())]
    build_label_space(read_table(write(tmp_path / "train.csv", numbered("color", rows * 2))))
    assert len(caplog.messages) == 6
    assert caplog.messages[-1] == "train.csv column 'color': so do classes of 3 other names"


def test_a_column_whose_name_is_near_is_named(tmp_path, caplog):
    table = read_table(write(tmp_path / "val.csv", numbered("color,kidz", ["red,no"])))
    encode_targets(table, LabelSpace({"color": ("blue", "red"), "kids": ("no", "yes")}), strict=False)
    assert caplog.messages == ["val.csv has no column 'kids': taken as blank in every row; did you mean 'kidz'?"]


def test_a_missing_attribute_is_an_error_in_training_and_unknown_in_evaluation(tmp_path, caplog):
    table = read_table(write(tmp_path / "val.csv", numbered("color", ["red", "blue"])))
    space = LabelSpace({"size": ("1", "2"), "color": ("blue", "red")})
    assert "val.csv has no column 'size', which the label space has" in message(
        encode_targets, table, space, strict=True
    )
    assert encode_targets(table, space, strict=False).tolist() == [[UNKNOWN, 1], [UNKNOWN, 0]]
    assert [record.message for record in caplog.records] == [
        "val.csv has no column 'size': taken as blank in every row"
    ]
    text = message(encode_targets, table, LabelSpace({"size": ("1", "2")}), strict=False)
    assert "val.csv has no column 'size'" in text
    assert "the table's attributes are 'color'" in text


# Finding tables and images.


def test_a_split_is_found_by_name_alias_or_file(tmp_path, monkeypatch):
    for name in ("train.csv", "val.tsv", "test.parquet", "extra.csv"):
        write(tmp_path / name, "x")
    assert find_split(tmp_path, "train") == tmp_path / "train.csv"
    assert find_split(str(tmp_path), "validation") == find_split(tmp_path, "val") == tmp_path / "val.tsv"
    assert find_split(tmp_path, "test") == tmp_path / "test.parquet"
    assert find_split(tmp_path, "extra.csv") == tmp_path / "extra.csv"
    assert find_split("nowhere", str(tmp_path / "extra.csv")) == tmp_path / "extra.csv"
    monkeypatch.chdir(tmp_path)
    assert find_split("nowhere", "extra.csv") == Path("extra.csv")


def test_a_split_that_is_not_there_or_there_twice_is_an_error(tmp_path):
    write(tmp_path / "train.csv", "x")
    assert message(find_split, tmp_path, "val").endswith("has no val.csv, val.tsv or val.parquet: found train.csv")
    assert message(find_split, tmp_path, "validation") == message(find_split, tmp_path, "val")
    assert message(find_split, tmp_path, "b.csv").endswith("has no b.csv: found train.csv")
    assert "no such data folder" in message(find_split, tmp_path / "nowhere", "train")
    write(tmp_path / "train.tsv", "x")
    assert "several tables called train: name the file you mean (train.csv, train.tsv)" in message(
        find_split, tmp_path, "train"
    )


def test_classes_come_from_all_if_there_is_one(tmp_path):
    train = write(tmp_path / "train.csv", "x")
    assert find_label_table(tmp_path, train) == train
    table = write(tmp_path / "all.parquet", "x")
    assert find_label_table(tmp_path, train) == table


@pytest.mark.parametrize("where", ["data", "work"])
def test_images_are_found_beside_the_table_or_in_the_working_directory(tmp_path, monkeypatch, where):
    for name in ("data", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    table = read_table(write(tmp_path / "data" / "t.csv", numbered("a", ["x"] * 30)))
    write(tmp_path / where / "17.jpg", "x")  # between the rows tried first
    other = {"data": "work", "work": "data"}[where]
    assert image_roots(table, limit=4) == (tmp_path / where, tmp_path / other)


def test_the_folder_with_more_images_is_first(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    table = read_table(write(tmp_path / "data" / "t.csv", numbered("a", ["x"] * 3)))
    for name in ("0.jpg", "data/1.jpg", "2.jpg"):
        write(tmp_path / name, "x")
    assert image_roots(table) == (tmp_path, tmp_path / "data")
    write(tmp_path / "data" / "0.jpg", "x")
    assert image_roots(table) == (tmp_path / "data", tmp_path)


def test_absolute_paths_need_no_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = write(tmp_path / "a.jpg", "x")
    table = read_table(write(tmp_path / "t.csv", f"image_path,a\n{image},x\n"))
    assert [root / table.image_path(0) for root in image_roots(table)] == [image]


def test_no_image_at_all_is_an_error_that_names_both_folders(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "data" / "train.csv", f"image_path,a\nimages/1.jpg,x\n{'long' * 100},x\n")
    text = message(image_roots, read_table(path))
    assert text.startswith("train.csv: no readable image at all: first path 'images/1.jpg' is neither in ")
    assert f"neither in {tmp_path / 'data'} nor in {tmp_path}" in text


def test_rows_that_are_taken_keep_their_places(tmp_path):
    path = write(tmp_path / "train.csv", 'image_path,color\na,red\n"b",""\n\nc,teal\nd,red\n')
    some = read_table(path).take(np.array([2, 0]))
    assert [some.image_path(row) for row in range(2)] == ["c", "a"]
    assert some.columns["color"].to_pylist() == ["teal", "red"]
    assert [some.place(row) for row in range(2)] == ["train.csv line 5", "train.csv line 2"]
