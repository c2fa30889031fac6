"""Images that occur twice, in one table or in two, by path however it is spelled."""

from pathlib import Path

import pytest
from table_files import write_file

from catalog.repeated_images import file_paths, warn_of_repeated_images
from catalog.table import Table, read_table


def table(path: Path, rows: list[str], header: str = "image_path,color,tags") -> Table:
    return read_table(write_file(path, "\n".join([header, *rows]) + "\n"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images" / "deep").mkdir(parents=True)
    for name in "abcd":
        (tmp_path / "images" / f"{name}.jpg").touch()
    (tmp_path / "link").symlink_to("images")
    return tmp_path


def test_all_spellings_of_a_path_are_one_file(folder: Path) -> None:
    spellings = [
        "images/a.jpg",
        "./images/a.jpg",
        "images//a.jpg",
        "images/deep/../a.jpg",
        "link/a.jpg",
        f"{folder}/images/a.jpg",
        f"{folder}/link/./a.jpg",
    ]
    found = file_paths(table(folder / "train.csv", [f"{path},red,x" for path in spellings]))
    assert set(found.to_pylist()) == {str((folder / "images/a.jpg").resolve())}


def test_one_warning_counts_images_that_training_and_validation_share(folder: Path, caplog) -> None:
    train = table(folder / "train.csv", ["images/a.jpg,red,x", "images/b.jpg,red,x", "images/c.jpg,red,x"])
    other = table(folder / "val.csv", ["images/d.jpg,red,x", "link/c.jpg,red,x", "./images/b.jpg,,", "images/a.jpg,,"])
    warn_of_repeated_images(train, [], other)
    assert caplog.messages == [
        "val.csv: 3 of its 4 images are also in train.csv (val.csv line 3 is train.csv line 4; val.csv line 4 is "
        "train.csv line 3): scores will be too high, so leave each image in one table only"
    ]


def test_images_that_were_added_to_the_training_table_are_not_shared_rows(folder: Path, caplog) -> None:
    train = table(folder / "train.csv", ["images/a.jpg,red,x"])
    other = table(folder / "val.csv", ["images/b.jpg,red,x", "images/a.jpg,red,x"])
    warn_of_repeated_images(train.with_images(other.image_paths[:1]), [], other)
    assert [message.split("(")[0] for message in caplog.messages] == [
        "val.csv: 1 of its 2 images are also in train.csv "
    ]


def test_one_warning_counts_repeated_rows_and_one_their_contradictions(folder: Path, caplog) -> None:
    rows = [
        "images/a.jpg,red,x|y",
        "images/b.jpg,,x",
        "./images/a.jpg,red,y|x",
        "link/b.jpg,red,x",
        "images/b.jpg,blue,y",
        "images/c.jpg,red,",
        "images/a.jpg,green,",
    ]
    warn_of_repeated_images(table(folder / "train.csv", rows), ["color", "tags", "size"])
    assert caplog.messages == [
        "train.csv: 4 rows repeat the image of an earlier row (train.csv line 4 has the image of train.csv line 2; "
        "train.csv line 5 has the image of train.csv line 3): delete them, since they count more than once",
        "train.csv: 2 images have labels that contradict each other (color is 'red' in train.csv line 4 and 'green' in "
        "train.csv line 8; color is 'red' in train.csv line 5 and 'blue' in train.csv line 6): keep the right one",
    ]


def test_labels_of_columns_that_are_no_attributes_do_not_contradict(folder: Path, caplog) -> None:
    rows = ["images/a.jpg,red,1", "images/a.jpg,red,2", "images/b.jpg,blue,3"]
    warn_of_repeated_images(table(folder / "train.csv", rows), ["color"])
    assert len(caplog.messages) == 1


def test_both_tables_are_searched_for_repeated_rows(folder: Path, caplog) -> None:
    train = table(folder / "train.csv", ["images/a.jpg,red,x", "images/a.jpg,red,x"])
    warn_of_repeated_images(train, ["color"], table(folder / "val.csv", ["images/b.jpg,red,x", "link/b.jpg,blue,x"]))
    assert [message.split(" (")[0] for message in caplog.messages] == [
        "train.csv: 1 rows repeat the image of an earlier row",
        "val.csv: 1 rows repeat the image of an earlier row",
        "val.csv: 1 images have labels that contradict each other",
    ]


def test_tables_without_repeated_images_are_silent(folder: Path, caplog) -> None:
    train = table(folder / "train.csv", ["images/a.jpg,red,x", "images/b.jpg,blue,y"])
    warn_of_repeated_images(train, ["color"], table(folder / "val.csv", ["images/c.jpg,red,x"]))
    assert not caplog.messages
