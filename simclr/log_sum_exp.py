"""The log-sum-exp of each anchor's logits, which every contrastive loss needs, without a stored matrix.

The logit of anchors i and k is s_ik = u_i . u_k / temperature, for rows u of length 1. The denominator of NT-Xent is
log sum over k != i of exp(s_ik). Direct computation takes a matrix [2N, 2N] of logits, and its gradient a second one.
Instead, `SimilarityBlocks` computes the logits in blocks, once in the forward and again in the backward pass. Memory
grows with the number of rows, not with its square.

Other losses exclude more pairs, or subtract each anchor's mean logit over its positives (see `PairRoles`).

With several processes, each computes its local rows against the rows of all processes. Processes exchange only the rows
and, for the backward pass, two or three numbers a row.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from simclr.collectives import gather_rows, rank
from simclr.pair_roles import PairRoles
from simclr.similarity_blocks import SimilarityBlocks


def log_sum_exp_of_others(
    units: Tensor, temperature: float, counts: list[int], labels: Tensor | None = None, decoupled: bool = False
) -> Tensor:
    """Return log sum over k != i of exp(u_i . u_k / temperature) for each local row, [n].

    k runs over the m rows of all processes. The result is in float64, or in float32 on devices without float64. An
    empty sum, as for a single row, gives -inf and no gradient.

    The gradient is that of the sum of all processes' losses, as in `simclr.collectives`, so every process must run the
    backward pass. On a single process the gradient can be differentiated again (`create_graph=True`), which stores the
    whole matrix [n, n].

    Args:
        units: this process's rows, of length 1 or 0, [n, P], float32 or float64.
        temperature: divisor of the similarities, above 0.
        counts: number of rows on each process, the result of `row_counts(units)`.
        labels: labels of the rows of all processes, [m, A]. They exclude other images whose `LabelAgreement` is 1. The
            first half of each process's rows must then be view 0 of its images, the second half view 1.
        decoupled: whether to exclude the other view of the same image; this needs the same order of rows.
    """
    return cast(Tensor, _LogSumExpOfOthers.apply(units, temperature, counts, labels, decoupled, False))


def cross_entropy_of_positives(units: Tensor, temperature: float, counts: list[int], labels: Tensor) -> Tensor:
    """Return `log_sum_exp_of_others` minus the mean logit of the positives, for each local row, [n].

    The positives are all other rows, weighted by `LabelAgreement`. Precision and gradients are as in
    `log_sum_exp_of_others`.

    Args:
        units: this process's rows, of length 1 or 0, [n, P], float32 or float64. The first half is view 0 of its
            images, the second half view 1.
        temperature: divisor of the similarities, above 0.
        counts: number of rows on each process, the result of `row_counts(units)`.
        labels: labels of the rows of all processes, [m, A], negative where unknown.
    """
    return cast(Tensor, _LogSumExpOfOthers.apply(units, temperature, counts, labels, False, True))


class _LogSumExpOfOthers(torch.autograd.Function):
    """The map from [n, P] to [n], computed in blocks forward and backward."""

    @staticmethod
    def forward(
        ctx: Any,
        units: Tensor,
        temperature: float,
        counts: list[int],
        labels: Tensor | None,
        decoupled: bool,
        weigh_positives: bool,
    ) -> Tensor:
        columns = gather_rows(units, counts) / math.sqrt(temperature)  # [m, P]; their dot products are the logits
        start = sum(counts[: rank()])
        roles = PairRoles(slice(start, start + len(units)), labels, columns.dtype, decoupled, weigh_positives)
        blocks = SimilarityBlocks(columns, roles, temperature)
        with full_precision(units.device):
            logs, *positives = blocks.log_sum_exp()
        ctx.save_for_backward(units, logs, *positives[1:])
        ctx.temperature, ctx.counts, ctx.blocks = temperature, counts, blocks
        return logs - positives[0] / positives[1] if positives else logs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # A call of backward() may be inside an autocast region.
        with torch.autocast(grad.device.type, enabled=False), full_precision(grad.device):
            return _LogSumExpOfOthers._backward(ctx, grad)

    @staticmethod
    def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        units, logs, *weight_sums = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # create_graph=True
            gradient = _differentiable_gradient(units, ctx.temperature, ctx.counts, ctx.blocks.roles, grad)
            return gradient, None, None, None, None, None
        local = torch.stack([logs, grad, *(grad / weight_sum for weight_sum in weight_sums)], dim=1)  # [n, 2 or 3]
        joint = gather_rows(local, ctx.counts)  # [m, 2 or 3]
        gradient = ctx.blocks.gradient(*joint.unbind(dim=1))
        return gradient / math.sqrt(ctx.temperature), None, None, None, None, None


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Disable TF32 for float32 matrix products on a GPU: its 10-bit mantissa gives gradient errors of 1e-3 here."""
    matmul = torch.backends.cuda.matmul
    if device.type != "cuda" or torch.compiler.is_compiling():
        yield
        return
    # PyTorch has an old and a new name for this setting. Reading the old one raises if the new one was set.
    exact: bool | str
    try:
        name, exact, before = "allow_tf32", False, matmul.allow_tf32
    except RuntimeError:
        name, exact, before = "fp32_precision", "ieee", matmul.fp32_precision
    setattr(matmul, name, exact)
    try:
        yield
    finally:
        setattr(matmul, name, before)


def _differentiable_gradient(
    units: Tensor, temperature: float, counts: list[int], roles: PairRoles, grad: Tensor
) -> Tensor:
    """Return the gradient [n, P] that autograd computes from the whole matrix of logits, with a graph of its own."""
    logits = (units / temperature) @ gather_rows(units, counts).T  # [n, m]
    local = roles.local
    # columns of lower ranks, local ones, columns of higher ranks
    parts = slice(0, local.start), local, slice(local.stop, logits.shape[1])
    mask = torch.zeros_like(logits)
    for columns in parts:
        roles.exclude(mask[:, columns], local, columns)
    result = logits.masked_fill(mask == -math.inf, -math.inf).logsumexp(dim=1)
    weights = [block for columns in parts if (block := roles.weights(local, columns)) is not None]
    if weights:
        joint_weights = torch.cat(weights, dim=1)  # [n, m]
        result = result - (joint_weights * logits).sum(dim=1) / joint_weights.sum(dim=1)
    return torch.autograd.grad(result, units, grad.to(result.dtype), create_graph=True)[0]
