"""Pipes, sockets and devices as inputs: each reader refuses them at once, in one sentence."""

import os
import signal
import socket
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from catalog.decode import image_size, load_image, load_pixels
from catalog.image_list import list_images
from catalog.label_space import LabelSpace
from catalog.soft_labels import read_soft_labels
from catalog.splits import find_label_table, find_split
from catalog.table import read_table
from catalog.unlabeled import with_unlabeled
from options.parser import missing_files
from options.train import parse_train_args
from reports.summary_file import read_summary
from runtime.errors import UsageError
from runtime.regular_file import irregular_file, irregular_kind
from serving.checkpoint_files import find_checkpoints
from timm.models.initial_checkpoint import _read as read_initial_checkpoint
from timm.models.multi_label_checkpoint import read_checkpoint
from timm.models.pretrained_weights import create_from_file


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Fail instead of waiting for a pipe's writer."""

    def fail(*_: object) -> None:
        pytest.fail("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe.csv")
    return tmp_path / "pipe.csv"


def one_row_table(folder: Path) -> Path:
    Image.new("RGB", (2, 2)).save(folder / "a.png")
    (folder / "table.csv").write_text("image_path,color\na.png,red\n")
    return folder / "table.csv"


def test_the_kind_of_a_path_is_known_through_links(tmp_path: Path, pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(pipe)
    monkeypatch.chdir(tmp_path)  # a socket's name may have only about a hundred letters
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        kinds = {name: irregular_kind(name) for name in ("file", ".", "pipe.csv", "link", "socket", "missing", "a\0b")}
    assert kinds == {
        "file": None,
        ".": "a folder",
        "pipe.csv": "a pipe",
        "link": "a pipe",
        "socket": "a socket",
        "missing": None,
        "a\0b": None,
    }
    assert irregular_kind("/dev/zero") == "a device"


def test_the_sentence_says_what_to_do(tmp_path: Path, pipe: Path) -> None:
    remedy = "save its content as a file, and name that"
    assert irregular_file(pipe) == f"{pipe} is a pipe, not a regular file: {remedy}"
    assert irregular_file("/dev/zero") == f"/dev/zero is a device, not a regular file: {remedy}"
    assert irregular_file(tmp_path) == f"{tmp_path} is a folder, not a regular file: name a file in it"
    assert irregular_file(tmp_path, folders=True) == ""
    assert irregular_file(tmp_path / "missing") == ""


READERS: dict[str, Callable[[Path], object]] = {
    "a table": read_table,
    "a split": lambda path: find_split(path.parent, path.name),
    "an image, a folder or a table": lambda path: list_images([str(path)]),
    "unlabeled images": lambda path: with_unlabeled(read_table(one_row_table(path.parent)), [str(path)]),
    "unlabeled images of a pattern": lambda path: with_unlabeled(
        read_table(one_row_table(path.parent)), [str(path.with_suffix(".c*"))]
    ),
    "soft labels": lambda path: read_soft_labels(path, read_table(one_row_table(path.parent)), LabelSpace({})),
    "a checkpoint": read_checkpoint,
    "checkpoints": lambda path: find_checkpoints(str(path)),
    "weights to start from": read_initial_checkpoint,
    "pretrained weights": lambda path: create_from_file("test_resnet", str(path), lambda **_: None),
    "a summary": read_summary,
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused_at_once_as(name: str, pipe: Path) -> None:
    with pytest.raises(UsageError, match=r"pipe\.csv is a pipe, not a regular file: save its content as a file"):
        READERS[name](pipe)


@pytest.mark.parametrize("read", [load_image, load_pixels, image_size])
def test_a_pipe_a_device_and_a_folder_are_unreadable_images(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    for path, kind in (tmp_path / "a.jpg", "pipe"), (tmp_path / "device.jpg", "device"), (tmp_path, "folder"):
        with pytest.raises(OSError, match=f"{path}': it is a {kind}, not a regular file: replace it by an image file"):
            read(path)


def test_a_table_that_names_only_pipes_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "table.csv").write_text("image_path\na.jpg\n")
    with pytest.raises(UsageError, match=r"table.csv: no readable image at all: .*a.jpg is a pipe, not a regular file"):
        list_images([str(tmp_path / "table.csv")])


def test_a_pipe_called_all_csv_is_not_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "all.csv")
    with pytest.raises(UsageError, match=r"all.csv is a pipe"):
        find_label_table(tmp_path, tmp_path / "train.csv")


@pytest.mark.parametrize(("name", "kind"), [("/dev/zero", "a device"), ("pipe", "a pipe"), ("folder", "a folder")])
def test_a_recipe_is_a_regular_file(tmp_path: Path, mistake: Callable[..., str], name: str, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    sentence = mistake("data", "-c", str(tmp_path / name), parse=parse_train_args)
    assert sentence.endswith(f"this is {kind}, not a regular file: save the flags as a file, and name that")


def test_pipes_are_refused_before_torch_is_imported(pipe: Path) -> None:
    for given in ({"input": [str(pipe)]}, {"checkpoint": str(pipe)}, {"data_dir": str(pipe), "train_split": "train"}):
        first = next(missing_files(Namespace(**{"split": "test"} | given)))
        assert "pipe.csv is a pipe, not a regular file" in first
