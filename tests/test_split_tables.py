"""The tables of a split hold what they should, and nothing of the held-out rows' labels leaks into training."""

from pathlib import Path

import numpy as np
import pytest
from table_files import write_file

from catalog.build_label_space import build_label_space
from catalog.data_error import DataError
from catalog.split_tables import make_splits, write_csv, write_split
from catalog.table import Table, read_table


def table(folder: Path, rows: int = 60) -> Table:
    """Write a table of labeled rows, a third of them with a blank, and ten rows without labels."""
    lines = ["image_path,color,size,shop"]
    for row in range(rows):
        color = "" if row % 3 == 0 else "red" if row % 2 else '"blue, light"'
        lines.append(f"images/{row}.png,{color},{'SML'[row % 5 % 3]},shop{row % 12}")
    lines += [f"images/u{row}.png,,,shop{row}" for row in range(10)]
    (folder / "images").mkdir(parents=True)
    for line in lines[1:]:
        (folder / line.partition(",")[0]).write_bytes(b"x")
    return read_table(write_file(folder / "train.csv", "\n".join(lines) + "\n"))


def test_each_labeled_row_is_held_out_once_in_five_splits(tmp_path: Path) -> None:
    whole = table(tmp_path)
    group = whole.columns.pop("shop")
    names = np.array(group.to_pylist())
    for groups in (None, group):
        splits = make_splits(whole, build_label_space(whole), groups, 7, seed=0)
        assert sorted(np.concatenate([split.held_out for split in splits[:5]]).tolist()) == list(range(60))
        assert not np.array_equal(splits[0].held_out, splits[5].held_out)  # new folds
        for split in splits:
            assert split.held_out_share == len(split.held_out) / 60
            assert split.labeled.tolist() == [row for row in split.training if row < 60]
            assert set(split.first_half) < set(split.labeled)
            rest = np.setdiff1d(split.labeled, split.first_half)
            parts = [set(part.tolist()) for part in (split.held_out, split.validation, split.first_half, rest)]
            assert set.union(*parts) == set(range(60))
            assert sum(map(len, parts)) == 60
            if groups is None:
                assert set(range(60, 70)) < set(split.training)
                assert [len(part) for part in parts] == pytest.approx([12, 6, 21, 21], abs=1)
                continue
            shops = [set(names[list(part)]) for part in parts]
            assert sum(map(len, shops)) == len(set.union(*shops))
            unlabeled = [row for row in split.training if row >= 60]
            assert not set(names[unlabeled]) & (shops[0] | shops[1])


@pytest.mark.parametrize("half", [False, True])
def test_the_tables_hold_the_rows_and_no_label_of_the_other_half(tmp_path: Path, half: bool) -> None:
    whole = table(tmp_path)
    group = whole.columns.pop("shop")
    split = make_splits(whole, build_label_space(whole), group, 1, seed=0)[0]
    write_split(whole, split, half, tmp_path / "out", "part")
    parts = {"": split.training, "-validation": split.validation, "-held-out": split.held_out}
    for end, rows in parts.items():
        written = read_table(tmp_path / "out" / f"part{end}.csv")
        paths = [str(tmp_path / whole.image_path(row)) for row in rows]
        assert written.image_paths.to_pylist() == paths
        assert all(Path(path).is_file() for path in paths)
        for name, column in written.columns.items():
            expected = [whole.columns[name][row].as_py() for row in rows]
            if half and not end:
                kept = set(split.first_half.tolist())
                expected = [cell if row in kept else None for cell, row in zip(expected, rows, strict=True)]
            assert column.to_pylist() == expected


def test_a_copy_of_the_whole_table_has_the_same_label_space(tmp_path: Path) -> None:
    whole = table(tmp_path)
    write_csv(whole, tmp_path / "all.csv")
    assert build_label_space(read_table(tmp_path / "all.csv")) == build_label_space(whole)


@pytest.mark.parametrize(("grouped", "count"), [(False, 3), (True, 1)])
def test_too_few_rows_or_groups_are_refused(tmp_path: Path, grouped: bool, count: int) -> None:
    rows = ["image_path,color,shop", *(f"{i}.png,{'ab'[i % 2]},one" for i in range(9 if grouped else 3))]
    whole = read_table(write_file(tmp_path / "train.csv", "\n".join(rows) + "\n"))
    group = whole.columns.pop("shop")
    what = "groups of labeled rows" if grouped else "labeled rows"
    with pytest.raises(DataError, match=rf"^train.csv has {count} {what}, fewer than the 6 that splits need: label"):
        make_splits(whole, build_label_space(whole), group if grouped else None, 1, seed=0)
