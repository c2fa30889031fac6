"""Temperature scaling: one divisor of an attribute's logits, so that its probabilities match its accuracy.

- Guo et al., On Calibration of Modern Neural Networks, 2017, https://arxiv.org/abs/1706.04599 (sections 2 and 4.2)

A temperature changes no prediction: it divides all logits of an attribute by the same positive number. For a
multi-valued attribute it divides the logit of each value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

LOWEST, HIGHEST = 0.05, 20.0  # limits of a temperature; without any error the best one would be 0
_BINS = 15  # the paper's number
_CHUNK = 1 << 21  # logits that are float64 at the same time
_PRECISION = 1e-10  # relative


def fit_temperature(logits: Tensor, truth: Tensor) -> float:
    """Return the temperature with the lowest negative log-likelihood, from `LOWEST` to `HIGHEST`.

    The likelihood is convex in the inverse temperature. Newton's method finds the minimum, and bisects where a step
    would leave the bracket. It computes in float64.

    Args:
        logits: [N, K], any floating dtype; rows that are not finite are ignored.
        truth: classes, int64 [N]; or whether an image has each value, bool [N, K].

    Returns:
        The temperature; 1 without a finite row, or if all logits of each row are equal.
    """
    logits, truth = _finite(logits, truth)
    if not len(logits):
        return 1.0
    low, high, inverse = 1 / HIGHEST, 1 / LOWEST, 1.0
    if _derivatives(logits, truth, inverse) == (0.0, 0.0):
        return 1.0  # every row has equal logits
    for limit, sign in ((low, 1), (high, -1)):
        if sign * _derivatives(logits, truth, limit)[0] >= 0:
            return 1 / limit
    for _ in range(200):
        slope, curvature = _derivatives(logits, truth, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else math.nan
        following = step if low < step < high else math.sqrt(low * high)
        if abs(following - inverse) <= _PRECISION * inverse:
            return 1 / following
        inverse = following
    return 1 / inverse


def negative_log_likelihood(logits: Tensor, truth: Tensor, temperature: float = 1.0) -> float:
    """Return the mean over images of the negative log-likelihood; for sets, also the mean over the values.

    Args:
        logits: [N, K]; rows that are not finite are ignored.
        truth: int64 [N] or bool [N, K], as in `fit_temperature`.
        temperature: divisor of the logits.

    Returns:
        The mean; NaN without a finite row.
    """
    logits, truth = _finite(logits, truth)
    total = 0.0
    for scaled, labels in _chunks(logits, truth, 1 / temperature):
        if labels.ndim == 1:
            total += float(F.cross_entropy(scaled, labels, reduction="sum"))
        else:
            total += float(F.binary_cross_entropy_with_logits(scaled, labels.double(), reduction="sum"))
    return total / truth.numel() if len(truth) else math.nan


def calibration_error(logits: Tensor, truth: Tensor, temperature: float = 1.0) -> float:
    """Return the expected calibration error in percent (0-100), over 15 bins of equal width (the paper's equation 3).

    It is the mean difference between confidence and accuracy. A class attribute's confidence is the probability of its
    most probable class. A multi-valued attribute counts each value: confidence is the value's probability, and
    accuracy the share of images that have it.

    Args:
        logits: [N, K]; rows that are not finite are ignored.
        truth: int64 [N] or bool [N, K], as in `fit_temperature`.
        temperature: divisor of the logits.

    Returns:
        The error; NaN without a finite row.
    """
    logits, truth = _finite(logits, truth)
    gaps = torch.zeros(_BINS, dtype=torch.float64, device=logits.device)  # sums of confidence minus accuracy
    for scaled, labels in _chunks(logits, truth, 1 / temperature):
        if labels.ndim == 1:
            confidence, best = scaled.softmax(dim=1).max(dim=1)
            right = best == labels
        else:
            confidence, right = scaled.sigmoid().flatten(), labels.flatten()
        bins = (confidence * _BINS).ceil().long().clamp(1, _BINS) - 1  # a bin contains its upper end
        gaps.index_add_(0, bins, confidence - right.double())
    return 100 * float(gaps.abs().sum()) / truth.numel() if len(truth) else math.nan


def _finite(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows whose logits are all finite, on a device that has float64."""
    if logits.device.type == "mps":
        logits, truth = logits.cpu(), truth.cpu()
    finite = logits.isfinite().all(dim=1)
    return (logits, truth) if finite.all() else (logits[finite], truth[finite])


def _chunks(logits: Tensor, truth: Tensor, inverse: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield parts of the logits in float64, divided by the temperature, and of the truth."""
    rows = max(1, _CHUNK // max(1, logits.shape[1]))
    for part, labels in zip(logits.split(rows), truth.split(rows), strict=True):
        yield part.double() * inverse, labels


def _derivatives(logits: Tensor, truth: Tensor, inverse: float) -> tuple[float, float]:
    """Return the first and second derivative of the summed negative log-likelihood by the inverse temperature."""
    slope = curvature = 0.0
    for scaled, labels in _chunks(logits, truth, inverse):
        plain = scaled / inverse
        if labels.ndim == 1:
            plain = plain - plain.max(dim=1, keepdim=True).values  # the same probabilities, without cancellation
            probability = scaled.softmax(dim=1)
            mean = (probability * plain).sum(dim=1)
            slope += float((mean - plain.gather(1, labels[:, None])[:, 0]).sum())
            curvature += float((probability * (plain - mean[:, None]) ** 2).sum())
        else:
            probability = scaled.sigmoid()
            slope += float(((probability - labels.double()) * plain).sum())
            curvature += float((probability * (1 - probability) * plain**2).sum())
    return slope, curvature
