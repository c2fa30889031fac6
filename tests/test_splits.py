"""Finding the tables of a data folder."""

from pathlib import Path

from table_files import refusal, write_file

from catalog.splits import find_label_table, find_split
from catalog.table import read_table


def test_a_split_is_found_by_name_alias_or_file(tmp_path, monkeypatch):
    for name in ("train.csv", "val.tsv", "test.parquet", "extra.csv"):
        write_file(tmp_path / name, "x")
    assert find_split(tmp_path, "train") == tmp_path / "train.csv"
    assert find_split(str(tmp_path), "validation") == find_split(tmp_path, "val") == tmp_path / "val.tsv"
    assert find_split(tmp_path, "test") == tmp_path / "test.parquet"
    assert find_split(tmp_path, "extra.csv") == tmp_path / "extra.csv"
    assert find_split("nowhere", str(tmp_path / "extra.csv")) == tmp_path / "extra.csv"
    monkeypatch.chdir(tmp_path)
    assert find_split("nowhere", "extra.csv") == Path("extra.csv")


def test_a_missing_split_and_a_split_in_two_formats_are_errors(tmp_path):
    write_file(tmp_path / "train.csv", "x")
    assert refusal(find_split, tmp_path, "val").endswith("has no val.csv, val.tsv or val.parquet: found train.csv")
    assert refusal(find_split, tmp_path, "validation") == refusal(find_split, tmp_path, "val")
    assert refusal(find_split, tmp_path, "b.csv").endswith("has no b.csv: found train.csv")
    assert "no such data folder" in refusal(find_split, tmp_path / "nowhere", "train")
    write_file(tmp_path / "train.tsv", "x")
    assert "several tables called train: name the file you mean (train.csv, train.tsv)" in refusal(
        find_split, tmp_path, "train"
    )


def test_classes_come_from_the_table_all_if_it_exists(tmp_path):
    train = write_file(tmp_path / "train.csv", "x")
    assert find_label_table(tmp_path, train) == train
    table = write_file(tmp_path / "all.parquet", "x")
    assert find_label_table(tmp_path, train) == table


def test_a_folder_of_parquet_parts_is_refused_with_the_remedy(tmp_path):
    for name in ("train/0.parquet", "val.parquet/0.parquet", "test-00000-of-00002.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for split in ("train", "val", "test"):
        assert "write one file, with pandas.concat" in refusal(find_split, tmp_path, split)
    assert "write one file, with pandas.concat" in refusal(read_table, tmp_path / "val.parquet")


def test_a_compressed_table_is_a_split(tmp_path):
    (tmp_path / "train.csv.gz").touch()
    assert find_split(tmp_path, "train") == tmp_path / "train.csv.gz"
    assert "found train.csv.gz" in refusal(find_split, tmp_path, "val")
