import csv
import json
import math
from pathlib import Path

import pytest

from reports.results import attribute_columns, best_first, check_results_path, without_nan, write_results
from runtime.errors import UsageError


def test_json_holds_null_where_a_metric_is_not_a_number(tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", {"top1": math.nan, "loss": math.inf, "epoch": None, "images": 3})
    text = (tmp_path / "r.json").read_text()
    assert "NaN" not in text
    assert json.loads(text) == {"top1": None, "loss": None, "epoch": None, "images": 3}


def test_csv_is_blank_where_a_metric_is_not_a_number(tmp_path: Path) -> None:
    write_results(tmp_path / "r.csv", {"top1": math.nan, "epoch": None, "images": 3})
    assert (tmp_path / "r.csv").read_text().splitlines() == ["top1,epoch,images", ",,3"]


def test_checkpoints_of_different_attributes_share_a_table(tmp_path: Path) -> None:
    write_results(tmp_path / "r.csv", [{"top1": 2.0, "a_top1": 1.0}, {"top1": 1.0, "b_top1": 3.0}])
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"top1": "2.0", "a_top1": "1.0", "b_top1": ""}, {"top1": "1.0", "a_top1": "", "b_top1": "3.0"}]


def test_a_single_result_is_an_object_and_several_are_a_list(tmp_path: Path) -> None:
    write_results(tmp_path / "one.json", {"top1": 1.0})
    write_results(tmp_path / "list.json", [{"top1": 1.0}])
    assert json.loads((tmp_path / "one.json").read_text()) == {"top1": 1.0}
    assert json.loads((tmp_path / "list.json").read_text()) == [{"top1": 1.0}]


def test_results_are_sorted_with_the_unknown_last() -> None:
    results = [{"top1": math.nan}, {"top1": 1.0}, {"top1": 2.0}]
    assert [result["top1"] for result in best_first(results)[:2]] == [2.0, 1.0]


def test_an_attribute_may_be_called_like_any_column() -> None:
    values = {"top1": 1.0, "top5": 2.0, "loss": 3.0, "balanced_accuracy": 4.0, "macro_f1": 5.0, "count": 6}
    columns = attribute_columns({"model": values, "loss": values, "model_top1": values})
    assert len(columns) == 18
    assert not {"model", "loss", "top1"} & set(columns)


def test_nan_is_found_at_any_depth() -> None:
    assert without_nan({"a": [math.nan, {"b": -math.inf}], "c": 1}) == {"a": [None, {"b": None}], "c": 1}


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("old")
    with pytest.raises(TypeError):
        write_results(tmp_path / "r.json", {"top1": object()})
    assert (tmp_path / "r.json").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


def test_the_folder_is_made_before_there_are_results(tmp_path: Path) -> None:
    assert check_results_path("") is None
    assert check_results_path(str(tmp_path / "new" / "r.csv")) == tmp_path / "new" / "r.csv"
    assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize("name", ["r.txt", "r", ".csv.d"])
def test_an_unknown_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.csv or \.json"):
        check_results_path(str(tmp_path / name))


def test_a_folder_is_no_results_file(tmp_path: Path) -> None:
    (tmp_path / "r.csv").mkdir()
    with pytest.raises(UsageError, match="it is a folder"):
        check_results_path(str(tmp_path / "r.csv"))
