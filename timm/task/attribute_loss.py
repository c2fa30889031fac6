"""The classification loss over several attributes, blank cells left out, exact on any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from timm.data.label_space import UNKNOWN, LabelSpace

_JSD_WEIGHT = 12.0  # lambda of AugMix (arXiv:1912.02781, section 4)


class AttributeLoss(nn.Module):
    """Cross-entropy of each attribute, a mean over its labels on all processes.

    On W processes each returns W times its own sum over the global count of labels: averaged over the processes, as
    DistributedDataParallel does with gradients, that is the mean over the joint batch.

    Args:
        label_space: the attributes and their classes.
        smoothing: label smoothing, 0-1.
        jsd_splits: with AugMix's Jensen-Shannon loss the number of splits in the batch (the first clean), else 0.
        weights: of the classes, for each attribute float32 [K]: each label counts so many times, also in the count that
            the mean divides by, as in PyTorch. None for equal ones; with splits there are none.
        margins: what is added to the logits, for each attribute float32 [K]; None for nothing.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        smoothing: float = 0.0,
        jsd_splits: int = 0,
        weights: Sequence[Tensor] | None = None,
        margins: Sequence[Tensor] | None = None,
    ) -> None:
        super().__init__()
        for name, values in (("weight", weights), ("margin", margins)):
            for index in range(len(label_space)):
                buffer = None if values is None else values[index]
                self.register_buffer(f"_{name}_{index}", buffer, persistent=False)
        self.attributes = tuple(label_space.attributes)
        self.smoothing = smoothing
        self.jsd_splits = jsd_splits

    def forward(
        self, logits: Mapping[str, Tensor], target: Tensor | Sequence[Tensor], counts: Tensor | None = None
    ) -> Tensor:
        """Return the loss of each attribute, [A] in float32, or in float64 for float64 logits.

        An attribute with no label in the joint batch has loss 0 and gradient 0.

        Args:
            logits: by attribute [N, K], any float dtype.
            target: int64 [N, A] of class indices with -100 for unknown, or soft targets [N, K] for each attribute.
            counts: what `joint_counts` says of a batch of which this is a chunk: the chunks' losses then add up to
                the batch's. Without it, this is the whole batch.
        """
        columns = _columns(target)
        if not columns:
            return torch.zeros(0, device=target.device if isinstance(target, Tensor) else None)
        measure = self._jsd if self.jsd_splits else self._soft if columns[0].ndim == 2 else self._hard
        sums = [
            measure(_precise(logits[name]), column, index)
            for index, (name, column) in enumerate(zip(self.attributes, columns, strict=True))
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
        counts = torch.stack([self._counts(_columns(target)) for target in targets]).sum(dim=0)
        if _processes() > 1:
            dist.all_reduce(counts)
        return counts

    def _counts(self, columns: Sequence[Tensor]) -> Tensor:
        """Labels of each attribute [A]: of soft targets their mass, and with splits those of the clean one."""
        return torch.stack([self._count(column, index) for index, column in enumerate(columns)]).float()

    def _count(self, column: Tensor, index: int) -> Tensor:
        weight = self._buffer("weight", index)
        if column.ndim == 2:
            return column.sum() if weight is None else (column * weight).sum()
        clean = column[: len(column) // (self.jsd_splits or 1)]
        known = clean != UNKNOWN
        return known.sum() if weight is None else (weight[clean.clamp(min=0)] * known).sum()

    def _buffer(self, name: str, index: int) -> Tensor | None:
        """Return an attribute's class weights or margins, None without."""
        values: Tensor | None = getattr(self, f"_{name}_{index}")
        return values

    def _with_margin(self, logits: Tensor, index: int) -> Tensor:
        margin = self._buffer("margin", index)
        return logits if margin is None else logits + margin

    def _hard(self, logits: Tensor, target: Tensor, index: int) -> Tensor:
        """Sum of cross-entropies, for class indices [N]."""
        weight = self._buffer("weight", index)
        return F.cross_entropy(
            self._with_margin(logits, index),
            target,
            weight=None if weight is None else weight.to(logits.dtype),
            ignore_index=UNKNOWN,
            reduction="sum",
            label_smoothing=self.smoothing,
        )

    def _soft(self, logits: Tensor, target: Tensor, index: int) -> Tensor:
        """The same for soft targets [N, K], whose mass is 0 in a row without a label."""
        mass = target.sum(dim=1, keepdim=True)
        smooth = target * (1 - self.smoothing) + mass * (self.smoothing / target.shape[1])
        weight = self._buffer("weight", index)
        losses = smooth * F.log_softmax(self._with_margin(logits, index), dim=1)
        return -(losses if weight is None else losses * weight).sum()

    def _jsd(self, logits: Tensor, target: Tensor, index: int) -> Tensor:
        """Cross-entropy of the clean split, and the splits' divergence from their mean (arXiv:1912.02781, eq. 2)."""
        rows = len(logits) // self.jsd_splits
        clean = target[:rows]
        probabilities = logits.softmax(dim=1).view(self.jsd_splits, rows, -1)
        log_mean = probabilities.mean(dim=0).clamp(1e-7, 1).log()
        divergence = F.kl_div(log_mean.expand_as(probabilities), probabilities, reduction="none").sum(dim=2).mean(dim=0)
        return self._hard(logits[:rows], clean, index) + _JSD_WEIGHT * (divergence * (clean != UNKNOWN)).sum()


def _columns(target: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the targets of each attribute."""
    return target.unbind(1) if isinstance(target, Tensor) else target


def _precise(logits: Tensor) -> Tensor:
    """Return logits in a precision that a sum over a batch does not suffer from."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
