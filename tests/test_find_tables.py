"""A missing table is reported with the command that makes it, which works when it is pasted."""

import shlex
from pathlib import Path

import pytest
from PIL import Image
from table_files import draw_catalog

import split
from runtime.errors import UsageError
from training.find_tables import find_train_table, find_val_table


def pasted(error: pytest.ExceptionInfo[UsageError]) -> None:
    """Run the command in a message."""
    words = shlex.split(str(error.value).rpartition("with: ")[2])
    assert words[:2] == ["python", "split.py"]
    split.main(words[2:])


def test_a_missing_validation_table_is_split_off_by_the_command_in_the_message(tmp_path: Path) -> None:
    data = draw_catalog(tmp_path / "a catalog")
    (data / "val.csv").unlink()
    train = find_train_table(str(data), "train")
    with pytest.raises(UsageError) as error:
        find_val_table(str(data), "validation", train)
    assert str(error.value) == (
        f"{data} has no val.csv, val.tsv or val.parquet: found train.csv; split train.csv with: python split.py "
        f"'{data}/train.csv' --overwrite"
    )
    whole = train.read_bytes()
    pasted(error)
    assert find_val_table(str(data), "val", train) == data / "val.csv"
    assert (data / "all.csv").read_bytes() == whole


@pytest.mark.parametrize("name", ["all", "test"])
def test_other_tables_are_not_lost_by_the_command(tmp_path: Path, name: str) -> None:
    data = draw_catalog(tmp_path / "data")
    (data / "val.csv").rename(data / f"{name}.csv")
    before = (data / f"{name}.csv").read_bytes()
    with pytest.raises(UsageError) as error:
        find_val_table(str(data), "validation", data / "train.csv")
    pasted(error)
    assert (data / f"{name}.csv").read_bytes() == before
    assert (data / "split" / "val.csv" if name == "all" else data / "val.csv").is_file()


def test_a_training_table_of_another_name_is_split_beside_it(tmp_path: Path) -> None:
    data = draw_catalog(tmp_path / "data")
    (data / "val.csv").unlink()
    (data / "train.csv").rename(data / "goods.csv")
    for find in (
        lambda: find_train_table(str(data), "train"),
        lambda: find_val_table(str(data), "validation", data / "goods.csv"),
    ):
        with pytest.raises(UsageError, match=r"split.* with: python split.py .*/goods.csv$") as error:
            find()
    pasted(error)
    assert {file.name for file in data.glob("*.csv")} == {"goods.csv", "train.csv", "val.csv", "test.csv"}


def test_folders_of_classes_without_a_table_are_pointed_out(tmp_path: Path) -> None:
    for index in range(12):
        place = tmp_path / ("bags" if index % 2 else "shoes")
        place.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (index, 0, 0)).save(place / f"{index}.png")
    with pytest.raises(UsageError, match="if its folders are classes, make tables with") as error:
        find_train_table(str(tmp_path), "train")
    pasted(error)
    assert find_train_table(str(tmp_path), "train") == tmp_path / "train.csv"


def test_a_file_that_was_named_is_only_reported(tmp_path: Path) -> None:
    data = draw_catalog(tmp_path / "data")
    for find in (
        lambda: find_val_table(str(data), "other.csv", data / "train.csv"),
        lambda: find_train_table(str(data), "other.csv"),
    ):
        with pytest.raises(UsageError) as error:
            find()
        assert "split.py" not in str(error.value)
