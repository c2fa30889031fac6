"""Folds of a table's labeled rows: classes spread evenly, and groups kept whole.

scikit-learn is not needed to run this project, and its StratifiedGroupKFold balances one attribute. These folds balance
all attributes at once, the rarest classes first, as iterative stratification does for multi-label data:

- K. Sechidis, G. Tsoumakas, I. Vlahavas: On the stratification of multi-label data, ECML PKDD 2011
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.label_space import LabelSpace

NOT_IN_A_FOLD = -1  # the fold of a row that is never held out


def class_counts(targets: npt.NDArray[np.int64], label_space: LabelSpace) -> npt.NDArray[np.float64]:
    """Return which classes each row has, 0 or 1: float64 [rows, labels]; a distinct set of values counts as a class.

    Args:
        targets: int64 [rows, C], negative where unknown.
        label_space: the attributes and their classes.
    """
    parts = [np.empty((len(targets), 0))]
    for columns in label_space.columns.values():
        sets, codes = np.unique(targets[:, columns], axis=0, return_inverse=True)
        one_hot = np.eye(len(sets))[codes.reshape(-1)]
        parts.append(one_hot[:, sets[:, 0] >= 0])
    return np.concatenate(parts, axis=1)


def stratified_folds(
    counts: npt.NDArray[np.float64], groups: npt.NDArray[np.int64], folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return each row's fold, int64 [rows]; groups without a label are in none (`NOT_IN_A_FOLD`).

    Groups are placed one by one, those with the largest share of any class first, into the fold where their classes
    are rarest. Equally large groups are placed in random order.

    Args:
        counts: labels of each row, [rows, labels]; see `class_counts`.
        groups: group of each row, int64 [rows], from 0; the rows of a group share a fold.
        folds: number of folds, at most the number of groups with a label.
        seed: seed of the order.
    """
    # labels and labeled rows of each group
    labeled = counts.sum(axis=1, keepdims=True) > 0
    counts = np.concatenate([counts, labeled], axis=1)
    by_group = np.zeros((int(groups.max(initial=-1)) + 1, counts.shape[1]))
    np.add.at(by_group, groups, counts)
    shares = by_group / np.maximum(by_group.sum(axis=0), 1)  # parts of each class's labels

    # order
    shuffled = np.random.default_rng(seed).permutation(len(shares))
    largest = shares[shuffled].max(axis=1, initial=0)
    order = shuffled[np.argsort(-largest, kind="stable")]

    # the fold that raises the sum of squared shares least
    filled = np.zeros((folds, shares.shape[1]))
    fold_of_group = np.full(len(shares), NOT_IN_A_FOLD)
    for group in order[by_group[order, -1] > 0]:
        present = np.flatnonzero(shares[group])
        # rounded, since the last bits of a product, which depend on the processor, would decide ties
        cost = np.round(filled[:, present] @ shares[group, present], 12)
        fold = int(np.argmin(cost))
        filled[fold, present] += shares[group, present]
        fold_of_group[group] = fold
    assigned: npt.NDArray[np.int64] = fold_of_group[groups]
    return assigned


def group_codes(cells: Any, rows: int) -> npt.NDArray[np.int64]:
    """Return each row's group, int64 [rows], from 0; a row with a blank cell is a group of its own.

    Args:
        cells: dictionary-encoded Arrow column of the groups' names; None for a group per row.
        rows: number of rows.
    """
    if cells is None:
        return np.arange(rows)
    names = len(cells.dictionary)
    codes: npt.NDArray[np.int64] = cells.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    blank = codes < 0
    codes[blank] = names + np.arange(blank.sum())
    return codes
