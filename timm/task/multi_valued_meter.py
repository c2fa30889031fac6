"""Metrics of a multi-valued attribute over a whole split, and the threshold with the best micro-F1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from catalog.label_space import columns_of_set
from simclr import gather_rows
from timm.data.target_codes import ValueSets, value_sets
from timm.task import MultiLabelClassificationEvaluator

DEFAULT_THRESHOLD = 0.5
_LARGEST_PROBABILITY = 1 - 2**-24  # the largest float32 below 1, since a threshold must be below 1
_CHUNK_ROWS = 8192  # rows whose bits are unpacked at a time, since the unpacked bits are int64

Metrics = dict[str, float]


class MultiValuedMeter:
    """Stores the scores of one attribute's images on their device, and computes metrics from all of them.

    Args:
        count: K, the number of values.
        threshold: probability at or above which a value is predicted; None chooses the best for micro-F1.
        device: device of the scores.
    """

    def __init__(self, count: int, threshold: float | None = None, device: torch.device | str | None = None) -> None:
        self.count = count
        self.threshold = threshold
        # Start with empty tensors: a process without any batch still takes part in gathering.
        self.logits = [torch.empty(0, count, device=device)]
        self.words = [torch.empty(0, columns_of_set(count), dtype=torch.int64, device=device)]

    def update(self, logits: Tensor, words: Tensor) -> None:
        """Add a batch.

        Args:
            logits: logits of the K values, float32 [B, K].
            words: the attribute's target columns, int64 [B, W].
        """
        self.logits.append(logits.clone())  # a CUDA graph writes the output of every batch to the same memory
        self.words.append(words.clone())

    def compute(self, distributed: bool = False) -> tuple[Metrics, Tensor, ValueSets]:
        """Return the metrics, which of the N images are predicted exactly (bool [N]), and the images' sets.

        With `distributed`, every process must make this call, and the result covers the images of all processes.

        Returns:
            The metrics, in percent (0-100), NaN without a known set:
            - map: mean average precision over the values that occur.
            - macro_f1: mean F1 over the values that occur or are predicted.
            - micro_f1: F1 over all cells.
            - balanced_accuracy: mean of recall and specificity over the values that some images have and some lack.
            - top1: percentage of sets that are predicted exactly.
            - top5: NaN, since it does not apply to sets.
            - threshold: not a percentage, but the probability at or above which a value is predicted.
            - count: the number of known sets.
            All values outside the label space count as one additional value that is never predicted.
        """
        logits, sets, threshold = self._scored(distributed)
        right = (predicted_values(logits, threshold) == sets.values).all(dim=1) & ~sets.unseen & sets.known
        metrics = _metrics(logits[sets.known], sets.values[sets.known], sets.unseen[sets.known], threshold)
        known = int(sets.known.sum())
        metrics |= {
            "top1": 100 * int(right.sum()) / known if known else math.nan,
            "top5": math.nan,
            "threshold": threshold,
            "count": known,
        }
        return metrics, right, sets

    def counts(self, distributed: bool = False) -> Tensor:
        """Count images for each value, int64 [K + 1, 3]: with the value, correctly predicted to have it, predicted to.

        The last row counts the images with a value outside the label space, which is never predicted. With
        `distributed`, every process must make this call, and the counts cover the images of all processes.
        """
        logits, sets, threshold = self._scored(distributed)
        predicted = predicted_values(logits, threshold) & sets.known[:, None]
        columns = [sets.values, predicted & sets.values, predicted]
        outside = torch.stack([sets.unseen.sum(), *sets.unseen.new_zeros(2).long()])
        return torch.cat([torch.stack([column.sum(dim=0) for column in columns], dim=1), outside[None]])

    def _scored(self, distributed: bool) -> tuple[Tensor, ValueSets, float]:
        """Return the logits and sets of all images, with `distributed` of all processes, and the threshold."""
        logits, words = torch.cat(self.logits), torch.cat(self.words)
        if distributed:
            logits, words = gather_rows(logits), gather_rows(words)
        if logits.device.type == "mps":  # mps has no float64
            logits, words = logits.cpu(), words.cpu()
        chunks = [value_sets(part, self.count) for part in words.split(_CHUNK_ROWS)]
        sets = ValueSets(*map(torch.cat, zip(*chunks, strict=True)))
        if self.threshold is not None:
            return logits, sets, self.threshold
        return logits, sets, best_threshold(logits[sets.known], sets.values[sets.known])


def predicted_values(logits: Tensor, threshold: float) -> Tensor:
    """Return which values are predicted, bool [B, K]: one rule for metrics and for written predictions."""
    return logits.float().sigmoid() >= threshold


def best_threshold(logits: Tensor, truth: Tensor) -> float:
    """Return the threshold with the best micro-F1, halfway between two neighboring probabilities.

    Args:
        logits: logits of known sets, float32 [N, K]; NaN is never predicted.
        truth: whether each image has each value, bool [N, K]; if none does, the threshold is 0.5.
    """
    if not truth.any():
        return DEFAULT_THRESHOLD
    # Compare probabilities and not logits: different logits can have equal probabilities, which no threshold separates.
    probability = logits.float().sigmoid().nan_to_num(0).clamp(max=_LARGEST_PROBABILITY)
    scores, order = probability.flatten().sort(descending=True)  # [N * K]
    hits = truth.flatten()[order].cumsum(0)
    f1 = 2 * hits.double() / (torch.arange(1, len(scores) + 1, device=hits.device) + hits[-1])
    # A threshold predicts all equal probabilities or none, so only the last one of each run is a candidate.
    ends = torch.cat([scores[1:] != scores[:-1], scores.new_ones(1, dtype=torch.bool)])
    last = int(torch.where(ends, f1, -1).argmax())
    upper, lower = scores[last], scores[last + 1] if last + 1 < len(scores) else torch.zeros_like(scores[0])
    halfway = (upper + lower) / 2
    return max(float(halfway if halfway > lower else upper), 1e-30)


def _metrics(scores: Tensor, truth: Tensor, unseen: Tensor, threshold: float) -> Metrics:
    """Return the metrics by value, for images whose set is known.

    Args:
        scores: logits, float32 [N, K].
        truth: whether each image has each value, bool [N, K].
        unseen: whether each image has a value outside the label space, bool [N].
        threshold: probability at or above which a value is predicted.
    """
    predicted = predicted_values(scores, threshold)
    occurs = truth.any(dim=0)  # [K]
    # balanced accuracy over the values that some images have and some lack
    both = occurs & ~truth.all(dim=0)
    recall = (predicted & truth).sum(dim=0) / truth.sum(dim=0)
    specificity = (~predicted & ~truth).sum(dim=0) / (~truth).sum(dim=0)
    balanced = (recall + specificity)[both].double().mean() / 2
    # timm's metrics; leave out values that neither occur nor are predicted, since timm scores them as zero
    either = occurs | predicted.any(dim=0)
    evaluator = MultiLabelClassificationEvaluator(threshold=threshold)
    evaluator.update(scores[:, either].cpu(), truth[:, either].float().cpu())
    found = evaluator.compute() if either.any() else dict.fromkeys(("map", "macro_f1", "micro_f1"), 0.0)
    # rescale timm's means, since values outside the label space add to the denominators
    values, occurring, outside = int(either.sum()), int(occurs.sum()), int(unseen.any())
    hits = int(predicted.sum() + truth.sum())
    return {
        "map": _ratio(found["map"] * values, occurring + outside),
        "macro_f1": _ratio(found["macro_f1"] * values, values + outside),
        "micro_f1": _ratio(found["micro_f1"] * hits, hits + int(unseen.sum())),
        "balanced_accuracy": 100 * float(balanced),
    }


def _ratio(total: float, count: int) -> float:
    return total / count if count else math.nan
