"""Parts keep units whole, give each class its share and reach every part, whatever the order of the rows."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from catalog.stratify import joined_units, row_keys, stratified_parts, table_labels

SHARES = [0.7, 0.15, 0.15]


def column(values: Any) -> pa.DictionaryArray:
    return pa.array(list(values), pa.string()).dictionary_encode()


def keys(rows: int, seed: int = 0) -> Any:
    return row_keys([f"images/{row}.jpg" for row in range(rows)], seed)


def drawn(columns: dict[str, pa.DictionaryArray], units: Any = None, shares: Any = SHARES) -> Any:
    rows = len(next(iter(columns.values())))
    units = np.arange(rows) if units is None else units
    return stratified_parts(table_labels(columns), units, keys(rows), shares)


def table_of(labels: Any, parts: Any, count: int = 3) -> Any:
    """Return the rows of each class in each part, [classes, parts]."""
    classes = len(labels.names)
    return np.stack([np.bincount(labels.classes[parts[labels.rows] == p], minlength=classes) for p in range(count)], 1)


def skewed(rng: Any, rows: int, classes: int, blank: float = 0.1) -> pa.DictionaryArray:
    weights = 1 / np.arange(1, classes + 1) ** 1.3
    chosen = rng.choice(classes, rows, p=weights / weights.sum())
    return column(None if hidden else f"c{one}" for one, hidden in zip(chosen, rng.random(rows) < blank, strict=True))


def sechidis(onehot: Any, shares: list[float], seed: int) -> Any:
    """Return each image's part by iterative stratification as the paper defines it."""
    rng = np.random.default_rng(seed)
    wanted = np.array(shares)[:, None] * onehot.sum(axis=0)
    overall = np.array(shares) * len(onehot)
    parts, left = np.full(len(onehot), -1), np.ones(len(onehot), bool)
    while left.any():
        remaining = onehot[left].sum(axis=0)
        if not remaining.any():
            parts[left] = 0
            break
        label = int(np.argmin(np.where(remaining > 0, remaining, len(onehot) + 1)))
        for row in np.flatnonzero(left & (onehot[:, label] > 0)):
            best = np.flatnonzero(wanted[:, label] == wanted[:, label].max())
            best = best[overall[best] == overall[best].max()]
            part = int(rng.choice(best))
            parts[row], left[row] = part, False
            wanted[part] -= onehot[row]
            overall[part] -= 1
    return parts


