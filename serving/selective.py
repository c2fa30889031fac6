"""Abstention: the confidence from which an attribute's cells are right at a promised rate.

A threshold is chosen on labeled cells that the model was not trained on. With probability at least 1 - `failure` over
the draw of these cells, new cells above the threshold are right at the promised rate, if they come from the same
source. This holds for any number of cells, any model and any confidence, also a badly calibrated one.

- Angelopoulos et al., Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control, 2021,
  https://arxiv.org/abs/2110.01052 (a threshold is a hypothesis about the risk above it; corrected tests choose one)
- Geifman, El-Yaniv, Selective Classification for Deep Neural Networks, 2017, https://arxiv.org/abs/1705.08500 (a
  binomial bound for the errors above a threshold that is one of the confidences)
- Clopper, Pearson, The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial, 1934,
  Biometrika 26

The hypotheses are a fixed grid of ranks: the threshold is the confidence of the cell behind the k most confident ones.
Given that confidence, the cells above it are independent draws of the cells above it, and the number of errors among
them is binomial. Each hypothesis is tested at `failure` divided by the length of the grid (Bonferroni). The grid
depends on the number of cells and on the promise, but on no label and no confidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import UsageError

FAILURE = 0.05  # a promise may be broken for this share of all draws of the labeled cells
_MOST_RANKS = 16
_RATIO = 1.2  # between neighboring ranks; a denser grid costs more by its correction than it gains

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Selection:
    """The cells of an attribute that are predicted at a promised precision.

    Attributes:
        threshold: a cell is predicted if its confidence is above; infinity predicts none.
        cells: number of labeled cells that the threshold was chosen on.
        coverage: share of these cells above the threshold, 0-1.
        precision: share of right cells among the ones above; NaN without any.
        bound: the lower confidence bound of the precision, at least the promise; NaN without any cell above.
        fewest: number of labeled cells below which no threshold can be warranted, even without an error.
    """

    threshold: float
    cells: int
    coverage: float
    precision: float
    bound: float
    fewest: int


def choose_threshold(
    confidence: Floats, right: npt.NDArray[np.bool_], precision: float, failure: float = FAILURE
) -> Selection:
    """Return the selection with the most cells whose precision is warranted.

    Args:
        confidence: the confidence of labeled cells, [N], in any units; NaN is the lowest.
        right: whether each prediction is right, [N].
        precision: the promised share of right cells above the threshold, between 0 and 1.
        failure: largest probability, over the draw of the cells, that the promise is broken; between 0 and 1.

    Raises:
        UsageError: a share is not between 0 and 1.
    """
    check_precision(precision)
    if not 0 < failure < 1:
        raise UsageError(f"failure {failure}: give a probability between 0 and 1, such as {FAILURE}")
    scores = np.where(np.isnan(confidence), -np.inf, confidence)
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.concatenate([[0], np.cumsum(right[order])])
    ranks = rank_grid(len(scores), precision, failure)
    found = (math.inf, 0, math.nan)
    for rank in ranks:
        threshold = float(scores[rank]) if rank < len(scores) else -math.inf
        above = int(np.searchsorted(-scores, -threshold, side="left"))  # without cells that tie with the threshold
        bound = precision_bound(int(hits[above]), above, failure / len(ranks))
        if bound >= precision:
            found = (threshold, above, bound)
    threshold, above, bound = found
    share = above / len(scores) if above else 0.0
    reached = int(hits[above]) / above if above else math.nan
    return Selection(threshold, len(scores), share, reached, bound, fewest_cells(precision, failure))


def precision_bound(right: int, cells: int, failure: float) -> float:
    """Return the lower Clopper-Pearson bound of a precision, which is too high with probability `failure` at most.

    Args:
        right: number of right cells.
        cells: number of cells.
        failure: probability that the bound exceeds the true precision.
    """
    from scipy.special import betaincinv  # here, since a script that promises nothing need not wait for the import

    return float(betaincinv(right, cells - right + 1, failure)) if right else 0.0


def fewest_cells(precision: float, failure: float) -> int:
    """Return the number of cells, all of them right, from which a single test warrants a precision."""
    return math.ceil(math.log(failure) / math.log(precision) - 1e-9)


def rank_grid(cells: int, precision: float, failure: float) -> list[int]:
    """Return the numbers of most confident cells to test, ascending; empty if there are too few cells.

    It begins with the fewest cells that could pass without an error, and the next ones grow geometrically up to all
    cells.

    Args:
        cells: number of labeled cells, N.
        precision: the promised precision.
        failure: probability that is shared among the ranks.
    """
    found: list[int] = []
    for length in range(1, _MOST_RANKS + 1):
        first = fewest_cells(precision, failure / length)
        if first > cells or (cells / first) < _RATIO ** (length - 1):
            break
        found = sorted({round(first * (cells / first) ** (step / max(1, length - 1))) for step in range(length)})
    return found


def set_confidence(probabilities: Floats, predicted: npt.NDArray[np.bool_]) -> Floats:
    """Return the confidence of predicted sets of values, [N].

    It is the geometric mean of the probabilities that each value is rightly predicted, or rightly left out.

    Args:
        probabilities: the probability of each value, [N, K].
        predicted: whether each value is predicted, bool [N, K].
    """
    decided = np.where(predicted, probabilities, 1 - probabilities).astype(np.float64)
    with np.errstate(divide="ignore"):
        mean: Floats = np.exp(np.log(decided).mean(axis=1))
    return mean


def check_precision(precision: float) -> None:
    """Raise unless a precision can be promised.

    Raises:
        UsageError: it is not between 0 and 1.
    """
    if not isinstance(precision, int | float | np.floating) or not 0 < precision < 1:
        hint = f"; for {precision:g}% write {precision / 100:g}" if _is_percent(precision) else ""
        raise UsageError(f"precision {precision}: give a share between 0 and 1, such as 0.97{hint}")


def _is_percent(value: object) -> bool:
    return isinstance(value, int | float) and 1 < value < 100
