"""Facts about one attribute's column, compared with loops over its cells."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.attribute_column import (
    are_one_hot,
    class_names,
    count_classes,
    is_flag,
    rows_with_class,
    why_unlearnable,
)
from catalog.label_space import values_of

CELLS = st.lists(st.sampled_from([None, "a", "b", "a|b", "b|c", "|", "A"]), min_size=1, max_size=12)
FLAGS = st.sampled_from([None, "1", "0", "yes", "No", "TRUE", "false"])


def column_of(cells):
    return pa.array(cells, pa.string()).dictionary_encode()


@given(CELLS)
def test_classes_and_labeled_rows_equal_a_loop_over_the_cells(cells):
    column, labeled = column_of(cells), [cell for cell in cells if cell is not None]
    assert class_names(column, multi_valued=False) == list(dict.fromkeys(labeled))
    values = [value for cell in labeled for value in values_of(cell)]
    assert class_names(column, multi_valued=True) == list(dict.fromkeys(values))
    assert count_classes(column, multi_valued=False) == (len(set(labeled)), len(labeled))
    assert count_classes(column, multi_valued=True) == (len(set(values)), len(labeled))


@given(CELLS, st.sampled_from(["a", "b", "c", "A", "a|b"]))
def test_rows_with_a_class_equal_a_loop_over_the_cells(cells, name):
    expected = [row for row, cell in enumerate(cells) if cell is not None and name in (cell, *cell.split("|"))]
    assert rows_with_class(column_of(cells), name).tolist() == expected


@given(st.integers(1, 3), st.data())
def test_one_hot_columns_have_exactly_one_yes_in_each_labeled_row(width, data):
    rows = data.draw(st.lists(st.tuples(*[FLAGS] * width), min_size=1, max_size=6))
    columns = [column_of(cells) for cells in zip(*rows, strict=True)]
    yes = [sum(cell in ("1", "yes", "TRUE") for cell in row) for row in rows if any(row)]
    assert are_one_hot(columns) == all(count == 1 for count in yes)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [(["1", "0", None], True), (["Yes", "no"], True), (["0", "0"], False), (["1", "2"], False), ([None], False)],
)
def test_a_flag_has_only_yes_and_no_and_at_least_one_yes(cells, expected):
    assert is_flag(column_of(cells)) == expected


@pytest.mark.parametrize(
    ("cells", "multi_valued", "reason"),
    [
        ([None, None], False, "is blank in every row"),
        (["|", None], True, "has no value in any row"),
        (["a", "a"], False, "has one class only, 'a'"),
        (list("abcdefgh"), False, "is different in each of its 8 labeled rows"),
        (list("abcdefgh"), True, "has no value twice in its 8 labeled rows"),
        (list("abcdefg"), False, None),
        (["a", "b"], False, None),
        (["a"], True, None),
    ],
)
def test_a_column_that_cannot_be_learned_has_a_reason(cells, multi_valued, reason):
    found = why_unlearnable(column_of(cells), multi_valued)
    assert found == reason if reason is None else found.startswith(reason)
