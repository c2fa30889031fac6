"""The logarithm of the summed exponential similarities of each row to all others, in blocks.

What NT-Xent divides by: for each anchor u_i, log sum over k != i of exp(u_i . u_k / temperature). Written plainly it
takes a matrix of similarities between all rows, and its gradient one more. Here both are made of blocks small enough
for a core's cache, and forgotten: the backward pass makes them anew, so that memory grows with the rows and not with
their square. The similarities of a process's rows to one another are symmetric, so only the half above the diagonal is
computed; each block serves its rows and, transposed, its columns.

Other losses leave some of the others out, or subtract each anchor's mean similarity to its positives, by the labels of
the images: these choices are made for a block, and forgotten with it.

With several processes each computes its own rows against everyone's. What travels is the rows and, for the backward
pass, two or three numbers a row; no matrix and no gradient does.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from simclr.gather import gather_rows, rank
from simclr.shared_label import Agreement, fill_same_image

# Rows a side. On a CPU a block fits the second-level cache of a core; on a GPU it is enough work for a launch.
BLOCK = {"cpu": 256, "other": 4096}

# Up to here exp(similarity / temperature), and its sum over a billion rows, are numbers that the dtype can hold.
_LARGEST_EXPONENT = {torch.float32: 40.0, torch.float64: 300.0}


def log_sum_exp_of_others(
    units: Tensor, temperature: float, counts: list[int], labels: Tensor | None = None, decoupled: bool = False
) -> Tensor:
    """Computes log sum over k != i of exp(u_i . u_k / temperature), for each row of this process.

    Args:
        units: this process's rows, of length 1 or 0, [n, P], float32 or float64. Where no others are left, as for a
            row alone, the sum is empty, its logarithm -inf and without a gradient.
        temperature: above 0.
        counts: how many rows each process has, as `row_counts(units)` says.
        labels: leave out the other images whose labels agree, as `Agreement` has it. Labels of every process's rows,
            [m, A]; the first half of a process's rows is then view 0 of its images, the second half view 1.
        decoupled: leave out the other view of an image too; rows in halves as above.

    Returns:
        [n], float64 where the device has it. k runs over the rows of every process. Gradients are those of the sum of
        every process's loss, as `simclr.gather` has it, and every process must run the backward pass. With create_graph
        they can be differentiated once more on a single process, at the price of the whole matrix [n, n].
    """
    return cast(Tensor, _LogSumExpOfOthers.apply(units, temperature, counts, labels, decoupled, False))


def log_sum_exp_less_positives(units: Tensor, temperature: float, counts: list[int], labels: Tensor) -> Tensor:
    """Subtracts from `log_sum_exp_of_others` each row's mean exponent of all others, weighted by their agreement.

    Args:
        units: as there; the first half is view 0 of this process's images, the second half view 1.
        temperature: above 0.
        counts: as there.
        labels: of every process's rows, [m, A].

    Returns:
        As there.
    """
    return cast(Tensor, _LogSumExpOfOthers.apply(units, temperature, counts, labels, False, True))


class _LogSumExpOfOthers(torch.autograd.Function):
    """[n, P] to [n], in blocks both ways."""

    @staticmethod
    def forward(
        ctx: Any,
        units: Tensor,
        temperature: float,
        counts: list[int],
        labels: Tensor | None,
        decoupled: bool,
        less_positives: bool,
    ) -> Tensor:
        columns = gather_rows(units, counts) / math.sqrt(temperature)  # [m, P]: their products are the exponents
        start = sum(counts[: rank()])
        pairs = _Pairs(columns, (start, start + len(units)), labels, decoupled, less_positives)
        blocks = _Blocks(columns, pairs, temperature)
        with full_precision(units.device):
            logs, *positives = blocks.log_sum_exp()
        ctx.save_for_backward(units, logs, *positives[1:])
        ctx.temperature, ctx.counts, ctx.blocks = temperature, counts, blocks
        return logs - positives[0] / positives[1] if positives else logs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Autocast may still be on around a call of backward().
        with torch.autocast(grad.device.type, enabled=False), full_precision(grad.device):
            return _LogSumExpOfOthers._backward(ctx, grad)

    @staticmethod
    def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        units, logs, *totals = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # asked for with create_graph
            gradient = _differentiable_gradient(units, ctx.temperature, ctx.counts, ctx.blocks.pairs, grad)
            return gradient, None, None, None, None, None
        own = [logs, grad, *(grad / total for total in totals)]
        everyones = gather_rows(torch.stack(own, dim=1), ctx.counts)  # [m, 2 or 3]
        gradient = ctx.blocks.gradient(*everyones.unbind(dim=1))
        return gradient / math.sqrt(ctx.temperature), None, None, None, None, None


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Multiplies float32 matrices on a GPU without TF32, by whose ten bits of mantissa gradients here err by 1e-3."""
    matmul = torch.backends.cuda.matmul
    if device.type != "cuda" or torch.compiler.is_compiling():
        yield
        return
    # PyTorch has two names for this choice, and refuses to tell the old one where the new one was set.
    exact: bool | str
    try:
        name, exact, chosen = "allow_tf32", False, matmul.allow_tf32
    except RuntimeError:
        name, exact, chosen = "fp32_precision", "ieee", matmul.fp32_precision
    setattr(matmul, name, exact)
    try:
        yield
    finally:
        setattr(matmul, name, chosen)


