"""The command split.py, from a table or folders to tables that train.py reads."""

import csv
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import split as command
from catalog.image_list import ImageList
from catalog.image_roots import image_roots
from catalog.splits import find_split
from catalog.table import read_table
from catalog.unlabeled import absolute_paths

ROOT = Path(__file__).resolve().parent.parent
COLORS = ("red", "green", "blue", "black")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder without images."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def catalog(folder: Path, rows: int = 60, name: str = "all.csv", extra: str = "", blank: int = 7) -> Path:
    """Write a table with images that all differ; return the folder."""
    lines = [f"image_path,color,size{',product' if extra else ''}"]
    (folder / "images").mkdir(parents=True)
    for row in range(rows):
        Image.new("RGB", (4, 4), (row % 256, row // 256, 9)).save(folder / "images" / f"{row}.png")
        color = "" if row % blank == 0 else COLORS[row % 11 % 4]
        lines.append(f"images/{row}.png,{color},{'SML'[row % 3]}{f',p{row // 3}' if extra else ''}")
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    command.main([str(word) for word in words])
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as exit_:
        command.main([str(word) for word in words])
    assert exit_.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(error) == 1
    return error[0].partition("error: ")[2]


def rows(folder: Path, name: str) -> list[list[str]]:
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_every_row_is_in_one_table_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = catalog(tmp_path / "data")
    out = run(capsys, data)
    whole = rows(data, "all")
    parts = [rows(data, name) for name in ("train", "val", "test")]
    assert sorted(row for part in parts for row in part) == sorted(whole)
    assert [whole.index(row) for row in parts[0]] == sorted(whole.index(row) for row in parts[0])  # order is kept
    assert [len(part) for part in parts] == pytest.approx([42, 9, 9], abs=2)
    for column in (1, 2):
        assert all({row[column] for row in part} >= {row[column] for row in whole} - {""} for part in parts)
    assert "color: 4 classes, all in every table" in out
    assert f"train: {len(parts[0])} rows" in out
    assert out.endswith(f"Train on them: python train.py {data}\n")


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = catalog(tmp_path / "data")
    header, *lines = (data / "all.csv").read_text().splitlines()
    random.Random(1).shuffle(lines)
    (data / "shuffled.csv").write_text("\n".join([header, *lines]) + "\n")
    for name, table, seed in (("a", "all", 0), ("b", "shuffled", 0), ("c", "all", 1)):
        run(capsys, data / f"{table}.csv", "-o", tmp_path / name, "--seed", seed)
    a, b, c = ({row[0] for row in rows(tmp_path / name, "val")} for name in "abc")
    assert a == b != c


def test_paths_are_valid_from_another_folder_and_no_image_is_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = catalog(tmp_path / "data")
    lines = (data / "all.csv").read_text().splitlines()
    lines[1] = f"{data}/images/0.png,red,S"
    lines[2] = "./images/../images/1.png,red,S"
    (data / "all.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "far" / "out"
    run(capsys, data, "-o", out)
    assert sorted(file.name for file in out.iterdir()) == ["test.csv", "train.csv", "val.csv"]
    found = []
    for name in ("train", "val", "test"):
        table = read_table(find_split(out, name))
        found += [
            Path(path).resolve()
            for path in absolute_paths(ImageList(table.image_paths, image_roots(table))).to_pylist()
        ]
    assert sorted(found) == sorted(file.resolve() for file in (data / "images").iterdir())
    assert any(row[0] == f"{data}/images/0.png" for name in ("train", "val", "test") for row in rows(out, name))


def test_groups_and_copies_of_an_image_stay_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = catalog(tmp_path / "data", 90, extra="product")
    for row in range(0, 90, 9):
        shutil.copy(data / "images" / f"{row}.png", data / "images" / f"{(row + 40) % 90}.png")
    lines = (data / "all.csv").read_text().splitlines()
    (data / "all.csv").write_text("\n".join([*lines, "images/../images/4.png,red,S,", "images/5.png,,,"]) + "\n")
    out = run(capsys, data, "--group", "product")
    place = {}
    for name in ("train", "val", "test"):
        for path, _, _, product in rows(data, name):
            content = (data / path).read_bytes()
            for key in (content, product) if product else (content,):
                assert place.setdefault(key, name) == name
    assert "30 groups have several rows (90 in all): each in one table" in out
    assert "images have several rows" in out
    assert "--attributes color size" in out  # the product is no attribute


def test_tables_that_exist_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = catalog(tmp_path / "data")
    (data / "val.csv").write_text("image_path,color\n0.png,red\n")
    sentence = f"{data}/val.csv exists: use --overwrite to replace it, or write into another folder"
    assert refused(capsys, data) == sentence
    assert not (data / "train.csv").exists()
    run(capsys, data, "--overwrite")
    assert len(rows(data, "val")) > 5
    (data / "test.csv").rename(data / "test.tsv")
    assert refused(capsys, data, "--overwrite") == (
        f"the existing {data}/test.tsv would be a second table test: delete test.tsv, or write into another folder"
    )


def test_a_training_table_is_kept_whole_as_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = catalog(tmp_path / "data", name="train.csv")
    before = (data / "train.csv").read_bytes()
    assert "(all its rows are kept in all.csv)" in refused(capsys, data)
    assert (data / "train.csv").read_bytes() == before
    run(capsys, data, "--overwrite")
    assert (data / "all.csv").read_bytes() == before
    first = (data / "train.csv").read_bytes()
    run(capsys, data, "--overwrite")  # from all.csv
    assert (data / "train.csv").read_bytes() == first
    assert (data / "all.csv").read_bytes() == before
    assert refused(capsys, data / "train.csv", "--overwrite") == (
        f"{data}/train.csv is the table to split, and would be replaced: write into another folder"
    )
    (data / "all.csv").unlink()
    assert "is split already (train.csv, val.csv, test.csv)" in refused(capsys, data, "--overwrite")


def test_a_column_that_says_the_split_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = catalog(tmp_path / "data")
    header, *lines = (data / "all.csv").read_text().splitlines()
    said = ["Train", "valid", "test", "", "train"]
    (data / "all.csv").write_text(
        "\n".join([f"{header},split", *(f"{line},{said[i % 5]}" for i, line in enumerate(lines))]) + "\n"
    )
    run(capsys, data)
    for name, wanted in (("train", (0, 3, 4)), ("val", (1,)), ("test", (2,))):
        assert rows(data, name) == [line.split(",") for i, line in enumerate(lines) if i % 5 in wanted]
    assert refused(capsys, data, "--overwrite", "--val", ".2") == (
        f"--val has no effect, as the cells in column 'split' of {data} say which rows are val: leave it out, or "
        "ignore the column with --split-column none"
    )
    run(capsys, data, "--overwrite", "--split-column", "none", "--test", "0", "-o", tmp_path / "b")
    assert sorted(file.name for file in (tmp_path / "b").iterdir()) == ["train.csv", "val.csv"]
    assert {len(row) for row in rows(tmp_path / "b", "val")} == {4}


def test_val_rows_are_drawn_from_train_where_only_train_and_test_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = catalog(tmp_path / "data")
    header, *lines = (data / "all.csv").read_text().splitlines()
    table = [f"{header},subset", *(f"{line},{'test' if i % 5 == 2 else 'train'}" for i, line in enumerate(lines))]
    (data / "all.csv").write_text("\n".join(table) + "\n")
    run(capsys, data)
    assert rows(data, "test") == [line.split(",") for i, line in enumerate(lines) if i % 5 == 2]
    assert len(rows(data, "val")) == pytest.approx(0.15 * 48, abs=2)
    assert len(rows(data, "val")) + len(rows(data, "train")) == 48
    (data / "all.csv").write_text("\n".join([*table[:-1], table[-1].replace("train", "extra")]) + "\n")
    assert refused(capsys, data, "--overwrite") == (
        "all.csv line 61: subset 'extra' is neither train, val nor test: correct it, or ignore the column with "
        "--split-column none"
    )


@pytest.mark.parametrize("inner", ["", "photos"])
def test_folders_of_classes_become_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str], inner: str) -> None:
    data = tmp_path / "data"
    for row in range(40):
        place = data / inner / ("shoes" if row % 3 else "bags") / ("new" if row % 2 else "")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (row, 0, 0)).save(place / f"{row}.png")
    out = run(capsys, data)
    found = {row[0]: row[1] for name in ("train", "val", "test") for row in rows(data, name)}
    assert len(found) == 40
    assert all((data / path).is_file() and Path(path).parts[1 if inner else 0] == name for path, name in found.items())
    assert "class: 2 classes, all in every table" in out
    assert "class,image_path" not in (data / "val.csv").read_text().splitlines()[0]


