"""The projection head of SimCLR (arXiv:2002.05709, 2020): a small MLP between the representation h and the loss."""

from __future__ import annotations

from torch import nn

PROJECTION_NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


def projection_head(features: int, dim: int, layers: int, norm: str) -> nn.Sequential | None:
    """Return an MLP from h [B, D] to z [B, P] without biases, as in the original; None where P is 0.

    Args:
        features: D, the size of the representation.
        dim: P, the size of a projection.
        layers: number of linear layers, at least 1; all but the last keep D and end in ReLU.
        norm: "none", "batch" or "layer" normalization before each ReLU.
    """
    if dim == 0:
        return None
    head: list[nn.Module] = []
    for _ in range(layers - 1):
        head.append(nn.Linear(features, features, bias=False))
        if norm != "none":
            head.append(PROJECTION_NORMS[norm](features))
        head.append(nn.ReLU())
    return nn.Sequential(*head, nn.Linear(features, dim, bias=False))
