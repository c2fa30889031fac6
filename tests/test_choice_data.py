"""What choose.py reads: one table and its classes, without the column of the groups."""

from pathlib import Path
from typing import Any

import pytest
from table_files import write_file

from catalog.data_error import DataError
from training.choice_data import ChoiceData, read_choice_data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [f"{i}.png,{'red' if i % 2 else 'blue'},{'x|y' if i % 3 else 'y'},shop{i % 8}" for i in range(24)]
    rows += ["24.png,,,shop1", "25.png,,x,"]
    (tmp_path / "val.csv").write_bytes(b"\xff garbage")
    write_file(tmp_path / "train.csv", "\n".join(["image_path,color,tags,shop", *rows]) + "\n")
    return tmp_path


def read(folder: Path, **changed: Any) -> ChoiceData:
    settings: dict[str, Any] = {"train_split": "train", "attributes": None, "multi_valued": None, "group": None}
    return read_choice_data(str(folder), **settings | {"splits": 2, "seed": 0} | changed)


def test_the_groups_are_no_attribute(folder: Path) -> None:
    data = read(folder, group="shop")
    assert data.columns == {"attributes": ["color", "tags"], "multi-valued": ["tags"]}
    assert data.labeled.tolist() == [*range(24), 25]
    assert data.has_blanks
    assert len(data.splits) == 2
    assert read(folder, attributes=["color"], group="shop").columns["attributes"] == ["color"]
    assert read(folder).columns["attributes"] == ["color", "tags", "shop"]
    assert read(folder, multi_valued=[]).columns["multi-valued"] == []


def test_the_classes_come_from_all_csv_if_it_is_there(folder: Path) -> None:
    write_file(folder / "all.csv", "image_path,color,tags,shop\na,red,x|y,\nb,blue,y,\nc,green,z,\n")
    data = read(folder, group="shop")
    assert data.label_space.classes == {"color": ("blue", "green", "red"), "tags": ("x", "y", "z")}
    assert data.label_table.path.name == "all.csv"


def test_another_table_has_another_digest(folder: Path) -> None:
    before = read(folder).digest
    assert read(folder).digest == before
    (folder / "train.csv").write_text((folder / "train.csv").read_text().replace("red", "pink"))
    assert read(folder).digest != before


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"group": "shp"}, "train.csv has no column 'shp' for the groups; did you mean 'shop'?"),
        ({"group": "city"}, "has no column 'city' for the groups; its columns are 'color', 'tags', 'shop'"),
        ({"group": "shp", "attributes": ["color"]}, "train.csv has no attribute 'shp'; did you mean 'shop'?"),
        ({"train_split": "more"}, "has no more.csv, more.tsv or more.parquet: found train.csv, val.csv"),
    ],
)
def test_a_column_or_a_table_that_is_missing_is_named(folder: Path, changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError) as error:
        read(folder, **changed)
    assert sentence in str(error.value)


def test_groups_alone_are_nothing_to_learn(tmp_path: Path) -> None:
    write_file(tmp_path / "train.csv", "image_path,shop\na,x\nb,y\n")
    with pytest.raises(DataError, match=r"train.csv has no attribute besides the column 'shop' of the groups"):
        read(tmp_path, group="shop")
