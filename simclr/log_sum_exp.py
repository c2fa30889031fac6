"""The logarithm of the summed exponential similarities of each row to all others, in blocks.

What NT-Xent divides by: for each anchor u_i, log sum over k != i of exp(u_i . u_k / temperature). Written plainly it
takes a matrix of similarities between all rows, and its gradient one more. Here both are made of blocks small enough
for a core's cache, and forgotten: the backward pass makes them anew, so that memory grows with the rows and not with
their square. The similarities of a process's rows to one another are symmetric, so only the half above the diagonal is
computed; each block serves its rows and, transposed, its columns.

With several processes each computes its own rows against everyone's. What travels is the rows and, for the backward
pass, two numbers a row; no matrix and no gradient does.
"""

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from simclr.gather import gather_rows, rank

# Rows a side. On a CPU a block fits the second-level cache of a core; on a GPU it is enough work for a launch.
BLOCK = {"cpu": 256, "other": 4096}

# Up to here exp(similarity / temperature), and its sum over a billion rows, are numbers that the dtype can hold.
_LARGEST_EXPONENT = {torch.float32: 40.0, torch.float64: 300.0}


def log_sum_exp_of_others(units: Tensor, temperature: float, counts: list[int]) -> Tensor:
    """Computes log sum over k != i of exp(u_i . u_k / temperature), for each row of this process.

    Args:
        units: this process's rows, of length 1 or 0, [n, P], float32 or float64. Over all processes there must be two
            or more: the sum of a row alone is empty, its logarithm -inf and without a gradient.
        temperature: above 0.
        counts: how many rows each process has, as `row_counts(units)` says.

    Returns:
        [n], float64 where the device has it. k runs over the rows of every process. Gradients are those of the sum of
        every process's loss, as `simclr.gather` has it, and every process must run the backward pass. With create_graph
        they can be differentiated once more on a single process, at the price of the whole matrix [n, n].
    """
    return cast(Tensor, _LogSumExpOfOthers.apply(units, temperature, counts))


class _LogSumExpOfOthers(torch.autograd.Function):
    """[n, P] to [n], in blocks both ways."""

    @staticmethod
    def forward(ctx: Any, units: Tensor, temperature: float, counts: list[int]) -> Tensor:
        columns = gather_rows(units, counts) / math.sqrt(temperature)  # [m, P]: their products are the exponents
        blocks = _Blocks(columns, sum(counts[: rank()]), len(units), temperature)
        result = blocks.log_sum_exp()
        ctx.save_for_backward(units, result)
        ctx.temperature, ctx.counts, ctx.blocks = temperature, counts, blocks
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        units, result = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # asked for with create_graph
            return _differentiable_gradient(units, ctx.temperature, ctx.counts, grad), None, None
        everyones = gather_rows(torch.stack([result, grad], dim=1), ctx.counts)  # [m, 2]
        gradient = ctx.blocks.gradient(*everyones.unbind(dim=1))
        return gradient / math.sqrt(ctx.temperature), None, None


