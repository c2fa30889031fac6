"""Oracles for the contrastive losses: the formulas of their papers as loops over pairs of projections, in float64.

`nt_xent_loop`, `dcl_loop` and `sup_con_loop` take (z_i, z_j, temperature, labels).
"""

import torch
from torch import Tensor

UNKNOWN = -100


def two_views(n: int, width: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw projections [2, n, width]."""
    return torch.randn(2, n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def draw_labels(n: int, classes: tuple[int, ...] = (3, 2, 4), blank: float = 0.4, seed: int = 0) -> Tensor:
    """Draw labels [n, A], a share `blank` of them unknown."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.stack([torch.randint(count, (n,), generator=g) for count in classes], dim=1)
    return labels.masked_fill(torch.rand(labels.shape, generator=g) < blank, UNKNOWN)


def with_gradients(loss_function, z_i: Tensor, z_j: Tensor, *args) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, its gradient for z_i and its gradient for z_j."""
    z_i, z_j = z_i.clone().requires_grad_(), z_j.clone().requires_grad_()
    loss = loss_function(z_i, z_j, *args)
    return loss.detach(), *torch.autograd.grad(loss, (z_i, z_j))


def shared_and_known(one: list[int], other: list[int]) -> tuple[int, int]:
    """Count the attributes with equal known labels, and the attributes known in both."""
    both = [(a, b) for a, b in zip(one, other, strict=True) if a >= 0 and b >= 0]
    return sum(a == b for a, b in both), len(both)


def false_negatives(one: list[int], other: list[int]) -> bool:
    """Return whether at least one attribute is known in both, and all attributes known in both agree."""
    shared, known = shared_and_known(one, other)
    return 0 < shared == known


class Batch:
    """2N projections and their similarities; rows 2k and 2k + 1 are the views of image k."""

    def __init__(self, z_i: Tensor, z_j: Tensor, temperature: float, labels: Tensor | None) -> None:
        self.rows = [row / row.norm() for pair in zip(z_i, z_j, strict=True) for row in pair]
        self.temperature = temperature
        self.labels = None if labels is None else labels.tolist()

    def s(self, i: int, k: int) -> Tensor:
        return (self.rows[i] @ self.rows[k]) / self.temperature

    def negatives(self, i: int) -> list[int]:
        """Return the rows of other images, without false negatives if there are labels."""
        others = [k for k in range(len(self.rows)) if k // 2 != i // 2]
        if self.labels is None:
            return others
        return [k for k in others if not false_negatives(self.labels[i // 2], self.labels[k // 2])]


def nt_xent_loop(z_i: Tensor, z_j: Tensor, temperature: float, labels: Tensor | None = None) -> Tensor:
    """Algorithm 1 of arXiv:2002.05709, without the false negatives that `labels` show."""
    batch, losses = Batch(z_i, z_j, temperature, labels), []
    for i in range(len(batch.rows)):
        p = i ^ 1
        below = sum(torch.exp(batch.s(i, k)) for k in [p, *batch.negatives(i)])
        losses.append(-torch.log(torch.exp(batch.s(i, p)) / below))
    return sum(losses) / len(losses)


def dcl_loop(z_i: Tensor, z_j: Tensor, temperature: float, labels: Tensor | None = None) -> Tensor:
    """Equation 6 of arXiv:2110.06848, without false negatives; 0 for an anchor without negatives."""
    batch, losses = Batch(z_i, z_j, temperature, labels), []
    for i in range(len(batch.rows)):
        if negatives := batch.negatives(i):
            below = sum(torch.exp(batch.s(i, k)) for k in negatives)
            losses.append(-batch.s(i, i ^ 1) + torch.log(below))
        else:
            losses.append(0 * batch.s(i, i ^ 1))
    return sum(losses) / len(losses)


def sup_con_loop(z_i: Tensor, z_j: Tensor, temperature: float, labels: Tensor) -> Tensor:
    """Equation 2 (L_out) of arXiv:2004.11362, with positives weighted by their share of equal labels."""
    batch, losses = Batch(z_i, z_j, temperature, None), []
    rows = labels.tolist()
    for i in range(len(batch.rows)):
        others = [k for k in range(len(batch.rows)) if k != i]
        below = sum(torch.exp(batch.s(i, k)) for k in others)
        weighted, weights = 0, 0
        for p in others:
            shared, known = shared_and_known(rows[i // 2], rows[p // 2])
            weight = 1 if p // 2 == i // 2 else shared / known if known else 0
            weighted = weighted - weight * torch.log(torch.exp(batch.s(i, p)) / below)
            weights += weight
        losses.append(weighted / weights)
    return sum(losses) / len(losses)


def plain_l_out(z_i: Tensor, z_j: Tensor, temperature: float, classes: list[int]) -> Tensor:
    """Equation 2 (L_out) of arXiv:2004.11362 unchanged, for images with one class each."""
    batch, losses = Batch(z_i, z_j, temperature, None), []
    for i in range(len(batch.rows)):
        others = [a for a in range(len(batch.rows)) if a != i]
        positives = [p for p in others if classes[p // 2] == classes[i // 2]]
        below = sum(torch.exp(batch.s(i, a)) for a in others)
        losses.append(-sum(torch.log(torch.exp(batch.s(i, p)) / below) for p in positives) / len(positives))
    return sum(losses) / len(losses)
