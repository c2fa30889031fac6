"""The loss of a multi-valued attribute: each value is present or absent, and timm's binary losses score it.

- bce: binary cross-entropy, the mean over the values, as by default in timm
- asl: the asymmetric loss, the sum over the values, as by default in timm: Ridnik et al., 2021,
  https://arxiv.org/abs/2009.14119 (equation 7, with the paper's focusing parameters 1 and 4 and margin 0.05)
"""

from __future__ import annotations

from torch import Tensor, nn

from catalog.label_space import UNKNOWN
from timm.data.target_codes import value_sets
from timm.loss import AsymmetricLossMultiLabel, BinaryCrossEntropy

KINDS = ("bce", "asl")


class MultiValuedLoss(nn.Module):
    """The loss of one multi-valued attribute: a sum over the images whose set of values is known.

    Smoothing must not change the prediction of a perfect fit. Therefore a value's weight applies to its whole smoothed
    target, and with a margin the target is smoothed towards the sigmoid of that margin.

    Args:
        kind: "bce" or "asl".
        smoothing: label smoothing, 0-1, towards one half, or with a margin towards its sigmoid.
        weight: weight of each value in the images that have it, float32 [K]; None for 1.
        margin: offset added to the logit of each value, float32 [K]; None for 0.
    """

    weight: Tensor | None
    margin: Tensor | None

    def __init__(
        self,
        kind: str = "bce",
        smoothing: float = 0.0,
        weight: Tensor | None = None,
        margin: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.loss: nn.Module
        if kind == "bce":
            self.loss = BinaryCrossEntropy(smoothing=0, reduction="none")
        else:
            self.loss = AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=1, clip=0.05, reduction="none")
        self.averages = kind == "bce"
        self.smoothing = smoothing
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("margin", margin, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum over the images, a scalar. Values outside the label space are ignored.

        Args:
            logits: logits of K values, [N, K].
            target: the attribute's target columns, int64 [N, W]; or soft targets [N, K + 1] from `MultiLabelMixup`,
                whose last column is the known mass, by which the others are scaled.
        """
        values, mass = _dense(target, logits.shape[1])
        present = values / mass.clamp(min=1e-12)[:, None]  # [N, K], 0-1
        weighted = present if self.weight is None else present * self.weight
        scale = weighted + 1 - present
        limit = 0.5 if self.margin is None else self.margin.sigmoid()
        smooth = weighted / scale * (1 - self.smoothing) + limit * self.smoothing
        shifted = logits if self.margin is None else logits + self.margin
        losses = scale * self.loss(shifted, smooth.to(logits.dtype))  # [N, K]
        by_image = losses.mean(dim=1) if self.averages else losses.sum(dim=1)
        total: Tensor = (by_image * mass).sum()
        return total

    def count(self, target: Tensor) -> Tensor:
        """Return the number of images whose set is known, a scalar; for soft targets, the sum of their known mass."""
        return target[:, -1].sum() if target.is_floating_point() else (target[:, 0] != UNKNOWN).sum()


def _dense(target: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the values [N, K] and the known mass [N] of a target, float32."""
    if target.is_floating_point():
        return target[:, :-1], target[:, -1]
    sets = value_sets(target, count)
    return sets.values.float(), sets.known.float()
