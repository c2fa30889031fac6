"""Logistic regression on a model's representations of training images: what its features allow without its heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from catalog.label_space import LabelSpace
from catalog.table import Table
from reports.run_results import Bools
from runtime.progress import progress_bar
from serving.loading import EvaluationModel, make_loader
from serving.scoring import settle_unreadable
from timm.data.target_codes import by_attribute, value_sets
from timm.data.two_view_dataset import TwoViewDataset
from timm.task.head_solver import ROUGH, Head, HeadProblem
from timm.task.refit import extract_features
from timm.task.temperature import negative_log_likelihood

_STRENGTHS = (1000.0, 100.0, 10.0, 1.0)  # penalties to choose from; a baseline needs no finer ones
_FOLDS = 5


@dataclass(frozen=True)
class TrainedOnFeatures:
    """Heads solved on representations.

    Attributes:
        space: the attributes and their classes.
        heads: the heads of the attributes that have labels.
        images: number of training images.
    """

    space: LabelSpace
    heads: Mapping[str, Head]
    images: int

    def right(self, name: str, h: Tensor, target: Tensor) -> Bools:
        """Return whether the prediction of an attribute is right, [N].

        Args:
            name: the attribute.
            h: representations [N, D].
            target: int64 [N, C].
        """
        if name not in self.heads:
            return np.zeros(len(h), bool)
        logits, labels = self.heads[name].logits(h).cpu(), target[:, self.space.columns[name]]
        if name in self.space.multi_valued:
            sets = value_sets(labels, logits.shape[1])
            right = ((logits > 0) == sets.values).all(dim=1) & ~sets.unseen
        else:
            right = logits.argmax(dim=1) == labels[:, 0]
        found: Bools = right.numpy()
        return found


def solve_on_features(
    ready: EvaluationModel,
    table: Table,
    targets: np.ndarray[Any, np.dtype[np.int64]],
    *,
    most: int,
    tta: int,
    loading: Mapping[str, Any],
    max_unreadable: float,
) -> TrainedOnFeatures | None:
    """Return heads solved on the representations of labeled training images; None without a label.

    A fifth of these images chooses the penalty of each attribute, and all of them then solve its head.

    Args:
        ready: the model.
        table: the training table.
        targets: its targets, int64 [rows, C].
        most: number of images; a larger table is sampled, always in the same way.
        tta: 2 averages an image and its mirror image.
        loading: arguments of `make_loader` besides the model and the dataset.
        max_unreadable: largest share of unreadable images, 0-1.

    Raises:
        UsageError: too many images are unreadable, or a representation is not finite.
    """
    rows = np.flatnonzero((targets >= 0).any(axis=1))
    if not len(rows):
        return None
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    dataset = TwoViewDataset(table.take(rows), targets[rows], None, ready.channels, max_unreadable=max_unreadable)
    loader = make_loader(ready, dataset, **loading)
    with progress_bar(len(loader), f"Representations of {table.path.name}") as bar:
        settings: dict[str, Any] = {"tta": tta, "after_batch": lambda images: bar.update()}
        features = extract_features(ready.network, loader, ready.autocast, ready.to_device, **settings)
    settle_unreadable(dataset, ready)
    space, heads = ready.label_space, {}
    for name, labels in zip(space.attributes, by_attribute(features.target, space), strict=True):
        head = _solved(features.h, labels, space.num_classes[name])
        if head is not None:
            heads[name] = head
    return TrainedOnFeatures(space, heads, len(rows))


def _solved(h: Tensor, labels: Tensor, classes: int) -> Head | None:
    """Return the head of one attribute; None without a label.

    Args:
        h: representations [n, D].
        labels: codes [n], or the columns [n, W] of a multi-valued attribute.
        classes: K.
    """
    problem = HeadProblem(h, labels, classes)
    if not problem.total:
        return None
    known = problem.known
    truth = problem.targets if problem.several else labels[known]
    # every fifth image of each class is held out to choose the penalty
    order = label_order(labels[known])
    held = torch.zeros(len(known), dtype=torch.bool)
    held[order[::_FOLDS]] = True
    strength = _STRENGTHS[0]
    if len(known) >= _FOLDS:
        heads = problem.solve(_STRENGTHS, included=~held, tol=ROUGH)
        losses = [negative_log_likelihood(head.logits(h[known[held]]), truth[held]) for head in heads]
        strength = _STRENGTHS[int(np.nanargmin(losses))]
    return next(problem.solve([strength], tol=ROUGH))


def label_order(labels: Tensor) -> Tensor:
    """Return the order that sorts labels [n] or [n, W]; equal ones keep their order."""
    order = torch.arange(len(labels))
    for column in labels.reshape(len(labels), -1).T.flip(0):
        order = order[column[order].argsort(stable=True)]
    return order