class _Pairs:
    """What a pair of rows is to each other: left out, positive by some weight, or a negative.

    All of it is symmetric, so that a block and its mirror image are treated alike.

    Args:
        columns: every process's rows, [m, P].
        own: where this process's begin and end among them.
        labels: of all of them, [m, A], or None.
        decoupled: leave the other view of an image out.
        weighted: labels weigh the positives, rather than leave images that agree out.
    """

    def __init__(
        self, columns: Tensor, own: tuple[int, int], labels: Tensor | None, decoupled: bool, weighted: bool
    ) -> None:
        self.own, self.decoupled, self.weighted = own, decoupled, weighted
        self.agreement = None if labels is None else Agreement(labels, own, columns.dtype)

    def leave_out(self, exponents: Tensor, rows: slice, columns: slice) -> None:
        """Writes -inf into a block of exponents wherever a row must not count: oneself first of all."""
        if rows == columns:
            exponents.fill_diagonal_(-math.inf)
        if self.agreement is not None and not self.weighted:
            alike = self.agreement.block(rows, columns) == 1
            fill_same_image(alike, rows, columns, self.own, self.decoupled)
            exponents.masked_fill_(alike, -math.inf)
        elif self.decoupled:
            fill_same_image(exponents, rows, columns, self.own, -math.inf)

    def weights(self, rows: slice, columns: slice) -> Tensor | None:
        """Returns a block of the positives' weights, [r, c], or None where they are not weighted here."""
        if self.agreement is None or not self.weighted:
            return None
        block = self.agreement.block(rows, columns)
        return block.fill_diagonal_(0) if rows == columns else block


