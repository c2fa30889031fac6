"""Building of a label space from a table, and refusals of columns that are no attribute."""

import numpy as np
import pytest
from table_files import numbered, refusal, write_file

from catalog.build_label_space import build_label_space
from catalog.table import read_table


def test_classes_are_sorted_by_name(tmp_path):
    path = write_file(tmp_path / "train.csv", numbered("b,a", ["y,10", "x,9", "Z,9"]))
    assert build_label_space(read_table(path)).to_dict() == {
        "attributes": ["b", "a"],
        "classes": [["Z", "x", "y"], ["10", "9"]],
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            numbered("gender,kind,color art", ["Men,x,red", "Women,x,blue", "Men,,red"]),
            "train.csv column 'kind' has one class only, 'x': leave it out and choose attributes gender 'color art'",
        ),
        (
            numbered("kind,color", [",red", " ,blue"]),
            "train.csv column 'kind' is blank in every row: leave it out and choose attributes color",
        ),
        (numbered("kind", ["x", "x"]), "train.csv column 'kind' has one class only, 'x': it has no other to learn"),
        (
            numbered("id,gender,other id", [f"{i},{'MW'[i % 2]},{i}" for i in range(8)]),
            "train.csv column 'id' is different in each of its 8 labeled rows, so it is an id and not an attribute: "
            "leave it out and choose attributes gender",
        ),
        (
            numbered("color_red,color_dark_blue,gender", ["1,0,M", "0,1,W", ",,M", "0,1,M"]),
            "train.csv: columns 'color_red', 'color_dark_blue' look like one attribute in one-hot form: replace these "
            "columns by one column 'color' of class names, such as 'red'",
        ),
        (numbered("color=red,color=blue", ["True,False", "False,True"]), "by one column 'color' of class names"),
        (
            numbered("red,green,blue", ["1,0,0", "0,,1", ",1,"]),
            "by one column of class names, such as 'red'",
        ),
        (numbered("is_red,is_green,is_blue", ["yes,no,no", "no,no,yes", "no,Yes,No"]), "by one column 'is' of"),
        (numbered("main_color_red,main_color_blue", ["1.0,0.0", "0.0,1.0"]), "by one column 'main_color' of"),
    ],
)
def test_attributes_that_cannot_be_learned_are_refused_with_a_remedy(tmp_path, content, expected):
    table = read_table(write_file(tmp_path / "train.csv", content))
    assert expected in refusal(build_label_space, table)


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
    table = read_table(write_file(tmp_path / "train.csv", content))
    assert build_label_space(table).attributes == table.attributes


def test_one_hot_columns_that_the_user_chooses_are_attributes(tmp_path):
    path = write_file(tmp_path / "train.csv", numbered("color_red,color_blue", ["1,0", "0,1"]))
    assert len(build_label_space(read_table(path, attributes=["color_red", "color_blue"]))) == 2


def test_a_column_with_nearly_as_many_classes_as_rows_causes_a_warning(tmp_path, caplog):
    rows = [f"name {min(i, 7)}" for i in range(10)]
    build_label_space(read_table(write_file(tmp_path / "train.csv", numbered("name", rows))))
    assert [record.message for record in caplog.records] == [
        "train.csv column 'name' has 8 classes in 10 labeled rows: it looks like an id or free text, not an attribute"
    ]


def test_a_warning_names_classes_that_differ_only_in_case_and_where_the_rarer_is(tmp_path, caplog):
    rows = ["Red,a|b", "Blue,B", "red,", ",b", "Red,c", "BLUE,c|A", "BLUE,a"]
    table = read_table(write_file(tmp_path / "train.csv", numbered("color,tags", rows)))
    assert build_label_space(table).num_classes == {"color": 4, "tags": 5}
    assert caplog.messages == [
        f"train.csv line {line}: {attribute} {rare!r} and {usual!r} are two classes that differ only in case: "
        "use one spelling if they are one class"
        for line, attribute, rare, usual in [
            (4, "color", "red", "Red"),
            (3, "color", "Blue", "BLUE"),
            (7, "tags", "A", "a"),
            (3, "tags", "B", "b"),
        ]
    ]


def test_at_most_five_warnings_name_classes_that_differ_only_in_case(tmp_path, caplog):
    rows = [name for letter in "abcdefgh" for name in (letter, letter.upper())]
    build_label_space(read_table(write_file(tmp_path / "train.csv", numbered("color", rows * 2))))
    assert len(caplog.messages) == 6
    assert caplog.messages[-1] == "train.csv column 'color': 3 other names differ only in form too"


def test_the_classes_are_those_in_the_rows_that_were_taken(tmp_path):
    rows = ["red,a", "Red,a", "teal,", "blue,b", "red,b"]
    table = read_table(write_file(tmp_path / "train.csv", numbered("color,size", rows)))
    space = build_label_space(table.take(np.array([4, 3, 0, 2])))
    assert space.classes == {"color": ("blue", "red", "teal"), "size": ("a", "b")}
    assert build_label_space(table.take(np.array([3, 4])).take(np.array([1, 0])), ["size"]).classes["color"] == (
        "blue",
        "red",
    )


def test_one_warning_counts_the_words_for_a_missing_value(tmp_path, caplog):
    rows = ["red,None,1", "nan,thin,2", "red,thin,1", "NA,None,2", "nan,None,1"]
    space = build_label_space(read_table(write_file(tmp_path / "train.csv", numbered("color,stripe,size", rows))))
    assert space.classes["color"] == ("NA", "nan", "red")
    assert caplog.messages == [
        "train.csv has words for a missing value, which are classes like others (color: 'nan' in 2 rows, 'NA' in 1 "
        "rows; stripe: 'None' in 3 rows): leave the cell blank where the label is unknown"
    ]


def test_a_column_with_another_separator_is_pointed_out_and_names_with_commas_are_not(tmp_path, caplog):
    tags = ["a;b", "b;c", "a", "c;a", "a;b", "b"]
    places = ["Paris, France", "Rome, Italy", "Bern, Switzerland", "Lyon", "Rome, Italy", "Lyon"]
    rows = [f'{tag},"{place}"' for tag, place in zip(tags, places, strict=True)]
    build_label_space(read_table(write_file(tmp_path / "train.csv", numbered("tags,place", rows))))
    assert caplog.messages == [
        "train.csv column 'tags': its cells seem to hold several of 3 values, separated by ';', and each whole cell is "
        "one class: if an image has several values, give separator ';', or write '|' instead"
    ]


def test_a_column_with_one_image_per_class_is_refused_unless_the_user_named_it(tmp_path, caplog):
    path = write_file(tmp_path / "train.csv", numbered("sku,color", [f"s{i},{'rg'[i % 2]}" for i in range(8)]))
    assert "choose attributes color" in refusal(build_label_space, read_table(path))
    alone = write_file(tmp_path / "alone.csv", numbered("sku", [f"s{i}" for i in range(8)]))
    assert refusal(build_label_space, read_table(alone)).endswith(
        "not an attribute: choose attributes sku if each image is a class of its own"
    )
    assert build_label_space(read_table(path, ["sku", "color"])).num_classes == {"sku": 8, "color": 2}
    assert caplog.messages == [
        "train.csv column 'sku' has one image for each of its classes: the heads learn each image by heart, so score "
        "them on other images of the same classes, or choose another column"
    ]
