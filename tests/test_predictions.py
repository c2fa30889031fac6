"""Files of predictions as CSV, JSON and Parquet."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.label_space import LabelSpace
from reports import predictions as predictions_file
from reports.predictions import Predictions, check_predictions_path, write_predictions
from runtime.errors import UsageError

SPACE = LabelSpace({"color": ("red", "blue, light"), "size": ("S", "M", "L")})


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions_file, "_ROWS", 2)


def predict(topk: int) -> tuple[Predictions, pa.ChunkedArray]:
    """Return predictions of three images; the second image could not be read."""
    predictions = Predictions(SPACE, 3, topk)
    rows = np.arange(3)
    predictions.put("color", rows, [[0, 1][:topk]] * 3, [[0.75, 0.25][:topk]] * 3)
    predictions.put("size", rows, [[2, 0, 1][:topk]] * 3, [[0.7, 0.2, 0.1][:topk]] * 3)
    predictions.blank([1])
    return predictions, pa.chunked_array([["a.png"], ["b.png", "c.png"]], pa.large_string())


def test_csv_has_a_class_and_a_probability_for_each_attribute(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", *predict(1), {})
    assert (tmp_path / "p.csv").read_text().splitlines() == [
        "image_path,color,color_probability,size,size_probability",
        "a.png,red,0.75,L,0.7",
        "b.png,,,,",
        "c.png,red,0.75,L,0.7",
    ]


def test_several_classes_are_numbered_up_to_the_number_of_the_attribute(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", *predict(5), {})
    with (tmp_path / "p.csv").open(newline="") as file:
        header, first, *_ = csv.reader(file)
    assert header == ["image_path"] + [
        name for kept in ("color_1", "color_2", "size_1", "size_2", "size_3") for name in (kept, f"{kept}_probability")
    ]
    assert first == ["a.png", "red", "0.75", "blue, light", "0.25", "L", "0.7", "S", "0.2", "M", "0.1"]


def test_a_file_has_an_error_column_only_if_there_are_errors(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", *predict(1), {1: "truncated, or so"})
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["error"] for row in rows] == ["", "truncated, or so", ""]
    assert rows[1]["color"] == rows[1]["color_probability"] == ""


def test_json_is_a_list_of_objects(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.json", *predict(2), {1: "truncated"})
    first, second, third = json.loads((tmp_path / "p.json").read_text())
    assert first == {
        "image_path": "a.png",
        "color": [{"class": "red", "probability": 0.75}, {"class": "blue, light", "probability": 0.25}],
        "size": [{"class": "L", "probability": 0.7}, {"class": "S", "probability": 0.2}],
    }
    assert second == {"image_path": "b.png", "color": [], "size": [], "error": "truncated"}
    assert third == first | {"image_path": "c.png"}


def test_parquet_holds_the_same_cells_as_csv(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", *predict(1), {1: "truncated"})
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.to_pydict() == {
        "image_path": ["a.png", "b.png", "c.png"],
        "color": ["red", None, "red"],
        "color_probability": [0.75, None, 0.75],
        "size": ["L", None, "L"],
        "size_probability": [np.float32(0.7), None, np.float32(0.7)],
        "error": [None, "truncated", None],
    }


def test_probabilities_survive_a_round_trip_through_csv(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(50, dtype=np.float32)
    predictions = Predictions(LabelSpace({"color": ("red", "blue")}), 50)
    predictions.put("color", slice(None), np.zeros((50, 1)), values[:, None])
    write_predictions(tmp_path / "p.csv", predictions, pa.chunked_array([["x"] * 50], pa.large_string()), {})
    with (tmp_path / "p.csv").open(newline="") as file:
        read = np.array([row["color_probability"] for row in csv.DictReader(file)], dtype=np.float32)
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize(
    ("names", "ending", "remedy"),
    [
        (("error", "size"), ".csv", "rename the attribute"),
        (("error", "size"), ".json", "rename the attribute"),
        (("size", "size_probability"), ".csv", "write to a .json file"),
    ],
)
def test_two_columns_with_the_same_name_are_refused(names: tuple[str, str], ending: str, remedy: str) -> None:
    space = LabelSpace(dict.fromkeys(names, ("x", "y")))
    with pytest.raises(UsageError, match=remedy):
        Predictions(space, 1).check_columns(Path(f"p{ending}"))


def test_json_accepts_an_attribute_named_like_a_probability_column() -> None:
    space = LabelSpace({"size": ("x", "y"), "size_probability": ("x", "y")})
    Predictions(space, 1).check_columns(Path("p.json"))


def test_the_output_path_is_checked_before_there_are_predictions(tmp_path: Path) -> None:
    assert check_predictions_path(str(tmp_path / "new" / "p.csv")).parent.is_dir()
    with pytest.raises(UsageError, match=r"\.csv, \.json or \.parquet"):
        check_predictions_path(str(tmp_path / "p.xlsx"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot make the folder"):
        check_predictions_path(str(tmp_path / "file" / "p.csv"))
