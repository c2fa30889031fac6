"""Caches of tables: found again by later runs, shared by processes, never stale, refused where they do not fit."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from catalog import image_cache
from catalog.decode import load_pixels
from catalog.label_space import UNKNOWN
from catalog.table import read_table
from runtime.cache_folder import default_cache_folder
from runtime.errors import UsageError
from timm.data import two_view_dataset
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_plan import plan_views
from training import shared_cache
from training.shared_cache import cache_tables

GIB = 2**30


def _draw(folder: Path, rows: int = 6) -> Path:
    """Write a table of images that all have the same number of bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{row}.bmp" for row in range(rows)]
    for row, name in enumerate(names):
        Image.new("RGB", (8, 6), (20 * row, 0, 0)).save(folder / name)
    return _table(folder, names)


def _table(folder: Path, names: Sequence[str], split: str = "train") -> Path:
    (folder / f"{split}.csv").write_text("\n".join(["image_path,kind", *[f"{name},a" for name in names]]) + "\n")
    return folder / f"{split}.csv"


def _dataset(path: Path, channels: int = 3, training: bool = False) -> TwoViewDataset:
    table = read_table(path)
    plan = plan_views(contrast=False) if training else None
    return TwoViewDataset(table, np.zeros((len(table), 1), dtype=np.int64), plan, channels)


def _cached(path: Path, kind: str, folder: Path, **options: Any) -> TwoViewDataset:
    dataset = _dataset(path, **options)
    cache_tables([dataset], kind, folder, workers=0, local_rank=0, processes=1)
    return dataset


