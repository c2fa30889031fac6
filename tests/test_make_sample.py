"""The sample catalog: reproducible, true to its labels, and safe beside another dataset."""

import csv
import importlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "fashion-product-images" / "make_sample.py"
ATTRIBUTES = ("gender", "article", "color")
SPLITS = ("train", "val", "test")
ROWS = 200


def read(folder: Path, split: str) -> list[dict[str, str]]:
    with (folder / f"{split}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """Import the script; afterwards forget the modules beside it, whose names are common words."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        yield importlib.import_module("make_sample")
    for name in {file.stem for file in SCRIPT.parent.glob("*.py")} - before:
        sys.modules.pop(name, None)


def run(script: ModuleType, *arguments: str | Path) -> int:
    return int(script.main([str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a sample from another folder, as a user would."""
    folder = tmp_path_factory.mktemp("sample")
    command = [sys.executable, "-W", "error", str(SCRIPT), str(folder), "--rows", str(ROWS)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_the_same_rows_and_seed_give_the_same_files_byte_for_byte(
    script: ModuleType, sample: Path, tmp_path: Path
) -> None:
    run(script, tmp_path, "--rows", str(ROWS))
    assert contents(tmp_path) == contents(sample)


def test_a_picture_does_not_depend_on_the_number_of_pictures(script: ModuleType, sample: Path, tmp_path: Path) -> None:
    run(script, tmp_path, "--rows", "20")
    images = list(tmp_path.glob("images/*.jpg"))
    assert len(images) == 20
    assert all(path.read_bytes() == (sample / "images" / path.name).read_bytes() for path in images)


def test_another_seed_gives_other_products_and_other_pictures(script: ModuleType) -> None:
    one, other = script.describe(100, 42), script.describe(100, 7)
    assert one != other
    assert script.draw(one[0], 42).tobytes() != script.draw(one[0], 7).tobytes()


def test_every_image_is_a_60_by_80_rgb_jpeg(sample: Path) -> None:
    rows = read(sample, "all")
    assert len(rows) == ROWS == len(list(sample.glob("images/*.jpg")))
    for row in rows:
        with Image.open(sample / row["image_path"]) as image:
            assert (image.size, image.mode, image.format) == ((60, 80), "RGB", "JPEG")


def test_only_tables_images_and_a_stamp_are_written(sample: Path) -> None:
    names = {path.name for path in sample.rglob("*") if path.is_file() and path.suffix != ".jpg"}
    assert names == {"train.csv", "val.csv", "test.csv", "all.csv", f".sample-{ROWS}-42-v1"}


def test_the_header_names_the_path_and_three_attributes(sample: Path) -> None:
    for split in (*SPLITS, "all"):
        first = (sample / f"{split}.csv").read_text().splitlines()[0]
        assert first == "image_path,gender,article,color"


def test_the_splits_are_disjoint_and_all_is_their_union(sample: Path) -> None:
    rows = {split: {tuple(row.values()) for row in read(sample, split)} for split in SPLITS}
    assert [len(rows[split]) for split in SPLITS] == [ROWS * 8 // 10, ROWS // 10, ROWS // 10]
    paths = [row[0] for split in SPLITS for row in rows[split]]
    assert len(set(paths)) == len(paths) == ROWS
    assert {tuple(row.values()) for row in read(sample, "all")} == set.union(*rows.values())


def test_train_has_every_class_of_val_and_test(sample: Path) -> None:
    for attribute in ATTRIBUTES:
        known = {row[attribute] for row in read(sample, "train")} - {""}
        assert known >= {row[attribute] for split in ("val", "test") for row in read(sample, split)} - {""}


def test_some_cells_are_blank_and_some_rows_have_no_label(sample: Path) -> None:
    train = read(sample, "train")
    unlabeled = [row for row in train if not any(row[attribute] for attribute in ATTRIBUTES)]
    assert 0.01 < len(unlabeled) / len(train) < 0.12
    for attribute in ATTRIBUTES:
        blank = sum(not row[attribute] for row in train) - len(unlabeled)
        assert 0.01 < blank / len(train) < 0.12
        assert sum(not row[attribute] for split in ("val", "test") for row in read(sample, split)) <= ROWS // 5 // 10


def test_every_attribute_has_a_long_tail(script: ModuleType) -> None:
    rows = script.describe(2400, 42)
    for attribute, classes, most, least in (
        ("gender", 5, 0.40, 0.05),
        ("article", 20, 0.12, 0.03),
        ("color", 13, 0.15, 0.05),
    ):
        counts = [count / len(rows) for _, count in Counter(getattr(row, attribute) for row in rows).most_common()]
        assert len(counts) == classes
        assert counts[0] > most
        assert sum(share < least for share in counts) >= classes // 3
    genders = {
        article: Counter(row.gender for row in rows if row.article == article) for article in ("Heels", "Shirts")
    }
    assert genders["Heels"]["Women"] > 0.9 * genders["Heels"].total()
    assert genders["Shirts"]["Women"] > 0 < genders["Shirts"]["Men"]


def test_a_second_run_does_no_work_and_says_so(
    script: ModuleType, sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in sample.rglob("*")}
    assert run(script, sample, "--rows", str(ROWS)) == 0
    assert "already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in sample.rglob("*")} == before


def test_another_size_replaces_an_earlier_sample_completely(script: ModuleType, tmp_path: Path) -> None:
    run(script, tmp_path, "--rows", "30")
    assert run(script, tmp_path, "--rows", "20") == 0
    assert len(list(tmp_path.glob("images/*.jpg"))) == len(read(tmp_path, "all")) == 20
    assert [path.name for path in tmp_path.glob("images/.sample-*")] == [".sample-20-42-v1"]


def test_a_second_run_completes_an_interrupted_one(script: ModuleType, tmp_path: Path) -> None:
    run(script, tmp_path, "--rows", "20")
    whole = contents(tmp_path)
    next(iter(tmp_path.glob("images/*.jpg"))).unlink()
    (tmp_path / "test.csv").unlink()
    assert run(script, tmp_path, "--rows", "20") == 0
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("stamped", [False, True])
def test_another_datasets_tables_are_refused_unless_forced(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], stamped: bool
) -> None:
    if stamped:  # a sample was here first; then the real data replaced it
        run(script, tmp_path, "--rows", "20")
    capsys.readouterr()
    foreign, image = tmp_path / "train.csv", tmp_path / "images" / "1163.jpg"
    image.parent.mkdir(exist_ok=True)
    foreign.write_text("image_path,gender\nimages/1163.jpg,Men\n")
    image.write_bytes(b"other")
    assert run(script, tmp_path, "--rows", "20") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert str(foreign) in err
    assert "--force" in err
    assert err.count("\n") == 1
    assert foreign.read_text().endswith("images/1163.jpg,Men\n")

    assert run(script, tmp_path, "--rows", "20", "--force") == 0
    assert len(read(tmp_path, "all")) == 20
    assert image.read_bytes() == b"other"


def test_too_few_rows_are_refused_in_a_sentence(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(script, tmp_path, "--rows", "5")
    assert "--rows must be at least 20" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def pixels(script: ModuleType, number: int, gender: str, article: str, color: str) -> NDArray[np.float64]:
    row = script.Row(number, gender, article, color)
    return np.asarray(script.draw(row, 42), dtype=float)


def middles(script: ModuleType, color: str) -> NDArray[np.float64]:
    """Return the mean color of the middle of ten T-shirts, [3]."""
    patches = [pixels(script, number, "Men", "Tshirts", color)[30:50, 22:38] for number in range(10)]
    return np.asarray(np.mean(patches, axis=(0, 1, 2)))


def test_a_products_color_matches_its_label(script: ModuleType) -> None:
    red, green, blue = (middles(script, color) for color in ("Red", "Green", "Blue"))
    assert [int(color.argmax()) for color in (red, green, blue)] == [0, 1, 2]
    black, gray, white = (middles(script, color).mean() for color in ("Black", "Grey", "White"))
    assert black + 40 < gray < white - 40


def test_a_color_is_not_one_value_but_a_range(script: ModuleType) -> None:
    shades = [pixels(script, number, "Men", "Shirts", "Blue")[30:50, 22:38].mean() for number in range(10)]
    assert np.std(shades) > 5


def test_articles_have_their_shapes(script: ModuleType) -> None:
    def filled(article: str) -> NDArray[np.float64]:
        """Return how often each pixel is dark in twenty black products, mostly on white, [80, 60]."""
        dark = [pixels(script, n, "Men", article, "Black").mean(axis=2) < 110 for n in range(20)]
        return np.asarray(np.mean(dark, axis=0))

    jeans, glasses, watch = filled("Jeans"), filled("Sunglasses"), filled("Watches")
    assert glasses[30:50].mean() > 4 * glasses[:20].mean()  # wide and low
    assert watch[:, 20:40].mean() > 4 * watch[:, :12].mean()  # tall and narrow
    assert jeans[12:24, 22:38].mean() > 0.6  # hips in one piece
    assert jeans[58:66, 20:26].mean() > jeans[58:66, 29:31].mean() + 0.2  # below them two legs, and a gap between


def test_childrens_clothes_are_smaller_in_the_picture(script: ModuleType) -> None:
    def area(gender: str) -> float:
        return float(np.mean([pixels(script, n, gender, "Trousers", "Black").mean(axis=2) < 90 for n in range(12)]))

    assert area("Boys") < 0.75 * area("Men")


def test_a_contact_sheet_is_an_image_of_many_products(script: ModuleType, sample: Path, tmp_path: Path) -> None:
    file = tmp_path / "sheet.png"
    assert run(script, sample, "--rows", str(ROWS), "--sheet", file) == 0
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.width > 16 * 120
        assert image.height > 8 * 160
