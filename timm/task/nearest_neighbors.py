"""How well representations tell the classes apart by themselves: accuracy of weighted k-nearest neighbors.

- Wu, Xiong, Yu & Lin, 2018, https://arxiv.org/abs/1805.01978 (section 3.4: weights exp(similarity / 0.07), k = 200)

Nothing is trained: an image gets the class that the training images most similar to it vote for. Representations are
compared by cosine similarity. Each attribute has its own neighbors, the k most similar images whose label for it is
known, so that its accuracy is that of a table with this column alone; an image whose label is unknown is not asked. Of
a multi-valued attribute whole sets are voted for, and one that no voter has cannot be told.
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
from timm.data.target_codes import label_codes
from timm.models.multi_label import MultiLabelModel
from timm.task import evaluation_sample_limit

NEIGHBORS = (20, 200)
TEMPERATURE = 0.07
_QUERIES = 256  # at a time: with an index of 10,000 images their similarities take 10 MB
_MEASURED = 1_000  # rows for the effective rank, whose eigenvalues cost their number cubed

Autocast = Callable[[], AbstractContextManager[Any]]
ToDevice = Callable[[Tensor], Tensor]
Accuracies = dict[int, list[float]]  # by k: each attribute's, in percent, NaN without a label on either side


@torch.inference_mode()
def represent(
    model: MultiLabelModel, loader: Iterable[Any], autocast: Autocast, to_device: ToDevice
) -> tuple[Tensor, Tensor]:
    """Return the representations of a loader's images scaled to length 1 [n, D], float32, and their targets [n, C].

    On several processes each returns its share, without what a distributed sampler pads.

    Args:
        model: put into evaluation mode, in which it is left.
        loader: batches of images [B, C, H, W] and targets [B, C].
        autocast: the precision's context.
        to_device: moves images to the model's device and memory format.
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
    """Return the accuracies of the evaluated images, and of the index the effective rank and variance of h.

    One pass over each loader serves every k and every attribute. On several processes each represents its share, and
    the result is the same on all and that of one.

    Args:
        model: as for `represent`; its weights, statistics and gradients are left alone.
        index_loader: the images that vote.
        eval_loader: the images that are classified, None where there is no attribute.
        autocast: the precision's context.
        to_device: moves images to the model's device and memory format.
        label_space: the attributes and their classes.
    """
    index, labels = (_in_order(part) for part in represent(model, index_loader, autocast, to_device))
    accuracies: Accuracies = {k: [] for k in NEIGHBORS}
    if eval_loader is not None:
        queries, targets = represent(model, eval_loader, autocast, to_device)
        accuracies = neighbor_accuracies(index, labels, queries, targets, label_space)
    sample = index[:: math.ceil(len(index) / _MEASURED)]
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
        index: unit rows [M, D], the same on every process.
        labels: int64 [M, C], their targets.
        queries: this process's unit rows [n, D].
        targets: int64 [n, C]; a class outside the label space counts as wrong.
        label_space: the attributes and their classes.
        neighbors: each k; where fewer are labeled these vote.
    """
    attributes = label_space.attributes
    counts = torch.zeros(len(neighbors) + 1, len(attributes), dtype=torch.int64, device=queries.device)
    codes, wanted = (label_codes(rows, label_space) for rows in (labels, targets))
    for attribute in range(len(attributes)):
        voters = (codes[:, attribute] >= 0).nonzero().flatten()
        asked = (wanted[:, attribute] != UNKNOWN).nonzero().flatten()
        if not len(voters):
            continue
        voted, classes_of = codes[voters, attribute].unique(return_inverse=True)
        counts[-1, attribute] += len(asked)
        for rows in asked.split(_QUERIES):
            predictions = classify_by_neighbors(index[voters], classes_of, queries[rows], len(voted), neighbors)
            counts[:-1, attribute] += (voted[predictions] == wanted[rows, attribute]).sum(dim=1)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(counts)
    *hits, total = counts.tolist()
    return {
        k: [100 * hit / all_ if all_ else math.nan for hit, all_ in zip(row, total, strict=True)]
        for k, row in zip(neighbors, hits, strict=True)
    }


def classify_by_neighbors(
    index: Tensor, labels: Tensor, queries: Tensor, classes: int, neighbors: Sequence[int]
) -> Tensor:
    """Return for each k the class of each query with the most votes, int64 [len(neighbors), n].

    Args:
        index: unit rows [M, D], M at least 1.
        labels: int64 [M], the class of each.
        queries: unit rows [n, D].
        classes: their number.
        neighbors: each k; where there are fewer, all vote.
    """
    similarities, nearest = (queries @ index.T).topk(min(max(neighbors), len(index)), dim=1)
    weights, voted = (similarities / TEMPERATURE).exp(), labels[nearest]  # [n, k]; at most e^14.3
    predictions = []
    for k in neighbors:
        votes = weights.new_zeros(len(queries), classes)
        predictions.append(votes.scatter_add_(1, voted[:, :k], weights[:, :k]).argmax(dim=1))
    return torch.stack(predictions)


def _in_order(share: Tensor) -> Tensor:
    """Return the rows of every process in the order of the data, of which process r of W has rows r, r + W, ..."""
    rows = gather_rows(share)
    processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    dealt = torch.cat([torch.arange(r, len(rows), processes) for r in range(processes)])
    return rows[dealt.argsort().to(rows.device)]
