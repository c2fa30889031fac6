"""Rows of every process, and sums over processes, with the gradients that make several processes equal to one.

Both functions follow one convention: what they send back is the gradient of the *sum of every process's loss*. Where
each of W processes computes the same joint loss, each therefore gets W times its slice of the joint gradient, and the
average that DistributedDataParallel takes over processes is the joint gradient itself. Nothing needs rescaling.

The backward passes communicate too, so every process must run forward and backward alike, also one whose batch is
empty. Without torch.distributed, or with one process, everything here is the identity.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Returns the number of processes W, 1 where torch.distributed is absent or not initialized."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns this process's number, from 0 to W - 1."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def row_counts(x: Tensor, labels: Tensor | None = None) -> list[int]:
    """Returns how many rows each process holds, in the order of their ranks.

    Args:
        x: this process's rows, [n, P]; n may differ between processes and may be 0, P and the dtype may not.
        labels: rows of another kind that all processes have or none has, [any, A]; likewise.

    Returns:
        W numbers, known to every process. With several processes on a GPU this waits for the device.

    Raises:
        ValueError: where P, A or a dtype's size differs between processes; on all of them, so that none is left
            waiting.
    """
    if world_size() == 1:
        return [len(x)]
    of_labels = (0, 0) if labels is None else (labels.shape[1], labels.element_size())
    own = torch.tensor([*x.shape, x.element_size(), *of_labels], device=x.device)
    everyones = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(everyones, own)
    counts, *kinds = torch.stack(everyones, dim=1).tolist()
    for name, columns, itemsizes in (("rows", *kinds[:2]), ("labels", *kinds[2:])):
        if len(set(columns)) > 1 or len(set(itemsizes)) > 1:
            raise ValueError(
                f"expected {name} of one width and dtype on every process, got, by rank, widths {columns} "
                f"and {itemsizes} bytes an element"
            )
    return cast(list[int], counts)


def gather_rows(x: Tensor, counts: list[int] | None = None) -> Tensor:
    """Concatenates the rows of every process, in the order of their ranks.

    Gradients flow to every process's rows, not only to one's own: a row's gradient is the sum, over all W processes,
    of what each process's loss says about it.

    Args:
        x: this process's rows, [n, P]; n may differ between processes and may be 0.
        counts: what `row_counts(x)` said, to ask only once.

    Returns:
        The same [sum of n, P] on every process, on the device of `x`.
    """
    if world_size() == 1:
        return x
    counts = row_counts(x) if counts is None else counts
    return cast(Tensor, _GatherRows.apply(x, counts))


def sum_over_processes(x: Tensor) -> Tensor:
    """Sums a tensor of one shape over processes.

    Args:
        x: this process's summand.

    Returns:
        The same sum on every process. Its gradient is the sum of the gradients that every process sends back.
    """
    return x if world_size() == 1 else cast(Tensor, _SumOverProcesses.apply(x))


class _GatherRows(torch.autograd.Function):
    """[n, P] to [sum of n, P]; backward sums over processes and keeps one's own rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int]) -> Tensor:
        ctx.first = sum(counts[: rank()])
        ctx.rows = len(x)
        # Collectives want one shape everywhere, so all send as many rows as the largest batch has.
        padded = x.new_zeros(max(counts), x.shape[1])
        padded[: len(x)] = x
        pieces = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(pieces, padded)
        return torch.cat([piece[:count] for piece, count in zip(pieces, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        summed = grad.clone(memory_format=torch.contiguous_format)  # autograd may still need its own
        dist.all_reduce(summed)
        return summed[ctx.first : ctx.first + ctx.rows], None


class _SumOverProcesses(torch.autograd.Function):
    """The sum over processes, forward and backward."""

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
