"""The effective rank and the variance of a set of vectors, which both fall when representations collapse.

- The effective rank, Roy & Vetterli, EUSIPCO 2007, https://ieeexplore.ieee.org/document/7098875

    effective rank = exp(entropy of p),   p_k = singular value k / sum of the singular values

It is 1 when all rows are parallel, and the number of columns D when all D singular values are equal. It uses the
singular values and not their squares, so weak directions count: rows that are nearly parallel can still have a high
rank. A rank near 1 means that almost nothing distinguishes the rows.
"""

import math

import torch
from torch import Tensor


def effective_rank(rows: Tensor) -> float:
    """Return the effective rank of a matrix, from 1 to min(n, D), computed in float64 on the CPU.

    The Gram matrix on the smaller side is decomposed, so n or D may be large, but not both. The mean of the rows is not
    subtracted. A matrix of zeros has rank 0; one with a non-finite entry has rank NaN.

    Args:
        rows: the matrix, [n, D].
    """
    x = rows.detach().to("cpu", torch.float64)
    return effective_rank_of_moments(x @ x.T if len(x) < x.shape[1] else x.T @ x)


def effective_rank_of_moments(moments: Tensor) -> float:
    """Return the effective rank of a matrix X from its second moments; see `effective_rank`.

    With `moments` on a GPU this call synchronizes with the device.

    Args:
        moments: X^T X [D, D] or X X^T [n, n], whose eigenvalues are the squared singular values of X.
    """
    moments = moments.detach().to("cpu", torch.float64)
    if not bool(moments.isfinite().all()):
        return math.nan
    values = torch.linalg.eigvalsh(moments).clamp(min=0).sqrt()  # singular values of X
    total = float(values.sum())
    if not total:
        return 0.0
    return math.exp(float(torch.special.entr(values / total).sum()))


def unit_variance(units: Tensor) -> float:
    """Return the mean squared distance of unit vectors from their mean, from 0 (all equal) to 1.

    Args:
        units: rows of length 1, [n, D].
    """
    x = units.detach().to("cpu", torch.float64)
    return float((x - x.mean(dim=0)).square().sum(dim=1).mean())
