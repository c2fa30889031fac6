"""The rows of the tables that are audited together: which tables, which files, which columns."""

from pathlib import Path

import pytest
from drawn_photograph import photograph
from table_files import refusal, write_table

from catalog.audited_rows import find_tables, read_audited_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in "ab":
        photograph(ord(name)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


def write(path: Path, *rows: str, header: str = "color") -> Path:
    names = ["image_path", *header.split(",")]
    write_table(path, [dict(zip(names, row.split(","), strict=True)) for row in rows])
    return path


def test_a_folder_gives_its_splits_or_its_only_table(folder: Path) -> None:
    only = write(folder / "catalog.csv", "images/a.png,red")
    assert find_tables([str(folder)]) == [only]
    other = write(folder / "more.csv", "images/a.png,red")
    message = refusal(find_tables, [str(folder)])
    assert message.endswith(
        "has no table called train, val or test, but 'catalog.csv', 'more.csv': name the tables to audit"
    )
    splits = [write(folder / name, "images/a.png,red") for name in ("train.csv", "val.tsv", "test.csv")]
    splits[1].write_text("image_path\tcolor\nimages/a.png\tred\n")
    assert find_tables([str(folder)]) == splits
    assert find_tables([str(other), str(folder)]) == [other, *splits]


def test_two_formats_of_one_split_are_refused(folder: Path) -> None:
    write(folder / "train.csv", "images/a.png,red")
    write(folder / "train.tsv", "images/a.png,red")
    assert "several tables called train" in refusal(find_tables, [str(folder)])


def test_all_spellings_of_a_path_are_one_file(folder: Path) -> None:
    (folder / "link").symlink_to("images")
    paths = ["images/a.png", "./images/a.png", "link/a.png", f"{folder}/images/a.png", "images\\a.png", "images/b.png"]
    rows = read_audited_rows([write(folder / "train.csv", *(f"{path},red" for path in paths))])
    assert rows.file.tolist() == [0, 0, 0, 0, 0, 1]
    assert rows.files.to_pylist() == [str((folder / "images" / name).resolve()) for name in ("a.png", "b.png")]
    assert rows.image_path(4) == "images\\a.png"
    assert "differ from the names of their files" in rows.remarks[0][0]


def test_columns_of_all_tables_are_joined_and_the_group_is_no_attribute(folder: Path) -> None:
    train = write(folder / "train.csv", "images/a.png,red,m1,x|y", "images/b.png,,m2,|", header="color,maker,tags")
    val = write(folder / "val.csv", "images/a.png,blue,m2", "images/b.png,red,", header="color,maker")
    rows = read_audited_rows([train, val], group="maker")
    assert list(rows.columns) == ["color", "tags"]
    assert rows.columns["color"].to_pylist() == ["red", None, "blue", "red"]
    assert rows.columns["tags"].to_pylist() == ["x|y", "|", None, None]
    assert rows.codes("color")[[0, 1, 3]].tolist() == [rows.codes("color")[3], -1, rows.codes("color")[0]]
    assert rows.multi_valued == {"tags"}
    assert rows.lacking == ((), ("tags",))
    assert rows.groups.tolist() == [0, 1, 1, -1]
    assert rows.lines([0, 3]) == {0: 2, 3: 3}
    assert rows.names == ("train", "val")
    assert list(read_audited_rows([train, val], ["color"], group="maker").columns) == ["color"]


def test_tables_of_the_same_name_are_named_by_their_path(folder: Path) -> None:
    (folder / "old").mkdir()
    paths = [
        write(folder / "train.csv", "images/a.png,red"),
        write(folder / "old" / "train.csv", "../images/a.png,red"),
    ]
    assert read_audited_rows(paths).names == tuple(map(str, paths))


def test_chosen_columns_must_exist_in_the_first_table(folder: Path) -> None:
    train = write(folder / "train.csv", "images/a.png,red")
    assert "has no attribute 'colour'; did you mean 'color'?" in refusal(read_audited_rows, [train], ["colour"])
    assert "no column 'maker', which group_column names" in refusal(read_audited_rows, [train], group="maker")
    assert read_audited_rows([train], multi_valued=[]).multi_valued == frozenset()
    assert read_audited_rows([train], multi_valued=["color"]).multi_valued == {"color"}


def test_a_table_without_any_image_is_refused(folder: Path) -> None:
    assert "no readable image at all" in refusal(read_audited_rows, [write(folder / "train.csv", "images/c.png,red")])
