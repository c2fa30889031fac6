"""Image files that a table spells in another form than the disk."""

import unicodedata
from pathlib import Path

import pytest
from table_files import write_file

from catalog.find_images import with_found_images
from catalog.splits import find_label_table, find_split
from catalog.table import Table, read_table


def table(folder: Path, paths: list[str], name: str = "train.csv") -> Table:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    return read_table(write_file(folder / name, "\n".join(["image_path,color", *(f"{path},red" for path in paths)])))


def draw(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("images/a.jpg", "images\\a.jpg"),
        ("images/a.jpg", "images/a.JPG"),
        ("images/a.jpg", "Images/A.jpg"),
        ("images/a.jpg", "images/a"),
        (unicodedata.normalize("NFD", "b\u00e9/\u00e9.jpg"), "b\u00e9/\u00e9.jpg"),
        ("b\u00e9/\u00e9.jpg", unicodedata.normalize("NFD", "b\u00e9/\u00e9.jpg")),
        ("images/a.jpg", "a.jpg"),
    ],
)
def test_a_path_in_another_form_becomes_the_one_file_that_fits(tmp_path, caplog, file, path):
    draw(tmp_path, file)
    found, roots = with_found_images(table(tmp_path, [path]))
    assert (roots[0] / found.image_path(0)).samefile(tmp_path / file)
    assert [message.split(" (")[0] for message in caplog.messages] == [
        "train.csv: 1 of 1 image paths differ from the names of their files, which were found"
    ]


def test_paths_of_existing_files_stay_as_they_are(tmp_path, caplog):
    draw(tmp_path, "images/a.jpg", "images/A.JPG")
    train = table(tmp_path, ["images/a.jpg", "./images/A.JPG"])
    assert with_found_images(train)[0] is train
    assert not caplog.messages


def test_a_path_that_fits_two_files_or_none_stays_missing(tmp_path, caplog):
    draw(tmp_path, "images/a.jpg", "images/a.png", "images/b.jpg", "images/c.jpg", "other/images/d.jpg")
    train = table(tmp_path, ["images/a", "images/b.jpg", "images/C.jpg", "images/d.jpg"])
    found, roots = with_found_images(train)
    assert [(roots[0] / found.image_path(row)).exists() for row in range(4)] == [False, True, True, False]
    assert caplog.messages[0].startswith("train.csv: 1 of 4 image paths differ")


def test_tables_in_a_folder_of_annotations_name_images_beside_it(tmp_path):
    draw(tmp_path, "images/a.jpg")
    table(tmp_path, ["images/a.jpg"], "annotations/train.csv")
    table(tmp_path, ["images/a.jpg"], "annotations/all.csv")
    path = find_split(tmp_path, "train")
    assert path == tmp_path / "annotations" / "train.csv"
    assert find_label_table(tmp_path, path) == tmp_path / "annotations" / "all.csv"
    found, roots = with_found_images(read_table(path))
    assert (roots[0] / found.image_path(0)).samefile(tmp_path / "images" / "a.jpg")
