"""Tests of fashion-product-images/prepare.py with small made-up copies of the dataset in both of its forms."""

import csv
import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parent.parent / "fashion-product-images"))

import prepare

SCRIPT = Path(__file__).parents[1] / "fashion-product-images" / "prepare.py"
HEADER = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"


def style(
    identifier: int, gender: str = "Men", article: str = "Shirts", color: str = "Blue", name: str = "Shirt"
) -> str:
    return f"{identifier},{gender},Apparel,Topwear,{article},{color},Fall,2011,Casual,{name}"


def make_kaggle(folder: Path, lines: list[str], missing: tuple[int, ...] = ()) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "styles.csv").write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    for line in lines:
        identifier = line.split(",")[0]
        if int(identifier) not in missing:
            (folder / "images" / f"{identifier}.jpg").touch()
    return folder


def many_styles(count: int = 400) -> list[str]:
    return [
        style(i, "Men" if i % 3 else "Women", f"Article {i % 7}", "Blue" if i % 5 else "Red")
        for i in range(1, count + 1)
    ]


def encoded(form: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (6, 8), 128 if mode in "LP" else (200, 30, 30, 255)[: len(mode)]).save(buffer, form)
    return buffer.getvalue()


def make_parquet(file: Path, images: dict[int, bytes | None], without: tuple[str, ...] = ()) -> Path:
    import pyarrow
    import pyarrow.parquet

    count = len(images)
    columns = {
        "id": list(images),
        "gender": ["Men"] * count,
        "masterCategory": ["Apparel"] * count,
        "articleType": ["Shirts"] * count,
        "baseColour": ["NA", None, *["Blue"] * count][:count],
        "year": [2011.0, None, *[2012.0] * count][:count],
        "image": [None if data is None else {"bytes": data, "path": None} for data in images.values()],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({k: v for k, v in columns.items() if k not in without}), file)
    return file


def run(*words: object) -> None:
    assert prepare.main([str(word) for word in words]) == 0


