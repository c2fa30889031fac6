"""How many directions vectors spread over, and how far: what falls when representations collapse.

- Roy & Vetterli, The effective rank, EUSIPCO 2007: exp of the entropy of the singular values, divided by their sum

It is 1 where all rows point one way, and the number of columns where every direction holds as much. As it is of the
singular values and not of their squares, weak directions count: rows that are nearly parallel may still have a high
rank, and one near 1 means that next to nothing tells them apart.
"""

import math

import torch
from torch import Tensor


def effective_rank(rows: Tensor) -> float:
    """Returns the effective rank of a matrix [n, D], in float64; `effective_rank_of_moments` says of what kind.

    It takes the smaller of rows times columns and columns times rows, so n or D may be large, but not both.
    """
    x = rows.detach().to("cpu", torch.float64)
    return effective_rank_of_moments(x @ x.T if len(x) < x.shape[1] else x.T @ x)


def effective_rank_of_moments(moments: Tensor) -> float:
    """Returns the effective rank of a matrix X, given X^T X [D, D] or X X^T, which have its singular values squared.

    Nothing is subtracted from the rows. A matrix of zeros has rank 0, one that is not finite NaN. On a GPU this waits.
    """
    moments = moments.detach().to("cpu", torch.float64)
    if not bool(moments.isfinite().all()):
        return math.nan
    values = torch.linalg.eigvalsh(moments).clamp(min=0).sqrt()
    total = float(values.sum())
    if not total:
        return 0.0
    return math.exp(float(torch.special.entr(values / total).sum()))


def unit_variance(units: Tensor) -> float:
    """Returns the mean squared distance of rows [n, D] of length 1 from their mean: 0 where all are one, at most 1."""
    x = units.detach().to("cpu", torch.float64)
    return float((x - x.mean(dim=0)).square().sum(dim=1).mean())
