"""Soft labels of a table's images: matched by path, ordered by class, checked, and mapped into memory when large."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import soft_labels
from catalog.data_error import DataError
from catalog.label_space import LabelSpace
from catalog.soft_labels import LABEL_SPACE_KEY, SoftLabels, read_soft_labels
from catalog.table import Table, read_table

SPACE = LabelSpace({"color": ("blue", "green", "red"), "tags": ("a", "b")}, ["tags"])


def write(path: Path, rows: dict[str, list[Any]], space: LabelSpace | None = SPACE, **columns: list[Any]) -> Path:
    """Write a file of soft labels; `rows` has the columns of distributions."""
    metadata = {LABEL_SPACE_KEY: json.dumps(space.to_dict())} if space else None
    kinds = {name: pa.string() if name == "image_path" else pa.list_(pa.float32()) for name in rows}
    kinds |= {name: pa.float64() for name in columns}
    table = pa.table(rows | columns, schema=pa.schema(kinds, metadata))
    pq.write_table(table, path, row_group_size=2)
    return path


def make_table(folder: Path, names: list[str]) -> Table:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.csv").write_text("image_path,color\n" + "\n".join(f"{name},blue" for name in names) + "\n")
    return read_table(folder / "train.csv")


def two_rows(**changes: list[Any]) -> dict[str, list[Any]]:
    return {
        "image_path": ["x.jpg", "y.jpg"],
        "color": [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]],
        "tags": [[0.9, 0.8], [0.0, 0.1]],
    } | changes


def row(labels: SoftLabels, index: int) -> list[float]:
    return [round(float(value), 6) for value in labels.values[labels.row_of[index]]]


def test_rows_are_matched_and_classes_take_the_models_order(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["y.jpg", "none.jpg", "x.jpg", "y.jpg"])
    space = LabelSpace({"tags": ("b", "a"), "color": ("red", "blue", "green")}, ["tags"])
    labels = read_soft_labels(write(tmp_path / "s.parquet", two_rows()), table, space)
    assert labels.row_of.tolist()[1] == -1
    assert row(labels, 2) == [0.8, 0.9, 0.25, 0.5, 0.25]
    assert row(labels, 0) == row(labels, 3) == [0.1, 0.0, 0.0, 0.0, 1.0]
    assert labels.weights.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("spelled", ["data/x.jpg", "{here}/data/x.jpg", "./data//x.jpg", "x.jpg"])
def test_a_path_may_be_absolute_or_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    monkeypatch.chdir(tmp_path)
    table = make_table(tmp_path / "data", ["x.jpg"])
    rows = two_rows(image_path=["other.jpg", spelled.format(here=os.fspath(tmp_path))])
    labels = read_soft_labels(write(tmp_path / "s.parquet", rows), table, SPACE)
    assert row(labels, 0) == [0.0, 1.0, 0.0, 0.0, 0.1]


def test_nulls_and_weights_are_those_of_the_cell(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["x.jpg", "y.jpg"])
    rows = two_rows(color=[None, [0.0, 1.0, 0.0]])
    file = write(tmp_path / "s.parquet", rows, tags_weight=[0.25, None], color_weight=[3.0, 2.0])
    labels = read_soft_labels(file, table, SPACE)
    assert labels.weights.tolist() == [[-1, 0.25], [2, 0]]
    assert row(labels, 0) == [0.0, 0.0, 0.0, 0.9, 0.8]


def test_a_skipped_attribute_needs_no_soft_labels(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["x.jpg"])
    rows = two_rows()
    del rows["tags"]
    space = LabelSpace({"color": SPACE.classes["color"]})
    file = write(tmp_path / "s.parquet", rows, space)
    assert read_soft_labels(file, table, SPACE, ["tags"]).weights.tolist() == [[1, -1]]
    with pytest.raises(DataError, match="no soft labels of 'tags', only of 'color'"):
        read_soft_labels(file, table, SPACE)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"color": [[0.5, 0.5], [0.0, 1.0, 0.0]]}, "s.parquet row 1: color has 2 probabilities for 3 classes"),
        ({"color": [[0.0, 1.0, 0.0], [0.5, 0.25, 0.5]]}, "row 2: the probabilities of color do not sum to 1"),
        ({"color": [[-1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]}, "row 1: the probabilities of color"),
        ({"color": [[float("nan"), 1.0, 0.0], [0.0, 1.0, 0.0]]}, "row 1: the probabilities of color"),
        ({"tags": [[0.5, 1.5], [0.0, 0.0]]}, "row 1: the probabilities of tags are not all from 0 to 1"),
        (
            {"image_path": ["u.jpg", "v.jpg"]},
            "none of the images of train.csv .the file begins with u.jpg, the table with x.jpg",
        ),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, changes: dict[str, list[Any]], sentence: str) -> None:
    table = make_table(tmp_path, ["x.jpg", "y.jpg"])
    with pytest.raises(DataError, match=sentence):
        read_soft_labels(write(tmp_path / "s.parquet", two_rows(**changes)), table, SPACE)


def test_wrong_weights_and_files_are_named(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["x.jpg", "y.jpg"])
    file = write(tmp_path / "s.parquet", two_rows(), color_weight=[1.0, -2.0])
    with pytest.raises(DataError, match="row 2: color_weight is -2"):
        read_soft_labels(file, table, SPACE)
    with pytest.raises(DataError, match="lacks the names of its classes"):
        read_soft_labels(write(tmp_path / "s.parquet", two_rows(), None), table, SPACE)
    rows = pa.table({"image_path": ["x.jpg"]}).replace_schema_metadata({LABEL_SPACE_KEY: "{"})
    pq.write_table(rows, file)
    with pytest.raises(DataError, match=r"s.parquet cannot be used: Expecting property name"):
        read_soft_labels(file, table, SPACE)
    file.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is not a Parquet file"):
        read_soft_labels(file, table, SPACE)
    pq.write_table(pa.table({"color": [1]}), file)
    with pytest.raises(DataError, match="has no column image_path"):
        read_soft_labels(file, table, SPACE)
    with pytest.raises(DataError, match="no such file of soft labels"):
        read_soft_labels(tmp_path / "none.parquet", table, SPACE)


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (LabelSpace({"color": ("blue", "green", "teal"), "tags": ("a", "b")}, ["tags"]), "the file lacks 'teal'"),
        (LabelSpace({"color": ("blue", "green"), "tags": ("a", "b")}, ["tags"]), "the file has 'red'"),
        (LabelSpace({"color": ("blue", "green", "red"), "tags": ("a", "b")}), "has several values an image"),
        (LabelSpace({"color": ("blue", "green", "red")}, ["color"]), "has one class an image"),
    ],
)
def test_other_classes_are_refused(tmp_path: Path, space: LabelSpace, sentence: str) -> None:
    table = make_table(tmp_path, ["x.jpg"])
    with pytest.raises(DataError, match=sentence):
        read_soft_labels(write(tmp_path / "s.parquet", two_rows()), table, space)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_file_gives_each_image_its_row(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Large files are read in parts, and mapped into memory; the result is that of a dict."""
    folder = tmp_path_factory.mktemp("any")
    names = [f"{number}.jpg" for number in range(12)]
    in_file = data.draw(st.permutations(names))[: data.draw(st.integers(1, 12))]
    in_table = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=9))
    table = make_table(folder, in_table)
    colors = np.random.default_rng(0).dirichlet(np.ones(3), len(in_file)).astype(np.float32)
    rows = {"image_path": list(in_file), "color": colors.tolist(), "tags": [[0.5, 0.5]] * len(in_file)}
    write(folder / "s.parquet", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soft_labels, "_BATCH", 15)
        patch.setattr(soft_labels, "_IN_MEMORY", data.draw(st.sampled_from([0, 1 << 20])))
        if not set(in_file) & set(in_table):
            with pytest.raises(DataError):
                read_soft_labels(folder / "s.parquet", table, SPACE)
            return
        labels = read_soft_labels(folder / "s.parquet", table, SPACE)
    by_name = dict(zip(in_file, colors, strict=True))
    for index, name in enumerate(in_table):
        position = labels.row_of[index]
        assert (position >= 0) == (name in by_name)
        if name in by_name:
            np.testing.assert_array_equal(labels.values[position, :3], by_name[name])
