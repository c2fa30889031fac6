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
    """

    def __init__(self, label_space: LabelSpace, smoothing: float = 0.0, jsd_splits: int = 0) -> None:
        super().__init__()
        self.attributes = tuple(label_space.attributes)
        self.smoothing = smoothing
        self.jsd_splits = jsd_splits

    def forward(self, logits: Mapping[str, Tensor], target: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the loss of each attribute, [A] in float32.

        An attribute with no label in the joint batch has loss 0 and gradient 0.

        Args:
            logits: by attribute [N, K], any float dtype.
            target: int64 [N, A] of class indices with -100 for unknown, or soft targets [N, K] for each attribute.
        """
        columns = target.unbind(1) if isinstance(target, Tensor) else target
        measure = self._jsd if self.jsd_splits else self._soft if columns[0].ndim == 2 else self._hard
        pairs = [measure(logits[name].float(), column) for name, column in zip(self.attributes, columns, strict=True)]
        sums, counts = (torch.stack(values) for values in zip(*pairs, strict=True))
        processes = 1
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            processes = dist.get_world_size()
            dist.all_reduce(counts)
        # A count is 0 or at least one label's share, so the clamp only keeps 0 / 0 from being NaN.
        return sums * processes / counts.clamp(min=torch.finfo(counts.dtype).tiny)

    def _hard(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of cross-entropies and number of labels, for class indices [N]."""
        loss = F.cross_entropy(logits, target, ignore_index=UNKNOWN, reduction="sum", label_smoothing=self.smoothing)
        return loss, (target != UNKNOWN).sum().to(loss.dtype)

    def _soft(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The same for soft targets [N, K], whose mass is 0 in a row without a label."""
        mass = target.sum(dim=1, keepdim=True)
        smooth = target * (1 - self.smoothing) + mass * (self.smoothing / target.shape[1])
        return -(smooth * F.log_softmax(logits, dim=1)).sum(), mass.sum()

    def _jsd(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the clean split, and the splits' divergence from their mean (arXiv:1912.02781, eq. 2)."""
        rows = len(logits) // self.jsd_splits
        clean = target[:rows]
        loss, count = self._hard(logits[:rows], clean)
        probabilities = logits.softmax(dim=1).view(self.jsd_splits, rows, -1)
        log_mean = probabilities.mean(dim=0).clamp(1e-7, 1).log()
        divergence = F.kl_div(log_mean.expand_as(probabilities), probabilities, reduction="none").sum(dim=2).mean(dim=0)
        return loss + _JSD_WEIGHT * (divergence * (clean != UNKNOWN)).sum(), count