def test_folders_that_say_the_split_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    for row in range(30):
        place = data / ("train", "Valid", "train")[row % 3] / ("shoes" if row % 2 else "bags")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (row, 0, 0)).save(place / f"{row}.png")
    run(capsys, data)
    assert {row[0].split("/")[0] for row in rows(data, "val")} == {"Valid"}
    assert {row[1] for row in rows(data, "val")} == {"shoes", "bags"}
    assert len(rows(data, "train")) == 20
    assert not (data / "test.csv").exists()  # the folders say which rows are val, and none are test
    (data / "more").mkdir()
    shutil.copy(data / rows(data, "val")[0][0], data / "more" / "x.png")
    for name in ("train", "val"):
        (data / f"{name}.csv").unlink()
    assert refused(capsys, data) == (
        f"{data} has folders for the split, such as train, but also a folder 'more': move 'more' into one of these "
        "folders"
    )


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ((), "has no table (train.csv, all.csv) and no folder of images for each class"),
        (("1.png", "2.png"), "its images lie in no folders of classes"),
        (("images/1.png", "images/2.png"), "its images lie in one folder only, images"),
        (("a/images/1.png", "1.png"), "its images lie in one folder only, a"),
    ],
)
def test_a_folder_without_classes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "data").mkdir()
    for name in files:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "data" / name)
    assert sentence in refused(capsys, tmp_path / "data")


