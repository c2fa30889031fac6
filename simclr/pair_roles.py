"""The role of each pair of anchors in a contrastive loss: excluded, a positive with a weight, or a negative."""

import math

import torch
from torch import Tensor

from simclr.label_agreement import LabelAgreement, fill_same_image


class PairRoles:
    """The roles of all pairs of rows, computed a block at a time.

    All roles are symmetric, so a block also serves as its transpose.

    Args:
        local: range of this process's rows among the m rows of all processes.
        labels: labels of all m rows, [m, A], negative where unknown; or None.
        dtype: floating dtype of the weights.
        decoupled: whether to exclude the other view of the same image.
        weigh_positives: whether labels weigh positives by their agreement; otherwise they exclude other images whose
            agreement is 1.
    """

    def __init__(
        self, local: slice, labels: Tensor | None, dtype: torch.dtype, decoupled: bool, weigh_positives: bool
    ) -> None:
        self.local, self.decoupled, self.weigh_positives = local, decoupled, weigh_positives
        self.agreement = None if labels is None else LabelAgreement(labels, local, dtype)

    def exclude(self, logits: Tensor, rows: slice, columns: slice) -> None:
        """Write -inf into a block of logits [r, c] for each excluded pair; a row with itself is always excluded."""
        if rows == columns:
            logits.fill_diagonal_(-math.inf)
        if self.agreement is not None and not self.weigh_positives:
            excluded = self.agreement.block(rows, columns) == 1
            fill_same_image(excluded, rows, columns, self.local, self.decoupled)
            logits.masked_fill_(excluded, -math.inf)
        elif self.decoupled:
            fill_same_image(logits, rows, columns, self.local, -math.inf)

    def weights(self, rows: slice, columns: slice) -> Tensor | None:
        """Return a block of the positives' weights, [r, c], 0 for a row with itself; None without weights."""
        if self.agreement is None or not self.weigh_positives:
            return None
        block = self.agreement.block(rows, columns)
        return block.fill_diagonal_(0) if rows == columns else block
