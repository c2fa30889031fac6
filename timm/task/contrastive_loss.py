"""The contrastive losses by name, each with its value at chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from simclr import DCLLoss, NTXentLoss, SupConLoss, best_level, chance_level, dcl_best_level, dcl_chance_level


@dataclass(frozen=True)
class Kind:
    """A contrastive loss, with its value at chance and its lowest value.

    Attributes:
        make: constructor of its module, which takes the temperature.
        chance: its value for N images when all similarities are equal.
        formula: the formula of `chance`, as text.
        best: its lowest value for N images at a temperature; None if that value depends on the labels.
        needs_labels: whether the loss requires labels.
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
    """Return whether a contrastive loss reads the images' labels.

    Args:
        name: a key of `KINDS`, or "none".
        mask_false_negatives: whether labels exclude false negatives.
    """
    return mask_false_negatives or (name in KINDS and KINDS[name].needs_labels)


class ContrastiveLoss(nn.Module):
    """A contrastive loss that always accepts labels, and reads them only if its settings require it.

    Args:
        name: a key of `KINDS`.
        temperature: divisor of the cosine similarities, finite and above 0.
        mask_false_negatives: whether images whose known labels all agree are excluded from the negatives; not possible
            with "supcon", which makes these images positives.

    Raises:
        ValueError: `mask_false_negatives` is set for "supcon", or the temperature is not a finite number above 0.
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
        """Return the loss, a scalar: the mean over the 2N anchors of all processes.

        Args:
            z_i: projections of view 0 of the images, [B, P].
            z_j: projections of view 1 of the same images, [B, P].
            labels: codes that are equal for equal labels, [B, A], negative where unknown, as `label_codes` returns
                them; None only if `reads_labels` is False.
        """
        inputs = [z_i, z_j]
        if self.reads_labels:
            assert labels is not None
            inputs.append(labels)
        loss: Tensor = self.loss(*inputs)
        return loss

    def at_chance(self, images: int) -> str:
        """Return a sentence with the value of the loss when all similarities are equal.

        Args:
            images: N, the number of images in the joint batch, at least 2.
        """
        value = f"{self.kind.formula} = {self.kind.chance(images):.4f} for N = {images} images"
        if self.masked:  # the number of masked images differs between batches
            return f"simclr_loss at chance is at most {value}, less where false negatives are masked"
        return f"simclr_loss at chance is {value}"
