"""Images without labels that are added to a table."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from catalog import unlabeled
from catalog.build_label_space import build_label_space
from catalog.data_error import DataError
from catalog.image_list import ImageList
from catalog.label_space import UNKNOWN
from catalog.table import Table, read_table
from catalog.targets import encode_targets
from catalog.unlabeled import join_paths, shared_images, with_unlabeled


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Return a folder with a table of three images, and five more images in two folders and a table."""
    for name in ("a", "b", "c", "more/d", "more/below/e", "more/f", "g", "h"):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)
    (tmp_path / "train.csv").write_text("image_path,kind\na.png,x\nb.png,y\nc.png,\n")
    (tmp_path / "others.csv").write_text("image_path,kind,price\ng.png,z,3\na.png,y,4\nh.png,,5\n")
    return tmp_path


def names(table) -> list[str]:
    return [Path(table.image_path(row)).name for row in range(len(table))]


def test_added_images_that_another_table_has_are_counted(shop, monkeypatch) -> None:
    monkeypatch.chdir(shop)
    others = read_table("others.csv")
    for inputs, count in (["more"], 0), (["more", "g.png"], 1), (["."], 2):
        assert shared_images(with_unlabeled(read_table("train.csv"), inputs), others) == count
    assert shared_images(read_table("train.csv"), others) == 0  # a.png is a row of the training table itself


@pytest.mark.parametrize(
    ("inputs", "added"),
    [
        (["more"], ["d.png", "e.png", "f.png"]),
        (["more/*.png"], ["d.png", "f.png"]),
        (["more/**/*.png"], ["d.png", "e.png", "f.png"]),
        (["others.csv"], ["g.png", "h.png"]),
        (["g.png", "others.csv", "g.png"], ["g.png", "h.png"]),
        (["."], ["d.png", "e.png", "f.png", "g.png", "h.png"]),
    ],
    ids=str,
)
def test_images_that_the_table_lacks_are_added_once_without_labels(shop, monkeypatch, inputs, added) -> None:
    monkeypatch.chdir(shop)
    table = read_table("train.csv")
    space = build_label_space(table)
    more = with_unlabeled(table, inputs)
    assert names(more)[:3] == ["a.png", "b.png", "c.png"]
    assert sorted(names(more)[3:]) == added
    assert more.added.tolist() == [False] * 3 + [True] * len(added)
    targets = encode_targets(more, space, strict=True)
    assert targets[:3, 0].tolist() == [0, 1, UNKNOWN]
    assert (targets[3:] == UNKNOWN).all()
    assert build_label_space(more) == space
    for row in range(3, len(more)):
        assert Path(more.image_path(row)).is_file()


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (["nowhere"], "no such image, folder or table: nowhere"),
        (["*.webp"], r"unlabeled \*.webp: nothing matches the pattern"),
        (["a.png"], r"unlabeled a\.png: train\.csv already has all these images: name others"),
    ],
    ids=str,
)
def test_inputs_that_add_no_image_are_refused(shop, monkeypatch, inputs, sentence) -> None:
    monkeypatch.chdir(shop)
    with pytest.raises(DataError, match=sentence):
        with_unlabeled(read_table("train.csv"), inputs)


def test_only_images_that_are_still_in_the_table_are_counted_as_shared(shop, monkeypatch) -> None:
    monkeypatch.chdir(shop)
    others = read_table("others.csv")
    more = with_unlabeled(read_table("train.csv"), ["g.png", "more"])
    shared = names(more).index("g.png")
    assert shared_images(more.take(np.array([shared, 0])), others) == 1
    assert shared_images(more.take(np.array([0, 1, 2])), others) == 0


PARTS = st.sampled_from(["a", "b", ".", "..", "", "...", ".a", "é", "a b"])
PATHS = st.lists(PARTS, min_size=1, max_size=6).map("/".join).filter(bool)


@given(st.sampled_from(["/", "/data", "/data/more"]), st.lists(PATHS, max_size=8))
def test_joining_paths_equals_os_path(folder, paths) -> None:
    joined = join_paths(folder, pa.array(paths, pa.large_string()))
    assert joined.type == pa.large_string()
    assert joined.to_pylist() == [os.path.normpath(os.path.join(folder, path)) for path in paths]  # noqa: PTH118


@given(st.lists(PATHS, min_size=1, max_size=8), st.lists(PATHS, min_size=1, max_size=8))
def test_images_added_equal_a_loop_over_all_paths(tmp_path_factory, listed, paths) -> None:
    def absolute(path: str) -> str:
        return os.path.normpath(os.path.join(folder, path))  # noqa: PTH118

    folder = Path.cwd()
    table = Table(folder / "train.csv", pa.array(listed, pa.large_string()), {})
    images = ImageList(pa.array(paths, pa.large_string()), (folder,))
    known = {absolute(path) for path in listed}
    expected = [path for path in dict.fromkeys(map(absolute, paths)) if path not in known]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unlabeled, "list_images", lambda *_: [images])
        if not expected:
            with pytest.raises(DataError, match="already has all these images"):
                with_unlabeled(table, ["."])
            return
        more = with_unlabeled(table, ["."])
    assert [more.image_path(row) for row in np.flatnonzero(more.added)] == expected
    assert shared_images(more, Table(folder / "val.csv", pa.array(paths, pa.large_string()), {})) == len(expected)


@pytest.mark.parametrize(("prefix", "rows"), [("images/", 300_000), ("./images//", 60_000)], ids=["tidy", "untidy"])
def test_a_large_table_never_becomes_python_strings(tmp_path, monkeypatch, prefix, rows) -> None:
    monkeypatch.chdir(tmp_path)
    paths = pa.array([f"{prefix}{row:0100d}.jpg" for row in range(rows)], pa.large_string())
    images = ImageList(pa.concat_arrays([paths, pa.array(["new.jpg"], pa.large_string())]), (tmp_path,))
    monkeypatch.setattr(unlabeled, "list_images", lambda *_: [images])
    table = Table(tmp_path / "train.csv", paths, {})
    tracemalloc.start()
    more = with_unlabeled(table, ["."])
    assert shared_images(more, table) == 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert more.image_path(rows) == str(tmp_path / "new.jpg")
    assert len(more) == rows + 1
    assert peak < 0.5 * 155 * rows, "a string of 100 characters takes 155 bytes; sets and lists of them more"
