"""Metrics of a multi-valued attribute over a whole split, by timm's evaluator, and the threshold that suits it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from catalog.label_space import columns_of_set
from simclr import gather_rows
from timm.data.target_codes import ValueSets, value_sets
from timm.task import MultiLabelClassificationEvaluator

DEFAULT_THRESHOLD = 0.5
_CERTAIN = 1 - 2**-24  # the highest probability below 1 in float32, since a threshold must be below 1
_ROWS = 8192  # whose sets are taken apart at a time: the bits are int64 meanwhile

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
        self.logits.append(logits.clone())  # a captured graph writes each batch's output to the same place
        self.words.append(words.clone())

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
        if logits.device.type == "mps":  # it has no float64
            logits, words = logits.cpu(), words.cpu()
        sets = [value_sets(part, self.count) for part in words.split(_ROWS)]
        return logits, ValueSets(*map(torch.cat, zip(*sets, strict=True)))


def predicted_values(logits: Tensor, threshold: float) -> Tensor:
    """Return which values are predicted, bool [B, K]: the one rule for what is scored and for what is written down."""
    return logits.float().sigmoid() >= threshold


def best_threshold(logits: Tensor, truth: Tensor) -> float:
    """Return the probability from which predicting values gives the best micro F1, halfway to the next lower one.

    Args:
        logits: [N, K], float32; NaN is never predicted.
        truth: bool [N, K]; without any value the threshold is 0.5.
    """
    if not truth.any():
        return DEFAULT_THRESHOLD
    # In the precision that they are compared in: where probabilities are equal, no threshold tells the logits apart.
    probability = logits.float().sigmoid().nan_to_num(0).clamp(max=_CERTAIN)
    scores, order = probability.flatten().sort(descending=True)
    hits = truth.flatten()[order].cumsum(0)
    f1 = 2 * hits.double() / (torch.arange(1, len(scores) + 1, device=hits.device) + hits[-1])
    # Of equal ones all are predicted or none.
    ends = torch.cat([scores[1:] != scores[:-1], scores.new_ones(1, dtype=torch.bool)])
    last = int(torch.where(ends, f1, -1).argmax())
    upper, lower = scores[last], scores[last + 1] if last + 1 < len(scores) else torch.zeros_like(scores[0])
    halfway = (upper + lower) / 2
    return max(float(halfway if halfway > lower else upper), 1e-30)


def _metrics(scores: Tensor, truth: Tensor, unseen: Tensor, threshold: float) -> Metrics:
    """Return the metrics that are of values, for images whose set is known."""
    predicted = predicted_values(scores, threshold)
    occurs = truth.any(dim=0)
    both = occurs & ~truth.all(dim=0)
    recall = (predicted & truth).sum(dim=0) / truth.sum(dim=0)
    specificity = (~predicted & ~truth).sum(dim=0) / (~truth).sum(dim=0)
    balanced = (recall + specificity)[both].double().mean() / 2
    either = occurs | predicted.any(dim=0)
    evaluator = MultiLabelClassificationEvaluator(threshold=threshold)
    evaluator.update(scores[:, either].cpu(), truth[:, either].float().cpu())  # absent values would count as zero
    found = evaluator.compute() if either.any() else dict.fromkeys(("map", "macro_f1", "micro_f1"), 0.0)
    # The values outside the label space are one more that is never found, for timm's sums nothing.
    values, occurring, outside = int(either.sum()), int(occurs.sum()), int(unseen.any())
    hits = int(predicted.sum() + truth.sum())
    return {
        "map": _per(found["map"] * values, occurring + outside),
        "macro_f1": _per(found["macro_f1"] * values, values + outside),
        "micro_f1": _per(found["micro_f1"] * hits, hits + int(unseen.sum())),
        "balanced_accuracy": 100 * float(balanced),
    }


def _per(total: float, count: int) -> float:
    return total / count if count else math.nan
