"""Metrics of several attributes over a whole split, exact for any number of processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from catalog.label_space import UNKNOWN, LabelSpace
from simclr import gather_rows
from timm.data.target_codes import by_attribute, value_sets
from timm.task import ClassificationEvaluator
from timm.task.calibration_meter import CalibrationMeter
from timm.task.multi_valued_meter import DEFAULT_THRESHOLD, MultiValuedMeter, predicted_values
from timm.task.top_classes import top_classes

ATTRIBUTE_METRICS = ("loss", "top1", "top5", "balanced_accuracy", "macro_f1")

Metrics = dict[str, Any]


class AttributeEvaluator(ClassificationEvaluator):
    """Exact counts for the metrics of each attribute, int64 on the device; updates never synchronize with it.

    An unknown label counts in no metric. A label outside the label space counts as wrong, but in no loss: all such
    labels form one additional class with recall 0. Scores of multi-valued attributes are stored; see
    `MultiValuedMeter`.

    Args:
        label_space: the attributes and their classes.
        weights: weight of each attribute in the means; None for equal weights.
        device: device of the logits and the counts.
        max_samples: number of images to count; later ones are the padding of a distributed sampler.
        confusion: whether to count confusion matrices; see `confusion_matrices`.
        keep_scores: whether to store scores, for multi-valued attributes and for `calibration`. False, as in training,
            leaves `loss` and `top1` as the only metrics of multi-valued attributes, at the given threshold or 0.5.
        thresholds: by multi-valued attribute, the probability at or above which a value is predicted; an attribute
            without an entry gets the threshold with the best micro-F1.
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
        keep_scores: bool = True,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        self.label_space = label_space
        self.weights = list(weights) if weights is not None else [1.0] * len(label_space.attributes)
        self.confusion = confusion
        self.keep_scores = keep_scores
        self.thresholds = dict(thresholds or {})
        super().__init__(device, max_samples=max_samples)

    def reset(self) -> None:
        """Reset all counts and stored scores."""
        self.num_samples = 0
        sizes = list(self.label_space.num_classes.values())
        exact_dtype = torch.float32 if self.device.type == "mps" else torch.float64  # mps has no float64
        self.loss_sum = torch.zeros(len(sizes), dtype=exact_dtype, device=self.device)
        # All counts share a buffer, and thus one all-reduce. Its parts are exact matches and images with a label [2];
        # top-5 hits of each attribute [A]; labels, hits and predictions of each attribute, [K + 1] each, or [1] each
        # for a multi-valued one; and the confusion matrices.
        multi = [name in self.label_space.multi_valued for name in self.label_space.attributes]
        by_class = [1 if several else k + 1 for k, several in zip(sizes, multi, strict=True)]
        lengths = [2, len(sizes), *(length for length in by_class for _ in range(3))]
        if self.confusion:
            lengths += [0 if several else (k + 1) * k for k, several in zip(sizes, multi, strict=True)]
        self.meters = {
            name: MultiValuedMeter(k, self.thresholds.get(name), self.device)
            for name, k in self.label_space.num_classes.items()
            if name in self.label_space.multi_valued and self.keep_scores
        }
        self.calibration = CalibrationMeter(self.label_space, self.device) if self.keep_scores else None
        # For each image: are its single-valued labels all predicted, and has it any label? Sets are scored later.
        self.rows = [torch.empty(0, 2, dtype=torch.bool, device=self.device)] if self.meters else []
        self.counts = torch.zeros(sum(lengths), dtype=torch.int64, device=self.device)
        self._lengths = lengths

    def _split(self, counts: Tensor) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """Return views of the buffer: exact matches [2], top-5 hits [A], three counts an attribute, confusions."""
        exact, top5, *rest = counts.split(self._lengths)
        by_class = 3 * len(self.weights)
        return exact, top5, rest[:by_class], rest[by_class:]

    @torch.no_grad()
    def update(self, output: Mapping[str, Tensor], target: Tensor) -> None:
        """Count a batch.

        Args:
            output: logits of each attribute, [B, K].
            target: class indices, int64 [B, C].

        Raises:
            ValueError: the target does not have the label space's columns.
        """
        # drop a distributed sampler's padding
        if target.ndim != 2 or target.shape[1] != self.label_space.width:
            raise ValueError(f"expected targets of shape [B, {self.label_space.width}], got {list(target.shape)}")
        room = len(target) if self.max_samples is None else max(0, self.max_samples - self.num_samples)
        target = target[:room]
        self.num_samples += len(target)
        # each attribute
        exact, top5, by_class, confusions = self._split(self.counts)
        right = torch.ones(len(target), dtype=torch.bool, device=target.device)  # [B]
        sets_right = right
        for index, (name, labels) in enumerate(
            zip(self.label_space.attributes, by_attribute(target, self.label_space), strict=True)
        ):
            logits = output[name][:room].detach().float()
            counts = by_class[3 * index : 3 * index + 3]
            if labels.ndim == 2:
                sets_right = sets_right & self._update_sets(index, name, logits, labels, counts)
                continue
            classes = logits.shape[1]
            known, seen = labels != UNKNOWN, labels >= 0  # seen: in the label space
            # Weigh rows by 1 or 0 instead of selecting them: the size of a selection needs a synchronization.
            rows = torch.where(seen, labels, classes)
            best = top_classes(logits, 5)
            predicted = best[:, 0]
            hits = (predicted == labels) & seen
            right &= hits | ~known
            loss = F.cross_entropy(logits, torch.where(seen, labels, UNKNOWN), ignore_index=UNKNOWN, reduction="sum")
            self.loss_sum[index] += loss
            top5[index] += ((best == labels.unsqueeze(1)).any(dim=1) & seen).sum()
            for count, where, weight in zip(counts, (rows, rows, predicted), (known, hits, known), strict=True):
                count.index_add_(0, where, weight.to(count.dtype))
            if self.confusion:
                confusions[index].index_add_(0, rows * classes + predicted, known.to(exact.dtype))
        if self.calibration is not None:
            self.calibration.update(output, target)
        # exact matches
        labeled = (target != UNKNOWN).any(dim=1)
        if self.meters:
            self.rows.append(torch.stack([right, labeled], dim=1))
        exact += torch.stack([(right & sets_right & labeled).sum(), labeled.sum()])

    def _update_sets(self, index: int, name: str, logits: Tensor, words: Tensor, counts: list[Tensor]) -> Tensor:
        """Count a batch of a multi-valued attribute; return which images are right or unlabeled, bool [B].

        It uses the given threshold or 0.5, since the best threshold is unknown until the last batch.
        """
        sets = value_sets(words, logits.shape[1])
        loss = F.binary_cross_entropy_with_logits(logits, sets.values.float(), reduction="none").mean(dim=1)
        self.loss_sum[index] += (loss * sets.known).sum()
        if name in self.meters:
            self.meters[name].update(logits, words)
        predicted = predicted_values(logits, self._threshold(name))
        hits = (predicted == sets.values).all(dim=1) & ~sets.unseen
        for count, weight in zip(counts[:2], (sets.known, hits & sets.known), strict=True):
            count += weight.sum()
        return hits | ~sets.known

    def _threshold(self, name: str) -> float:
        """Return the threshold of a multi-valued attribute that applies before the best one is known."""
        return self.thresholds.get(name, DEFAULT_THRESHOLD)

    def compute(self, distributed: bool = False) -> Metrics:
        """Return the metrics; with `distributed` every process must make this call, and all get the joint result.

        Returns:
            `loss`, and in percent `top1`, `top5`, `balanced_accuracy` and `macro_f1`: weighted means over the
            attributes that have labels. `exact_match`: percentage of images whose known labels are all predicted, among
            the images with a label. `attributes`: for each attribute the first five metrics and `count`, its number of
            labels; metrics are NaN if it has none. Multi-valued attributes add what `MultiValuedMeter` returns, and
            `map`, its weighted mean.
        """
        return self._compute(distributed, self.meters)

    def _compute(self, distributed: bool, meters: Mapping[str, MultiValuedMeter]) -> Metrics:
        """Return the metrics; a multi-valued attribute without a meter has only the metrics counted by batch."""
        # metrics from the counts
        loss_sum, counts = self.loss_sum.clone(), self.counts.clone()
        if distributed:
            dist.all_reduce(loss_sum)
            dist.all_reduce(counts)
        exact, top5, by_class, _ = self._split(counts.cpu())
        attributes = {
            name: _set_metrics(self._threshold(name), float(loss_sum[index]), *by_class[3 * index : 3 * index + 2])
            if name in self.label_space.multi_valued
            else _class_metrics(float(loss_sum[index]), int(top5[index]), *by_class[3 * index : 3 * index + 3])
            for index, name in enumerate(self.label_space.attributes)
        }
        # metrics from stored scores
        if meters:
            rows = torch.cat(self.rows)
            right, labeled = (gather_rows(rows) if distributed else rows).unbind(1)
            for name, meter in meters.items():
                metrics, sets_right, sets = meter.compute(distributed)
                index = self.label_space.attributes.index(name)
                loss = float(loss_sum[index]) / metrics["count"] if metrics["count"] else math.nan
                attributes[name] = {"loss": loss} | metrics
                right = right & (sets_right | ~sets.known).to(right.device)
            exact = torch.stack([(right & labeled).sum(), labeled.sum()]).cpu()
        # means over the attributes
        means = {metric: self.mean([values[metric] for values in attributes.values()]) for metric in ATTRIBUTE_METRICS}
        if self.label_space.multi_valued:
            means["map"] = self.mean([values.get("map", math.nan) for values in attributes.values()])
        return {**means, "exact_match": _percent(int(exact[0]), int(exact[1])), "attributes": attributes}

    def summary(self) -> Metrics:
        """Return this process's metrics so far, without those that need stored scores of multi-valued attributes."""
        return self._compute(False, {})

    def confusion_matrices(self, distributed: bool = False) -> dict[str, Tensor]:
        """Return the confusion matrix of each attribute, int64 on the CPU.

        With `distributed` every process must make this call, and all get the joint result.

        Returns:
            [K + 1, K]: rows are labels, the last one for labels outside the label space; columns are predictions. For a
            multi-valued attribute [K + 1, 3], as `MultiValuedMeter.counts` returns it.

        Raises:
            ValueError: the evaluator was made without `confusion`.
        """
        if not self.confusion:
            raise ValueError("no confusion matrices were counted: create AttributeEvaluator(confusion=True)")
        counts = self.counts.clone()
        if distributed:
            dist.all_reduce(counts)
        matrices = self._split(counts.cpu())[3]
        sizes = self.label_space.num_classes
        return {
            name: self.meters[name].counts(distributed).cpu() if name in self.meters else matrix.view(k + 1, k)
            for (name, k), matrix in zip(sizes.items(), matrices, strict=True)
        }

    def mean(self, values: list[float]) -> float:
        """Return the weighted mean over the attributes whose value is not NaN."""
        pairs = [(value, weight) for value, weight in zip(values, self.weights, strict=True) if not math.isnan(value)]
        total = sum(weight for _, weight in pairs)
        return sum(value * weight for value, weight in pairs) / total if total else math.nan


