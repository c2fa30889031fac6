"""The label space: its plain form, its equality, codes of cells, and refusals."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.data_error import DataError
from catalog.label_space import UNKNOWN, UNSEEN, LabelSpace

NAMES = st.text(min_size=1).filter(str.strip)
CLASSES = st.dictionaries(NAMES, st.lists(NAMES, min_size=2, unique=True).map(tuple), max_size=4)


@given(CLASSES)
def test_a_label_space_survives_plain_lists_json_and_pickle(classes):
    space = LabelSpace(classes)
    assert LabelSpace.from_dict(space.to_dict()) == space
    assert hash(LabelSpace.from_dict(space.to_dict())) == hash(space)
    assert LabelSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    assert pickle.loads(pickle.dumps(space)) == space
    assert space.attributes == tuple(classes)
    assert space.num_classes == {name: len(values) for name, values in classes.items()}
    assert len(space) == len(classes)


def test_to_dict_holds_lists_and_plain_strings_only():
    saved = LabelSpace({np.str_("color"): [np.str_("blue"), np.str_("red")]}).to_dict()
    assert saved == {"attributes": ["color"], "classes": [["blue", "red"]]}
    assert [type(name) for name in (*saved["attributes"], *saved["classes"][0])] == [str] * 3


def test_the_order_of_attributes_and_of_classes_is_part_of_equality():
    space = LabelSpace({"a": ("x", "y"), "b": ("x", "y")})
    assert space != LabelSpace({"b": ("x", "y"), "a": ("x", "y")})
    assert space != LabelSpace({"a": ("y", "x"), "b": ("x", "y")})
    assert space == LabelSpace({"a": ["x", "y"], "b": ["x", "y"]})
    assert space != {"a": ("x", "y"), "b": ("x", "y")}


def test_a_later_change_of_the_dict_does_not_change_the_label_space():
    classes = {"a": ["x", "y"]}
    space = LabelSpace(classes)
    classes["a"].append("z")
    classes["b"] = ["x", "y"]
    assert space.to_dict() == {"attributes": ["a"], "classes": [["x", "y"]]}


def test_numbered_classes_are_named_by_their_codes():
    space = LabelSpace.numbered({"color": 12, "size": 2})
    assert space.classes["color"][10] == "10"
    assert space.encode("color", ["10", "2", "12"]).tolist() == [[10], [2], [UNSEEN]]


@given(st.lists(st.sampled_from(["red", "Red", "NA", "blue", "teal", "", None])), st.booleans(), st.booleans())
def test_encoding_equals_a_look_up_of_each_cell(cells, as_dictionary, in_chunks):
    space = LabelSpace({"color": ("NA", "blue", "red")})
    column = pa.array(cells, pa.string())
    if as_dictionary:
        column = column.dictionary_encode()
    if in_chunks:
        column = pa.chunked_array([column, column[:1]])
        cells = cells + cells[:1]
    expected = []
    for cell in cells:
        if not cell:
            expected.append(UNKNOWN)
        elif cell in space.classes["color"]:
            expected.append(space.classes["color"].index(cell))
        else:
            expected.append(UNSEEN)
    codes = space.encode("color", column)[:, 0]
    assert codes.dtype == np.int64
    assert codes.tolist() == expected


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"color": ("red",)}, "attribute 'color' has fewer than two classes"),
        ({"color": ()}, "attribute 'color' has fewer than two classes"),
        ({"color": ("red", " ")}, "a class of 'color' is named ' '"),
        ({"color": ("red", 3)}, "a class of 'color' is named 3: name each class, as text"),
        ({"color": ("red", None)}, "a class of 'color' is named None"),
        ({"color": ("red", "red")}, "'color' has the class 'red' twice"),
        ({"color": "red"}, "the classes of 'color' are 'red': they must be a list"),
        ({"": ("red", "blue")}, "an attribute is named ''"),
        ({1: ("red", "blue")}, "an attribute is named 1"),
    ],
)
def test_a_bad_label_space_is_refused_with_a_reason(classes, message):
    with pytest.raises(DataError) as error:
        LabelSpace(classes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"attributes": ["a", "a"], "classes": [["x", "y"], ["x", "y"]]}, "attribute 'a' is named twice"),
        ({"attributes": ["a"], "classes": []}, "1 attributes are saved, but the classes of 0"),
        ({"attributes": ["a"]}, "the lists attributes and classes are missing"),
        ({"attributes": [["a"]], "classes": [["x", "y"]]}, "a saved name of an attribute or a class is not text"),
        ({"attributes": ["a"], "classes": [["x", 1]]}, "a saved name of an attribute or a class is not text"),
        ([], "the lists attributes and classes are missing"),
    ],
)
def test_a_bad_saved_label_space_is_refused_with_a_reason(saved, message):
    with pytest.raises(DataError, match=message):
        LabelSpace.from_dict(saved)
