"""The settings of a run's data and loaders, and the order that mixes unlabeled images into batches."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from table_files import draw_catalog

from catalog.build_label_space import build_label_space
from catalog.table import read_table
from catalog.targets import encode_targets
from options.train import parse_train_args
from options.train_kwargs import augmentation_kwargs, data_kwargs, loader_kwargs
from runtime.errors import UsageError
from runtime.process import Process
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_maker import Augmentation
from timm.data.view_plan import plan_views
from training.label_tables import DataSettings
from training.loaders import RunLoaderSettings, fitting_batch_size, make_loaders, mixed_order

ALONE = Process(torch.device("cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_catalog(tmp_path_factory.mktemp("catalog"), train=12, val=4)


@pytest.fixture
def settings(data: Path) -> RunLoaderSettings:
    args = parse_train_args([str(data), "--model", "test_efficientnet", "-b", "4"])
    return RunLoaderSettings(reads_labels=True, **loader_kwargs(args))


def images_of(data: Path) -> TwoViewDataset:
    table = read_table(data / "train.csv")
    return TwoViewDataset(table, encode_targets(table, build_label_space(table), strict=True), plan_views(True))


def test_the_flags_fill_every_setting(data: Path) -> None:
    args = parse_train_args([str(data), "--model", "test_efficientnet"])
    for settings, given in (
        (DataSettings, data_kwargs(args)),
        (Augmentation, augmentation_kwargs(args)),
        (RunLoaderSettings, loader_kwargs(args) | {"reads_labels": True}),
    ):
        assert {field.name for field in fields(settings)} == set(given)


def test_labels_are_read_by_the_classification_loss_and_by_some_contrastive_losses(data: Path) -> None:
    settings = DataSettings(**data_kwargs(parse_train_args([str(data), "--model", "test_efficientnet"])))
    assert settings.reads_labels
    pretraining = replace(settings, classify=False)
    assert not pretraining.reads_labels
    assert replace(pretraining, contrastive="supcon").reads_labels
    assert replace(pretraining, mask_false_negatives=True).reads_labels


def test_without_a_ratio_rows_keep_their_order(data: Path, settings: RunLoaderSettings) -> None:
    assert mixed_order(settings, ALONE, images_of(data)) is None


def test_a_ratio_mixes_the_rows_without_a_label_into_batches(data: Path, settings: RunLoaderSettings) -> None:
    dataset = images_of(data)
    dataset.targets[::2] = -100
    sampler = mixed_order(replace(settings, unlabeled_ratio=0.5), ALONE, dataset)
    assert sampler is not None
    assert (sampler.batch, sampler.extra) == (4, 2)
    has_label = (dataset.targets >= 0).any(dim=1).numpy()
    assert sampler.labeled.tolist() == np.flatnonzero(has_label).tolist()
    with pytest.raises(UsageError, match=r"fewer than the 40 .* lower --unlabeled-ratio"):
        mixed_order(replace(settings, unlabeled_ratio=10), ALONE, dataset)


@pytest.mark.parametrize(("asked", "processes", "fitting"), [(12, 1, 12), (13, 1, 12), (64, 2, 6), (64, 12, 64)])
def test_a_small_table_lowers_the_batch_size(
    data: Path, settings: RunLoaderSettings, asked: int, processes: int, fitting: int
) -> None:
    process = Process(torch.device("cpu"), world_size=processes)
    dataset = images_of(data)
    assert fitting_batch_size(replace(settings, batch_size=asked), process, dataset) == fitting
    dataset.targets[:] = 0
    dataset.targets[::2] = -100  # with a ratio, the batch size counts the labeled half
    mixed = replace(settings, batch_size=asked, unlabeled_ratio=0.5)
    assert fitting_batch_size(mixed, process, dataset) == (asked if processes == 12 else 6 // processes)


def test_repeats_need_several_processes(data: Path, settings: RunLoaderSettings) -> None:
    repeated = replace(settings, train_loader={**settings.train_loader, "num_aug_repeats": 3})
    with pytest.raises(UsageError, match=r"--aug-repeats .* several processes"):
        make_loaders(repeated, ALONE, torch.float32, {}, images_of(data), None)
