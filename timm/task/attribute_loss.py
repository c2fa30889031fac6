"""The classification loss of each attribute: unknown labels do not count, and W processes give the result of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.label_space import UNKNOWN, LabelSpace
from simclr.collectives import sum_over_processes, world_size
from timm.data.target_codes import by_attribute
from timm.task.multi_valued_loss import MultiValuedLoss

_JSD_WEIGHT = 12.0  # lambda of AugMix (arXiv:1912.02781, section 4)


class AttributeLoss(nn.Module):
    """The loss of each attribute: the mean over its known labels on all processes.

    It is `MultiValuedLoss` for a multi-valued attribute, else the cross-entropy. With W processes, each returns W times
    its local sum, divided by the number of labels on all processes. DistributedDataParallel averages gradients over
    processes, which then gives the mean over the joint batch.

    Args:
        label_space: the attributes and their classes.
        smoothing: label smoothing, 0-1.
        jsd_splits: number of AugMix splits in the batch for the Jensen-Shannon loss, the first one clean; 0 disables
            that loss. Not possible with multi-valued attributes.
        weights: class weights of each attribute, float32 [K], or None. As in PyTorch, a label's weight also counts in
            the mean's denominator. The weight of a multi-valued attribute's value applies to images that have it. Not
            possible with `jsd_splits`.
        margins: offsets added to the logits of each attribute, float32 [K], or None.
        multi_valued_loss: "bce" or "asl"; see `timm.task.multi_valued_loss`.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        smoothing: float = 0.0,
        jsd_splits: int = 0,
        weights: Sequence[Tensor] | None = None,
        margins: Sequence[Tensor] | None = None,
        multi_valued_loss: str = "bce",
    ) -> None:
        super().__init__()
        self.label_space = label_space
        self.attributes = tuple(label_space.attributes)
        self.losses: Sequence[ClassLoss | MultiValuedLoss] = nn.ModuleList()  # type: ignore[assignment]  # a ModuleList
        for index, name in enumerate(self.attributes):
            weight, margin = (None if values is None else values[index] for values in (weights, margins))
            if name in label_space.multi_valued:
                loss: nn.Module = MultiValuedLoss(multi_valued_loss, smoothing, weight, margin)
            else:
                loss = ClassLoss(smoothing, jsd_splits, weight, margin)
            self.losses.append(loss)  # type: ignore[attr-defined]

    def forward(
        self, logits: Mapping[str, Tensor], target: Tensor | Sequence[Tensor], counts: Tensor | None = None
    ) -> Tensor:
        """Return the loss of each attribute, [A], in float64 for float64 logits and in float32 for all others.

        An attribute without labels in the joint batch has loss 0 and gradient 0.

        Args:
            logits: logits of each attribute, [N, K], any floating dtype.
            target: class indices, int64 [N, C]; or from `MultiLabelMixup` the soft targets of each attribute.
            counts: for a chunk of a batch, the result of `joint_counts` for the whole batch, so that the losses of its
                chunks add up to the loss of the batch. None for a whole batch.
        """
        targets = self._by_attribute(target)
        if not targets:
            return torch.zeros(0, device=target.device if isinstance(target, Tensor) else None)
        sums = [
            loss(_precise(logits[name]), labels)
            for name, loss, labels in zip(self.attributes, self.losses, targets, strict=True)
        ]
        counts = self.joint_counts([target]) if counts is None else counts
        # A count is 0 or at least the weight of one label, so the clamp only prevents 0 / 0.
        return torch.stack(sums) * world_size() / counts.clamp(min=torch.finfo(counts.dtype).tiny)

    def joint_counts(self, targets: Sequence[Tensor | Sequence[Tensor]]) -> Tensor:
        """Return the number of labels of each attribute in a batch, over all processes, float32 [A].

        Every process must make this call.

        Args:
            targets: the targets of each chunk of this process's batch, as in `forward`.
        """
        if not self.attributes:
            return torch.zeros(0)
        return sum_over_processes(torch.stack([self._counts(target) for target in targets]).sum(dim=0))

    def _counts(self, target: Tensor | Sequence[Tensor]) -> Tensor:
        counts = [loss.count(labels) for loss, labels in zip(self.losses, self._by_attribute(target), strict=True)]
        return torch.stack(counts).float()

    def _by_attribute(self, target: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
        return list(by_attribute(target, self.label_space)) if isinstance(target, Tensor) else target


class ClassLoss(nn.Module):
    """The cross-entropy of one attribute: a sum over its known labels.

    Smoothing must not change the prediction of a perfect fit. A uniform share for each class would shift it towards
    rare classes if classes have weights or margins. Therefore a label's weight applies to its whole smoothed target,
    and with margins the smoothing is distributed as their softmax.

    Args:
        smoothing: label smoothing, 0-1.
        jsd_splits: number of AugMix splits in the batch, or 0; see `AttributeLoss`.
        weight: class weights, float32 [K], or None.
        margin: offsets added to the logits, float32 [K], or None.
    """

    weight: Tensor | None
    margin: Tensor | None

    def __init__(self, smoothing: float, jsd_splits: int, weight: Tensor | None, margin: Tensor | None) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.jsd_splits = jsd_splits
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("margin", margin, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum, a scalar.

        Args:
            logits: logits of K classes, [N, K].
            target: class indices [N], negative where unknown; or soft targets [N, K], 0 in rows without a label.
        """
        measure = self._jsd if self.jsd_splits else self._soft if target.ndim == 2 else self._hard
        return measure(logits, target)

    def count(self, target: Tensor) -> Tensor:
        """Return the weighted number of labels, a scalar; soft targets count by their mass, splits by the clean one.

        Args:
            target: class indices [N] or soft targets [N, K].
        """
        if target.ndim == 2:
            return target.sum() if self.weight is None else (target * self.weight).sum()
        clean = target[: len(target) // (self.jsd_splits or 1)]
        known = clean != UNKNOWN
        return known.sum() if self.weight is None else (self.weight[clean.clamp(min=0)] * known).sum()

    def _hard(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum of the cross-entropies for class indices [N]."""
        if self.weight is None and self.margin is None:
            return F.cross_entropy(
                logits, target, ignore_index=UNKNOWN, reduction="sum", label_smoothing=self.smoothing
            )
        known = (target != UNKNOWN)[:, None]
        return self._soft(logits, F.one_hot(target.clamp(min=0), logits.shape[1]) * known)

    def _soft(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum of the cross-entropies for soft targets [N, K], 0 in rows without a label."""
        weighted = target if self.weight is None else target * self.weight
        shares = 1 / target.shape[1] if self.margin is None else self.margin.softmax(dim=0)
        smooth = weighted * (1 - self.smoothing) + weighted.sum(dim=1, keepdim=True) * self.smoothing * shares
        shifted = logits if self.margin is None else logits + self.margin
        return -(smooth * F.log_softmax(shifted, dim=1)).sum()

    def _jsd(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the clean split's cross-entropy plus the weighted JS divergence of all splits.

        The divergence is the mean KL divergence of the splits from their mean (arXiv:1912.02781, equation 2).
        """
        rows = len(logits) // self.jsd_splits
        clean = target[:rows]
        probabilities = logits.softmax(dim=1).view(self.jsd_splits, rows, -1)  # [splits, rows, K]
        log_mean = probabilities.mean(dim=0).clamp(1e-7, 1).log()  # [rows, K]
        divergence = F.kl_div(log_mean.expand_as(probabilities), probabilities, reduction="none").sum(dim=2).mean(dim=0)
        return self._hard(logits[:rows], clean) + _JSD_WEIGHT * (divergence * (clean != UNKNOWN)).sum()


def _precise(logits: Tensor) -> Tensor:
    """Return logits in float32 or float64, since a sum over a batch needs that precision."""
    return logits if logits.dtype == torch.float64 else logits.float()
