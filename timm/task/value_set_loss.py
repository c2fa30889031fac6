"""The loss of a multi-valued attribute: each of its values is there or not, by timm's losses for that.

- bce: binary cross-entropy, a mean over the values, as timm's default is
- asl: the asymmetric loss, a sum over the values, as timm's default is: Ridnik et al., 2021,
  https://arxiv.org/abs/2009.14119 (equation 7, with its focusing 1 and 4, and margin 0.05)
"""

from __future__ import annotations

from torch import Tensor, nn

from catalog.label_space import UNKNOWN
from timm.data.target_codes import value_sets
from timm.loss import AsymmetricLossMultiLabel, BinaryCrossEntropy

KINDS = ("bce", "asl")


class ValueSetLoss(nn.Module):
    """The loss of one multi-valued attribute, a sum over the images whose set is known.

    As with classes, smoothing must not move what is predicted where the fit is perfect: a value's weight is on all of
    its smoothed target, and a margin is what the smoothing tends to.

    Args:
        kind: of `KINDS`.
        smoothing: label smoothing, 0-1, towards one half, or with a margin towards its sigmoid.
        weight: of each value where an image has it, float32 [K], or None for 1.
        margin: what is added to the logits, float32 [K], or None.
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
        """Return the sum; a value that the label space lacks is passed over.

        Args:
            logits: [N, K].
            target: the attribute's columns int64 [N, W], or of `MultiLabelMixup` soft targets [N, K + 1], the last
                the mass of what is known, by which the others are scaled.
        """
        values, mass = _dense(target, logits.shape[1])
        having = values / mass.clamp(min=1e-12)[:, None]
        weighted = having if self.weight is None else having * self.weight
        scale = weighted + 1 - having
        tends_to = 0.5 if self.margin is None else self.margin.sigmoid()
        smooth = weighted / scale * (1 - self.smoothing) + tends_to * self.smoothing
        shifted = logits if self.margin is None else logits + self.margin
        losses = scale * self.loss(shifted, smooth.to(logits.dtype))
        by_image = losses.mean(dim=1) if self.averages else losses.sum(dim=1)
        total: Tensor = (by_image * mass).sum()
        return total

    def count(self, target: Tensor) -> Tensor:
        """Return the number of images whose set is known; of soft targets the mass of it."""
        return target[:, -1].sum() if target.is_floating_point() else (target[:, 0] != UNKNOWN).sum()


def _dense(target: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return values [N, K] and mass [N], float32."""
    if target.is_floating_point():
        return target[:, :-1], target[:, -1]
    sets = value_sets(target, count)
    return sets.values.float(), sets.known.float()
