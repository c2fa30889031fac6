"""The classification loss over several attributes, blank cells left out, exact on any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.label_space import UNKNOWN, LabelSpace
from timm.data.target_codes import by_attribute
from timm.task.value_set_loss import ValueSetLoss

_JSD_WEIGHT = 12.0  # lambda of AugMix (arXiv:1912.02781, section 4)


class AttributeLoss(nn.Module):
    """The loss of each attribute, a mean over its labels on all processes.

    It is cross-entropy, for multi-valued attributes `ValueSetLoss`. On W processes each returns W times its own sum
    over the global count of labels: averaged over the processes, as DistributedDataParallel does with gradients, that
    is the mean over the joint batch.

    Args:
        label_space: the attributes and their classes.
        smoothing: label smoothing, 0-1.
        jsd_splits: with AugMix's Jensen-Shannon loss the number of splits in the batch (the first clean), else 0; not
            with multi-valued attributes.
        weights: of the classes, for each attribute float32 [K]: each label counts so many times, also in the count that
            the mean divides by, as in PyTorch; of a multi-valued one of its values where an image has them. None for
            equal ones; with splits there are none.
        margins: what is added to the logits, for each attribute float32 [K]; None for nothing.
        multi_valued_loss: "bce" or "asl".
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
        self.losses: Sequence[ClassLoss | ValueSetLoss] = nn.ModuleList()  # type: ignore[assignment]  # of modules
        for index, name in enumerate(self.attributes):
            weight, margin = (None if values is None else values[index] for values in (weights, margins))
            if name in label_space.multi_valued:
                loss: nn.Module = ValueSetLoss(multi_valued_loss, smoothing, weight, margin)
            else:
                loss = ClassLoss(smoothing, jsd_splits, weight, margin)
            self.losses.append(loss)  # type: ignore[attr-defined]

    def forward(
        self, logits: Mapping[str, Tensor], target: Tensor | Sequence[Tensor], counts: Tensor | None = None
    ) -> Tensor:
        """Return the loss of each attribute, [A] in float32, or in float64 for float64 logits.

        An attribute with no label in the joint batch has loss 0 and gradient 0.

        Args:
            logits: by attribute [N, K], any float dtype.
            target: int64 [N, C] of the label space, or for each attribute the soft targets of `MultiLabelMixup`.
            counts: what `joint_counts` says of a batch of which this is a chunk: the chunks' losses then add up to
                the batch's. Without it, this is the whole batch.
        """
        targets = self._by_attribute(target)
        if not targets:
            return torch.zeros(0, device=target.device if isinstance(target, Tensor) else None)
        sums = [
            loss(_precise(logits[name]), own)
            for name, loss, own in zip(self.attributes, self.losses, targets, strict=True)
        ]
        counts = self.joint_counts([target]) if counts is None else counts
        # A count is 0 or at least one label's share, so the clamp only keeps 0 / 0 from being NaN.
        return torch.stack(sums) * _processes() / counts.clamp(min=torch.finfo(counts.dtype).tiny)

    def joint_counts(self, targets: Sequence[Tensor | Sequence[Tensor]]) -> Tensor:
        """Return how many labels each attribute has in a batch, on all processes, [A] in float32.

        Args:
            targets: of each chunk of this process's batch, as `forward` takes them.
        """
        if not self.attributes:
            return torch.zeros(0)
        counts = torch.stack([self._counts(target) for target in targets]).sum(dim=0)
        if _processes() > 1:
            dist.all_reduce(counts)
        return counts

    def _counts(self, target: Tensor | Sequence[Tensor]) -> Tensor:
        counts = [loss.count(own) for loss, own in zip(self.losses, self._by_attribute(target), strict=True)]
        return torch.stack(counts).float()

    def _by_attribute(self, target: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
        return list(by_attribute(target, self.label_space)) if isinstance(target, Tensor) else target


class ClassLoss(nn.Module):
    """Cross-entropy of one attribute, a sum over its labels.

    Smoothing must not move what is predicted where the fit is perfect, which it does towards rare classes where each
    class takes the same share of it with a weight or a margin of its own. So a label's weight is on all of its smoothed
    target, and with margins the smoothing is spread as these are.

    Args:
        smoothing: label smoothing, 0-1.
        jsd_splits: as in `AttributeLoss`.
        weight: of the classes, float32 [K], or None.
        margin: what is added to the logits, float32 [K], or None.
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
        """Return the sum, for logits [N, K] and class codes [N] or soft targets [N, K]."""
        measure = self._jsd if self.jsd_splits else self._soft if target.ndim == 2 else self._hard
        return measure(logits, target)

    def count(self, target: Tensor) -> Tensor:
        """Return the number of labels, weighted: of soft targets their mass, and with splits those of the clean one."""
        if target.ndim == 2:
            return target.sum() if self.weight is None else (target * self.weight).sum()
        clean = target[: len(target) // (self.jsd_splits or 1)]
        known = clean != UNKNOWN
        return known.sum() if self.weight is None else (self.weight[clean.clamp(min=0)] * known).sum()

    def _hard(self, logits: Tensor, target: Tensor) -> Tensor:
        """Sum of cross-entropies, for class indices [N]."""
        if self.weight is None and self.margin is None:
            return F.cross_entropy(
                logits, target, ignore_index=UNKNOWN, reduction="sum", label_smoothing=self.smoothing
            )
        known = (target != UNKNOWN)[:, None]
        return self._soft(logits, F.one_hot(target.clamp(min=0), logits.shape[1]) * known)

    def _soft(self, logits: Tensor, target: Tensor) -> Tensor:
        """The same for soft targets [N, K], whose mass is 0 in a row without a label."""
        weighted = target if self.weight is None else target * self.weight
        shares = 1 / target.shape[1] if self.margin is None else self.margin.softmax(dim=0)
        smooth = weighted * (1 - self.smoothing) + weighted.sum(dim=1, keepdim=True) * self.smoothing * shares
        shifted = logits if self.margin is None else logits + self.margin
        return -(smooth * F.log_softmax(shifted, dim=1)).sum()

    def _jsd(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of the clean split, and the splits' divergence from their mean (arXiv:1912.02781, eq. 2)."""
        rows = len(logits) // self.jsd_splits
        clean = target[:rows]
        probabilities = logits.softmax(dim=1).view(self.jsd_splits, rows, -1)
        log_mean = probabilities.mean(dim=0).clamp(1e-7, 1).log()
        divergence = F.kl_div(log_mean.expand_as(probabilities), probabilities, reduction="none").sum(dim=2).mean(dim=0)
        return self._hard(logits[:rows], clean) + _JSD_WEIGHT * (divergence * (clean != UNKNOWN)).sum()


def _precise(logits: Tensor) -> Tensor:
    """Return logits in a precision that a sum over a batch does not suffer from."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
