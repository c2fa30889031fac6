"""The lowest confidence from which cells are right at a promised rate, tested in a fixed sequence.

`serving.selective` chooses among ranks of the held-out cells and corrects for their number. Where the cells to fill are
known, they give the thresholds: a fifth of them lies above the first one, more above each next. The held-out cells are
independent of these thresholds. So each is an ordinary hypothesis, and the sequence needs no correction: it begins with
the most confident cells, and ends at the first threshold whose precision is not warranted at level `failure`. That
fills more cells with the same promise.

- Maurer, Hothorn, Lehmacher: Multiple Comparisons in Drug Clinical Trials and Preclinical Assays: A-Priori Ordered
  Hypotheses, 1995 (hypotheses in a fixed order, each tested at the full level until one is not rejected)
- Angelopoulos et al., Learn then Test, 2021, https://arxiv.org/abs/2110.01052 (the same for the risk of a model)
- Clopper, Pearson, The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial, 1934,
  Biometrika 26

The interval of the precision is two-sided and holds for all thresholds at the same time, so for the chosen one too. It
may begin below the promise, which is the result of a test at one side and one level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.selective import FAILURE, Floats, fewest_cells, precision_bound

# Held-out cells above the first threshold: a quarter, within these multiples of the fewest that warrant anything. With
# fewer, one wrong cell may end the sequence; with more, a model that is seldom sure fills nothing.
_FIRST, _SHARE = (2.0, 4.0), 0.25
_MOST = 16  # thresholds
_RATIO = 1.2  # between the numbers of cells above neighboring thresholds

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Threshold:
    """The cells that are filled at a promised precision.

    Attributes:
        value: a cell is filled if its confidence is above; infinity fills none.
        cells: number of held-out cells.
        above: number of these above the threshold.
        right: number of right ones among these.
        low: lower end of the interval of the precision, 0-1; NaN without a threshold.
        high: upper end.
    """

    value: float
    cells: int
    above: int
    right: int
    low: float
    high: float

    @property
    def expected(self) -> float:
        """The expected precision by Laplace's rule of succession, (right + 1) / (above + 2).

        The share of right cells itself would be too high, as the threshold was chosen for it.
        """
        return (self.right + 1) / (self.above + 2)


def choose_in_sequence(
    confidence: Floats, right: Mask, to_fill: Floats, precision: float, failure: float, outside: float
) -> Threshold:
    """Return the lowest threshold of the sequence whose precision is warranted.

    Args:
        confidence: confidence of held-out cells, [N].
        right: whether each prediction is right, [N].
        to_fill: confidence of the cells to fill, [M].
        precision: the promised share of right cells above the threshold, between 0 and 1.
        failure: largest probability, over the draw of the held-out cells, that the promise is broken.
        outside: largest probability that the precision is outside its interval.
    """
    thresholds = threshold_grid(len(confidence), to_fill, precision, failure)
    found = Threshold(math.inf, len(confidence), 0, 0, math.nan, math.nan)
    for value in thresholds:
        hits = right[confidence > value]
        above, good = len(hits), int(hits.sum())
        if precision_bound(good, above, failure) < precision:
            break
        share = outside / 2 / len(thresholds)
        low, high = precision_bound(good, above, share), 1 - precision_bound(above - good, above, share)
        found = Threshold(value, len(confidence), above, good, low, high)
    return found


def threshold_grid(cells: int, to_fill: Floats, precision: float, failure: float = FAILURE) -> list[float]:
    """Return the thresholds in the order of their tests, the highest first; none if there are too few cells.

    About a geometrically growing number of held-out cells lies above each. They depend on the number of held-out cells,
    and on neither their confidence nor their labels.

    Args:
        cells: number of held-out cells, N.
        to_fill: confidence of the cells to fill, [M].
        precision: the promised precision.
        failure: level of the tests.
    """
    fewest = fewest_cells(precision, failure)
    if fewest > cells or not len(to_fill):
        return []
    low, high = (multiple * fewest for multiple in _FIRST)
    first = min(cells, max(low, min(high, _SHARE * cells)))
    steps = min(_MOST, 1 + math.floor(math.log(cells / first) / math.log(_RATIO)))
    shares = [first / cells * (cells / first) ** (step / max(1, steps - 1)) for step in range(steps)]
    ordered, levels = np.sort(to_fill)[::-1], np.unique(to_fill)
    below = [-math.inf, *levels.tolist()]  # the next lower level of each; cells that tie are filled together
    places = [max(1, math.floor(min(1.0, share + 1e-9) * len(to_fill))) for share in shares]
    return list(dict.fromkeys(below[int(np.searchsorted(levels, ordered[place - 1]))] for place in places))
