"""Soft targets and their weights from a teacher's predictions: aligned to the labels, and softly weighted.

- distribution alignment: AdaMatch, Berthelot et al., 2021, https://arxiv.org/abs/2106.04732 (section 3.2), with the
  shares of the labels for the mean prediction on labeled images, as in ReMixMatch, https://arxiv.org/abs/1911.09785
- weights: SoftMatch, Chen et al., 2023, https://arxiv.org/abs/2301.10921 (equations 6 to 8)

Each prediction is multiplied by the ratio of the labels' shares to the teacher's mean prediction, and normalized. A
cell's confidence c is its highest probability. Below the mean m of all unlabeled cells, its weight is
exp(-(c - m)^2 / (2 s^2)); else 1. Here s is the standard deviation over `_SOFTNESS`. Means and deviations are running
ones, by attribute. A multi-valued cell's confidence is the mean over its values, each the probability of the likelier
of present and absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from catalog.label_space import LabelSpace
from simclr.collectives import sum_over_processes
from timm.task.pseudo_loss import SoftTargets

_MOMENTUM = 0.99  # the running statistics keep this share in a step; the first 100 steps have equal weights
_SOFTNESS = 2.0  # SoftMatch's code divides the standard deviation by 2


class SoftWeighting:
    """The running statistics of a teacher's predictions, and the soft targets that follow from them.

    Every process has the same statistics, computed over the joint batches.

    Args:
        label_space: the attributes and their classes.
        shares: share of each class among an attribute's labels, float [K], or of the images with each value of a
            multi-valued attribute; see `timm.task.class_imbalance`.
        device: device of the predictions.
    """

    def __init__(self, label_space: LabelSpace, shares: Sequence[Tensor], device: torch.device) -> None:
        dtype = exact_dtype(device)
        self.several = [name in label_space.multi_valued for name in label_space.attributes]
        self.shares = [share.to(device, dtype) for share in shares]
        self.classes = list(label_space.num_classes.values())
        attributes = len(self.classes)
        self.attribute_of_class = torch.repeat_interleave(torch.tensor(self.classes, device=device))
        # the number of steps that had an unlabeled cell, and the running statistics over them
        self.steps = torch.zeros(attributes, device=device, dtype=dtype)
        self.predicted = torch.zeros(sum(self.classes), device=device, dtype=dtype)
        self.mean = torch.zeros(attributes, device=device, dtype=dtype)
        self.variance = torch.zeros(attributes, device=device, dtype=dtype)

    def __call__(self, predictions: Sequence[Tensor], cells: Sequence[Tensor]) -> SoftTargets:
        """Update the statistics with a step's predictions, and return its soft targets.

        Every process must make this call.

        Args:
            predictions: probabilities of each attribute, [N, K].
            cells: unlabeled cells of each attribute, bool [N].
        """
        # running mean of the predictions
        sums = [(p * c[:, None]).sum(dim=0, dtype=self.mean.dtype) for p, c in zip(predictions, cells, strict=True)]
        counts = torch.stack([c.sum() for c in cells]).to(self.mean)
        counts, joint = sum_over_processes(torch.cat([counts, *sums])).split([len(cells), sum(self.classes)])
        newest = torch.where(counts > 0, 1 / (self.steps + 1).clamp(max=1 / (1 - _MOMENTUM)), 0.0)
        self.steps += counts > 0
        newest_by_class, counts_by_class = newest[self.attribute_of_class], counts[self.attribute_of_class]
        self.predicted += newest_by_class * (joint / counts_by_class.clamp(min=1) - self.predicted)

        # alignment to the labels
        values = [
            align(p.to(share), share, mean, several)
            for p, share, mean, several in zip(
                predictions, self.shares, self.predicted.split(self.classes), self.several, strict=True
            )
        ]

        # running mean and variance of the confidence
        confidence = torch.stack([c(v) for c, v in zip(map(_confidence, self.several), values, strict=True)])  # [A, N]
        known = torch.stack(list(cells))
        moments = torch.cat([confidence * known, confidence.square() * known]).sum(dim=1)
        first, second = sum_over_processes(moments).chunk(2)
        mean = first / counts.clamp(min=1)
        variance = (second / counts.clamp(min=1) - mean.square()).clamp(min=0) * counts / (counts - 1).clamp(min=1)
        self.mean += newest * (mean - self.mean)
        self.variance += newest * (variance - self.variance)

        # weights
        below = (confidence - self.mean[:, None]).clamp(max=0)
        spread = (self.variance[:, None] / _SOFTNESS**2).clamp(min=torch.finfo(torch.float32).tiny)
        weights = (-below.square() / (2 * spread)).exp()
        return SoftTargets([value.float() for value in values], list(weights.float()), list(cells))

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics, on the CPU."""
        return {name: getattr(self, name).cpu().clone() for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the statistics of a checkpoint."""
        for name in _STATE:
            getattr(self, name).copy_(state[name])


_STATE = ("steps", "predicted", "mean", "variance")


def exact_dtype(device: torch.device) -> torch.dtype:
    """Return the most precise floating dtype of a device: mps has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def align(predictions: Tensor, shares: Tensor, mean: Tensor, multi_valued: bool) -> Tensor:
    """Return predictions [N, K] times the ratio of the labels' shares to the mean prediction, normalized.

    Args:
        predictions: probabilities [N, K].
        shares: share of each class among the labels [K].
        mean: mean prediction over the unlabeled cells [K].
        multi_valued: whether each value has a probability of its own, and is normalized with its absence.
    """
    tiny = torch.finfo(predictions.dtype).tiny
    scaled = predictions * (shares / mean.clamp(min=tiny))
    if multi_valued:
        absent = (1 - predictions) * ((1 - shares) / (1 - mean).clamp(min=tiny))
        return scaled / (scaled + absent).clamp(min=tiny)
    return scaled / scaled.sum(dim=1, keepdim=True).clamp(min=tiny)


def _confidence(multi_valued: bool) -> Any:
    """Return the function from probabilities [N, K] to the confidence of each row [N]."""
    if multi_valued:
        return lambda values: torch.maximum(values, 1 - values).mean(dim=1)
    return lambda values: values.amax(dim=1)
