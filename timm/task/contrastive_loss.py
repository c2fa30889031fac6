"""The contrastive losses by the names of --contrastive, and what each scores at chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from simclr import DCLLoss, NTXentLoss, SupConLoss, best_level, chance_level, dcl_best_level, dcl_chance_level


@dataclass(frozen=True)
class Kind:
    """A contrastive loss.

    Attributes:
        make: returns its module, of a temperature.
        chance: its value for N images when all similarities are equal.
        formula: that as text.
        best: the lowest value of N images at a temperature, None where that depends on the labels.
        needs_labels: whether it is none without labels.
    """

    make: Callable[[float], nn.Module]
    chance: Callable[[int], float]
    formula: str
    best: Callable[[int, float], float] | None = None
    needs_labels: bool = False


KINDS = {
    "ntxent": Kind(NTXentLoss, chance_level, "ln(2N-1)", best_level),
    "dcl": Kind(DCLLoss, dcl_chance_level, "ln(2N-2)", dcl_best_level),
    "supcon": Kind(SupConLoss, chance_level, "ln(2N-1)", needs_labels=True),
}


def reads_labels(name: str, mask_false_negatives: bool) -> bool:
    """Return whether a loss of `KINDS`, or `none`, reads the images' labels."""
    return mask_false_negatives or (name in KINDS and KINDS[name].needs_labels)


class ContrastiveLoss(nn.Module):
    """A contrastive loss that is always given the images' labels, and reads them where it is to.

    Args:
        name: of `KINDS`.
        temperature: what similarities are divided by, above 0.
        mask_false_negatives: images whose known labels all agree are not negatives; not with supcon, of which they
            are the positives.
    """

    def __init__(self, name: str = "ntxent", temperature: float = 0.5, mask_false_negatives: bool = False) -> None:
        super().__init__()
        self.kind = KINDS[name]
        if mask_false_negatives and self.kind.needs_labels:
            raise ValueError(f"{name} has no false negatives to mask: images that share labels are its positives")
        self.masked = mask_false_negatives
        self.reads_labels = reads_labels(name, mask_false_negatives)
        self.loss = self.kind.make(temperature)

    def forward(self, z_i: Tensor, z_j: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            z_i: projections of view 0 of the images, [B, P].
            z_j: those of view 1, [B, P].
            labels: a code each [B, A], below 0 where unknown; None only where they are not read.
        """
        inputs = [z_i, z_j]
        if self.reads_labels:
            assert labels is not None
            inputs.append(labels)
        loss: Tensor = self.loss(*inputs)
        return loss

    def at_chance(self, images: int) -> str:
        """Return a sentence about the loss when all similarities are equal.

        Args:
            images: in the joint batch, N, at least 2.
        """
        value = f"{self.kind.formula} = {self.kind.chance(images):.4f} for N = {images} images"
        if self.masked:  # how many are masked differs from batch to batch
            return f"simclr_loss at chance is at most {value}, less where false negatives are masked"
        return f"simclr_loss at chance is {value}"
