"""Metrics of a multi-valued attribute over a whole split, by timm's evaluator, and the threshold that suits it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from simclr import gather_rows
from timm.data.label_space import columns_of_set
from timm.data.value_sets import ValueSets, value_sets
from timm.task import MultiLabelClassificationEvaluator

DEFAULT_THRESHOLD = 0.5
_NEVER = -1e4  # the logit of a value that the model has no output for

Metrics = dict[str, float]


class ValueSetMeter:
    """Keeps the scores of one attribute's images, on their device, until all are there.

    Args:
        count: K, the number of values.
        threshold: the probability from which a value is predicted; None chooses the one with the best micro F1.
        device: where the scores are.
    """

    def __init__(self, count: int, threshold: float | None = None, device: torch.device | str | None = None) -> None:
        self.count = count
        self.threshold = threshold
        # A process may have no batch at all, and still takes part in gathering.
        self.logits = [torch.empty(0, count, device=device)]
        self.words = [torch.empty(0, columns_of_set(count), dtype=torch.int64, device=device)]

    def update(self, logits: Tensor, words: Tensor) -> None:
        """Keep a batch: logits [B, K] in float32, and the attribute's columns of the targets, int64 [B, W]."""
        self.logits.append(logits)
        self.words.append(words)

    def compute(self, distributed: bool = False) -> tuple[Metrics, Tensor, ValueSets]:
        """Return the metrics of all images, which of them are predicted exactly [N], and their sets.

        Returns:
            In percent, NaN without a known set: `map`, the mean over the values that occur of each one's average
            precision; `macro_f1` over those that occur or are predicted; `micro_f1`; `balanced_accuracy`, the mean of
            recall and specificity over the values that some images have and some have not; `top1`, the share of sets
            predicted exactly. Also `top5`, which a set has not, NaN; `threshold`; and `count`, the known sets. A value
            outside the label space counts as one further value, never predicted.
        """
        logits, sets = self._gathered(distributed)
        scores, truth = logits[sets.known], sets.values[sets.known]
        threshold = self.threshold if self.threshold is not None else best_threshold(scores, truth)
        right = (predicted_values(logits, threshold) == sets.values).all(dim=1) & ~sets.unseen & sets.known
        metrics = _metrics(scores, truth, sets.unseen[sets.known], threshold)
        known = int(sets.known.sum())
        metrics |= {
            "top1": 100 * int(right.sum()) / known if known else math.nan,
            "top5": math.nan,
            "threshold": threshold,
            "count": known,
        }
        return metrics, right, sets

    def counts(self, distributed: bool = False) -> Tensor:
        """Return by value the images that have it, those of them predicted, all predicted, int64 [K + 1, 3].

        The last row is of images with a value outside the label space.
        """
        logits, sets = self._gathered(distributed)
        threshold = self.threshold
        if threshold is None:
            threshold = best_threshold(logits[sets.known], sets.values[sets.known])
        predicted = predicted_values(logits, threshold) & sets.known[:, None]
        columns = [sets.values, predicted & sets.values, predicted]
        outside = torch.stack([sets.unseen.sum(), *sets.unseen.new_zeros(2).long()])
        return torch.cat([torch.stack([column.sum(dim=0) for column in columns], dim=1), outside[None]])

    def _gathered(self, distributed: bool) -> tuple[Tensor, ValueSets]:
        """Return the logits and sets of all images, those of the other processes too where they are distributed."""
        logits, words = torch.cat(self.logits), torch.cat(self.words)
        if distributed:
            logits, words = gather_rows(logits), gather_rows(words)
        return logits, value_sets(words, self.count)


def predicted_values(logits: Tensor, threshold: float) -> Tensor:
    """Return which values are predicted, bool [B, K]: the one rule for what is scored and for what is written down."""
    return logits.float().sigmoid() >= threshold


def best_threshold(logits: Tensor, truth: Tensor) -> float:
    """Return the probability from which predicting values gives the best micro F1, halfway to the next lower one.

    Args:
        logits: [N, K], float32.
        truth: bool [N, K]; without any value the threshold is 0.5.
    """
    if not truth.any():
        return DEFAULT_THRESHOLD
    scores, order = logits.flatten().sort(descending=True)
    hits = truth.flatten()[order].cumsum(0)
    f1 = 2 * hits.double() / (torch.arange(1, len(scores) + 1, device=hits.device) + hits[-1])
    # Of equal scores all are predicted or none.
    ends = torch.cat([scores[1:] != scores[:-1], scores.new_ones(1, dtype=torch.bool)])
    last = int(torch.where(ends, f1, -1).argmax())
    lower = float(scores[last + 1].double().sigmoid()) if last + 1 < len(scores) else 0.0
    return min(max((float(scores[last].double().sigmoid()) + lower) / 2, 1e-6), 1 - 1e-6)


def _metrics(scores: Tensor, truth: Tensor, unseen: Tensor, threshold: float) -> Metrics:
    """Return the metrics that are of values, for images whose set is known."""
    if unseen.any():
        scores = torch.cat([scores, torch.full_like(scores[:, :1], _NEVER)], dim=1)
        truth = torch.cat([truth, unseen[:, None]], dim=1)
    predicted = predicted_values(scores, threshold)
    occurs = truth.any(dim=0)
    both = occurs & ~truth.all(dim=0)
    recall = (predicted & truth).sum(dim=0) / truth.sum(dim=0)
    specificity = (~predicted & ~truth).sum(dim=0) / (~truth).sum(dim=0)
    balanced = (recall + specificity)[both].double().mean() / 2
    return {
        "map": _timm_metric("map", scores, truth, occurs, threshold),
        "macro_f1": _timm_metric("macro_f1", scores, truth, occurs | predicted.any(dim=0), threshold),
        "micro_f1": _timm_metric("micro_f1", scores, truth, occurs | predicted.any(dim=0), threshold),
        "balanced_accuracy": 100 * float(balanced),
    }


def _timm_metric(name: str, scores: Tensor, truth: Tensor, columns: Tensor, threshold: float) -> float:
    """Return a metric of timm's evaluator for some of the values, which would count absent ones as zero."""
    if not len(scores) or not columns.any():
        return math.nan
    evaluator = MultiLabelClassificationEvaluator(threshold=threshold)
    evaluator.update(scores[:, columns].cpu(), truth[:, columns].float().cpu())
    return float(evaluator.compute()[name])
