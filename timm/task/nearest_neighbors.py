"""Accuracy of weighted k-nearest neighbors: how well representations separate the classes without training.

- Unsupervised feature learning via non-parametric instance discrimination, Wu et al., 2018,
  https://arxiv.org/abs/1805.01978 (section 3.4: votes weighted by exp(similarity / 0.07), k = 200)

An image gets the class that its most similar training images vote for, by cosine similarity of representations. For
each attribute, only images with a known label for it vote and are scored. The classes of a multi-valued attribute are
whole sets, so a set that no neighbor has is never predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from catalog.label_space import UNKNOWN, LabelSpace
from simclr import effective_rank, gather_rows, unit_variance
from simclr.collectives import world_size
from timm.data.target_codes import label_codes
from timm.models.multi_label import MultiLabelModel
from timm.task import evaluation_sample_limit

NEIGHBORS = (20, 200)
TEMPERATURE = 0.07
_CHUNK_QUERIES = 256  # queries a chunk; with an index of 10,000 images their similarities take 10 MB
_RANK_ROWS = 1_000  # rows for the effective rank, whose cost is cubic in their number

Autocast = Callable[[], AbstractContextManager[Any]]
ToDevice = Callable[[Tensor], Tensor]
Accuracies = dict[int, list[float]]  # for each k, each attribute's percentage; NaN if index or queries have no label


@torch.inference_mode()
def represent(
    model: MultiLabelModel, loader: Iterable[Any], autocast: Autocast, to_device: ToDevice
) -> tuple[Tensor, Tensor]:
    """Return the representations of a loader's images, and their targets.

    With several processes, each returns its share without the padding of a distributed sampler.

    Args:
        model: model that represents the images; it is left in evaluation mode.
        loader: batches of images [B, C, H, W] and targets [B, C].
        autocast: factory of the context that sets the precision of the forward pass.
        to_device: function that moves images to the model's device and memory format.

    Returns:
        Representations scaled to length 1, float32 [n, D], and targets, int64 [n, C].
    """
    model.eval()
    representations, targets = [], []
    for images, target in loader:
        with autocast():
            h = model.forward_features(to_device(images))
        representations.append(F.normalize(h.float(), dim=1))
        targets.append(target.to(h.device, non_blocking=True))
    limit = evaluation_sample_limit(loader)
    return torch.cat(representations)[:limit], torch.cat(targets)[:limit]


@torch.inference_mode()
def neighbor_metrics(
    model: MultiLabelModel,
    index_loader: Any,
    eval_loader: Any,
    autocast: Autocast,
    to_device: ToDevice,
    label_space: LabelSpace,
) -> tuple[Accuracies, dict[str, float]]:
    """Return the neighbor accuracies, and the effective rank and variance of the index's representations.

    One pass over each loader serves all k and all attributes. With several processes, each represents its share; every
    process returns the result that a single process would.

    Args:
        model: model that represents the images; its weights, statistics and gradients do not change.
        index_loader: images that vote.
        eval_loader: images that are classified; None without attributes.
        autocast: factory of the context that sets the precision of the forward pass.
        to_device: function that moves images to the model's device and memory format.
        label_space: the attributes and their classes.
    """
    index, labels = (_gather_in_order(part) for part in represent(model, index_loader, autocast, to_device))
    accuracies: Accuracies = {k: [] for k in NEIGHBORS}
    if eval_loader is not None:
        queries, targets = represent(model, eval_loader, autocast, to_device)
        accuracies = neighbor_accuracies(index, labels, queries, targets, label_space)
    sample = index[:: math.ceil(len(index) / _RANK_ROWS)]
    return accuracies, {"effective_rank_h": effective_rank(sample), "variance_h": unit_variance(sample)}


def neighbor_accuracies(
    index: Tensor,
    labels: Tensor,
    queries: Tensor,
    targets: Tensor,
    label_space: LabelSpace,
    neighbors: Sequence[int] = NEIGHBORS,
) -> Accuracies:
    """Return the accuracy of each attribute for each k, over the queries of all processes.

    Args:
        index: representations of length 1 that vote, [M, D], the same on every process.
        labels: targets of the index, int64 [M, C].
        queries: this process's representations of length 1, [n, D].
        targets: targets of the queries, int64 [n, C]; a class outside the label space counts as wrong.
        label_space: the attributes and their classes.
        neighbors: values of k; if fewer images have a label, all of these vote.
    """
    attributes = label_space.attributes
    counts = torch.zeros(len(neighbors) + 1, len(attributes), dtype=torch.int64, device=queries.device)
    index_codes, query_codes = (label_codes(rows, label_space) for rows in (labels, targets))  # [M, A], [n, A]
    for attribute in range(len(attributes)):
        voters = (index_codes[:, attribute] >= 0).nonzero().flatten()
        scored = (query_codes[:, attribute] != UNKNOWN).nonzero().flatten()
        if not len(voters):
            continue
        # renumber the codes from 0, since the codes of sets are hashes
        codes, classes = index_codes[voters, attribute].unique(return_inverse=True)
        counts[-1, attribute] += len(scored)
        for rows in scored.split(_CHUNK_QUERIES):
            predictions = classify_by_neighbors(index[voters], classes, queries[rows], len(codes), neighbors)
            counts[:-1, attribute] += (codes[predictions] == query_codes[rows, attribute]).sum(dim=1)
    if world_size() > 1:
        dist.all_reduce(counts)
    *hits, total = counts.tolist()
    return {
        k: [100 * hit / count if count else math.nan for hit, count in zip(row, total, strict=True)]
        for k, row in zip(neighbors, hits, strict=True)
    }


def classify_by_neighbors(
    index: Tensor, labels: Tensor, queries: Tensor, classes: int, neighbors: Sequence[int]
) -> Tensor:
    """Return the class with the most votes for each k and each query, int64 [len(neighbors), n].

    Args:
        index: representations of length 1 that vote, [M, D], M at least 1.
        labels: class index of each row of the index, int64 [M].
        queries: representations of length 1, [n, D].
        classes: number of classes.
        neighbors: values of k; if M is smaller, all M vote.
    """
    similarities, nearest = (queries @ index.T).topk(min(max(neighbors), len(index)), dim=1)  # [n, k]
    weights, voted = (similarities / TEMPERATURE).exp(), labels[nearest]  # [n, k]; weights are at most e^14.3
    predictions = []
    for k in neighbors:
        votes = weights.new_zeros(len(queries), classes)
        predictions.append(votes.scatter_add_(1, voted[:, :k], weights[:, :k]).argmax(dim=1))
    return torch.stack(predictions)


def _gather_in_order(share: Tensor) -> Tensor:
    """Return the rows of all processes in the order of the dataset; rank r of W holds rows r, r + W, r + 2W, ..."""
    rows = gather_rows(share)
    dataset_rows = torch.cat([torch.arange(r, len(rows), world_size()) for r in range(world_size())])
    return rows[dataset_rows.argsort().to(rows.device)]