def _class_metrics(loss_sum: float, top5: int, labels: Tensor, hits: Tensor, predicted: Tensor) -> dict[str, float]:
    """Return the metrics of a single-valued attribute.

    Args:
        loss_sum: sum of the cross-entropies over the labels in the label space.
        top5: number of labels among the five most probable classes.
        labels: number of labels of each class, [K + 1]; the last entry is for classes outside the label space.
        hits: number of labels of each class that are predicted, [K + 1].
        predicted: number of labeled images for which each class is predicted, [K + 1].
    """
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


def _set_metrics(threshold: float, loss_sum: float, known: Tensor, hits: Tensor) -> dict[str, float]:
    """Return the metrics of a multi-valued attribute whose scores are not stored.

    Args:
        threshold: probability at or above which a value is predicted.
        loss_sum: sum of the binary cross-entropies over the known sets.
        known: number of known sets, [1].
        hits: number of sets that are predicted exactly, [1].
    """
    count = int(known)
    missing = dict.fromkeys(("top5", "balanced_accuracy", "macro_f1", "micro_f1", "map"), math.nan)
    return {
        "loss": loss_sum / count if count else math.nan,
        "top1": _percent(int(hits), count),
        **missing,
        "threshold": threshold,
        "count": count,
    }


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else math.nan
