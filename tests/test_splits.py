"""Finding the tables of a data folder."""

from pathlib import Path

from table_files import refusal, write_file

from catalog.splits import find_label_table, find_split


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


def test_a_table_in_parquet_parts_is_found_by_its_name(tmp_path):
    for name in ("train/0.parquet", "val.parquet/0.parquet", "test-00000-of-00001.parquet", "all-0.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "all-1.parquet").touch()
    names = {"train": "train", "val": "val.parquet", "test": "test-00000-of-00001.parquet", "all": "all-*.parquet"}
    for split, name in names.items():
        assert find_split(tmp_path, split) == tmp_path / name
    assert find_split("nowhere", str(tmp_path / "val.parquet")) == tmp_path / "val.parquet"
    (tmp_path / "train.csv").touch()
    assert "several tables called train" in refusal(find_split, tmp_path, "train")


def test_missing_parts_are_refused(tmp_path):
    (tmp_path / "train-00000-of-00003.parquet").touch()
    assert refusal(find_split, tmp_path, "train") == (
        f"{tmp_path} has 1 of the 3 parts of train (train-00000-of-00003.parquet, ...): add the others, or name a file"
    )


def test_a_compressed_table_is_a_split(tmp_path):
    (tmp_path / "train.csv.gz").touch()
    assert find_split(tmp_path, "train") == tmp_path / "train.csv.gz"
    assert "found train.csv.gz" in refusal(find_split, tmp_path, "val")
