"""Labels that are likely wrong, by confident learning.

- C. G. Northcutt, L. Jiang, I. L. Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021,
  https://arxiv.org/abs/1911.00068 (sections 3.1 and 3.3, ranked by normalized margin)

A class has a threshold: the mean probability of that class among the images with its label. An image whose label is one
class, and whose probability of another class reaches that class's threshold, is suspect. The probabilities must come
from a model that was not trained on these labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from reports.run_results import AttributeResults, Floats, Ints


def confidence(probabilities: npt.NDArray[np.floating[Any]], given: Ints) -> tuple[Floats, npt.NDArray[np.float64]]:
    """Return each image's probabilities that reach the threshold of their class, and its normalized margin.

    Args:
        probabilities: probabilities [N, K] from a model that was not trained on these labels.
        given: code of the given class, int64 [N].

    Returns:
        The probabilities [N, K], -inf where one does not reach its threshold, which no class without a label has. And
        the probability of the given class minus the largest other one, [N].
    """
    classes = probabilities.shape[1]
    labels = np.bincount(given, minlength=classes)
    own = probabilities[np.arange(len(given)), given].astype(np.float64)
    sums = np.bincount(given, weights=own, minlength=classes)
    limits = np.divide(sums, labels, out=np.full(classes, np.inf), where=labels > 0)
    others = np.where(np.arange(classes) == given[:, None], -np.inf, probabilities).max(axis=1)
    return np.where(probabilities >= limits, probabilities, -np.inf), own - others


def suspects(truth: Ints, probabilities: Floats) -> Ints:
    """Return the images whose label is likely wrong, the most likely first, as positions in [n].

    Args:
        truth: labels [n], all among the K classes.
        probabilities: calibrated probabilities [n, K].
    """
    if not len(truth):
        return np.zeros(0, np.int64)
    confident, margin = confidence(probabilities, truth)
    likely = confident.argmax(axis=1)
    found = np.flatnonzero((confident.max(axis=1) > -np.inf) & (likely != truth) & (margin < 0))
    ranked: Ints = found[np.argsort(margin[found], kind="stable")]
    return ranked


def likely_label_errors(results: AttributeResults) -> Ints:
    """Return the labeled images of an attribute whose label is likely wrong, the most likely first.

    Each value of a multi-valued attribute is a yes or a no, and an image is as suspect as its most suspect value.
    """
    known: Ints = np.flatnonzero(~results.outside)
    if not results.multi_valued:
        ranked: Ints = known[suspects(results.truth[known], results.calibrated[known])]
        return ranked
    worst = np.full(len(results), np.inf)
    for value in range(len(results.classes)):
        chance = results.calibrated[known, value]
        truth = results.truth[known, value].astype(np.int64)
        found = known[suspects(truth, np.stack([1 - chance, chance], axis=1))]
        given = np.where(results.truth[found, value], 1, -1) * (2 * results.calibrated[found, value] - 1)
        worst[found] = np.minimum(worst[found], given)
    order: Ints = np.argsort(worst, kind="stable")
    kept: Ints = order[np.isfinite(worst[order])]
    return kept


def worst_mistakes(results: AttributeResults) -> Ints:
    """Return the labeled images that are predicted wrongly, the most confident ones first."""
    wrong = np.flatnonzero(~results.right & ~results.outside)
    ranked: Ints = wrong[np.argsort(-results.confidence[wrong], kind="stable")]
    return ranked
