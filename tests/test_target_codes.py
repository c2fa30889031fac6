"""Multi-valued attributes: sets of any size go through int64 columns and come back, and have one code each."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from catalog.build_label_space import build_label_space
from catalog.data_error import DataError
from catalog.label_space import BITS, UNKNOWN, LabelSpace, values_of
from catalog.table import read_table
from catalog.targets import encode_targets
from timm.data.target_codes import by_attribute, label_codes, value_sets

SPACE = LabelSpace({"size": ("L", "S"), "tags": ("cotton", "striped", "summer"), "fit": ("slim", "wide")}, ["tags"])

cells = st.one_of(st.none(), st.sets(st.integers(0, 200)).map(lambda s: "|".join(f"v{i:03}" for i in sorted(s)) or "|"))


@given(
    column=st.lists(cells, min_size=1, max_size=6), count=st.sampled_from([1, 2, BITS - 1, BITS, BITS + 1, 130, 200])
)
def test_sets_come_back_as_they_were_written(column: list[str | None], count: int) -> None:
    names = tuple(f"v{i:03}" for i in range(count))
    space = LabelSpace({"tags": names, "other": ("a", "b")}, {"tags"})
    target = torch.from_numpy(space.encode("tags", column))
    sets = value_sets(target, count)
    for row, cell in enumerate(column):
        assert sets.known[row] == (cell is not None)
        assert (target[row] == UNKNOWN).all() == (cell is None)
        own = set(values_of(cell or ""))
        assert {name for name, has in zip(names, sets.values[row], strict=True) if has} == own & set(names)
        assert sets.unseen[row] == bool(own - set(names))


@given(st.lists(cells, min_size=2, max_size=8), st.sampled_from([3, BITS, 130]))
def test_codes_are_equal_where_the_sets_are_and_negative_where_unknown(column: list[str | None], count: int) -> None:
    space = LabelSpace({"tags": tuple(f"v{i:03}" for i in range(count))}, {"tags"})
    target = torch.from_numpy(space.encode("tags", column))
    codes = label_codes(target, space)[:, 0]
    equal = (target[:, None] == target[None]).all(dim=2)
    assert torch.equal(codes[:, None] == codes[None], equal)
    assert torch.equal(codes < 0, target[:, 0] == UNKNOWN)


def test_a_cell_may_hold_spaces_repetitions_and_nothing_at_all() -> None:
    assert values_of(" striped | cotton|striped ") == ["striped", "cotton"]
    assert values_of("|") == values_of(" || ") == []


def test_columns_are_taken_apart_by_attribute() -> None:
    target = torch.tensor([[1, 0b101, 0], [0, UNKNOWN, 1]])
    size, tags, fit = by_attribute(target, SPACE)
    assert (size.tolist(), tags.tolist(), fit.tolist()) == ([1, 0], [[0b101], [UNKNOWN]], [0, 1])
    assert SPACE.describe(target[0].tolist()) == ["S", "cotton|summer", "slim"]
    assert SPACE.describe(target[1].tolist()) == ["L", "\u2013", "wide"]
    assert SPACE.describe([0, 0, 0]) == ["L", "|", "slim"]


def test_class_codes_stay_as_they_are_where_no_attribute_is_multi_valued() -> None:
    space = LabelSpace({"size": ("L", "S")})
    target = torch.tensor([[1], [UNKNOWN]])
    assert torch.equal(label_codes(target, space), target.int())
    assert "multi_valued" not in space.to_dict()


def test_a_label_space_is_saved_with_what_is_multi_valued() -> None:
    assert LabelSpace.from_dict(SPACE.to_dict()) == SPACE
    assert LabelSpace(SPACE.classes) != SPACE
    assert str(SPACE) == "size (2), tags (3, several an image), fit (2)"
    with pytest.raises(DataError, match="multi_valued: there is no attribute 'tag'"):
        LabelSpace(SPACE.classes, ["tag"])


def _table(tmp_path, text: str):
    path = tmp_path / "train.csv"
    path.write_text(text)
    return read_table(path)


TEXT = "image_path,size,tags\na,S,striped|cotton\nb,L,cotton\nc,S,|\nd,L,\n"


def test_a_separator_in_a_cell_makes_a_column_multi_valued(tmp_path) -> None:
    space = build_label_space(_table(tmp_path, TEXT))
    assert space == LabelSpace({"size": ("L", "S"), "tags": ("cotton", "striped")}, ["tags"])
    targets = encode_targets(_table(tmp_path, TEXT), space, strict=True)
    assert targets.tolist() == [[1, 0b11], [0, 0b01], [1, 0], [0, UNKNOWN]]


def test_columns_can_be_named_multi_valued_or_all_be_said_not_to_be(tmp_path) -> None:
    table = _table(tmp_path, TEXT)
    assert build_label_space(table, ["size", "tags"]).multi_valued == {"size", "tags"}
    plain = build_label_space(table, [])
    assert plain.classes["tags"] == ("cotton", "striped|cotton", "|")
    with pytest.raises(DataError, match=r"train.csv has no attribute 'tag', .* it has 'size', 'tags'"):
        build_label_space(table, ["tag"])


def test_a_value_that_training_does_not_know_is_reported_with_its_line(tmp_path, caplog) -> None:
    space = LabelSpace({"size": ("L", "S"), "tags": ("cotton",)}, ["tags"])
    with pytest.raises(DataError, match=r"train.csv line 2: tags 'striped' is not one of 1 known classes"):
        encode_targets(_table(tmp_path, TEXT), space, strict=True)
    targets = encode_targets(_table(tmp_path, TEXT), space, strict=False)
    assert targets[:, 1].tolist() == [0b11, 0b01, 0, UNKNOWN]  # the bit behind the classes stands for those outside
    assert "1 images have a class of 'tags' that the model does not know ('striped'): counted as wrong" in caplog.text


def test_parquet_may_hold_sets_as_lists(tmp_path) -> None:
    tags = [["striped", "cotton"], [], None, ["cotton"]]
    pq.write_table(pa.table({"image_path": list("abcd"), "tags": tags}), tmp_path / "train.parquet")
    table = read_table(tmp_path / "train.parquet")
    assert table.columns["tags"].to_pylist() == ["striped|cotton", "|", None, "cotton"]
    targets = encode_targets(table, build_label_space(table), strict=True)
    assert targets.tolist() == [[0b11], [0], [UNKNOWN], [0b01]]


def _parquet(tmp_path, **columns: object):
    pq.write_table(pa.table({"image_path": list("abcd")} | columns), tmp_path / "train.parquet")
    return read_table(tmp_path / "train.parquet")


@pytest.mark.parametrize(
    ("kind", "tags", "cells"),
    [
        (pa.list_(pa.string()), [["a"], ["b"], [], ["a"]], ["a", "b", "|", "a"]),
        (pa.list_(pa.string()), [["a", None], [None], None, ["b", " "]], ["a", "|", None, "b|"]),
        (pa.large_list(pa.int32()), [[1, 2], [2], None, [1]], ["1|2", "2", None, "1"]),
        (
            pa.list_(pa.large_string(), 2),
            [["a", "b"], ["b", "a"], ["b", "b"], ["a", "b"]],
            ["a|b", "b|a", "b|b", "a|b"],
        ),
        (pa.list_(pa.dictionary(pa.int8(), pa.string())), [["a"], ["b", "a"], [], None], ["a", "b|a", "|", None]),
    ],
)
def test_lists_are_sets_even_where_each_has_one_value(tmp_path, kind, tags, cells) -> None:
    table = _parquet(tmp_path, tags=pa.array(tags, kind), size=list("SLSL"))
    assert table.columns["tags"].to_pylist() == [cell.strip() if cell else cell for cell in cells]
    assert build_label_space(table).multi_valued == {"tags"}


def test_lists_of_a_fixed_length_may_be_missing_where_pyarrow_reads_that(tmp_path) -> None:
    tags = pa.array([["a", "b"], None, ["b", "b"], ["a", "b"]], pa.list_(pa.string(), 2))
    if Version(pa.__version__) >= Version("26"):
        assert _parquet(tmp_path, tags=tags).columns["tags"].to_pylist() == ["a|b", None, "b|b", "a|b"]
    else:
        with pytest.raises(DataError, match=r"train.parquet has lists of a fixed length .*: pip install 'pyarrow>=26'"):
            _parquet(tmp_path, tags=tags)


def test_a_list_that_is_no_set_is_refused_or_left_out_where_no_attribute_is_needed(tmp_path, caplog) -> None:
    vectors = pa.array([[0.5, 1.0]] * 4, pa.list_(pa.float32()))
    with pytest.raises(DataError, match=r"train.parquet column 'vector' holds list<.*float>, not names: choose"):
        _parquet(tmp_path, vector=vectors, size=list("SLSL"))
    table = read_table(tmp_path / "train.parquet", require_attributes=False)
    assert table.attributes == ("size",)
    assert "train.parquet column 'vector' holds list<element: float>, not names: left out" in caplog.text
    assert read_table(tmp_path / "train.parquet", ["size"]).attributes == ("size",)
    with pytest.raises(DataError, match="column 'vector' holds"):
        read_table(tmp_path / "train.parquet", ["vector"], require_attributes=False)


def test_a_separator_within_a_value_of_a_list_is_reported_with_its_row(tmp_path) -> None:
    with pytest.raises(
        DataError, match=r"train.parquet row 3: value 'a\|b' of tags contains \|, which separates values"
    ):
        _parquet(tmp_path, tags=[["a"], [], ["b", "a|b"], None])


def test_a_column_of_texts_with_separators_is_no_attribute(tmp_path) -> None:
    rows = "".join(f"{i},{'SL'[i % 2]},text {i}|more {i}\n" for i in range(8))
    table = _table(tmp_path, f"image_path,size,title\n{rows}")
    with pytest.raises(DataError, match="column 'title' has no value twice in its 8 labeled rows, so it is an id"):
        build_label_space(table)


def test_several_values_in_evaluation_where_classes_are_single_name_the_flag(tmp_path, caplog) -> None:
    space = LabelSpace({"size": ("L", "S"), "tags": ("cotton", "wool")})
    encode_targets(_table(tmp_path, TEXT), space, strict=False)
    assert "counted as wrong; where its cells hold several values, train from the start with multi_" in caplog.text


def test_several_values_where_the_classes_are_single_name_the_flag(tmp_path) -> None:
    space = LabelSpace({"size": ("L", "S"), "tags": ("cotton", "wool")})
    with pytest.raises(DataError, match=r"line 2: tags 'striped\|cotton' is not .* train .* with multi_valued tags"):
        encode_targets(_table(tmp_path, TEXT), space, strict=True)


def test_a_multi_valued_column_needs_a_value(tmp_path) -> None:
    table = _table(tmp_path, "image_path,size,tags\na,S,|\nb,L,|\n")
    with pytest.raises(
        DataError, match="column 'tags' has no value in any row: leave it out and choose attributes size"
    ):
        build_label_space(table)