class _Blocks:
    """The similarities of this process's rows, which are among the columns, to all columns; a block at a time.

    Args:
        columns: every process's rows, divided by the root of the temperature, [m, P].
        first: where this process's rows begin among them.
        rows: how many there are, n.
        temperature: bounds the exponents.
    """

    def __init__(self, columns: Tensor, first: int, rows: int, temperature: float) -> None:
        self.columns = columns
        self.own = first, first + rows
        self.exact = torch.float32 if columns.device.type == "mps" else torch.float64  # of sums; mps has no float64
        self.bounded = 1 / temperature <= _LARGEST_EXPONENT[columns.dtype]

    def pairs(self) -> Iterator[tuple[slice, slice, bool]]:
        """Yields rows, columns, and whether the columns are later rows of this process, whose block is a mirror."""
        size = BLOCK.get(self.columns.device.type, BLOCK["other"])
        start, stop = self.own
        own = [slice(begin, min(begin + size, stop)) for begin in range(start, stop, size)]
        others = [
            slice(begin, min(begin + size, end))
            for start, end in ((0, start), (stop, len(self.columns)))
            for begin in range(start, end, size)
        ]
        for index, rows in enumerate(own):
            for columns in own[index:]:
                yield rows, columns, columns is not rows
            for columns in others:
                yield rows, columns, False

    def exponents(self, rows: slice, columns: slice) -> Tensor:
        """Returns similarity / temperature of rows and columns, with -inf for oneself."""
        block = self.columns[rows] @ self.columns[columns].T
        if rows == columns:
            block.fill_diagonal_(-math.inf)
        return block

    def log_sum_exp(self) -> Tensor:
        """Returns the logarithm of each own row's sum, [n]."""
        start, stop = self.own
        sums = self.columns.new_zeros(stop, dtype=self.exact)  # the rows before `start` stay unused
        largest = None if self.bounded else torch.full_like(sums, -math.inf)
        for rows, columns, mirrored in self.pairs():
            block = self.exponents(rows, columns)
            if largest is None:
                block.exp_()
                sums[rows] += block.sum(dim=1)
                if mirrored:
                    sums[columns] += block.sum(dim=0)
            else:
                _add_shifted(sums, largest, rows, block)
                if mirrored:
                    _add_shifted(sums, largest, columns, block.T)
        logs = sums.log() if largest is None else sums.log() + largest
        return logs[start:stop]

    def gradient(self, logs: Tensor, grads: Tensor) -> Tensor:
        """Returns the gradient for each own row of `columns`, [n, P].

        Args:
            logs: the result for every column, [m].
            grads: the gradient of the sum of every process's loss for each of `logs`, [m].
        """
        start, stop = self.own
        result = torch.zeros_like(self.columns[:stop])
        # exp(exponent) / sum is the softmax; a bounded exponent needs no shift, so one exponential serves both ways.
        shares = (grads * (-logs).exp()).to(self.columns.dtype) if self.bounded else None
        logs, grads = logs.to(self.columns.dtype), grads.to(self.columns.dtype)
        for rows, columns, mirrored in self.pairs():
            block = self.exponents(rows, columns)
            if shares is not None:
                block = block.exp_().mul_(shares[rows, None] + shares[columns])
            else:
                one_way = (block - logs[rows, None]).exp_().mul_(grads[rows, None])
                block = block.sub_(logs[columns]).exp_().mul_(grads[columns]).add_(one_way)
            result[rows].addmm_(block, self.columns[columns])
            if mirrored:
                result[columns].addmm_(block.T, self.columns[rows])
        return result[start:]


def _add_shifted(sums: Tensor, largest: Tensor, rows: slice, block: Tensor) -> None:
    """Adds a block's exponentials to the sums of its rows, all of them relative to the largest exponent so far."""
    shift = torch.maximum(largest[rows], block.amax(dim=1))
    shift = shift.clamp(min=torch.finfo(block.dtype).min)  # a block of oneself alone has -inf
    sums[rows] *= (largest[rows] - shift).exp()
    sums[rows] += (block - shift[:, None].to(block.dtype)).exp_().sum(dim=1)
    largest[rows] = shift


def _differentiable_gradient(units: Tensor, temperature: float, counts: list[int], grad: Tensor) -> Tensor:
    """Returns the gradient as autograd would have it of the plain formula, to be differentiated once more."""
    exponents = (units / temperature) @ gather_rows(units, counts).T  # [n, m]
    itself = torch.zeros_like(exponents, dtype=torch.bool)
    itself.diagonal(sum(counts[: rank()])).fill_(True)
    logs = exponents.masked_fill(itself, -math.inf).logsumexp(dim=1)
    return torch.autograd.grad(logs, units, grad.to(logs.dtype), create_graph=True)[0]