def _reds(dataset: TwoViewDataset) -> list[int]:
    return [int(dataset.load(row)[0, 0, 0]) for row in range(len(dataset))]


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are decoded from now on, and of those whose header is read."""
    names: list[str] = []

    def note(function: Any) -> Any:
        return lambda path, *channels: (names.append(Path(path).name), function(path, *channels))[1]

    monkeypatch.setattr(two_view_dataset, "load_pixels", note(load_pixels))
    monkeypatch.setattr(image_cache, "load_pixels", note(load_pixels))
    monkeypatch.setattr(image_cache, "image_size", note(image_cache.image_size))
    return names


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_each_image_is_measured_once_and_decoded_once(tmp_path: Path, looked_at: list[str], kind: str) -> None:
    path = _draw(tmp_path / "data")
    _table(path.parent, ["0.bmp", "1.bmp", "0.bmp"])  # the second row of an image finds what the first has left
    dataset = _cached(path, kind, tmp_path / "cache")
    assert looked_at == ["0.bmp", "1.bmp"] * 2
    for _ in range(2):
        assert _reds(dataset) == [0, 20, 0]
    assert looked_at == ["0.bmp", "1.bmp"] * 2


def test_a_later_run_neither_measures_nor_decodes(
    tmp_path: Path, looked_at: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = _draw(tmp_path / "data"), tmp_path / "cache"
    _reds(_cached(path, "disk", folder))
    looked_at.clear()
    monkeypatch.chdir(folder)  # it may be started elsewhere
    with caplog.at_level(logging.INFO):
        again = _cached(path, "disk", folder)
    assert _reds(again) == [0, 20, 40, 60, 80, 100]
    assert looked_at == []
    assert "all decoded images are in" in caplog.text
    assert _cached(path, "disk", folder, channels=1).load(3).shape[2] == 1  # it has a cache beside the first
    assert len(list(folder.iterdir())) == 2


def test_what_is_cached_by_workers_is_read_by_others(tmp_path: Path) -> None:
    path = _draw(tmp_path / "data")
    dataset = _cached(path, "ram", tmp_path)
    dataset.transform = pil_to_tensor
    loader: Any = torch.utils.data.DataLoader(dataset, batch_size=1, num_workers=2)
    first = [image for image, _ in loader]
    for file in path.parent.glob("*.bmp"):
        file.unlink()
    assert all(torch.equal(*pair) for pair in zip(first, [image for image, _ in loader], strict=True))
    assert not dataset.unreadable.any()


def test_a_changed_image_is_decoded_anew_and_the_old_cache_goes(tmp_path: Path) -> None:
    path, folder = _draw(tmp_path / "data"), tmp_path / "cache"
    running = _cached(path, "disk", folder)
    _reds(running)
    (old,) = folder.iterdir()
    length = (path.parent / "2.bmp").stat().st_size
    Image.new("RGB", (8, 6), (200, 0, 0)).save(path.parent / "2.bmp")
    assert (path.parent / "2.bmp").stat().st_size == length
    os.utime(path.parent / "2.bmp", ns=(0, (path.parent / "3.bmp").stat().st_mtime_ns + 1))
    assert _reds(_cached(path, "disk", folder)) == [0, 20, 200, 60, 80, 100]
    (new,) = folder.iterdir()
    assert new != old
    assert _reds(running)[:2] == [0, 20]  # a run that has it open keeps it
    assert _reds(running)[2] == 40  # with what it saw first


def test_an_image_of_the_same_name_time_and_length_elsewhere_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, red in ("a", 10), ("b", 30):
        (tmp_path / place).mkdir()
        Image.new("RGB", (8, 6), (red, 0, 0)).save(tmp_path / place / "x.bmp")
        os.utime(tmp_path / place / "x.bmp", ns=(0, 10**18))
    (tmp_path / "data").mkdir()
    for place, red in ("a", 10), ("b", 30):
        monkeypatch.chdir(tmp_path / place)  # which the paths of the table are relative to
        assert _reds(_cached(_table(tmp_path / "data", ["x.bmp"]), "disk", tmp_path / "cache")) == [red]


@pytest.mark.parametrize(("name", "length"), [("index.npy", 100), ("index.npy", 0), ("pixels", 40), ("pixels", 0)])
def test_a_cache_on_disk_that_was_cut_short_is_built_again(tmp_path: Path, name: str, length: int) -> None:
    path, folder = _draw(tmp_path / "data"), tmp_path / "cache"
    _cached(path, "disk", folder)
    (cache,) = folder.iterdir()
    whole = (cache / name).read_bytes()
    os.truncate(cache / name, length)
    assert _reds(_cached(path, "disk", folder)) == [0, 20, 40, 60, 80, 100]
    assert (cache / name).read_bytes() == whole


def test_a_run_that_finishes_second_uses_the_cache_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = _draw(tmp_path / "data"), tmp_path / "cache"
    decode_into = shared_cache.decode_into

    def overtaken(*words: Any) -> Any:
        monkeypatch.setattr(shared_cache, "decode_into", decode_into)
        _cached(path, "disk", folder)
        return decode_into(*words)

    monkeypatch.setattr(shared_cache, "decode_into", overtaken)
    assert _reds(_cached(path, "disk", folder)) == [0, 20, 40, 60, 80, 100]
    assert len([*folder.iterdir()]) == 1  # nothing unfinished is left


def test_a_cache_that_cannot_be_finished_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> int:
        raise OSError(28, "No space left on device")

    path, folder = _draw(tmp_path / "data"), tmp_path / "cache"
    monkeypatch.setattr(os, "pwrite", no_space)
    with pytest.raises(UsageError, match=r"--cache disk: cannot keep images in .* \(No space left on device\): name"):
        _cached(path, "disk", folder)
    assert [*folder.iterdir()] == []


def test_two_splits_may_be_one_table(tmp_path: Path, looked_at: list[str]) -> None:
    path = _draw(tmp_path / "data")
    datasets = [_dataset(path), _dataset(path)]
    cache_tables(datasets, "disk", tmp_path / "cache", workers=0, local_rank=0, processes=1)
    assert _reds(datasets[0]) == _reds(datasets[1])
    assert len(looked_at) == 6 * 3  # measured for each, decoded for the first


def test_an_unreadable_image_is_marked_as_without_a_cache(tmp_path: Path) -> None:
    path = _draw(tmp_path / "data", 12)
    (path.parent / "1.bmp").write_bytes((path.parent / "1.bmp").read_bytes()[:80])  # a whole header
    (path.parent / "4.bmp").write_text("no image")
    (path.parent / "7.bmp").unlink()
    for kind in ("ram", "disk"):
        for training in (False, True):
            dataset = _cached(path, kind, tmp_path / "cache", training=training)
            for _ in range(2):
                targets = [dataset[row][1].tolist() for row in range(12)]
            assert dataset.unreadable.nonzero().flatten().tolist() == [1, 4, 7]
            assert [row for row in range(12) if targets[row] == [UNKNOWN]] == ([] if training else [1, 4, 7])


@pytest.mark.parametrize(
    ("kind", "source", "sentence"),
    [
        (
            "ram",
            "available_memory",
            r"--cache ram takes 3\.00 GiB for 2 decoded images, more than 80% of the 3\.50 GiB that are free in "
            "memory: use --cache disk, --cache none, or smaller images$",
        ),
        (
            "disk",
            "available_disk",
            r"--cache disk takes 3\.00 GiB for 2 decoded images, more than 95% of the 3\.00 GiB that are free in "
            r"\S+/cache: use --cache-dir on a larger disk, --cache none, or smaller images$",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_both_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, source: str, sentence: str
) -> None:
    path = _draw(tmp_path / "data", 1)
    datasets = [_dataset(path), _dataset(_table(path.parent, ["0.bmp"], "val"))]  # their sizes are added up
    monkeypatch.setattr(image_cache, "image_size", lambda path: (2**14, 2**15))
    free = {"ram": 3.5, "disk": 3.0}[kind]
    monkeypatch.setattr(shared_cache, source, lambda *_: int(free * GIB))
    with pytest.raises(UsageError, match=sentence):
        cache_tables(datasets, kind, tmp_path / "cache", workers=0, local_rank=0, processes=1)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(shared_cache, source, lambda *_: 4 * GIB)
    cache_tables(datasets, kind, tmp_path / "cache", workers=0, local_rank=0, processes=1)


def test_only_what_is_not_there_yet_must_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = _draw(tmp_path / "data"), tmp_path / "cache"
    _reds(_cached(path, "disk", folder))
    monkeypatch.setattr(shared_cache, "available_disk", lambda folder: 0)
    assert _reds(_cached(path, "disk", folder)) == [0, 20, 40, 60, 80, 100]
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match=r"more than 95% of the 0\.00 GiB"):
        _cached(path, "disk", folder)


def test_a_line_says_what_it_takes_and_where(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = _draw(tmp_path / "data")
    with caplog.at_level(logging.INFO):
        _cached(path, "ram", tmp_path)
        _cached(path, "disk", tmp_path / "cache")
    in_memory, on_disk = [record.message for record in caplog.records]
    assert in_memory.startswith("Cache: 6 decoded images take 0.00 GiB in memory; ")
    assert on_disk.startswith(f"Cache: 6 decoded images take 0.00 GiB in {tmp_path / 'cache'}; ")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = _draw(tmp_path / "data")
    for folder in (path, path / "below"):  # path is a file
        with pytest.raises(UsageError, match=rf"cannot keep images in {folder} .*--cache-dir"):
            _cached(path, "disk", folder)


def test_a_system_without_shared_files_in_memory_gets_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _draw(tmp_path / "data")
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(UsageError, match=r"--cache ram needs .*: use --cache disk or --cache none"):
        _cached(path, "ram", tmp_path)
    monkeypatch.delattr(os, "preadv")
    with pytest.raises(UsageError, match=r"--cache disk needs .*: use --cache none"):
        _cached(path, "disk", tmp_path)


def test_the_users_cache_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "simclr-multi-label"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder() == Path.home() / ".cache" / "simclr-multi-label"


def _decoded_by_each(path: Path, kind: str, folder: Path) -> int:
    """Build a cache and load every image; return how many images this process has decoded."""
    decoded: list[Any] = []

    def load(*words: Any) -> Any:
        decoded.append(words)
        return load_pixels(*words)

    image_cache.load_pixels = two_view_dataset.load_pixels = load
    dataset = _dataset(path)
    cache_tables([dataset], kind, folder, workers=0, local_rank=dist.get_rank(), processes=2)
    assert _reds(dataset) == [0, 20, 40, 60, 80, 100]
    return len(decoded)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_the_processes_of_a_host_share_a_cache(tmp_path: Path, kind: str) -> None:
    assert run_on_processes(2, _decoded_by_each, _draw(tmp_path / "data"), kind, tmp_path / "cache") == [6, 0]


def _refusal(path: Path, folder: Path) -> str:
    with pytest.raises(UsageError) as refusal:
        cache_tables([_dataset(path)], "disk", folder, workers=0, local_rank=dist.get_rank(), processes=2)
    return str(refusal.value)


def test_what_the_first_process_refuses_all_refuse(tmp_path: Path) -> None:
    path = _draw(tmp_path / "data")
    sentences = run_on_processes(2, _refusal, path, path)
    assert sentences[0] == sentences[1]
    assert "--cache-dir" in sentences[0]
