"""Bootstrap intervals of accuracies, and of the difference of two models on the same images.

- B. Efron, R. J. Tibshirani: An Introduction to the Bootstrap, 1993, section 13.3 (the percentile interval)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

_DRAWS = 4_000
_WEIGHTS = 4_000_000  # draws times kinds of images that are in memory; with more kinds there are fewer draws
_FEWEST_DRAWS = 400


def accuracy(scores: Floats) -> float:
    """Return the mean over the attributes of the mean over the images, in percent; NaN without a value.

    Args:
        scores: [A, N], such as 1 for a right prediction and 0 for a wrong one; NaN where nothing is known.
    """
    known = ~np.isnan(scores)
    counts = known.sum(axis=1)
    labeled = counts > 0
    if not labeled.any():
        return float("nan")
    return 100 * float((np.where(known, scores, 0).sum(axis=1)[labeled] / counts[labeled]).mean())


def interval(scores: Floats, seed: int = 0) -> tuple[float, float]:
    """Return the 95% bootstrap interval of `accuracy` over draws of the images, in percent.

    Images with the same scores are interchangeable. So a draw of all images is a multinomial draw of how often each
    kind of image occurs, which costs no more for a million images than for a thousand. For a paired interval give the
    differences of two models' scores.

    Args:
        scores: [A, N]; NaN where nothing is known.
        seed: seed of the draws.

    Returns:
        Both ends; NaN without a value.
    """
    scores = scores[:, ~np.isnan(scores).all(axis=0)]
    scores = scores[~np.isnan(scores).all(axis=1)]
    if not scores.size:
        return float("nan"), float("nan")
    images = scores.shape[1]
    kinds, counts = np.unique(np.nan_to_num(scores.T, nan=np.inf), axis=0, return_counts=True)
    known = np.isfinite(kinds)
    draws = int(np.clip(_WEIGHTS // len(kinds), _FEWEST_DRAWS, _DRAWS))
    weights = np.random.default_rng(seed).multinomial(images, counts / images, size=draws).astype(np.float64)
    labeled = weights @ known
    # A draw may have no labeled image of a rare attribute, which then counts in no mean.
    means = np.divide(
        weights @ np.where(known, kinds, 0), labeled, out=np.full(labeled.shape, np.nan), where=labeled > 0
    )
    means = means[~np.isnan(means).all(axis=1)]
    low, high = np.percentile(100 * np.nanmean(means, axis=1), [2.5, 97.5])
    return float(low), float(high)