@given(st.lists(st.sampled_from("aaaabbbccd"), min_size=3, max_size=60), st.sampled_from([SHARES, [0.5, 0.5]]))
def test_one_attribute_is_divided_to_within_an_image_and_a_class_of_three_reaches_every_table(
    values: list[str], shares: list[float]
) -> None:
    parts = drawn({"color": column(values)}, shares=shares)
    for name, count in Counter(values).items():
        inside = np.bincount(parts[np.array(values) == name], minlength=len(shares))
        if count >= len(shares):
            assert inside.min() >= 1
        else:
            assert inside[0] >= 1  # else no model could learn it
        slack = 1 + sum(max(0.0, 1 - share * count) for share in shares)  # what the classes' first images take
        assert np.abs(inside - count * np.array(shares)).max() <= slack


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(12, 90))
def test_groups_are_never_divided_and_every_row_has_a_part(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    units = joined_units(rows, rng.integers(0, rows // 3, rows))
    parts = drawn({"a": skewed(rng, rows, 5), "b": skewed(rng, rows, 3)}, units)
    assert len(parts) == rows
    assert set(parts.tolist()) <= {0, 1, 2}
    for unit in range(units.max() + 1):
        assert len(set(parts[units == unit].tolist())) == 1


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(10, 70))
def test_the_parts_do_not_depend_on_the_order_of_the_rows_or_of_the_classes(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    columns = {"a": skewed(rng, rows, 5), "b": skewed(rng, rows, 3)}
    units, names = rng.integers(0, rows // 2, rows), [f"{row}.jpg" for row in range(rows)]
    order = rng.permutation(rows)
    shuffled = {name: column([cells[int(row)].as_py() for row in order]) for name, cells in columns.items()}
    one = stratified_parts(table_labels(columns), joined_units(rows, units), row_keys(names, 3), SHARES)
    other_keys = row_keys([names[row] for row in order], 3)
    other = stratified_parts(table_labels(shuffled), joined_units(rows, units[order]), other_keys, SHARES)
    assert one[order].tolist() == other.tolist()


def test_a_seed_repeats_its_parts_and_another_seed_has_others() -> None:
    columns = {"a": skewed(np.random.default_rng(0), 200, 6)}
    labels, units = table_labels(columns), np.arange(200)
    draws = [stratified_parts(labels, units, keys(200, seed), SHARES).tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_classes_of_several_attributes_with_three_images_reach_every_part_nearly_always() -> None:
    lacking = classes = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows = int(rng.integers(10, 80))
        columns = {f"a{i}": skewed(rng, rows, int(rng.integers(2, 8)), 0.2) for i in range(3)}
        labels = table_labels(columns)
        spread = table_of(labels, drawn(columns))
        large = spread[spread.sum(axis=1) >= 3]
        classes += len(large)
        lacking += int((large == 0).any(axis=1).sum())
    assert classes > 300
    assert lacking <= 1  # a class whose images other classes need


def test_a_class_of_one_image_is_for_training_even_where_a_class_of_three_then_misses_a_part() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        columns = {"article": skewed(rng, 60, 30), "color": skewed(rng, 60, 12), "gender": skewed(rng, 60, 4)}
        labels = table_labels(columns)
        spread = table_of(labels, drawn(columns))
        assert (spread[:, 0] > 0).all(), [labels.names[one] for one in np.flatnonzero(spread[:, 0] == 0)]


def test_the_shares_are_as_even_as_those_of_the_papers_algorithm() -> None:
    ours, theirs = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        columns = {f"a{k}": skewed(rng, 500, k) for k in (12, 5, 3)}
        labels = table_labels(columns)
        onehot = np.zeros((500, len(labels.names)))
        onehot[labels.rows, labels.classes] = 1
        for found, parts in ((ours, drawn(columns)), (theirs, sechidis(onehot, SHARES, seed))):
            spread = table_of(labels, parts)
            found.append(np.abs(spread - spread.sum(axis=1, keepdims=True) * np.array(SHARES)).max())
    assert np.mean(ours) <= np.mean(theirs) + 0.2
    assert max(ours) <= 2.5  # rows


def test_one_attribute_is_as_even_as_scikit_learn_makes_it() -> None:
    values = np.random.default_rng(0).choice(list("abcd"), 400, p=[0.5, 0.3, 0.15, 0.05])
    parts = drawn({"a": column(values)}, shares=[0.8, 0.2])
    _, theirs = train_test_split(np.arange(400), test_size=0.2, stratify=values, random_state=0)
    for name in "abcd":
        assert abs((values[parts == 1] == name).sum() - (values[theirs] == name).sum()) <= 1


def test_groups_of_uneven_size_are_spread_as_evenly_as_by_scikit_learn() -> None:
    ours, theirs = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        values = rng.integers(0, 4, 800)
        groups = np.unique(rng.zipf(1.3, 800) % 90, return_inverse=True)[1].reshape(-1)
        parts = drawn({"a": column(map(str, values))}, groups, [0.8, 0.2])
        _, held = next(iter(StratifiedGroupKFold(5).split(values, values, groups)))
        for found, rows in ((ours, parts == 1), (theirs, np.isin(np.arange(800), held))):
            counts = np.bincount(values[rows], minlength=4)
            found.append(np.abs(counts / np.bincount(values) - 0.2).max())
    assert np.mean(ours) <= np.mean(theirs) + 0.01


def test_unlabeled_rows_are_for_training_unless_no_row_has_a_label() -> None:
    half = ["a", "b"] * 20 + [None] * 40
    parts = drawn({"a": column(half)})
    assert set(parts[40:]) == {0}
    assert np.bincount(parts[:40]).tolist() == [28, 6, 6]
    assert np.bincount(drawn({"a": column([None] * 40)})).tolist() == [28, 6, 6]


def test_each_value_of_a_set_is_spread_and_so_is_the_empty_set() -> None:
    labels = table_labels({"tags": column(["x|y", "y", "|", None, "y |x"])})
    assert labels.names == [("tags", ""), ("tags", "x"), ("tags", "y")]
    assert sorted(zip(labels.rows.tolist(), labels.classes.tolist(), strict=True)) == [
        (0, 1), (0, 2), (1, 2), (2, 0), (4, 1), (4, 2),
    ]  # fmt: skip
    assert table_labels({"tags": column(["x"])}, {"tags"}).names == [("tags", "x")]
    several = {"tags": column(["x|y", "y|z", "x", "z", "|"] * 20)}
    spread = table_of(table_labels(several), drawn(several))
    assert np.abs(spread - spread.sum(axis=1, keepdims=True) * np.array(SHARES)).max() <= 1.5


def test_a_group_larger_than_a_part_is_not_forced_into_it() -> None:
    values = ["rare"] + ["a"] * 59 + ["rare"] + ["a"] * 19 + ["rare"] + ["a"] * 19
    groups = np.repeat([0, 1, 2], [60, 20, 20])
    parts = drawn({"a": column(values)}, groups, [0.6, 0.2, 0.2])
    assert [set(parts[groups == group].tolist()) for group in range(3)] in ([{0}, {1}, {2}], [{0}, {2}, {1}])
    assert set(drawn({"a": column(values)}, groups, [0.8, 0.1, 0.1])[groups == 0].tolist()) == {0}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_units_are_the_connected_rows_of_all_groupings(pairs: list[tuple[int, int]]) -> None:
    units = joined_units(len(pairs), *np.array(pairs).T)
    connected = [{row} for row in range(len(pairs))]
    for row, one in enumerate(pairs):
        for other, two in enumerate(pairs[:row]):
            if one[0] == two[0] or one[1] == two[1]:
                joined = connected[row] | connected[other]
                for member in joined:
                    connected[member] = joined
    for row in range(len(pairs)):
        assert {int(other) for other in np.flatnonzero(units == units[row])} == connected[row]


@pytest.mark.parametrize("rows", [0, 1])
def test_units_of_few_rows(rows: int) -> None:
    assert joined_units(rows, np.zeros(rows, np.int64)).tolist() == [0] * rows
