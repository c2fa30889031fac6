"""Statistics of repeated splits: the paired difference of two candidates, and what twice the labels would gain.

Training sets of different splits overlap, so the scores of splits are correlated, and their plain t interval is too
narrow. The correction multiplies the variance by 1 + splits * (held-out rows / training rows):

- C. Nadeau, Y. Bengio: Inference for the generalization error, Machine Learning 52, 2003, section 4,
  https://doi.org/10.1023/A:1024068626366
- R. Bouckaert, E. Frank: Evaluating the replicability of significance tests, PAKDD 2004: the same for repeated folds
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# Quantiles of Student's t at 0.975, for 1 to 30 degrees of freedom; with more, the last is a little too large.
_T_QUANTILES = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)


_LARGE = 700.0  # logarithm of a factor that is as good as infinite


class Estimate(NamedTuple):
    """A mean with its 95% interval, which a single split cannot give.

    Attributes:
        value: mean over the splits.
        low: lower end of the interval; -inf with one split.
        high: upper end of the interval; inf with one split.
    """

    value: float
    low: float
    high: float


def mean_over_splits(values: Sequence[float], held_out_share: float) -> Estimate:
    """Return the mean of one value per split, with the corrected 95% t interval of its expectation.

    Args:
        values: one value per split, such as the difference of two candidates; at least one.
        held_out_share: part of the labeled rows that a split holds out, between 0 and 1.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, -math.inf, math.inf)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    correction = 1 / count + held_out_share / (1 - held_out_share)
    half = _T_QUANTILES[min(count - 1, len(_T_QUANTILES)) - 1] * math.sqrt(variance * correction)
    return Estimate(mean, mean - half, mean + half)


def gain_of_twice_the_labels(
    errors: Sequence[float], errors_with_half: Sequence[float], held_out_share: float, smallest: float
) -> Estimate:
    """Return by how many points the error would fall with twice the labels, extrapolated as a power law.

    A power law, error = a * labels ** -b, falls by one factor at each doubling: the factor from half of the labels to
    all of them, in each split, is the factor from all of them to twice as many. Mean and interval are taken of the
    factor's logarithm. The interval covers the splits, not the law: where errors level off, the gain is smaller.

    Args:
        errors: error with all labels in percent, one per split; at least one.
        errors_with_half: error with half of the labels in the same splits.
        held_out_share: part of the labeled rows that a split holds out, between 0 and 1.
        smallest: error above 0 that replaces smaller ones, whose logarithm says nothing.
    """
    factors = [
        math.log(max(error, smallest) / max(half, smallest))
        for error, half in zip(errors, errors_with_half, strict=True)
    ]
    error = math.fsum(errors) / len(errors)
    value, low, high = mean_over_splits(factors, held_out_share)
    gain, most = (error * (1 - math.exp(factor)) for factor in (value, low))
    # an error is at most 100
    least = -math.inf if math.isinf(high) else max(error * (1 - math.exp(min(high, _LARGE))), error - 100)
    return Estimate(gain, least, most)
