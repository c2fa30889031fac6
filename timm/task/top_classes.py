"""The most probable classes of an image, by the same rule for metrics and for written predictions."""

from torch import Tensor


def top_classes(logits: Tensor, count: int) -> Tensor:
    """Return the indices of the highest logits, int64 [B, min(count, K)], the highest first.

    Ties, which are common in bfloat16, are resolved by class order on every device. `Tensor.topk` does not guarantee
    this: its best class can depend on `count`.

    Args:
        logits: logits of B images and K classes, [B, K].
        count: maximum number of classes, at least 1.
    """
    return logits.sort(dim=1, descending=True, stable=True).indices[:, :count]