def rows(folder: Path, name: str = "all") -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def listed_ids(folder: Path, name: str = "all") -> list[int]:
    return [int(Path(row["image_path"]).stem) for row in rows(folder, name)]


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that must fail; return its one sentence."""
    assert prepare.main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("prepare.py: ")
    assert said.err.count("\n") == 1
    return said.err


def test_a_kaggle_folder_becomes_four_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_kaggle(tmp_path / "kaggle", many_styles(), missing=(5, 6))
    run(source, "--output", tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 398
    parts = [identifier for name in prepare.SPLITS for identifier in listed_ids(tmp_path / "out", name)]
    assert sorted(parts) == sorted(listed_ids(tmp_path / "out"))
    assert (
        (tmp_path / "out" / "all.csv")
        .read_bytes()
        .startswith(b"image_path,gender,article,color\n../kaggle/images/1.jpg,Men,Article 1,Blue\n")
    )
    summary = capsys.readouterr().out
    assert "398 all" in summary
    assert "article: 7 classes, 0 blank" in summary
    assert "dropped: 2 rows with no image" in summary
    assert str(tmp_path / "out") in summary


def test_unquoted_commas_belong_to_the_product_name(tmp_path: Path) -> None:
    lines = [
        style(1, name="Shirt, blue, large"),
        style(2, name='"Tie", "silk" and 3" wide'),
        style(3, name='"Quoted, name"'),
    ]
    lines += [style(4, name='"never closed'), style(5)]
    source = make_kaggle(tmp_path / "kaggle", lines)
    run(source, "--output", tmp_path / "out", "--attributes", "gender", "usage", "productDisplayName")
    table = rows(tmp_path / "out")
    assert table[0]["productDisplayName"] == "Shirt,blue,large"
    assert [row["productDisplayName"] for row in table[2:]] == ["Quoted, name", "never closed", "Shirt"]
    assert {(row["gender"], row["usage"]) for row in table} == {("Men", "Casual")}
    assert len(table) == 5


def test_na_is_a_class_and_blank_stays_blank(tmp_path: Path) -> None:
    lines = [style(1, color="NA"), style(2, color=""), style(3, color="NA"), style(4, article="  ")]
    run(make_kaggle(tmp_path / "kaggle", lines), "--output", tmp_path / "out")
    assert [row["color"] for row in rows(tmp_path / "out")] == ["NA", "", "NA", "Blue"]
    assert rows(tmp_path / "out")[3]["article"] == ""


def test_short_and_repeated_rows_and_odd_ids_do_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_kaggle(tmp_path / "kaggle", [style(1), style(1, gender="Women"), "2,Men"])
    with (source / "styles.csv").open("a") as file:
        file.write("\n../1,Men\nrest of a name\n")
    run(source, "--output", tmp_path / "out")
    assert [tuple(row.values())[1:] for row in rows(tmp_path / "out")] == [("Men", "Shirts", "Blue"), ("Men", "", "")]
    summary = capsys.readouterr().out
    assert "dropped: 1 rows with id of an earlier row" in summary
    assert "dropped: 2 rows with no usable id" in summary


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    source = make_kaggle(tmp_path / "kaggle", [style(1)])
    (source / "styles.csv").write_text(f"{HEADER}\n{style(1)}\n", encoding="utf-8-sig")
    run(source, "--output", tmp_path / "out")
    assert listed_ids(tmp_path / "out") == [1]


def test_image_paths_are_relative_to_the_tables(tmp_path: Path) -> None:
    source = make_kaggle(tmp_path / "kaggle", [style(1)])
    for output in (source, tmp_path / "elsewhere", tmp_path / "deep" / "er"):
        run(source, "--output", output)
        assert (output / rows(output)[0]["image_path"]).is_file()
    assert rows(source)[0]["image_path"] == "images/1.jpg"


def test_image_paths_work_through_links_to_folders(tmp_path: Path) -> None:
    source = make_kaggle(tmp_path / "kaggle", [style(1)])
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    run(source, "--output", tmp_path / "link")
    assert (tmp_path / "link" / rows(tmp_path / "link")[0]["image_path"]).is_file()


@pytest.mark.parametrize("prefix", ["./fashion/images", "./fashion/images/"])
def test_the_path_prefix_replaces_the_path_to_the_images(tmp_path: Path, prefix: str) -> None:
    source = make_kaggle(tmp_path / "kaggle", [style(1)])
    run(source, "--output", tmp_path / "out", "--path-prefix", prefix)
    assert rows(tmp_path / "out")[0]["image_path"] == "./fashion/images/1.jpg"


def test_other_source_columns_can_be_attributes(tmp_path: Path) -> None:
    source = make_kaggle(tmp_path / "kaggle", [style(1)])
    run(
        source, "--output", tmp_path / "out", "--attributes", "color", "season", "year", "masterCategory", "articleType"
    )
    assert list(rows(tmp_path / "out")[0].items())[1:] == [
        ("color", "Blue"),
        ("season", "Fall"),
        ("year", "2011"),
        ("masterCategory", "Apparel"),
        ("articleType", "Shirts"),
    ]


def test_parquet_images_are_written_and_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jpeg = encoded("JPEG")
    images = {7: jpeg, 8: encoded("PNG", "RGBA"), 9: encoded("PNG", "P"), 10: None, 11: b"no image at all"}
    make_parquet(tmp_path / "hub" / "data" / "train-00000-of-00002.parquet", images)
    make_parquet(tmp_path / "hub" / "data" / "train-00001-of-00002.parquet", {12: encoded("JPEG", "L"), 13: b""})
    out = tmp_path / "out"
    run(tmp_path / "hub", "--output", out, "--attributes", "gender", "article", "color", "year")
    assert listed_ids(out) == [7, 8, 9, 12]
    assert (out / "images" / "7.jpg").read_bytes() == jpeg
    for row in rows(out):
        with Image.open(out / row["image_path"]) as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", (6, 8))
    assert [row["color"] for row in rows(out)] == ["NA", "", "Blue", "NA"]
    assert [row["year"] for row in rows(out)] == ["2011", "", "2012", "2011"]
    summary = capsys.readouterr().out
    assert "dropped: 2 rows with no image" in summary
    assert "dropped: 1 rows with unreadable image" in summary


def test_parquet_files_can_be_named_one_by_one(tmp_path: Path) -> None:
    files = [make_parquet(tmp_path / f"{i}.parquet", {i: encoded("JPEG")}) for i in (1, 2, 3)]
    run(*files[:2], "--output", tmp_path / "out")
    assert listed_ids(tmp_path / "out") == [1, 2]


def test_both_forms_give_the_same_split(tmp_path: Path) -> None:
    make_parquet(tmp_path / "one.parquet", dict.fromkeys(range(1, 51), encoded("JPEG")))
    lines = [style(i, color=["NA", "", *["Blue"] * 48][i - 1]) for i in range(50, 0, -1)]
    run(tmp_path / "one.parquet", "--output", tmp_path / "a")
    run(make_kaggle(tmp_path / "kaggle", lines), "--output", tmp_path / "b")
    for name in prepare.SPLITS:
        assert sorted(listed_ids(tmp_path / "a", name)) == sorted(listed_ids(tmp_path / "b", name))


def test_like_reproduces_existing_tables_byte_for_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old"
    old.mkdir()
    split = {"train": [9, 2, 30, 7], "val": [5, 1], "test": [8], "all": [1, 8, 2, 9, 30, 5, 7]}
    table = {str(i): style(i, article=f"Article {i % 4}", color="NA" if i == 5 else "Red") for i in range(1, 41)}
    for name, ids in split.items():
        lines = [f"./data/images/{i}.jpg,Men,Article {i % 4},{'NA' if i == 5 else 'Red'}\n" for i in ids]
        (old / f"{name}.csv").write_bytes("".join(["image_path,gender,article,color\n", *lines]).encode())
    source = make_kaggle(tmp_path / "kaggle", list(table.values()))
    run(source, "--output", tmp_path / "out", "--like", old, "--path-prefix", "./data/images")
    for name in split:
        assert (tmp_path / "out" / f"{name}.csv").read_bytes() == (old / f"{name}.csv").read_bytes()
    assert "0 of its images are not in the source, 33 of the source not in it" in capsys.readouterr().out


def test_like_counts_what_the_source_lacks_and_needs_no_all_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name, ids in {"train": [3, 1], "val": [4], "test": [2, 6]}.items():
        (old / f"{name}.csv").write_text("image_path\n" + "".join(f"images/{i}.jpg\n" for i in ids))
    source = make_kaggle(tmp_path / "kaggle", [style(i) for i in range(1, 6)], missing=(4,))
    run(source, "--output", tmp_path / "out", "--like", old)
    assert [listed_ids(tmp_path / "out", name) for name in ("train", "val", "test", "all")] == [
        [3, 1],
        [],
        [2],
        [3, 1, 2],
    ]
    assert "2 of its images are not in the source, 1 of the source not in it" in capsys.readouterr().out


def test_like_may_name_the_output_folder_itself(tmp_path: Path) -> None:
    source = make_kaggle(tmp_path / "kaggle", many_styles(60))
    run(source, "--output", tmp_path / "out")
    before = {name: listed_ids(tmp_path / "out", name) for name in prepare.SPLITS}
    run(source, "--output", tmp_path / "out", "--like", tmp_path / "out", "--attributes", "usage", "--force")
    assert {name: listed_ids(tmp_path / "out", name) for name in prepare.SPLITS} == before
    assert list(rows(tmp_path / "out")[0]) == ["image_path", "usage"]


def test_every_class_has_its_share_in_every_split(tmp_path: Path) -> None:
    source = make_kaggle(tmp_path / "kaggle", many_styles(1000))
    run(source, "--output", tmp_path / "out", "--val", "0.2", "--test", "0.1")
    for attribute in ("gender", "article", "color"):
        whole = Counter(row[attribute] for row in rows(tmp_path / "out"))
        for name, share in {"train": 0.7, "val": 0.2, "test": 0.1}.items():
            part = Counter(row[attribute] for row in rows(tmp_path / "out", name))
            for value, count in whole.items():
                assert abs(part[value] - share * count) <= 2


def test_rare_classes_are_in_train_first_and_then_elsewhere() -> None:
    colors = ["One"] + ["Two"] * 2 + ["Three"] * 3 + ["Many"] * 94
    split = prepare.assign_splits({str(i): (color,) for i, color in enumerate(colors)}, 0.1, 0.1, 42)
    counts = {name: Counter(colors[int(i)] for i in split[name]) for name in prepare.SPLITS}
    assert counts["train"]["One"] == counts["train"]["Two"] == counts["train"]["Three"] == 1
    assert counts["val"]["Two"] + counts["test"]["Two"] == 1
    assert counts["val"]["Three"] == counts["test"]["Three"] == 1
    assert [len(split[name]) for name in prepare.SPLITS] == pytest.approx([80, 10, 10], abs=4)


def test_a_share_of_zero_leaves_a_table_empty(tmp_path: Path) -> None:
    source = make_kaggle(tmp_path / "kaggle", many_styles(50))
    run(source, "--output", tmp_path / "out", "--val", "0", "--test", "0.2")
    assert (tmp_path / "out" / "val.csv").read_text() == "image_path,gender,article,color\n"
    assert len(rows(tmp_path / "out", "train")) == pytest.approx(40, abs=2)


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_the_source() -> None:
    labels = {str(i): (f"a{i % 5}", f"b{i % 3}") for i in range(200)}
    split = prepare.assign_splits(labels, 0.1, 0.1, 42)
    assert prepare.assign_splits(labels, 0.1, 0.1, 42) == split
    backwards = prepare.assign_splits(dict(reversed(labels.items())), 0.1, 0.1, 42)
    assert {name: set(ids) for name, ids in backwards.items()} == {name: set(ids) for name, ids in split.items()}
    assert prepare.assign_splits(labels, 0.1, 0.1, 43) != split


cells = st.one_of(st.just(""), st.sampled_from("abcdef"), st.integers(0, 40).map(str))


@settings(max_examples=100)
@given(
    table=st.lists(st.tuples(cells, cells), max_size=80),
    val=st.sampled_from([0.0, 0.1, 0.3, 0.6]),
    test=st.sampled_from([0.0, 0.1, 0.3]),
    seed=st.integers(0, 9),
)
def test_any_split_is_a_partition_with_every_class_in_train(
    table: list[tuple[str, str]], val: float, test: float, seed: int
) -> None:
    labels = {str(i): row for i, row in enumerate(table)}
    split = prepare.assign_splits(labels, val, test, seed)
    assert split["all"] == list(labels)
    assert sorted(split["train"] + split["val"] + split["test"]) == sorted(labels)
    for column in range(2):
        trained = {labels[identifier][column] for identifier in split["train"]}
        assert {row[column] for row in table} - {""} <= trained
    assert val > 0 or not split["val"]
    assert test > 0 or not split["test"]


def test_existing_tables_are_only_overwritten_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_kaggle(tmp_path / "kaggle", [style(1)])
    (tmp_path / "test.csv").write_text("mine")
    assert "pass --force" in refusal(capsys, source, "--output", tmp_path)
    assert (tmp_path / "test.csv").read_text() == "mine"
    assert not (tmp_path / "train.csv").exists()
    run(source, "--output", tmp_path, "--force")
    assert (tmp_path / "test.csv").read_text() != "mine"


def test_existing_images_are_only_overwritten_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = make_parquet(tmp_path / "one.parquet", {1: encoded("JPEG")})
    image = tmp_path / "out" / "images" / "1.jpg"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"mine")
    assert "pass --force" in refusal(capsys, file, "--output", tmp_path / "out")
    assert image.read_bytes() == b"mine"
    run(file, "--output", tmp_path / "out", "--force")
    assert image.read_bytes() == encoded("JPEG")


def test_an_unusable_source_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--output", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("no parquet")
    kaggle = make_kaggle(tmp_path / "kaggle", [style(1)])
    assert "nowhere: no such file or folder" in refusal(capsys, tmp_path / "nowhere", *out)
    assert "neither styles.csv" in refusal(capsys, tmp_path / "empty", *out)
    assert "text.zip cannot be read as parquet" in refusal(capsys, tmp_path / "text.zip", *out)
    assert "only source" in refusal(capsys, kaggle, tmp_path / "text.zip", *out)
    assert not (tmp_path / "out").exists()


def test_a_missing_column_is_named_with_the_existing_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--output", tmp_path / "out")
    kaggle = make_kaggle(tmp_path / "kaggle", [style(1)])
    said = refusal(capsys, kaggle, *out, "--attributes", "gender", "fabric")
    assert "no column 'fabric'" in said
    assert "gender, masterCategory, subCategory, articleType" in said
    assert "no column 'id'" in refusal(capsys, kaggle, *out, "--attributes", "id")
    whole = make_parquet(tmp_path / "whole.parquet", {1: encoded("JPEG")})
    for column, text in {"id": "no column 'id'", "baseColour": "no column 'baseColour'", "image": "no images"}.items():
        file = make_parquet(tmp_path / f"{column}.parquet", {1: encoded("JPEG")}, without=(column,))
        assert text in refusal(capsys, whole, file, *out)
    (kaggle / "styles.csv").write_text("")
    assert "it has none" in refusal(capsys, kaggle, *out)
    (kaggle / "styles.csv").write_bytes(HEADER.encode() + b"\n1,M\xff\n")
    assert "not a CSV file in UTF-8" in refusal(capsys, kaggle, *out)
    assert not (tmp_path / "out").exists()


def test_a_source_without_any_image_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--output", tmp_path / "out")
    kaggle = make_kaggle(tmp_path / "kaggle", [style(1), style(2)], missing=(1, 2))
    assert "none of the 2 rows" in refusal(capsys, kaggle, *out)
    (kaggle / "images").rmdir()
    assert "none of the 2 rows" in refusal(capsys, kaggle, *out)
    assert "none of the 1 rows" in refusal(capsys, make_parquet(tmp_path / "a.parquet", {1: b"text"}), *out)


def test_options_that_contradict_each_other_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (make_kaggle(tmp_path / "kaggle", [style(1)]), "--output", tmp_path / "out")
    assert "leave out --val and --seed" in refusal(capsys, *words, "--like", tmp_path, "--seed", "42", "--val", "0.1")
    assert "must be 0 or more" in refusal(capsys, *words, "--val", "0.5", "--test", "0.5")
    assert "must be 0 or more" in refusal(capsys, *words, "--val=-0.1")
    assert "must be 0 or more" in refusal(capsys, *words, "--test", "nan")
    assert "'color' more than once" in refusal(capsys, *words, "--attributes", "color", "gender", "color")


def test_an_unusable_split_to_reuse_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old"
    old.mkdir()
    words = (make_kaggle(tmp_path / "kaggle", [style(1), style(2)]), "--output", tmp_path / "out", "--like", old)
    assert "no train.csv" in refusal(capsys, *words)
    for name in prepare.SPLITS:
        (old / f"{name}.csv").write_text("path\n1.jpg\n")
    assert "no column image_path" in refusal(capsys, *words)
    for name in prepare.SPLITS:
        (old / f"{name}.csv").write_text("image_path\n1.jpg\n")
    assert "image 1 is listed more than once" in refusal(capsys, *words)
    for name in prepare.SPLITS:
        (old / f"{name}.csv").write_text(f"image_path\n{name}.jpg\n")
    assert "none of the images" in refusal(capsys, *words)


def test_the_script_fails_without_a_traceback_and_needs_no_pyarrow_for_kaggle(tmp_path: Path) -> None:
    failed = subprocess.run(
        [sys.executable, SCRIPT, "nowhere"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("prepare.py: ")
    source = make_kaggle(tmp_path / "kaggle", [style(1)])
    # None in sys.modules makes the import fail, as if pyarrow were not installed.
    code = (
        "import runpy, sys; sys.modules['pyarrow'] = None; "
        f"sys.path.insert(0, {str(SCRIPT.parent)!r}); "
        f"sys.argv = ['prepare.py', {str(source)!r}, '--output', 'out']; "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True)
    assert listed_ids(tmp_path / "out") == [1]


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_parquet(tmp_path / "one.parquet", {1: encoded("JPEG")})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in refusal(capsys, file, "--output", tmp_path / "out")
