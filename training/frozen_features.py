"""Representations of a frozen backbone, computed once if no augmentation changes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from simclr.collectives import gather_rows, rank, world_size
from timm.models.multi_label import MultiLabelModel

Extract = Callable[[Tensor], Tensor]


def feature_loaders(
    model: MultiLabelModel,
    train_loader: Any,
    eval_loader: Any,
    autocast: Callable[[], AbstractContextManager[Any]],
    to_device: Callable[[Tensor], Tensor],
) -> tuple[Any, Any]:
    """Return loaders of representations [B, D] instead of images; `MultiLabelModel` takes both.

    All ranks together compute the training representations now. The validation representations are computed when they
    are scored for the first time.

    Args:
        model: model with a frozen backbone, on its device.
        train_loader: training loader with a single view, the same in each epoch.
        eval_loader: validation loader.
        autocast: function that returns the context of a forward pass.
        to_device: moves images to the model's device and memory format.
    """
    extract = _extractor(model, autocast, to_device)
    dataset = train_loader.dataset
    dataset.features, targets = _features_by_row(train_loader, extract)
    # An unreadable image was replaced by another row, whose target and number its features need.
    width = dataset.targets.shape[1]
    dataset.numbers = targets[:, width] if dataset.numbers is not None else None
    dataset.targets = targets[:, :width]
    batch_size = getattr(train_loader, "loader", train_loader).batch_size
    probe: Any = DataLoader(dataset, batch_size, sampler=train_loader.sampler, drop_last=True)
    return probe, _CachedLoader(eval_loader, extract)


def evaluation_features(
    model: MultiLabelModel,
    eval_loader: Any,
    autocast: Callable[[], AbstractContextManager[Any]],
    to_device: Callable[[Tensor], Tensor],
) -> Any:
    """Return the validation loader of `feature_loaders` alone."""
    return _CachedLoader(eval_loader, _extractor(model, autocast, to_device))


def _extractor(
    model: MultiLabelModel,
    autocast: Callable[[], AbstractContextManager[Any]],
    to_device: Callable[[Tensor], Tensor],
) -> Extract:
    """Return a function from images to their representations."""

    @torch.no_grad()
    def extract(images: Tensor) -> Tensor:
        with autocast():
            return model.forward_features(to_device(images)).float()

    return extract


def _features_by_row(loader: Any, extract: Extract) -> tuple[Tensor, Tensor]:
    """Return the representation [rows, D] and the target [rows, C] of each row, on the CPU, on every process."""
    batches = getattr(loader, "loader", loader)
    rows = torch.arange(len(loader.dataset))
    local = rows[rank() :: world_size()]
    images: Any = DataLoader(
        Subset(loader.dataset, local.tolist()),
        batches.batch_size,
        num_workers=batches.num_workers,
        prefetch_factor=batches.prefetch_factor,
        collate_fn=batches.collate_fn,
        worker_init_fn=batches.worker_init_fn,
        pin_memory=batches.pin_memory,
    )
    features, targets = [], []
    for batch, target in images:
        if batches is not loader:  # a prefetcher normalizes
            batch = batch.to(loader.device).to(loader.img_dtype).sub_(loader.mean).div_(loader.std)
        features.append(extract(batch))
        targets.append(target)
    device = features[0].device
    shares = (torch.cat(features), torch.cat(targets).to(device), local[:, None].to(device))
    all_features, all_targets, all_rows = (gather_rows(share).cpu() for share in shares)
    order = all_rows[:, 0].argsort()
    return all_features[order], all_targets[order]


class _CachedLoader:
    """Loader that computes its representations in the first pass and repeats them in later ones."""

    def __init__(self, loader: Any, extract: Extract) -> None:
        self.loader = loader
        self.extract = extract
        self.batches: list[tuple[Tensor, Tensor]] = []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.batches:
            self.batches = [(self.extract(images), target) for images, target in self.loader]
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["loader"], name)
