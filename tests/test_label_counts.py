"""Counts of classes and of combinations, compared with loops over the rows."""

from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from drawn_photograph import photograph
from table_files import write_table

from catalog.audited_rows import read_audited_rows
from catalog.label_counts import count_labels, count_pairs, count_whole_combinations
from catalog.label_findings import class_findings, combination_findings, table_findings


def tables(folder: Path, *splits: list[dict[str, str]]):
    photograph(0).save(folder / "a.jpg")
    paths = []
    for name, rows in zip(("train", "val"), splits, strict=False):
        write_table(folder / f"{name}.csv", [{"image_path": "a.jpg", **row} for row in rows])
        paths.append(folder / f"{name}.csv")
    return read_audited_rows(paths)


def random_rows(seed: int, count: int) -> list[dict[str, str]]:
    rng = np.random.default_rng(seed)
    tags = ["", "|", "x", "y|x", "x|y", "z|y|x", "x|x"]
    return [
        {
            "color": str(rng.choice(["red", "blue", ""])),
            "tags": str(rng.choice(tags)),
            "size": str(rng.choice(list("SML"))),
        }
        for _ in range(count)
    ]


def values(row: dict[str, str], name: str) -> list[str]:
    cell = row[name]
    return sorted({one for one in cell.split("|") if one}) if name == "tags" else [cell] if cell else []


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_loops(tmp_path: Path, seed: int) -> None:
    splits = [random_rows(seed, 40), random_rows(seed + 9, 17)]
    rows = tables(tmp_path, *splits)
    attributes = count_labels(rows)
    for one in attributes:
        for split, counts in zip(splits, one.counts, strict=True):
            expected = Counter(value for row in split for value in values(row, one.name))
            assert {name: int(n) for name, n in zip(one.classes, counts, strict=True) if n} == expected
        assert one.labeled.tolist() == [sum(row[one.name] != "" for row in split) for split in splits]
        assert sorted(one.counts.sum(axis=0), reverse=True) == one.counts.sum(axis=0).tolist()
    joined = [row for split in splits for row in split]
    for pair in count_pairs(attributes):
        first, second = pair.first.name, pair.second.name
        expected = Counter(both for row in joined for both in product(values(row, first), values(row, second)))
        for (i, one), (j, other) in product(enumerate(pair.first.classes), enumerate(pair.second.classes)):
            assert pair.counts[i, j] == expected[one, other]
            places = [k for k, row in enumerate(joined) if one in values(row, first) and other in values(row, second)]
            assert pair.rows_of(i, j).tolist() == places
    whole = Counter(tuple((n, row[n] and (*values(row, n), "")) for n in row) for row in joined if any(row.values()))
    assert count_whole_combinations(rows, attributes) == (len(whole), sum(n == 1 for n in whole.values()))


def test_expected_counts_are_the_products_of_the_margins(tmp_path: Path) -> None:
    cells = [("a", "x")] * 6 + [("b", "y")] * 3 + [("a", "y")] + [("a", "")] * 5
    (pair,) = count_pairs(count_labels(tables(tmp_path, [{"one": one, "two": two} for one, two in cells])))
    assert pair.first.classes == ("a", "b")
    assert pair.expected.tolist() == [[7 * 6 / 10, 7 * 4 / 10], [3 * 6 / 10, 3 * 4 / 10]]


def test_combinations_of_frequent_classes_that_occur_once_or_never_are_found(tmp_path: Path) -> None:
    cells = [("a", "x")] * 20 + [("b", "y")] * 20 + [("a", "y")] + [("c", "z")]
    rows = tables(tmp_path, [{"one": one, "two": two} for one, two in cells])
    found = list(combination_findings(count_pairs(count_labels(rows))))
    assert [(one.kind, one.attribute, one.row) for one in found] == [
        ("rare-combination", "one x two", 40),
        ("absent-combination", "one x two", None),
    ]
    assert found[0].detail == "'a' with 'y' once; 10 rows if the two attributes were independent"
    assert found[1].detail.startswith("'b' with 'x' never; ")


def test_rare_and_unseen_classes_are_found(tmp_path: Path) -> None:
    train = [{"color": "red"}] * 9 + [{"color": "blue"}] * 4
    rows = tables(tmp_path, train, [{"color": "red"}, {"color": "Blue"}, {"color": "Blue"}])
    found = list(class_findings(rows, count_labels(rows), rare=5))
    assert {(one.kind, one.detail, one.row) for one in found} == {
        ("rare-class", "'blue' has 4 of 13 labeled rows of train", None),
        ("unseen-class", "'Blue' has 2 rows, the first being this one; did you mean 'blue'?", 14),
    }


def test_what_training_would_warn_of_or_refuse_is_found(tmp_path: Path) -> None:
    train = [{"id": f"n{i}", "color": ("red", "Red", "nan")[i % 3], "old": "x" if i % 2 else "y"} for i in range(12)]
    rows = tables(tmp_path, train, [{"color": "red", "new": "a"}])
    found = list(table_findings(rows, count_labels(rows)))
    assert [(one.attribute, one.split) for one in found if one.kind == "column"] == [("id", 0)]
    assert [(one.attribute, one.split) for one in found if one.kind == "missing-column"] == [
        ("new", 0),
        ("id", 1),
        ("old", 1),
    ]
    remarks = [one.detail for one in found if one.kind == "remark"]
    assert len(remarks) == 2
    assert "differ only in case" in remarks[0]
    assert "words for a missing value" in remarks[1]


def test_one_hot_columns_are_a_remark(tmp_path: Path) -> None:
    train = [{"color_red": str(i % 2), "color_blue": str(1 - i % 2)} for i in range(9)]
    rows = tables(tmp_path, train)
    (remark,) = (one.detail for one in table_findings(rows, count_labels(rows)))
    assert "one attribute in one-hot form" in remark
