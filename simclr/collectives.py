"""Differentiable gather and sum over processes.

Backward returns the gradient of the *sum of all processes' losses*. When each of W processes computes the same joint
loss, each gets W times its slice of the joint gradient. The average that DistributedDataParallel takes over processes
is then the joint gradient, and nothing needs rescaling.

The backward passes communicate too, so every process must run the same forward and backward passes, even with an empty
batch. Without torch.distributed, or with one process, both functions return their input.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Return the number of processes W, or 1 if torch.distributed is unavailable or not initialized."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's rank, from 0 to W - 1."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def row_counts(x: Tensor, labels: Tensor | None = None) -> list[int]:
    """Return the number of rows on each process, by rank; the same list on every process.

    With several processes on a GPU this call synchronizes with the device.

    Args:
        x: this process's rows, [n, P]; n may differ between processes and may be 0, P and the dtype may not differ.
        labels: this process's labels, [any, A], whose width and dtype are checked in the same way; None on every
            process or on none.

    Raises:
        ValueError: P, A or the size of a dtype differs between processes. Every process raises, so none is left
            waiting in a collective.
    """
    if world_size() == 1:
        return [len(x)]
    label_kind = (0, 0) if labels is None else (labels.shape[1], labels.element_size())
    local = torch.tensor([*x.shape, x.element_size(), *label_kind], device=x.device)
    by_rank = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(by_rank, local)
    counts, *kinds = torch.stack(by_rank, dim=1).tolist()
    for name, widths, itemsizes in (("rows", *kinds[:2]), ("labels", *kinds[2:])):
        if len(set(widths)) > 1 or len(set(itemsizes)) > 1:
            raise ValueError(
                f"expected {name} of one width and dtype on every process, got, by rank, widths {widths} "
                f"and {itemsizes} bytes an element"
            )
    return cast(list[int], counts)


def gather_rows(x: Tensor, counts: list[int] | None = None) -> Tensor:
    """Concatenate the rows of all processes, in the order of their ranks.

    Gradients flow to the rows of every process: the gradient of a row is the sum over all W processes' losses.

    Args:
        x: this process's rows, [n, P]; n may differ between processes and may be 0.
        counts: the result of `row_counts(x)`, which saves a second call.

    Returns:
        The same [sum of n, P] on every process, on the device of `x`.

    Raises:
        ValueError: P or the size of the dtype differs between processes; checked only without `counts`.
    """
    if world_size() == 1:
        return x
    counts = row_counts(x) if counts is None else counts
    return cast(Tensor, _GatherRows.apply(x, counts))


def sum_over_processes(x: Tensor) -> Tensor:
    """Sum a tensor over processes.

    Args:
        x: this process's summand; the shape and dtype must be the same on every process.

    Returns:
        The same sum on every process. The gradient of `x` is the sum of the gradients of all processes' results.
    """
    return x if world_size() == 1 else cast(Tensor, _SumOverProcesses.apply(x))


class _GatherRows(torch.autograd.Function):
    """Gather [n, P] to [sum of n, P]; backward sums over processes and keeps the local rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int]) -> Tensor:
        ctx.first = sum(counts[: rank()])
        ctx.rows = len(x)
        # all_gather needs one shape on every process, so pad to the largest batch.
        padded = x.new_zeros(max(counts), x.shape[1])
        padded[: len(x)] = x
        pieces = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(pieces, padded)
        return torch.cat([piece[:count] for piece, count in zip(pieces, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        summed = grad.clone(
            memory_format=torch.contiguous_format
        )  # all_reduce writes in place; autograd may reuse grad
        dist.all_reduce(summed)
        return summed[ctx.first : ctx.first + ctx.rows], None


class _SumOverProcesses(torch.autograd.Function):
    """Sum over processes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        summed = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed
