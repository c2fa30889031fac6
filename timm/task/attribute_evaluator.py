"""Metrics of several attributes over a whole split, exact on any number of processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from timm.data.label_space import UNKNOWN, LabelSpace
from timm.task import ClassificationEvaluator
from timm.task.top_classes import top_classes

ATTRIBUTE_METRICS = ("loss", "top1", "top5", "balanced_accuracy", "macro_f1")

Metrics = dict[str, Any]


class AttributeEvaluator(ClassificationEvaluator):
    """Counts, for each attribute, what its metrics need, in int64 on the device and without reading any back.

    A blank cell counts in nothing. A label of a class outside the label space counts as wrong, as one further class
    with recall 0, and in no loss.

    Args:
        label_space: the attributes and their classes.
        weights: of each attribute in the means, equal when None.
        device: where the counts live: the logits' device.
        max_samples: count the first so many images only (a distributed sampler pads behind them).
        confusion: also count a confusion matrix [K + 1, K] for each attribute (row: label, the last one for classes
            outside the label space; column: prediction).
    """

    metric_names: tuple[str, ...] = (*ATTRIBUTE_METRICS, "exact_match")  # type: ignore[assignment]  # timm has three

    def __init__(
        self,
        label_space: LabelSpace,
        weights: Sequence[float] | None = None,
        device: torch.device | str | None = None,
        *,
        max_samples: int | None = None,
        confusion: bool = False,
    ) -> None:
        self.label_space = label_space
        self.weights = list(weights) if weights is not None else [1.0] * len(label_space.attributes)
        self.confusion = confusion
        super().__init__(device, max_samples=max_samples)

    def reset(self) -> None:
        """Forget everything counted."""
        self.num_samples = 0
        sizes = list(self.label_space.num_classes.values())
        precise = torch.float32 if self.device.type == "mps" else torch.float64
        self.loss_sum = torch.zeros(len(sizes), dtype=precise, device=self.device)
        # One buffer for one all-reduce: [exact matches, images with a label], top-5 hits of each attribute, then for
        # each attribute by class: labels, hits, predictions, and perhaps the confusion matrix.
        lengths = [2, len(sizes), *(k + 1 for k in sizes for _ in range(3))]
        lengths += [(k + 1) * k for k in sizes] if self.confusion else []
        self.counts = torch.zeros(sum(lengths), dtype=torch.int64, device=self.device)
        self._parts = lengths

    def _split(self, counts: Tensor) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """Return views of the buffer: exact [2], top-5 hits [A], by-class counts (three an attribute), confusions."""
        exact, top5, *rest = counts.split(self._parts)
        by_class = 3 * len(self.weights)
        return exact, top5, rest[:by_class], rest[by_class:]

    @torch.no_grad()
    def update(self, output: Mapping[str, Tensor], target: Tensor) -> None:
        """Count a batch.

        Args:
            output: logits by attribute, [B, K].
            target: int64 [B, A]; -100 unknown, -1 a class outside the label space.

        Raises:
            ValueError: the shapes do not belong together.
        """
        if target.ndim != 2 or target.shape[1] != len(self.weights):
            raise ValueError(f"expected targets of shape [B, {len(self.weights)}], got {list(target.shape)}")
        room = len(target) if self.max_samples is None else max(0, self.max_samples - self.num_samples)
        target = target[:room]
        self.num_samples += len(target)
        exact, top5, by_class, confusions = self._split(self.counts)
        right = torch.ones(len(target), dtype=torch.bool, device=target.device)
        for index, (name, labels) in enumerate(zip(self.label_space.attributes, target.unbind(1), strict=True)):
            logits = output[name][:room].detach().float()
            classes = logits.shape[1]
            known, seen = labels != UNKNOWN, labels >= 0
            # Rows are counted by weight, 1 or 0, not picked: picking would need their number on the host.
            rows = torch.where(seen, labels, classes)
            best = top_classes(logits, 5)
            predicted = best[:, 0]
            hits = (predicted == labels) & seen
            right &= hits | ~known
            loss = F.cross_entropy(logits, torch.where(seen, labels, UNKNOWN), ignore_index=UNKNOWN, reduction="sum")
            self.loss_sum[index] += loss
            top5[index] += ((best == labels.unsqueeze(1)).any(dim=1) & seen).sum()
            for count, where, weight in zip(
                by_class[3 * index : 3 * index + 3], (rows, rows, predicted), (known, hits, known), strict=True
            ):
                count.index_add_(0, where, weight.to(count.dtype))
            if self.confusion:
                confusions[index].index_add_(0, rows * classes + predicted, known.to(exact.dtype))
        labelled = (target != UNKNOWN).any(dim=1)
        exact += torch.stack([(right & labelled).sum(), labelled.sum()])

    def compute(self, distributed: bool = False) -> Metrics:
        """Return the metrics of all processes; the same on each.

        Returns:
            `loss`, and in percent `top1`, `top5`, `balanced_accuracy`, `macro_f1`: means over the attributes that
            have labels, weighted; `exact_match`, the percentage of labelled images whose every known label is
            predicted; and `attributes`, the first five for each attribute with its number of labels (`count`), NaN
            where it has none.
        """
        loss_sum, counts = self.loss_sum.clone(), self.counts.clone()
        if distributed:
            dist.all_reduce(loss_sum)
            dist.all_reduce(counts)
        exact, top5, by_class, _ = self._split(counts.cpu())
        attributes = {
            name: _attribute_metrics(float(loss_sum[index]), int(top5[index]), *by_class[3 * index : 3 * index + 3])
            for index, name in enumerate(self.label_space.attributes)
        }
        means = {metric: self._mean([values[metric] for values in attributes.values()]) for metric in ATTRIBUTE_METRICS}
        return {**means, "exact_match": _percent(int(exact[0]), int(exact[1])), "attributes": attributes}

    def summary(self) -> Metrics:
        """Return this process's metrics so far."""
        return self.compute()

    def confusion_matrices(self, distributed: bool = False) -> dict[str, Tensor]:
        """Return each attribute's confusion matrix [K + 1, K], int64 on the CPU."""
        if not self.confusion:
            raise ValueError("AttributeEvaluator(confusion=True) counts confusion matrices")
        counts = self.counts.clone()
        if distributed:
            dist.all_reduce(counts)
        matrices = self._split(counts.cpu())[3]
        sizes = self.label_space.num_classes
        return {name: m.view(k + 1, k) for (name, k), m in zip(sizes.items(), matrices, strict=True)}

    def _mean(self, values: list[float]) -> float:
        """Weighted mean over the attributes that have labels."""
        pairs = [(value, weight) for value, weight in zip(values, self.weights, strict=True) if not math.isnan(value)]
        total = sum(weight for _, weight in pairs)
        return sum(value * weight for value, weight in pairs) / total if total else math.nan


def _attribute_metrics(loss_sum: float, top5: int, labels: Tensor, hits: Tensor, predicted: Tensor) -> dict[str, float]:
    """Metrics of one attribute from its counts by class, the last one for classes outside the label space."""
    count, scored = int(labels.sum()), int(labels[:-1].sum())
    present = labels > 0
    either = labels + predicted
    recall = hits[present].double() / labels[present]
    f1 = 2 * hits[either > 0].double() / either[either > 0]
    return {
        "loss": loss_sum / scored if scored else math.nan,
        "top1": _percent(int(hits.sum()), count),
        "top5": _percent(top5, count),
        "balanced_accuracy": 100 * float(recall.mean()) if count else math.nan,
        "macro_f1": 100 * float(f1.mean()) if count else math.nan,
        "count": count,
    }


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else math.nan
