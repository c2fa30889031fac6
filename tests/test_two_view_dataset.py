"""Images and targets of a table, also where files are missing or broken."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from catalog.build_label_space import build_label_space
from catalog.data_error import DataError
from catalog.label_space import UNKNOWN
from catalog.table import read_table
from catalog.targets import encode_targets
from timm.data.resize_crop import as_tensor
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_plan import plan_views


def _table(folder: Path, rows: int = 12, broken: tuple[int, ...] = ()) -> Path:
    (folder / "images").mkdir(parents=True)
    lines = ["image_path,kind"]
    for row in range(rows):
        path = f"images/{row}.png"
        if row in broken:
            (folder / path).write_bytes(b"no picture")
        else:
            Image.new("RGB", (8, 8), (20 * row, 0, 0)).save(folder / path)
        lines.append(f"{path},{'ab'[row % 2]}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return folder / "train.csv"


def _dataset(path: Path, training: bool, **options) -> TwoViewDataset:
    table = read_table(path)
    plan = plan_views(contrast=False) if training else None
    targets = encode_targets(table, build_label_space(table), strict=True)
    return TwoViewDataset(table, targets, plan, views=as_tensor, **options)


def test_each_row_gives_its_image_and_its_target(tmp_path: Path) -> None:
    dataset = _dataset(_table(tmp_path), training=False)
    for row in range(12):
        image, target = dataset[row]
        assert image[0, 0, 0] == 20 * row
        assert target.tolist() == [row % 2]


def test_paths_are_relative_to_the_table_or_to_the_working_directory(tmp_path: Path, monkeypatch) -> None:
    path = _table(tmp_path / "data")
    path.write_text(path.read_text().replace("images/", "./data/images/"))
    monkeypatch.chdir(tmp_path)
    assert _dataset(path, training=False)[3][0][0, 0, 0] == 60


def test_in_training_a_broken_image_is_replaced_with_its_target_and_counted(tmp_path: Path, caplog) -> None:
    dataset = _dataset(_table(tmp_path, broken=(1, 4)), training=True)
    for row in (1, 4, 1):
        image, target = dataset[row]
        other = int(image[0, 0, 0]) // 20
        assert other not in (1, 4)
        assert target.tolist() == [other % 2]
    with caplog.at_level(logging.WARNING):
        assert dataset.report_unreadable() == 2
        assert dataset.report_unreadable() == 2
    assert caplog.text.count("images/4.png") == 1
    dataset.check_readable()


def test_in_evaluation_a_broken_image_has_no_labels_and_is_not_replaced(tmp_path: Path) -> None:
    dataset = _dataset(_table(tmp_path, broken=(4,)), training=False)
    image, target = dataset[4]
    assert target.tolist() == [UNKNOWN]
    assert image.sum() == 0
    assert dataset.report_unreadable() == 1


def test_more_broken_images_than_tolerated_stop_the_run_with_a_path(tmp_path: Path) -> None:
    dataset = _dataset(_table(tmp_path, rows=30, broken=tuple(range(11))), training=True)
    for row in range(30):
        dataset[row]
    with pytest.raises(DataError, match=r"11 of the 30 images .*images/0.png.*raise max_unreadable"):
        dataset.check_readable()
    generous = _dataset(dataset.table.path, training=True, max_unreadable=0.5)
    generous.unreadable.copy_(dataset.unreadable)
    generous.check_readable()


def test_only_broken_images_stop_the_run_and_end_no_worker(tmp_path: Path) -> None:
    dataset = _dataset(_table(tmp_path, rows=3, broken=(0, 1, 2)), training=True)
    assert dataset[0][1].tolist() == [UNKNOWN]
    for row in range(3):
        dataset[row]
    with pytest.raises(DataError, match="3 of the 3"):
        dataset.check_readable()


def test_the_parent_knows_the_images_that_a_worker_found_broken(tmp_path: Path) -> None:
    dataset = _dataset(_table(tmp_path, broken=(4,)), training=False)
    for _ in torch.utils.data.DataLoader(dataset, batch_size=1, num_workers=1):
        pass
    assert dataset.unreadable.nonzero().flatten().tolist() == [4]


def test_another_maker_of_views_serves_the_same_rows_and_shares_the_marks_of_unreadable_images(tmp_path: Path) -> None:
    dataset = _dataset(_table(tmp_path, broken=(4,)), training=False)
    brighter = dataset.with_views(lambda pixels: pixels + 1)
    assert brighter[3][0][0, 0, 0] == dataset[3][0][0, 0, 0] + 1
    assert brighter[3][1].tolist() == dataset[3][1].tolist()
    brighter[4]
    assert dataset.unreadable.nonzero().flatten().tolist() == [4]


def test_targets_are_int64_and_shared_not_copied_by_row(tmp_path: Path) -> None:
    dataset = _dataset(_table(tmp_path), training=False)
    assert dataset.targets.dtype == torch.int64
    assert isinstance(dataset.targets.numpy(), np.ndarray)
    assert dataset[3][1].data_ptr() == dataset.targets[3].data_ptr()
