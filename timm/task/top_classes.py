"""The most probable classes of an image: one rule for what is counted as right and for what is written down."""

from torch import Tensor


def top_classes(logits: Tensor, count: int) -> Tensor:
    """Return the classes [B, min(count, K)] of the highest logits [B, K], the highest first.

    Equal logits, common in bfloat16, go by the order of the classes, on every device and for every count: with
    `Tensor.topk` the first of the best five need not be the best one.
    """
    return logits.sort(dim=1, descending=True, stable=True).indices[:, :count]