def test_a_parquet_table_keeps_its_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = catalog(tmp_path / "data", 40)
    table = read_table(data / "all.csv")
    cells = {"image_path": table.image_paths, "color": table.columns["color"], "price": [row / 4 for row in range(40)]}
    cells["tags"] = [["a", "b"][: row % 3] for row in range(40)]
    cells["vector"] = [[0.5, 1.0]] * 40
    (data / "all.csv").unlink()
    pq.write_table(pa.table(cells), data / "goods.parquet")
    run(capsys, data)
    parts = [pq.ParquetFile(data / f"{name}.parquet").read() for name in ("train", "val", "test")]
    whole = pq.ParquetFile(data / "goods.parquet").read()
    assert all(part.schema.equals(whole.schema) for part in parts)
    assert sorted(str(row) for part in parts for row in part.to_pylist()) == sorted(map(str, whole.to_pylist()))


def test_an_empty_folder_and_impossible_shares_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = catalog(tmp_path / "data", 2)
    assert refused(capsys, data) == (
        "all.csv has 2 labeled rows or groups of them, fewer than the 3 tables to make: add labeled rows of other "
        "images or groups"
    )
    assert refused(capsys, data, "--val", ".6", "--test", ".4") == (
        "--val 0.6 and --test 0.4 leave nothing to train on: lower them"
    )
    assert refused(capsys, data, "--val", "0", "--test", "0").startswith("--val 0 with --test 0 makes no table")
    assert "no such table" in refused(capsys, tmp_path / "none")
    assert refused(capsys, data, "--group", "produkt") == (
        "all.csv has no column 'produkt' for the groups; its columns are 'color', 'size'"
    )


def test_images_that_are_not_here_are_compared_by_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = catalog(tmp_path / "data")
    shutil.rmtree(data / "images")
    run(capsys, data, "-o", tmp_path / "out")
    assert rows(tmp_path / "out", "val")[0][0].startswith("../data/images/")


