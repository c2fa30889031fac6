"""Finding the folders that image paths are relative to."""

import pytest
from table_files import numbered, refusal, write_file

from catalog.image_roots import image_roots
from catalog.table import read_table


@pytest.mark.parametrize("where", ["data", "work"])
def test_images_are_found_beside_the_table_or_in_the_working_directory(tmp_path, monkeypatch, where):
    for name in ("data", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    table = read_table(write_file(tmp_path / "data" / "t.csv", numbered("a", ["x"] * 30)))
    write_file(tmp_path / where / "17.jpg", "x")  # between the rows tried first
    other = {"data": "work", "work": "data"}[where]
    assert image_roots(table, limit=4) == (tmp_path / where, tmp_path / other)


def test_the_folder_with_more_images_is_first(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    table = read_table(write_file(tmp_path / "data" / "t.csv", numbered("a", ["x"] * 3)))
    for name in ("0.jpg", "data/1.jpg", "2.jpg"):
        write_file(tmp_path / name, "x")
    assert image_roots(table) == (tmp_path, tmp_path / "data")
    write_file(tmp_path / "data" / "0.jpg", "x")
    assert image_roots(table) == (tmp_path / "data", tmp_path)


def test_absolute_paths_work_with_any_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = write_file(tmp_path / "a.jpg", "x")
    table = read_table(write_file(tmp_path / "t.csv", f"image_path,a\n{image},x\n"))
    assert [root / table.image_path(0) for root in image_roots(table)] == [image]


def test_a_table_without_any_image_is_refused_with_both_folders_named(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    path = write_file(tmp_path / "data" / "train.csv", f"image_path,a\nimages/1.jpg,x\n{'long' * 100},x\n")
    text = refusal(image_roots, read_table(path))
    assert text.startswith("train.csv: no readable image at all: first path 'images/1.jpg' is neither in ")
    assert f"neither in {tmp_path / 'data'} nor in {tmp_path}" in text
