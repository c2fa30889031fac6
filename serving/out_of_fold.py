"""Out-of-fold probabilities: a head that was solved without a label judges it.

The heads are logistic regressions on a model's fixed features. The labels are divided into folds, and the heads for one
fold are solved on all others. Images with the same content share a fold, so that no copy vouches for a label.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from catalog.folds import stratified_folds
from timm.data.target_codes import value_sets
from timm.task.head_solver import ROUGH, HeadProblem
from timm.task.refit import STRENGTHS

FOLDS = 5
_STRENGTHS = STRENGTHS[::2]
_PATIENCE = 2  # weaker penalties that are tried after the best one

Floats = npt.NDArray[np.float64]


def out_of_fold_probabilities(
    features: Tensor, labels: Tensor, classes: int, groups: npt.NDArray[np.int64], seed: int = 0
) -> Floats:
    """Return the probabilities of each labeled row's classes or, for a multi-valued attribute, of each value, [N, K].

    The strength of the penalty is the one with the lowest out-of-fold loss.

    Args:
        features: representations, floating-point [N, D].
        labels: codes of classes, int64 [N], or the columns [N, W] of a multi-valued attribute; none is unknown.
        classes: K, the number of classes.
        groups: group of each row, int64 [N], from 0; the rows of a group share a fold.
        seed: seed of the folds.
    """
    problem = HeadProblem(features, labels, classes)
    folds = _folds(problem, labels, classes, groups, seed)
    best, least, tried = np.full((len(features), classes), np.nan), math.inf, 0
    for logits in _held_out_logits(problem, features, folds):
        loss = _loss(problem, logits)
        tried += 1
        if loss < least:
            least, tried = loss, 0
            best = (logits.sigmoid() if problem.several else logits.softmax(dim=1)).numpy()
        elif tried >= _PATIENCE:
            break
    return best


def _folds(
    problem: HeadProblem, labels: Tensor, classes: int, groups: npt.NDArray[np.int64], seed: int
) -> npt.NDArray[np.int64]:
    """Return the fold of each row, with each class spread evenly."""
    counts = (value_sets(labels, classes).values if problem.several else problem.targets).numpy().astype(np.float64)
    number = min(FOLDS, len(np.unique(groups)))
    if problem.several:  # a row with none of the values has a label too
        counts = np.concatenate([counts, counts.sum(axis=1, keepdims=True) == 0], axis=1)
    return stratified_folds(counts, groups, number, seed)


def _held_out_logits(problem: HeadProblem, features: Tensor, folds: npt.NDArray[np.int64]) -> Iterator[Tensor]:
    """Yield for each strength, from strong to weak, the logits [N, K] of heads that did not see their rows."""
    held_out = [torch.from_numpy(folds == fold) for fold in range(int(folds.max()) + 1)]
    paths = [problem.solve(_STRENGTHS, included=~rows, tol=ROUGH) for rows in held_out]
    for heads in zip(*paths, strict=True):
        logits = torch.empty(problem.targets.shape, dtype=torch.float64)
        for rows, head in zip(held_out, heads, strict=True):
            logits[rows] = head.logits(features[rows]).cpu()
        yield logits


def _loss(problem: HeadProblem, logits: Tensor) -> float:
    """Return the mean loss of logits [N, K] over the labels."""
    targets = problem.targets.cpu()
    if problem.several:
        return float(F.binary_cross_entropy_with_logits(logits, targets.double()))
    return float(F.cross_entropy(logits, targets.double()))
