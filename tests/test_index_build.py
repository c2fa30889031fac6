"""Building an index: its embeddings and predictions are MultiLabel's, and it survives kills."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import read_rows, write_table
from tiny_checkpoint import CLASSES, make_data, make_model, save_checkpoint

from runtime.errors import Interrupted, UsageError
from serving import index_build
from serving.index_build import build_index
from serving.index_folder import IndexInfo, model_sha256, open_index, read_info
from serving.multi_label import MultiLabel

ROWS = 23


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_data(tmp_path_factory.mktemp("index"), ROWS)
    rows = [row | {"season": ["Summer", "", "Winter"][i % 3]} for i, row in enumerate(read_rows(folder / "val.csv"))]
    write_table(folder / "val.csv", rows)
    (folder / "images" / "val-5.png").write_text("no picture")
    (folder / "images" / "val-22.png").unlink()
    save_checkpoint(folder / "model.pth.tar", make_model())
    return folder


@pytest.fixture(scope="module")
def model(place: Path) -> MultiLabel:
    return MultiLabel(place / "model.pth.tar", device="cpu", batch_size=4)


@pytest.fixture(scope="module")
def index(model: MultiLabel, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "index"
    build(model, place / "val.csv", folder)
    return folder


def build(
    model: MultiLabel, source: Path, folder: Path, *, projection: bool = False, overwrite: bool = False
) -> IndexInfo:
    return build_index(model, [source], folder, projection=projection, overwrite=overwrite, log_interval=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("projection", [False, True])
def test_an_index_has_the_embeddings_and_predictions_of_the_model(
    model: MultiLabel, place: Path, tmp_path: Path, projection: bool
) -> None:
    built = build(model, place / "val.csv", tmp_path / "index", projection=projection)
    info, embeddings, rows = open_index(tmp_path / "index")
    assert info == built
    assert (info.representation, info.rows, info.labels) == ("hz"[projection], ROWS, [*CLASSES, "season"])
    assert info.checkpoint_sha256 == model_sha256(place / "model.pth.tar")
    expected = model.embed(place / "val.csv", projection=projection, normalize=True)
    assert embeddings.dtype == np.float16
    assert np.array_equal(np.isnan(expected).any(1), [i in (5, 22) for i in range(ROWS)])
    assert np.abs(embeddings - np.nan_to_num(expected)).max() <= 2.0**-11
    assert not embeddings[[5, 22]].any()
    predicted = model.predict(place / "val.csv").to_pydict()
    found = rows.to_pydict()
    for name in CLASSES:
        assert found[f"{name}:predicted"] == predicted[name]
        assert found[f"{name}:probability"] == predicted[f"{name}_probability"]
    assert found["error"] == predicted["error"]
    table = read_rows(place / "val.csv")
    for name in ("image_path", *CLASSES, "season"):
        assert found[name] == [row[name] or None for row in table]
    assert found["image_file"] == [str(place / row["image_path"]) for row in table]
    assert {file.name for file in (tmp_path / "index").iterdir()} == {"embeddings.npy", "rows.parquet", "index.json"}


class Killed:
    """Batches of the model until a signal comes after some."""

    def __init__(self, batches: int) -> None:
        self.left = batches
        self.made = 0
        self.embed = index_build.embed_batches

    def __call__(self, *args: Any, **settings: Any) -> Iterator[Any]:
        for batch in self.embed(*args, **settings):
            if not self.left:
                raise Interrupted(2)
            self.left -= 1
            self.made += len(batch.rows)
            yield batch


def test_a_killed_build_continues_and_ends_in_the_same_files(
    model: MultiLabel, place: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = Killed(2)
    monkeypatch.setattr(index_build, "embed_batches", killed)
    with pytest.raises(Interrupted):
        build(model, place / "val.csv", tmp_path / "parts")
    assert read_info(tmp_path / "parts").rows_done == 8
    with pytest.raises(UsageError, match="is unfinished, with 8 of 23 images: give its embed"):
        open_index(tmp_path / "parts")
    killed.left = 100
    assert build(model, place / "val.csv", tmp_path / "parts").complete
    assert killed.made == ROWS  # no image twice
    assert contents(tmp_path / "parts") == contents(index)
    assert build(model, place / "val.csv", tmp_path / "parts").complete  # there is nothing to do
    assert killed.made == ROWS


def test_a_build_that_was_killed_before_its_rows_were_written_writes_them(
    model: MultiLabel, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Iterator[Any]:
        raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr(index_build, "row_tables", fail)
        with pytest.raises(Interrupted):
            build(model, place / "val.csv", tmp_path / "index")
    assert read_info(tmp_path / "index").rows_done == ROWS
    assert not (tmp_path / "index" / "rows.parquet").exists()
    assert build(model, place / "val.csv", tmp_path / "index").complete
    assert open_index(tmp_path / "index")[2]["error"].null_count == ROWS - 2


def test_another_index_is_replaced_only_on_demand(model: MultiLabel, place: Path, index: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(index, tmp_path / "copy"))
    with pytest.raises(UsageError, match="another index \\(complete\\): it differs in images or labels, projection;"):
        build(model, place / "images", copy, projection=True)
    assert build(model, place / "images", copy, projection=True, overwrite=True).rows == ROWS - 1
    assert open_index(copy)[0].representation == "z"
    rows = read_rows(place / "val.csv")
    write_table(place / "other.csv", [row | {"color": "red"} for row in rows])
    with pytest.raises(UsageError, match="it differs in images or labels; name another folder"):
        build(model, place / "other.csv", index)


def test_a_folder_with_other_files_is_left_alone(model: MultiLabel, place: Path, tmp_path: Path) -> None:
    (tmp_path / "embeddings.npy").write_text("precious")
    with pytest.raises(UsageError, match="has other files and is no index: name a new folder"):
        build(model, place / "val.csv", tmp_path, overwrite=True)
    assert contents(tmp_path) == {"embeddings.npy": b"precious"}


def test_images_that_cannot_be_read_leave_no_index(model: MultiLabel, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("no picture")
    with pytest.raises(UsageError, match="none of the 1 images could be read"):
        build(model, tmp_path / "photos", tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_one_process_writes_an_index_at_a_time(model: MultiLabel, place: Path, tmp_path: Path) -> None:
    from serving.index_folder import only_writer

    with only_writer(tmp_path), pytest.raises(UsageError, match="another process writes"), only_writer(tmp_path):
        pass
    with only_writer(tmp_path):
        pass


def test_a_column_that_the_index_needs_itself_is_left_out(
    model: MultiLabel, place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = read_rows(place / "val.csv")[:4]
    columns = ("error", "image_file", "color:predicted")
    write_table(place / "odd.csv", [row | dict.fromkeys(columns, "x") | {"=1+1": "y"} for row in rows])
    assert build(model, place / "odd.csv", tmp_path / "index").labels == [*CLASSES, "season", "=1+1"]
    assert [record.args or record.message for record in caplog.records if "left out" in record.message] == [
        f"column {name!r} is left out: the index has a column of that name" for name in columns
    ]
    names = pq.read_schema(tmp_path / "index" / "rows.parquet").names
    assert len(names) == len(set(names)) == 3 + 3 * len(CLASSES) + 2


def damaged(index: Path, name: str) -> None:
    file = index / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def change_rows(index: Path, name: str, column: pa.Array) -> None:
    rows = pq.read_table(index / "rows.parquet")
    pq.write_table(rows.set_column(rows.column_names.index(name), name, column), index / "rows.parquet")


def claim(index: Path, shape: str) -> None:
    header = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)
    (index / "embeddings.npy").write_bytes(content)


def become_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda index: damaged(index, "embeddings.npy"), "embeddings.npy is damaged: "),
        (lambda index: (index / "embeddings.npy").unlink(), "embeddings.npy is damaged: it is missing"),
        (lambda index: (index / "rows.parquet").unlink(), "rows.parquet is damaged: it is missing"),
        (lambda index: np.save(index / "embeddings.npy", np.zeros((3, 4))), "it holds float64 \\[3, 4\\], not float16"),
        (lambda index: damaged(index, "rows.parquet"), "rows.parquet is damaged: "),
        (lambda index: damaged(index, "index.json"), "index.json is damaged: [A-Z]"),
        (lambda index: (index / "index.json").write_text("[1]"), "index.json is damaged: it has other keys"),
        (lambda index: (index / "index.json").write_text('{"format": 9}'), "has format 9, and this version reads 1"),
        (lambda index: (index / "index.json").unlink(), "is no index, as it has no index.json"),
        (lambda index: change_info(index, rows=24), "embeddings.npy is damaged: it holds float16"),
        (lambda index: change_info(index, rows="x"), "index.json is damaged: its rows is 'x'"),
        (lambda index: change_info(index, rows_done=99), "it has 99 of 23 rows"),
        (
            lambda index: change_info(index, label_space={}),
            "index.json is damaged: in its label_space, the lists attributes and classes are missing",
        ),
        (lambda index: change_info(index, labels=[["color"]]), "index.json is damaged: a name in it is not text"),
        (lambda index: change_rows(index, "image_path", pa.nulls(23)), "its column image_path holds null, not large_s"),
        (
            lambda index: change_rows(index, "image_file", pa.nulls(23, pa.large_string())),
            "its column image_file has blank cells",
        ),
        (
            lambda index: change_rows(index, "color:probability", pa.array([["a"]] * 23)),
            "its column color:probability holds list<.*>, not float",
        ),
        (
            lambda index: (index / "embeddings.npy").write_bytes(b"PK\x03\x04" + bytes(99)),
            "embeddings.npy is damaged: ",
        ),
        (lambda index: claim(index, "(-1, 4)"), "embeddings.npy is damaged: "),
        (lambda index: become_pipe(index / "embeddings.npy"), "embeddings.npy is a pipe, not a regular file"),
        (lambda index: become_pipe(index / "rows.parquet"), "rows.parquet is a pipe, not a regular file"),
        (lambda index: become_pipe(index / "index.json"), "index.json is a pipe, not a regular file"),
        (lambda index: change_info(index, labels=["color"]), "are not those that index.json names"),
    ],
)
def test_a_damaged_index_is_one_sentence(index: Path, tmp_path: Path, change: Any, words: str) -> None:
    copy = Path(shutil.copytree(index, tmp_path / "copy"))
    change(copy)
    with pytest.raises(UsageError, match=words) as error:
        open_index(copy)
    assert "\n" not in str(error.value)


def change_info(index: Path, **values: Any) -> None:
    content = json.loads((index / "index.json").read_text())
    (index / "index.json").write_text(json.dumps(content | values))


def test_the_hash_of_an_exported_folder_is_about_its_weights_and_description(tmp_path: Path) -> None:
    found = set()
    for weights, description in (("a", "b"), ("a", "c"), ("d", "b")):
        (tmp_path / "model.safetensors").write_text(weights)
        (tmp_path / "config.json").write_text(description)
        found.add(model_sha256(tmp_path))
    assert len(found) == 3