class _Blocks:
    """The similarities of this process's rows, which are among the columns, to all columns; a block at a time.

    Args:
        columns: every process's rows, divided by the root of the temperature, [m, P].
        pairs: what any two of them are to each other, and which are this process's.
        temperature: bounds the exponents.
    """

    def __init__(self, columns: Tensor, pairs: _Pairs, temperature: float) -> None:
        self.columns, self.pairs = columns, pairs
        self.exact = torch.float32 if columns.device.type == "mps" else torch.float64  # of sums; mps has no float64
        self.bounded = 1 / temperature <= _LARGEST_EXPONENT[columns.dtype]

    def places(self) -> Iterator[tuple[slice, slice, bool]]:
        """Yields rows, columns, and whether the columns are later rows of this process, whose block is a mirror."""
        size = BLOCK.get(self.columns.device.type, BLOCK["other"])
        start, stop = self.pairs.own
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

    def log_sum_exp(self) -> list[Tensor]:
        """Returns each own row's logarithm, and where positives are weighted their sum and that of weights, all [n]."""
        start, stop = self.pairs.own
        sums = self.columns.new_zeros(stop, dtype=self.exact)  # the rows before `start` stay unused
        largest = None if self.bounded else torch.full_like(sums, -math.inf)
        positives = [torch.zeros_like(sums) for _ in range(2 * self.pairs.weighted)]
        for rows, columns, mirrored in self.places():
            block = self.columns[rows] @ self.columns[columns].T
            weights = self.pairs.weights(rows, columns)
            if weights is not None:
                _add_sums(positives[1], rows, columns, mirrored, weights)
                _add_sums(positives[0], rows, columns, mirrored, weights.mul_(block))
            self.pairs.leave_out(block, rows, columns)
            if largest is None:
                _add_sums(sums, rows, columns, mirrored, block.exp_())
            else:
                _add_shifted(sums, largest, rows, block)
                if mirrored:
                    _add_shifted(sums, largest, columns, block.T)
        logs = sums.log() if largest is None else sums.log() + largest
        return [numbers[start:] for numbers in (logs, *positives)]

    def gradient(self, logs: Tensor, grads: Tensor, pulls: Tensor | None = None) -> Tensor:
        """Returns the gradient for each own row of `columns`, [n, P].

        Args:
            logs: the logarithm for every column, [m].
            grads: the gradient of the sum of every process's loss for each of `logs`, [m].
            pulls: where positives are weighted, that gradient over the sum of the row's weights, [m].
        """
        start, stop = self.pairs.own
        result = torch.zeros_like(self.columns[:stop])
        logs = logs.masked_fill(logs == -math.inf, 0)  # of an empty sum, all of whose exponents are -inf
        # exp(exponent) / sum is the softmax; a bounded exponent needs no shift, so one exponential serves both ways.
        shares = (grads * (-logs).exp()).to(self.columns.dtype) if self.bounded else None
        logs, grads = logs.to(self.columns.dtype), grads.to(self.columns.dtype)
        pulls = None if pulls is None else pulls.to(self.columns.dtype)
        for rows, columns, mirrored in self.places():
            block = self.columns[rows] @ self.columns[columns].T
            self.pairs.leave_out(block, rows, columns)
            if shares is not None:
                block = block.exp_().mul_(shares[rows, None] + shares[columns])
            else:
                one_way = (block - logs[rows, None]).exp_().mul_(grads[rows, None])
                block = block.sub_(logs[columns]).exp_().mul_(grads[columns]).add_(one_way)
            weights = self.pairs.weights(rows, columns)
            if weights is not None and pulls is not None:
                block.sub_(weights.mul_(pulls[rows, None] + pulls[columns]))
            result[rows].addmm_(block, self.columns[columns])
            if mirrored:
                result[columns].addmm_(block.T, self.columns[rows])
        return result[start:]


def _add_sums(sums: Tensor, rows: slice, columns: slice, mirrored: bool, block: Tensor) -> None:
    """Adds a block's sums to those of its rows and, where the columns are later rows, to those of its columns."""
    sums[rows] += block.sum(dim=1)
    if mirrored:
        sums[columns] += block.sum(dim=0)


def _add_shifted(sums: Tensor, largest: Tensor, rows: slice, block: Tensor) -> None:
    """Adds a block's exponentials to the sums of its rows, all of them relative to the largest exponent so far."""
    shift = torch.maximum(largest[rows], block.amax(dim=1))
    shift = shift.clamp(min=torch.finfo(block.dtype).min)  # a block of oneself alone has -inf
    sums[rows] *= (largest[rows] - shift).exp()
    sums[rows] += (block - shift[:, None].to(block.dtype)).exp_().sum(dim=1)
    largest[rows] = shift


def _differentiable_gradient(
    units: Tensor, temperature: float, counts: list[int], pairs: _Pairs, grad: Tensor
) -> Tensor:
    """Returns the gradient as autograd would have it of the plain formula, to be differentiated once more."""
    exponents = (units / temperature) @ gather_rows(units, counts).T  # [n, m]
    left_out, own = torch.zeros_like(exponents), slice(*pairs.own)
    pieces = slice(0, own.start), own, slice(own.stop, exponents.shape[1])
    for columns in pieces:
        pairs.leave_out(left_out[:, columns], own, columns)
    result = exponents.masked_fill(left_out == -math.inf, -math.inf).logsumexp(dim=1)
    weights = [block for columns in pieces if (block := pairs.weights(own, columns)) is not None]
    if weights:
        everyones = torch.cat(weights, dim=1)
        result = result - (everyones * exponents).sum(dim=1) / everyones.sum(dim=1)
    return torch.autograd.grad(result, units, grad.to(result.dtype), create_graph=True)[0]