def test_a_failed_write_leaves_the_old_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = catalog(tmp_path / "data")
    (data / "train.csv").write_text("old")
    import catalog.write_parts as module

    write, calls = module._write, []

    def failing(table: object, path: Path, ending: str) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, os.strerror(28))
        write(table, path, ending)

    monkeypatch.setattr(module, "_write", failing)
    with pytest.raises(SystemExit):
        command.main([str(data), "--overwrite"])
    assert (data / "train.csv").read_text() == "old"
    assert sorted(file.name for file in data.iterdir()) == ["all.csv", "images", "train.csv"]


def test_the_command_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys, split; print(sorted({'torch', 'timm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_values_with_a_separator_are_balanced_one_by_one_and_written_as_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, tags = catalog(tmp_path / "data", 40), ["striped;cotton", "cotton", "wool;striped", "cotton;wool", "wool"]
    lines = (data / "all.csv").read_text().splitlines()
    lines = [f"{lines[0]},tags", *(f"{line},{tags[number % 5]}" for number, line in enumerate(lines[1:]))]
    (data / "all.csv").write_text("\n".join(lines) + "\n")
    out = run(capsys, data, "--separator", ";")
    assert "tags: 3 classes, all in every table" in out
    assert out.rstrip().endswith(f"python train.py {data} --separator ';'")
    cells = [row[-1] for name in ("train", "val", "test") for row in rows(data, name)]
    assert sorted(cells) == sorted(tags * 8)


def test_a_table_that_stays_must_not_hold_rows_of_the_new_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = catalog(tmp_path / "data")
    run(capsys, data)
    before = (data / "train.csv").read_bytes()
    sentence = refused(capsys, data, "--test", 0, "--overwrite")
    assert sentence.startswith(f"{data / 'test.csv'} stays, and ")
    assert "of its images are among the rows to split, so they would be in two tables: delete it" in sentence
    assert (data / "train.csv").read_bytes() == before
    # a test table of other images stays
    (data / "all.csv").unlink()
    (data / "val.csv").unlink()
    run(capsys, data / "train.csv", "--test", 0, "--overwrite")
    assert len(rows(data, "train")) + len(rows(data, "val")) == len(rows(data, "all"))


def test_a_parquet_table_in_parts_and_one_with_its_images_are_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = catalog(tmp_path / "data", 40)
    table = read_table(data / "all.csv")
    paths = [str(data / path) for path in table.image_paths.to_pylist()]
    colors = table.columns["color"].cast(pa.string())
    whole = pa.table({"image_path": paths, "color": colors})
    # in parts, as Hugging Face and Spark name them
    hugging, spark = tmp_path / "hugging", tmp_path / "spark" / "train.parquet"
    hugging.mkdir()
    spark.mkdir(parents=True)
    for part in (0, 1):
        pq.write_table(whole.slice(20 * part, 20), hugging / f"train-0000{part}-of-00002.parquet")
        pq.write_table(whole.slice(20 * part, 20), spark / f"part-{part}.parquet")
    for number, source in enumerate((hugging, spark.parent, spark)):
        run(capsys, source, "-o", tmp_path / f"out{number}")
        found = [pq.read_table(tmp_path / f"out{number}" / f"{name}.parquet") for name in ("train", "val", "test")]
        assert sorted(path for one in found for path in one["image_path"].to_pylist()) == sorted(paths)
    assert "is in parts, which the new tables would stand beside" in refused(capsys, hugging)
    # with the images
    images = [{"bytes": Path(path).read_bytes(), "path": Path(path).name} for path in paths]
    (tmp_path / "images").mkdir()
    pq.write_table(pa.table({"image": images, "color": colors}), tmp_path / "images" / "data.parquet")
    run(capsys, tmp_path / "images")
    found = [pq.read_table(tmp_path / "images" / f"{name}.parquet") for name in ("train", "val", "test")]
    assert sorted(one["path"] for part in found for one in part["image"].to_pylist()) == sorted(
        one["path"] for one in images
    )
