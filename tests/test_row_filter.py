"""Filters of rows, compared with a loop over the rows."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.data_error import DataError
from catalog.row_filter import FilterColumn, fitting_rows, parse_condition

COLORS = ("Navy Blue", "Red", "a=b")
TAGS = ("cotton", "striped", "wool")


def encoded(cells: list[str | None]) -> pa.DictionaryArray:
    return pa.array(cells, pa.string()).dictionary_encode()


def color(given: list[str | None], predicted: list[str | None], probability: list[float | None]) -> FilterColumn:
    return FilterColumn(encoded(given), encoded(predicted), pa.array(probability, pa.float32()), COLORS)


def column() -> FilterColumn:
    return color(["Red", None, "a=b", "Grey"], ["Red", "Navy Blue", "Red", "Red"], [0.5, 0.75, 1.0, 0.25])


def rows(text: str, attribute: str, one: FilterColumn) -> tuple[list[bool], list[bool]]:
    condition = parse_condition(text, {attribute: one, "size": column()})
    assert condition.attribute == attribute
    fits, labeled = fitting_rows(condition, one)
    return fits.tolist(), labeled.tolist()


@pytest.mark.parametrize(
    ("text", "fits", "labeled"),
    [
        ("color=Red", [1, 0, 0, 0], [1, 0, 0, 0]),
        ("color = Red ", [1, 0, 0, 0], [1, 0, 0, 0]),
        ("color!=Red", [0, 1, 1, 1], [0, 0, 1, 1]),
        ("color=Navy Blue", [0, 1, 0, 0], [0, 0, 0, 0]),
        ("color=a=b", [0, 0, 1, 0], [0, 0, 1, 0]),
        ("color:given!=Red", [0, 0, 1, 1], [0, 0, 1, 1]),
        ("color:predicted=Red", [1, 0, 1, 1], [0, 0, 0, 0]),
        ("color=Grey", [0, 0, 0, 1], [0, 0, 0, 1]),  # a label that the model does not know
        ("color:probability>=0.75", [0, 1, 1, 0], [0, 0, 0, 0]),
        ("color:probability<.5", [0, 0, 0, 1], [0, 0, 0, 0]),
    ],
)
def test_a_label_counts_and_a_prediction_stands_for_a_blank_one(text: str, fits: list[int], labeled: list[int]) -> None:
    assert rows(text, "color", column()) == (list(map(bool, fits)), list(map(bool, labeled)))


def test_names_with_operators_in_them_are_read_as_they_are() -> None:
    for name in ("a=b", "a!", "a<b", "color:predicted", "x:y=z"):
        assert rows(f"{name}!=Red", name, column())[0] == [False, True, True, True]


def test_a_value_of_several_is_found_whatever_separates_them() -> None:
    tags = FilterColumn(
        encoded(["wool|cotton", "|", None, None]), encoded([None, None, "wool;striped", ";"]), None, TAGS, ";"
    )
    assert rows("tags=wool", "tags", tags)[0] == [True, False, True, False]
    assert rows("tags!=wool", "tags", tags)[0] == [False, True, False, True]
    of_tables = FilterColumn(encoded(["red|blue", "red", None, "blue"]), None, None, (), "|")
    assert rows("kind=red", "kind", of_tables) == ([True, True, False, False],) * 2
    assert rows("kind!=red", "kind", of_tables)[0] == [False, False, False, True]  # nothing is known of the third


cells = st.sampled_from([None, "x", "y", "x|y", "|", "z"])


@settings(max_examples=40)
@given(
    st.lists(st.tuples(cells, cells), min_size=1, max_size=8),
    st.sampled_from(["", ":given", ":predicted"]),
    st.sampled_from(["=", "!="]),
    st.sampled_from("xyz"),
)
def test_a_filter_is_a_loop_over_the_rows(
    table: list[tuple[str | None, str | None]], source: str, operator: str, value: str
) -> None:
    given_, predicted = map(list, zip(*table, strict=True))
    one = FilterColumn(encoded(given_), encoded(predicted), None, ("x", "y", "z"), "|")
    expected = []
    for label, guess in table:
        cell = {"": guess if label is None else label, ":given": label, ":predicted": guess}[source]
        expected.append(cell is not None and (value in cell.split("|")) == (operator == "="))
    assert rows(f"tags{source}{operator}{value}", "tags", one)[0] == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("color", "'color' is no filter: write attribute=class or attribute!=class"),
        ("=Red", "'=Red' is no filter"),
        ("colour=Red", "no attribute 'colour'; did you mean 'color'? (its attributes are 'color', 'season', 'tags')"),
        ("color=red", "'color' has no class 'red'; did you mean 'Red'? (it has 'Navy Blue', 'Red', 'a=b', 'Grey')"),
        ("color=", "names no class of 'color'"),
        ("color>=Red", ">= is for color:probability"),
        ("color:probability=0.9", "is compared by >= or <"),
        ("color:probability>=2", "'2' is no probability from 0 to 1"),
        ("color:probability>=nan", "'nan' is no probability"),
        ("color:guessed=Red", "there is no 'guessed' of 'color': choose given, predicted or probability"),
        ("season:predicted=Summer", "'season' has no predicted classes, as the model does not predict it"),
        ("season:probability>=0.5", "'season' has no single probability, as the model does not predict it"),
        ("tags:probability>=0.5", "as it may have several values"),
        ("tags:given=wool", "'tags' has no given classes, as no table gave labels for it"),
    ],
)
def test_a_mistake_is_named(text: str, words: str) -> None:
    season = FilterColumn(encoded(["Summer", None, "Winter", None]), None, None, (), "|")
    tags = FilterColumn(None, encoded(["wool", "|", "wool", "|"]), None, TAGS, "|")
    with pytest.raises(DataError) as error:
        parse_condition(text, {"color": column(), "season": season, "tags": tags})
    assert words in str(error.value)


def test_a_blank_probability_fits_nothing() -> None:
    one = color(["Red"] * 2, [None, "Red"], [None, 0.5])
    fits = [fitting_rows(parse_condition(f"color:probability{text}", {"color": one}), one)[0] for text in (">=0", "<1")]
    assert np.array_equal(fits, [[False, True], [False, True]])
