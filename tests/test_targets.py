"""Targets of a table: codes of known classes, and what happens to unknown classes and missing attributes."""

import logging

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from table_files import numbered, refusal, write_file

from catalog.label_space import UNKNOWN, UNSEEN, LabelSpace
from catalog.table import read_table
from catalog.targets import encode_targets


@given(st.lists(st.tuples(*[st.sampled_from(["", " ", "red", "Red", "NA", "teal", "é"])] * 2), min_size=1, max_size=12))
def test_targets_equal_a_look_up_of_each_cell(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "targets.csv"
    table = read_table(write_file(path, numbered("b,a", [",".join(row) for row in rows])))
    space = LabelSpace({"a": ("NA", "Red", "red"), "b": ("Red", "red")})
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


def test_an_unseen_class_is_an_error_in_training_with_its_line_and_the_nearest_class(tmp_path):
    path = write_file(tmp_path / "train.csv", 'image_path,color,size\na,Teal,"1\n"\n\nb,teal,2\nc,xyz,9\n')
    space = LabelSpace({"size": ("1", "2"), "color": ("Teal", "red")})
    text = refusal(encode_targets, read_table(path), space, strict=True)
    assert text == "train.csv line 5: color 'teal' is not one of 2 known classes; did you mean 'Teal'?"
    space = LabelSpace({"color": ("Teal", "teal"), "size": ("1", "2")})
    text = refusal(encode_targets, read_table(path), space, strict=True)
    assert text.startswith("train.csv line 6: color 'xyz' is not one of 2 known classes; correct it, or add it to")


def test_an_unseen_class_is_reported_in_evaluation(tmp_path, caplog):
    names = [f"new {i}" for i in range(6)]
    path = write_file(tmp_path / "val.csv", numbered("color,size", [*(f"{n},1" for n in names), "new 0,2", "red,3"]))
    targets = encode_targets(read_table(path), LabelSpace({"color": ("red", "blue"), "size": ("1", "2")}), strict=False)
    assert targets.tolist() == [[-1, 0]] * 6 + [[-1, 1], [0, -1]]
    assert [record.message for record in caplog.records] == [
        "val.csv: 7 images have a class of 'color' that the model does not know "
        "('new 0', 'new 1', 'new 2', 'new 3', 'new 4', ...): counted as wrong",
        "val.csv: 1 images have a class of 'size' that the model does not know ('3'): counted as wrong",
    ]


def test_a_table_with_all_labels_in_another_form_is_refused(tmp_path):
    path = write_file(tmp_path / "val.csv", numbered("flag,size", ["True,1", "False,", ",2"]))
    space = LabelSpace({"flag": ("FALSE", "TRUE"), "size": ("1", "2")})
    assert refusal(encode_targets, read_table(path), space, strict=False) == (
        "val.csv: none of the 2 labels of 'flag' is a class that the model knows (it has 'True', 'False', the model "
        "'FALSE', 'TRUE'): spell these labels as the model does, or delete the column; did you mean 'TRUE' where it "
        "has 'True'?"
    )


def test_a_table_with_other_classes_only_is_reported_loudly_and_scored(tmp_path, caplog):
    path = write_file(tmp_path / "val.csv", numbered("color,size", ["teal,1", "plum,2"]))
    targets = encode_targets(read_table(path), LabelSpace({"color": ("blue", "red"), "size": ("1", "2")}), strict=False)
    assert targets.tolist() == [[UNSEEN, 0], [UNSEEN, 1]]
    assert caplog.messages == [
        "ATTENTION: val.csv: none of the 2 labels of 'color' is a class that the model knows (it has 'teal', 'plum', "
        "the model 'blue', 'red'): all are counted as wrong"
    ]


def test_a_warning_about_unknown_classes_names_the_class_that_is_meant(tmp_path, caplog):
    path = write_file(tmp_path / "val.csv", numbered("color,size", ["red,1.50", "Navy Blue,2", "xyz,2", "blu,2"]))
    space = LabelSpace({"color": ("blue", "navy-blue", "red"), "size": ("1.5", "2")})
    encode_targets(read_table(path), space, strict=False)
    assert [message.rpartition(": counted as wrong; ")[2] for message in caplog.messages] == [
        "did you mean 'navy-blue' where it has 'Navy Blue'?",
        "did you mean '1.5' where it has '1.50'?",
    ]
    caplog.clear()
    encode_targets(read_table(path), LabelSpace({"color": ("blue", "Navy Blue", "red")}), strict=False)
    assert caplog.messages[0].endswith("; did you mean 'blue' where it has 'blu'?")


def test_classes_of_an_older_label_space_match_in_their_normalized_form(tmp_path):
    path = write_file(tmp_path / "val.csv", numbered("color,size", ["Navy  Blue,1", "Navy Blue,2.0", "red,"]))
    space = LabelSpace({"color": ("Navy\u00a0Blue", "red"), "size": ("1.0", "2.0")})
    assert encode_targets(read_table(path), space, strict=True).tolist() == [[0, 0], [0, 1], [1, UNKNOWN]]
    assert space.class_of("size", "1") == space.class_of("size", "1.0") == "1.0"


def test_a_warning_about_a_missing_column_names_a_similar_one(tmp_path, caplog):
    table = read_table(write_file(tmp_path / "val.csv", numbered("color,kidz", ["red,no"])))
    encode_targets(table, LabelSpace({"color": ("blue", "red"), "kids": ("no", "yes")}), strict=False)
    assert caplog.messages == ["val.csv has no column 'kids': taken as blank in every row; did you mean 'kidz'?"]


def test_a_missing_attribute_is_an_error_in_training_and_unknown_in_evaluation(tmp_path, caplog):
    table = read_table(write_file(tmp_path / "val.csv", numbered("color", ["red", "blue"])))
    space = LabelSpace({"size": ("1", "2"), "color": ("blue", "red")})
    assert "val.csv has no column 'size', which the label space has" in refusal(
        encode_targets, table, space, strict=True
    )
    assert encode_targets(table, space, strict=False).tolist() == [[UNKNOWN, 1], [UNKNOWN, 0]]
    assert [record.message for record in caplog.records] == [
        "val.csv has no column 'size': taken as blank in every row"
    ]
    text = refusal(encode_targets, table, LabelSpace({"size": ("1", "2")}), strict=False)
    assert "val.csv has no column 'size'" in text
    assert "the table's attributes are 'color'" in text


def test_an_unknown_word_for_a_missing_value_is_better_left_blank(tmp_path, caplog):
    path = write_file(tmp_path / "val.csv", numbered("color", ["red", "n/a"]))
    space = LabelSpace({"color": ("blue", "red")})
    encode_targets(read_table(path), space, strict=False)
    remedy = "; leave the cell blank where 'n/a' means that the label is unknown"
    assert caplog.messages[0].endswith(f"('n/a'): counted as wrong{remedy}")
    assert refusal(encode_targets, read_table(path), space, strict=True).endswith(f"2 known classes{remedy}")
