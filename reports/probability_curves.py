"""Curves about an attribute's probabilities: how honest they are, and how right the most confident predictions are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reports.run_results import AttributeResults, Bools, Floats, Ints

BINS = 15  # as in the expected calibration error of the log
_POINTS = 100  # a coverage curve has at most as many


class Reliability(NamedTuple):
    """How often predictions of a confidence are right, in bins of equal width.

    Attributes:
        confidence: mean confidence of each bin that is not empty, 0-1.
        accuracy: share of right predictions, 0-1.
        counts: number of predictions of each bin.
        error: the expected calibration error in percent (https://arxiv.org/abs/1706.04599, equation 3).
    """

    confidence: Floats
    accuracy: Floats
    counts: Ints
    error: float


def reliability(confidence: Floats, right: Bools) -> Reliability:
    """Return the reliability of predictions.

    Args:
        confidence: [n], 0-1.
        right: whether each prediction is right, [n].
    """
    finite = np.isfinite(confidence)
    confidence, right = confidence[finite].astype(np.float64), right[finite]
    bins = np.clip(np.ceil(confidence * BINS).astype(int), 1, BINS) - 1  # a bin contains its upper end
    count = np.bincount(bins, minlength=BINS)
    used = count > 0
    sums = [np.bincount(bins, weights=values, minlength=BINS)[used] for values in (confidence, right)]
    gaps = np.abs(sums[0] - sums[1]).sum()
    error = 100 * float(gaps) / len(confidence) if len(confidence) else float("nan")
    return Reliability(sums[0] / count[used], sums[1] / count[used], count[used].astype(np.int64), error)


def attribute_reliability(results: AttributeResults, calibrated: bool) -> Reliability:
    """Return the reliability of an attribute, as the log's calibration error measures it.

    A class attribute's confidence is the probability of its most probable class. A multi-valued attribute counts each
    value: the confidence is the value's probability, and it is right if the image has the value.

    Args:
        results: the results of the attribute.
        calibrated: whether to take the calibrated probabilities.
    """
    probabilities, known = (results.calibrated if calibrated else results.raw), ~results.outside
    if results.multi_valued:
        return reliability(probabilities[known].ravel(), results.truth[known].ravel())
    probabilities = probabilities[known]
    if not len(probabilities):
        return reliability(np.zeros(0), np.zeros(0, bool))
    return reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == results.truth[known])


def coverage_curve(confidence: Floats, right: Bools) -> tuple[Floats, Floats]:
    """Return which share of the predictions is right if only the most confident ones are kept.

    Args:
        confidence: [n], in any units.
        right: whether each prediction is right, [n].

    Returns:
        Coverage: the share of predictions that are kept, ascending up to 1; and their accuracy, 0-1. Predictions of
        equal confidence are kept together.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked, hits = confidence[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, np.int64)
    if len(ends) > _POINTS:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, _POINTS).round().astype(int))]
    kept = ends + 1
    return kept / max(1, len(ranked)), hits[ends] / kept


def coverage_at(confidence: Floats, right: Bools, precision: float) -> float:
    """Return the largest share of the most confident predictions whose accuracy is at least `precision`, both 0-1."""
    coverage, accuracy = coverage_curve(confidence, right)
    reached = coverage[accuracy >= precision]
    return float(reached.max()) if len(reached) else 0.0
